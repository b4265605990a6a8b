//! The outcomes of deliveries that were answered before their writers came back.
//!
//! Such a delivery was acknowledged because the log has it. It is deferred until its writer notes
//! its end here.

use crate::log::DeliveryId;
use crate::sync::{Arc, Mutex};

/// The ends of one store. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub(in crate::delivery) struct LateEnds(Arc<Mutex<Vec<LateEnd>>>);

/// The end of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct LateEnd {
    pub(in crate::delivery) id: DeliveryId,
    pub(in crate::delivery) recipient: u32,
    /// It is in its mailbox, and may not be durable there.
    pub(in crate::delivery) is_stored: bool,
    /// The file system that it was written to.
    pub(in crate::delivery) device: Option<u64>,
}

impl LateEnds {
    pub(in crate::delivery) fn add(&self, end: LateEnd) {
        self.0.lock().push(end);
    }

    pub(in crate::delivery) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(in crate::delivery) fn take(&self) -> Vec<LateEnd> {
        std::mem::take(&mut *self.0.lock())
    }
}
