//! Whether a store takes mail, for operators and monitoring.

use super::writer_pool::HungFileSystem;
use crate::clock;
use crate::log::LogError;
use crate::supervisor::ThreadFailure;
use crate::sync::Arc;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What a store can do now.
///
/// ```
/// # mod site { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/site.inc")); }
/// # let site = site::site()?;
/// use mailstow_engine::LogState;
///
/// # let engine = site.engine()?;
/// let health = engine.health();
/// assert!(matches!(health.log, LogState::InService { .. }));
/// assert_eq!(health.waiting, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// The delivery log.
    pub log: LogState,
    /// Messages that recovery could not store yet, because their mailboxes cannot be opened, locked
    /// or written. The store retries after a second, then less often, at least once a minute.
    pub waiting: usize,
    /// File systems of mailboxes whose flush failed and did not succeed since, and file systems
    /// that do not answer. The delivery log keeps their mail.
    pub file_systems: Vec<FileSystemFailure>,
    /// Threads that panicked recently, or are lost.
    pub threads: Vec<ThreadFailure>,
    /// Why files of tables and lists are not used as they are now, one sentence for each file:
    /// another program seems to write it, or it was changed and has lines that are no entries. The
    /// contents that were read before stay in use; recipients that would be unknown are deferred.
    pub tables: Vec<String>,
}

impl Health {
    /// Adds the health of another store of the same engine.
    pub(crate) fn add(&mut self, other: Self) {
        if !matches!(self.log, LogState::Failed(_)) && matches!(other.log, LogState::Failed(_)) {
            self.log = other.log;
        }
        self.waiting += other.waiting;
        self.file_systems.extend(other.file_systems);
        self.threads.extend(other.threads);
        self.tables.extend(other.tables);
    }
}

/// Returns what operators see of a file system that does not answer.
pub(super) fn hung_failure(hung: HungFileSystem) -> FileSystemFailure {
    FileSystemFailure {
        mount_point: hung.mount_point,
        cause: no_answer(),
        since: hung.since,
        attempts: hung.trials.into(),
        next_attempt_in: hung.next_trial.saturating_duration_since(clock::now()),
        held: 0,
    }
}

/// Returns the error for a missing answer.
pub(super) fn no_answer() -> Arc<io::Error> {
    let cause = "it does not answer";
    Arc::new(io::Error::new(io::ErrorKind::TimedOut, cause))
}

/// A file system of mailboxes that could not be flushed, or does not answer.
///
/// The first failure defers no mail. Once another attempt has failed, deliveries to its mailboxes
/// are answered 4xx until an attempt succeeds.
///
/// ```
/// use mailstow_engine::FileSystemFailure;
///
/// fn alarm(failure: &FileSystemFailure) -> String {
///     let place = failure.mount_point.display();
///     format!("{place}: {}; {} messages are held", failure.cause, failure.held)
/// }
/// # let _: fn(&FileSystemFailure) -> String = alarm;
/// ```
#[derive(Clone, Debug)]
pub struct FileSystemFailure {
    /// Its mount point; empty when it is unknown.
    pub mount_point: PathBuf,
    /// Why the last flush failed; [`io::ErrorKind::TimedOut`] when there is no answer.
    pub cause: Arc<io::Error>,
    /// When the first one failed, since the UNIX epoch.
    pub since: Duration,
    /// How many attempts failed since.
    pub attempts: u64,
    /// How long until the next attempt.
    pub next_attempt_in: Duration,
    /// Deliveries that were acknowledged and are held until they are durable.
    pub held: usize,
}

/// The state of the delivery log.
///
/// ```
/// use mailstow_engine::LogState;
///
/// fn answer(state: &LogState) -> String {
///     match state {
///         LogState::Direct => "every message is flushed in its mailbox".into(),
///         LogState::InService { bytes_used, bytes_max } => {
///             format!("{bytes_used} of {bytes_max} bytes")
///         }
///         LogState::Failed(failure) => format!("out of service: {}", failure.cause),
///     }
/// }
/// assert!(answer(&LogState::Direct).starts_with("every message"));
/// ```
#[derive(Clone, Debug, Default)]
pub enum LogState {
    /// There is no log: every message is flushed in its mailbox.
    #[default]
    Direct,
    /// The log takes mail.
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
///
/// ```
/// use mailstow_engine::LogFailure;
///
/// fn alarm(failure: &LogFailure) -> String {
///     format!("{}; opened again in {:?}", failure.cause, failure.next_attempt_in)
/// }
/// # let _: fn(&LogFailure) -> String = alarm;
/// ```
#[derive(Clone, Debug)]
pub struct LogFailure {
    /// What failed: the log, or the last attempt to open it again.
    pub cause: LogError,
    /// When it failed, since the UNIX epoch.
    pub since: Duration,
    /// How many attempts to open it again failed.
    pub attempts: u64,
    /// How long until the next attempt.
    pub next_attempt_in: Duration,
}
