//! Whether a store takes mail, for those who watch over it.
//!
//! Imports `log` (errors).

use crate::log::LogError;
use std::time::Duration;

/// What a store is able to do now.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// The delivery log.
    pub log: LogState,
    /// Messages that recovery could not store yet, because their mailboxes cannot be opened,
    /// locked or written. They are tried again with every checkpoint.
    pub waiting: usize,
}

/// The state of the delivery log.
#[derive(Clone, Debug, Default)]
pub enum LogState {
    /// There is none: everything is flushed in its mailbox.
    #[default]
    Direct,
    /// Mail is acknowledged through it.
    InService {
        /// Bytes of the segments that hold records.
        bytes_used: u64,
        /// Bytes it may take.
        bytes_max: u64,
    },
    /// Nothing is acknowledged: mail is answered 451 4.3.0.
    Failed(LogFailure),
}

/// Why the log is out of service.
#[derive(Clone, Debug)]
pub struct LogFailure {
    /// What failed: the log, or the last attempt to open it again.
    pub cause: LogError,
    /// When it failed, since the UNIX epoch.
    pub since: Duration,
    /// Times it was tried to open it again, in vain.
    pub attempts: u64,
    /// How long until it is tried again.
    pub next_attempt_in: Duration,
}
