//! What a writer takes from the queue, and what it gives back.

use crate::sync::Arc;
use std::time::Instant;

/// What the queue asks of a delivery.
pub(in crate::delivery) trait Queued {
    /// Its caller has given it up.
    fn is_abandoned(&self) -> bool;
    /// The path of its mailbox.
    fn mailbox(&self) -> &str;
    /// The path of its mailbox, if that is an mbox.
    fn mbox(&self) -> Option<&str>;
    /// A writer begins to work on it.
    fn take(&mut self);
    /// How long its message is.
    fn bytes(&self) -> u64;
    /// When it was submitted.
    fn submitted(&self) -> Instant;
    /// Answers that another program holds this lock of its mailbox.
    fn refuse(self, lock: &'static str);
}

/// What one writer takes at once.
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

/// What a batch occupies: capacity, and the mboxes that its writer works on.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Hold {
    pub(super) jobs: usize,
    pub(super) bytes: u64,
    /// Of the batch.
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

    /// Notes that the queue was told to give up on its mboxes.
    pub(in crate::delivery) fn is_given_up(&mut self) {
        self.is_given_up = true;
    }
}
