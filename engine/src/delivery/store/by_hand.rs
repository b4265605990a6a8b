//! Operations on a store for tests only.

use super::super::ledger::unconfirmed::Verdict;
use super::super::receipt::settle;
use super::super::reply::Ticket;
use super::Store;
use crate::io::Disk;
use crate::log::LogError;
use crate::message::Spool;
#[cfg(test)]
use {
    super::super::error::StoreError, super::super::ledger::journal::JournalSource,
    super::super::log_supervisor::LogSupervisor, super::super::recovery::RecoveryReport,
    super::super::watchdog, super::super::writer::Writer, crate::config::Settings,
    crate::sync::Arc,
};

/// Operations on a store for tests only.
#[cfg(any(test, feature = "sim"))]
impl<D: Disk> Store<D> {
    /// Returns the spool that holds messages.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Returns the disk of the mailboxes.
    pub fn disk(&self) -> &D {
        &self.shared.context.disk
    }

    /// Notes that the client has read the replies for these deliveries, all of one message; see
    /// `Receipt::confirm`.
    pub fn confirm(&self, tickets: &[Ticket]) {
        if let Some(ledger) = &self.shared.ledger {
            settle(ledger, tickets, Verdict::Read);
        }
    }

    /// Notes that the replies for these deliveries, all of one message, may be lost; see
    /// `Receipt`.
    pub fn doubt(&self, tickets: &[Ticket]) {
        if let Some(ledger) = &self.shared.ledger {
            settle(ledger, tickets, Verdict::Lost);
        }
    }

    /// Returns why the delivery log takes nothing now: its last write failed, and it is opened
    /// again periodically. `None` while it is in service.
    pub fn log_failure(&self) -> Option<LogError> {
        self.shared.ledger.as_ref()?.log.failure()
    }

    /// Finishes the submitted deliveries, and ends the writers. Deliveries that wait for a busy
    /// lock may take as long as their time limit.
    pub fn close(self) {
        drop(self);
    }
}

/// What a simulation calls in place of the threads.
#[cfg(test)]
impl<D: Disk> Store<D> {
    pub(in crate::delivery) fn open_stepwise(
        disk: D,
        settings: &Settings,
        source: Box<dyn JournalSource>,
    ) -> Result<Self, StoreError> {
        Self::with_or_without_threads(disk, settings, Some(source), false)
    }

    /// Writes the waiting deliveries.
    pub(in crate::delivery) fn step(
        &self,
        credentials: &std::cell::RefCell<crate::io::Credentials>,
    ) {
        for pool in self.shared.pools.all() {
            if let Some(taken) = pool.queue.take_waiting() {
                // A simulation may make a step while another is delayed.
                let number = pool.writer_begins();
                let writer = Writer {
                    shared: &self.shared,
                    pool: &pool,
                    number,
                    credentials,
                };
                writer.write(taken);
                pool.writer_ends(number);
            }
        }
    }

    /// Returns a function that makes a checkpoint on the calling thread, whatever the store does
    /// then. A second checkpoint while mailboxes are flushed would wait for the first on the same
    /// thread.
    pub(in crate::delivery) fn checkpointer(&self) -> impl FnOnce() + Send + use<D> {
        let shared = Arc::downgrade(&self.shared);
        let log = self.log.as_ref().map(Arc::downgrade);
        move || {
            if let Some(shared) = shared.upgrade()
                && let Some(log) = log.as_ref().and_then(std::sync::Weak::upgrade)
                && !log.ledger().file_systems.is_flushing()
            {
                log.checkpoint_or_fail(&shared.context);
            }
        }
    }

    /// Does the periodic work of the checkpoint thread, as if every pause were over; does nothing
    /// while it flushes mailboxes.
    pub(in crate::delivery) fn maintain(&self) {
        let log = self.log();
        if log.ledger().file_systems.is_flushing() {
            return;
        }
        log.hurry();
        let context = &self.shared.context;
        log.recheck_suspects(context);
        log.retry_deferred(context);
        log.checkpoint_or_fail(context);
    }

    /// Reads the table of mounts again.
    pub(in crate::delivery) fn look_at_mounts(&self) {
        let points = self.shared.context.disk.mount_points().unwrap();
        self.shared.pools.are_mounted(&points);
    }

    /// Begins a flush of a file system that never ends, then makes a checkpoint.
    pub(in crate::delivery) fn maintain_beside_flush(&self, device: u64) {
        let (log, context) = (self.log(), &self.shared.context);
        let file_systems = &log.ledger().file_systems;
        let below = crate::log::Sequence(0);
        for begun in file_systems.begin_flushes(below) {
            if begun != device {
                file_systems.flush(&context.disk, begun, below);
            }
        }
        log.checkpoint_or_fail(context);
    }

    pub(in crate::delivery) fn log(&self) -> &Arc<LogSupervisor<D::Handle>> {
        self.log.as_ref().unwrap()
    }

    /// Gives up on steps in mailboxes that exceed their time limit.
    pub(in crate::delivery) fn watch(&self) {
        watchdog::look(&self.shared, |_| Ok(()));
    }

    /// Opens a log that failed again, as the checkpoint thread does.
    pub(in crate::delivery) fn reopen(&self) -> Result<Option<RecoveryReport>, LogError> {
        let context = &self.shared.context;
        self.log().ledger().log.forget();
        self.log().open(context)
    }
}
