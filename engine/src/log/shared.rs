//! What those share who use an open log and those who do its work.

use super::codec::EncodedRecord;
use super::error::LogError;
use super::group_commit::GroupCommit;
use super::medium::LogMedium;
use super::orders::Orders;
use super::record::Sequence;
use super::segments::Segments;
use crate::sync::Arc;

/// Called on the log thread once a record's fate is known; must be short and must not append
/// and wait. Calls come in the order of the log.
pub type OnDurable = Box<dyn FnOnce(Result<Sequence, LogError>) + Send>;

/// A record on its way to the disk, and the callback for when it is there.
pub(super) struct Item {
    pub(super) record: EncodedRecord,
    pub(super) on_durable: Option<OnDurable>,
}

pub(super) struct Shared<M: LogMedium> {
    pub(super) commit: Arc<GroupCommit<Item, LogError>>,
    pub(super) segments: Arc<Segments<M>>,
    /// For the preallocator.
    pub(super) orders: Arc<Orders>,
}

impl<M: LogMedium> Clone for Shared<M> {
    fn clone(&self) -> Self {
        Self {
            commit: Arc::clone(&self.commit),
            segments: Arc::clone(&self.segments),
            orders: Arc::clone(&self.orders),
        }
    }
}

impl<M: LogMedium> Shared<M> {
    /// Poisons the log and tells `batch` and everything that waits; returns the error later appends
    /// get.
    pub(super) fn fail(&self, error: LogError, batch: &mut Vec<(u64, Item)>) -> LogError {
        tracing::error!(%error, "the delivery log failed; nothing more is acknowledged");
        let poisoned = LogError::Poisoned {
            cause: Arc::new(error),
        };
        let waiting = self.commit.poison(poisoned.clone());
        for (_, item) in batch.drain(..).chain(waiting) {
            if let Some(call) = item.on_durable {
                call(Err(poisoned.clone()));
            }
        }
        poisoned
    }

    /// Takes no more records, and has no more segments made.
    pub(super) fn close(&self) {
        self.commit.close();
        self.orders.stop();
    }
}
