//! What became of deliveries that were answered while their writers did not come back.
//!
//! Imports `log`, `sync`. Such a delivery was acknowledged, because the log has it, and is held
//! until its writer says here what became of it.

use crate::log::DeliveryId;
use crate::sync::{Arc, Mutex};

/// The ends of one store. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub(super) struct LateEnds(Arc<Mutex<Vec<LateEnd>>>);

/// The end of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LateEnd {
    pub(super) id: DeliveryId,
    pub(super) recipient: u32,
    /// It stands in its mailbox, and may not be durable there.
    pub(super) is_stored: bool,
}

impl LateEnds {
    pub(super) fn add(&self, end: LateEnd) {
        self.0.lock().push(end);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(super) fn take(&self) -> Vec<LateEnd> {
        std::mem::take(&mut *self.0.lock())
    }
}
