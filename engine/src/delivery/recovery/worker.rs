//! A thread of recovery: its identity, and the deliveries that it could not make.

use super::super::ledger::deferred_mail::{DeferredDelivery, DeferredExtent, DeferredMail};
use super::super::ledger::dirty_file_systems::FileSystems;
use super::super::ledger::journal::Journal;
use super::super::writer_pools::WriterPools;
use super::listings::Listings;
use super::logged_mailbox::LoggedMailbox;
use super::report::RecoveryReport;
use crate::clock;
use crate::io::{Credentials, Disk};
use crate::log::{Accepted, DeliveryId, LogError, Sequence};
use crate::mailbox::{DurableDirs, MailboxError, MailboxName, MailboxSettings};
use crate::sync::Arc;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often progress is logged.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Whether data that the kernel returns can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum PageCache {
    /// The disk has what the kernel returns.
    Trusted,
    /// A flush failed: the kernel may return data that the disk does not have.
    Suspect,
}

/// The context of a recovery.
pub(in crate::delivery) struct Recovery<'a, D: Disk> {
    pub(in crate::delivery) disk: &'a D,
    pub(in crate::delivery) settings: &'a MailboxSettings,
    pub(in crate::delivery) durable_dirs: &'a DurableDirs,
    pub(in crate::delivery) journal: &'a dyn Journal,
    pub(in crate::delivery) file_systems: &'a FileSystems<D::Handle>,
    pub(in crate::delivery) pools: &'a WriterPools,
    pub(in crate::delivery) page_cache: PageCache,
}

/// A message of the log.
#[derive(Clone, Copy)]
pub(super) struct Message<'m> {
    /// Its record.
    pub(super) at: Sequence,
    pub(super) envelope: &'m Accepted,
    pub(super) content: &'m [u8],
}

impl<'m> Message<'m> {
    /// Returns the message as a deferred one.
    pub(super) fn of(deferred: &'m DeferredMail) -> Self {
        Self {
            at: deferred.at,
            envelope: &deferred.envelope,
            content: &deferred.content,
        }
    }
}

/// The name of the thread that takes the identities of mailbox owners.
const THREAD: &str = "mailstow-recov";

/// Runs work on a thread that ends with it. A thread that may change its identity drops the other
/// rights of root.
///
/// # Errors
/// The thread cannot be started, or panicked.
pub(super) fn on_own_thread<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, LogError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(THREAD.into());
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|error| LogError::Io {
                operation: "start",
                object:
                    "a thread for recovery (raise the limit on processes: TasksMax=, ulimit -u)"
                        .into(),
                source: Arc::new(error),
            })?;
        let panicked = |_| LogError::Panicked { thread: THREAD };
        thread.join().map_err(panicked)
    })
}

/// A thread of recovery.
pub(super) struct Worker<'a, D: Disk> {
    pub(super) with: &'a Recovery<'a, D>,
    credentials: Credentials,
    pub(super) report: RecoveryReport,
    pub(super) deferred: Vec<DeferredMail>,
    /// Messages of which the log has only the sums, and whose mboxes could not be checked.
    pub(super) unlooked: Vec<DeferredExtent>,
    /// The index in `deferred` of each message.
    deferred_at: HashMap<DeliveryId, usize>,
    pub(super) maildirs: Listings,
    /// When progress was logged last.
    logged: Instant,
    /// The time until which recovery waits for all mboxes that other programs have locked.
    pub(super) patient_until: Instant,
    /// An earlier unfinished recovery may have appended messages at places that are not in the log.
    pub(super) searches_all: bool,
}

impl<'a, D: Disk> Worker<'a, D> {
    /// `lock_wait`: how long it waits for locks.
    pub(super) fn new(with: &'a Recovery<'a, D>, lock_wait: Duration) -> Self {
        let now = clock::now();
        Self {
            with,
            credentials: Credentials::of_own_thread(),
            report: RecoveryReport::default(),
            deferred: Vec::new(),
            unlooked: Vec::new(),
            deferred_at: HashMap::new(),
            maildirs: Listings::default(),
            logged: now,
            patient_until: now + lock_wait,
            searches_all: false,
        }
    }

    /// Makes an attempt, and a second one if the disk was full and the log gave space back.
    pub(super) fn with_room<R>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<R, MailboxError>,
    ) -> Result<R, MailboxError> {
        match attempt(self) {
            Err(error) if error.is_no_space() && self.with.journal.give_back(true) > 0 => {
                attempt(self)
            }
            done => done,
        }
    }

    /// Defers deliveries of a message that could not be made.
    pub(super) fn defer(
        &mut self,
        message: Message<'_>,
        recipients: Vec<DeferredDelivery>,
        wants_room: bool,
        refused: impl FnOnce() -> Vec<u32>,
    ) {
        if recipients.is_empty() {
            return;
        }
        let Message {
            at: sequence,
            envelope,
            content,
        } = message;
        let at = *self
            .deferred_at
            .entry(envelope.id)
            .or_insert(self.deferred.len());
        debug_assert!(at <= self.deferred.len(), "each message has its place");
        debug_assert!(
            self.deferred
                .get(at)
                .is_none_or(|deferred| deferred.envelope.id == envelope.id),
            "a message waits once, with all its recipients"
        );
        match self.deferred.get_mut(at) {
            Some(deferred) => {
                deferred.recipients.extend(recipients);
                deferred.wants_room |= wants_room;
            }
            None => self.deferred.push(DeferredMail {
                at: sequence,
                envelope: envelope.clone(),
                content: content.into(),
                recipients,
                refused: refused(),
                wants_room,
            }),
        }
    }

    /// Logs the progress periodically.
    pub(super) fn log_progress(&mut self, messages: u64) {
        if self.logged.elapsed() > PROGRESS_EVERY {
            self.logged = clock::now();
            tracing::info!(
                "recovering the delivery log: {} of {messages} messages, {} copies rewritten",
                self.report.messages,
                self.report.rewritten
            );
        }
    }

    /// Opens the base and takes the owner's identity.
    pub(super) fn enter(
        &mut self,
        logged: &LoggedMailbox,
    ) -> Result<(D::Handle, MailboxName), MailboxError> {
        let base = &self.with.settings.base;
        let target = logged.target()?;
        let path = MailboxName::of(base, &target);
        let mailbox = || path.display().to_owned();
        // The settings may have changed since the mail was accepted.
        let minimum = self.with.settings.minimum_uid;
        if target.uid < minimum {
            return Err(MailboxError::BelowMinimum {
                mailbox: mailbox(),
                uid: target.uid,
                minimum,
            });
        }
        let disk = self.with.disk;
        let opened = self.credentials.as_self(|| disk.open_root(base));
        let opened = opened.map_err(|source| MailboxError::Base {
            mailbox: mailbox(),
            base: base.display().to_string(),
            source,
        })?;
        self.credentials
            .become_user(target.uid, target.gid)
            .map_err(|source| MailboxError::Identity {
                mailbox: mailbox(),
                source,
            })?;
        Ok((opened, path))
    }

    /// Returns to the server's identity, which opens the segments of the log.
    pub(super) fn leave(&mut self) {
        self.credentials.as_self(|| ());
    }
}

/// Logs why a mailbox could not be repaired.
pub(super) fn log_deferred(error: &MailboxError) {
    tracing::error!(
        "{error}; mail that was acknowledged for it stays in the delivery log and is tried again"
    );
}
