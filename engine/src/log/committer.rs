//! Commits batches: writes and flushes what waits, and says so.
//!
//! It alone touches the segment in use. Invariants: a record is reported durable only after the
//! flush of its batch returned; after any failed write or flush nothing is reported durable any
//! more.

use super::appender::Appender;
use super::medium::LogMedium;
use super::record::Sequence;
use super::shared::{Item, Shared};

/// The committer of a log: run by a thread, or by the callers of the log.
pub(super) struct Committer<M: LogMedium> {
    shared: Shared<M>,
    appender: Appender<M>,
    batch: Vec<(u64, Item)>,
}

impl<M: LogMedium> Committer<M> {
    pub(super) fn new(shared: Shared<M>, appender: Appender<M>) -> Self {
        Self {
            shared,
            appender,
            batch: Vec::new(),
        }
    }

    /// Commits until the log is closed or fails.
    pub(super) fn run(mut self) {
        while self.commit_next(true) {}
    }

    /// Commits everything that waits as one batch; with `awaits_work`, waits until something does.
    /// False when nothing waited, or the log failed.
    pub(super) fn commit_next(&mut self, awaits_work: bool) -> bool {
        self.shared.commit.take(&mut self.batch, awaits_work) && self.commit_batch()
    }

    fn commit_batch(&mut self) -> bool {
        let Self {
            shared,
            appender,
            batch,
        } = self;
        let last = batch.last().map_or(0, |(sequence, _)| *sequence);
        let entries = batch
            .iter()
            .map(|(sequence, item)| (*sequence, &item.record));
        match appender.write_batch(entries) {
            Ok(consumed) => {
                shared.commit.complete(last, consumed);
                if appender.take_rotated() {
                    shared.orders.ask();
                }
                for (sequence, item) in batch.drain(..) {
                    if let Some(call) = item.on_durable {
                        call(Ok(Sequence(sequence)));
                    }
                }
                true
            }
            Err(error) => {
                shared.fail(error, batch);
                false
            }
        }
    }
}
