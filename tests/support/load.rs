//! Postfix's smtp-source(1) as a load generator.

use std::process::Command;

use crate::Address;

/// What to send.
pub struct Load<'a> {
    /// `-s`: sessions at once.
    pub sessions: usize,
    /// `-m`: messages altogether.
    pub messages: usize,
    /// `-l`: bytes of each.
    pub bytes: usize,
    /// `-t`: recipient.
    pub recipient: &'a str,
    /// `-r`: recipients of each message; above 1 smtp-source puts a number before the address.
    pub recipients: usize,
}

impl Load<'_> {
    /// Sends it by LMTP (`smtp-source -L`) and waits for the end.
    ///
    /// # Panics
    /// When smtp-source saw any refusal.
    pub fn send_lmtp(&self, address: &Address) {
        let mut command = Command::new("/usr/sbin/smtp-source");
        command.args(["-L", "-f", "source@client.example", "-t", self.recipient]);
        for (option, value) in [
            ("-s", self.sessions),
            ("-m", self.messages),
            ("-l", self.bytes),
            ("-r", self.recipients),
        ] {
            command.arg(option).arg(value.to_string());
        }
        let where_to = address.spelled();
        let where_to = where_to.strip_prefix("inet:").unwrap_or(&where_to);
        let output = command
            .arg(where_to)
            .output()
            .expect("smtp-source(1): install the package postfix");
        assert!(
            output.status.success(),
            "smtp-source: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
