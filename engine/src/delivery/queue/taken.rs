//! What a writer takes from the queue, and what it gives back.

use crate::sync::Arc;
use std::time::Instant;

/// The properties of a delivery that the queue uses.
pub(in crate::delivery) trait Queued {
    /// Returns true when its caller has given it up.
    fn is_abandoned(&self) -> bool;
    /// Returns the path of its mailbox.
    fn mailbox(&self) -> &str;
    /// Returns the path of its mailbox, if that is an mbox.
    fn mbox(&self) -> Option<&str>;
    /// Notes that a writer begins to work on it.
    fn take(&mut self);
    /// Returns the length of its message.
    fn bytes(&self) -> u64;
    /// Returns when it was submitted.
    fn submitted(&self) -> Instant;
    /// Answers that another program holds this lock of its mailbox.
    fn refuse(self, lock: &'static str);
}

/// The deliveries that one writer takes at once.
#[derive(Debug)]
pub(in crate::delivery) struct Taken<J> {
    pub(in crate::delivery) jobs: Vec<J>,
    /// What to give back with [`give_back`](super::Queue::give_back) when the writer is done.
    pub(in crate::delivery) hold: Hold,
}

impl<J> Default for Taken<J> {
    fn default() -> Self {
        Self {
            jobs: Vec::new(),
            hold: Hold::default(),
        }
    }
}

/// The resources of a batch: capacity, and the mboxes that its writer works on.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Hold {
    pub(super) jobs: usize,
    pub(super) bytes: u64,
    /// The capacity of the batch.
    pub(super) places: usize,
    pub(super) mboxes: Vec<Arc<str>>,
    /// The batch does not count any more: other writers take new deliveries.
    pub(super) is_left_to_others: bool,
    /// The writer was given up.
    pub(super) is_given_up: bool,
}

impl Hold {
    /// Notes that [`leave_to_others`](super::Queue::leave_to_others) was called for it.
    pub(in crate::delivery) fn is_left_to_others(&mut self) {
        self.is_left_to_others = true;
    }

    /// Notes that the queue has given up on its mboxes.
    pub(in crate::delivery) fn is_given_up(&mut self) {
        self.is_given_up = true;
    }
}
