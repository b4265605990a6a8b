//! Messages from smtp-source(1), spread over mailboxes.

use std::process::Command;

use mailstow_tests::Address;

use crate::options::Options;

/// The local part of a mailbox.
pub(crate) fn user(number: usize) -> String {
    format!("u{number}")
}

/// Sends the messages with one smtp-source(1) for each mailbox, all at once.
pub(crate) fn send(options: &Options, messages: usize, to: &Address, is_lmtp: bool) {
    let share = |total: usize, n: usize| {
        let (each, rest) = (total / options.mailboxes, total % options.mailboxes);
        each + usize::from(n < rest)
    };
    let spelled = to.spelled();
    let target = spelled.strip_prefix("inet:").unwrap_or(&spelled);
    let sources: Vec<_> = (0..options.mailboxes)
        .filter(|n| share(messages, *n) > 0)
        .map(|n| {
            let mut command = Command::new("/usr/sbin/smtp-source");
            if is_lmtp {
                command.arg("-L");
            }
            let sessions = share(options.sessions, n).clamp(1, share(messages, n));
            command
                .args(["-d", "-f", "source@client.example", "-t"])
                .arg(format!("{}@bench.example", user(n)))
                .args(["-s", &sessions.to_string()])
                .args(["-m", &share(messages, n).to_string()])
                .args(["-l", &options.bytes.to_string()])
                .arg(target);
            command
                .spawn()
                .expect("smtp-source(1): install the package postfix")
        })
        .collect();
    for mut source in sources {
        let status = source.wait().expect("our own child");
        assert!(status.success(), "smtp-source saw a refusal");
    }
}
