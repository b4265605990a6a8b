//! A writer thread: takes deliveries from the queue of a file system and takes them through the
//! phases of a batch.
//!
//! While the log is being flushed for one batch the writer begins the next, so that it seldom waits
//! for the disk. It finishes batches in the order in which it began them. Invariant: a panic
//! affects only the deliveries of one batch, which are answered 451.

use super::active_batch::ActiveBatch;
use super::batch::{Batch, Commit};
use super::delivery::Delivery;
use super::ledger::Ledger;
use super::queue::{Hold, Taken};
use super::shared::Shared;
use super::writer_pool::WriterPool;
use crate::io::{Credentials, Disk};
use crate::sync::Arc;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A writer of one file system.
pub(super) struct Writer<'a, D: Disk> {
    pub(super) shared: &'a Shared<D>,
    pub(super) pool: &'a WriterPool,
    /// Its number in the pool.
    pub(super) number: u64,
    pub(super) credentials: &'a RefCell<Credentials>,
}

/// The deliveries of one turn, after their first phases.
struct Begun<'a, D: Disk> {
    /// The batch that waits for the log.
    logged: Option<Batch<'a, D>>,
    /// Deliveries that are flushed in their mailboxes; they are not begun yet.
    direct: Vec<Delivery>,
    active: Arc<ActiveBatch>,
    hold: Hold,
}

/// Works until the queue is closed and empty, or the writer was replaced.
pub(super) fn write_mail<D: Disk>(shared: &Shared<D>, pool: &WriterPool, number: u64) {
    let credentials = RefCell::new(Credentials::of_own_thread());
    let writer = Writer {
        shared,
        pool,
        number,
        credentials: &credentials,
    };
    while let Some(taken) = pool.queue.take() {
        writer.write(taken);
        if pool.is_surplus() {
            break;
        }
    }
    pool.writer_ends(number);
}

impl<'a, D: Disk> Writer<'a, D> {
    /// Writes these deliveries, then those that arrived since, and so on.
    pub(super) fn write(&self, taken: Taken<Delivery>) {
        let begin = |taken| self.begin(taken);
        let mut begun = Some(begin(taken));
        while let Some(first) = begun {
            begun = match first.may_overlap() {
                true => self.pool.queue.take_waiting().map(begin),
                false => None,
            };
            self.finish(first);
        }
    }

    fn begin(&self, Taken { mut jobs, hold }: Taken<Delivery>) -> Begun<'a, D> {
        let active = self.pool.begin(self.number, &mut jobs);
        let (logged, direct): (Vec<Delivery>, Vec<Delivery>) =
            jobs.into_iter().partition(Delivery::is_through_log);
        if !direct.is_empty() {
            self.pool.leave_to_others(&active);
        }
        let logged = survive(|| match &self.shared.ledger {
            Some(ledger) if !logged.is_empty() => self.begin_logged(ledger, &active, logged),
            _ => None,
        });
        Begun {
            logged: logged.flatten(),
            direct,
            active,
            hold,
        }
    }

    /// Begins a batch through the log; returns `None` after every delivery was answered, when the
    /// log is out of service.
    fn begin_logged(
        &self,
        ledger: &'a Ledger<D::Handle>,
        active: &Arc<ActiveBatch>,
        deliveries: Vec<Delivery>,
    ) -> Option<Batch<'a, D>> {
        match Commit::through_log(ledger, active) {
            Ok(commit) => Some(self.batch(commit, active, deliveries)),
            Err(error) => {
                for delivery in deliveries {
                    delivery.finish(Err(error.clone().into()));
                }
                None
            }
        }
    }

    fn batch(
        &self,
        commit: Commit<'a, D::Handle>,
        active: &Arc<ActiveBatch>,
        deliveries: Vec<Delivery>,
    ) -> Batch<'a, D> {
        let context = self.shared.context.as_ref();
        let active = Arc::clone(active);
        Batch::begin(
            (context, self.pool, self.credentials),
            (commit, active),
            deliveries,
        )
    }

    fn finish(
        &self,
        Begun {
            logged,
            direct,
            active,
            hold,
        }: Begun<'_, D>,
    ) {
        if let Some(batch) = logged {
            survive(|| batch.finish());
            active.needs_log_no_more();
        }
        if !direct.is_empty() {
            survive(|| {
                let commit = Commit::in_mailboxes(self.shared.ledger.as_deref());
                self.batch(commit, &active, direct).finish();
            });
        }
        self.pool.end(&active, hold);
    }
}

impl<D: Disk> Begun<'_, D> {
    /// Returns true while the next batch may be begun before this one is finished.
    fn may_overlap(&self) -> bool {
        self.direct.is_empty() && self.logged.as_ref().is_some_and(Batch::may_overlap)
    }
}

/// `None` after a panic; the deliveries of the batch were answered by being dropped.
fn survive<T>(step: impl FnOnce() -> T) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(step));
    if outcome.is_err() {
        tracing::error!("a writer panicked; its deliveries were answered with an error");
    }
    outcome.ok()
}
