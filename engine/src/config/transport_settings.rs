//! `[transport]`, and what `master.cf` and `main.cf` say of transports, as values.

use std::path::PathBuf;
use std::time::Duration;

/// `[transport]`, and what `master.cf` and `main.cf` say of transports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportSettings {
    /// Recipients are delivered by their transports, and not all into mailboxes.
    pub enabled: bool,
    /// The services of `master.cf` that deliver mail, in order.
    pub services: Vec<TransportService>,
    /// `mail_owner`: no command runs as this user.
    pub mail_owner: String,
    /// `queue_directory`: where commands run that name no directory.
    pub queue_directory: PathBuf,
    /// `import_environment` and then `export_environment`: what of the environment commands get,
    /// `NAME` or `NAME=VALUE`.
    pub environment: [Vec<String>; 2],
}

/// A service of `master.cf` that delivers mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportService {
    /// The name that tables know it by.
    pub name: String,
    /// The program: `pipe`, `lmtp`, `smtp` and others.
    pub command: String,
    /// The arguments of the program that are no `-o`.
    pub arguments: Vec<String>,
    /// The service runs in `queue_directory` as its root.
    pub is_chrooted: bool,
    /// Its line in `master.cf`.
    pub line: usize,
    /// `NAME_destination_recipient_limit`: recipients of one delivery; 0 for any number.
    pub recipient_limit: usize,
    /// `NAME_destination_concurrency_limit`: deliveries to one destination at once; 0 for any
    /// number.
    pub concurrency_limit: usize,
    /// Deliveries at once (`default_process_limit`, or the column of `master.cf`).
    pub process_limit: usize,
    /// `NAME_time_limit`: how long a command may run.
    pub time_limit: Duration,
    /// `recipient_delimiter`
    pub recipient_delimiter: String,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            services: Vec::new(),
            mail_owner: "postfix".to_owned(),
            queue_directory: PathBuf::new(),
            environment: [Vec::new(), Vec::new()],
        }
    }
}
