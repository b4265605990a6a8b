//! What `[autoreply]` says, as values.

use std::path::PathBuf;
use std::time::Duration;

/// `[autoreply]`: what the transport of that name does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoreplySettings {
    /// The directory of the texts; empty: there are no autoreplies.
    pub directory: PathBuf,
    /// The file of a recipient below it: `%s` is the address, `%u` its local part, `%d` its domain.
    pub text: String,
    /// How long a sender who was answered is not answered again.
    pub interval: Duration,
    /// How many replies one sender gets within `interval`, from all recipients.
    pub replies_per_sender: u64,
    /// Only messages are answered whose header names the recipient.
    pub only_named: bool,
    /// Addresses, and `@domain` for all in a domain, that need not be named.
    pub answers_for: String,
    /// By which transport and nexthop replies are sent; empty: by sendmail.
    pub send_through: String,
}

impl Default for AutoreplySettings {
    fn default() -> Self {
        Self {
            directory: PathBuf::new(),
            text: "%s".to_owned(),
            interval: Duration::from_secs(7 * 24 * 60 * 60),
            replies_per_sender: 100,
            only_named: true,
            answers_for: String::new(),
            send_through: String::new(),
        }
    }
}
