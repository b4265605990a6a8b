//! How many deliveries a store holds at once, in all its queues.
//!
//! Deliveries that wait for a lock which another program holds are parked: they count separately,
//! so that they block no others. Invariants: a delivery counts until its writer is done with it, or
//! while it is parked; freed capacity wakes the tasks that wait for it.

use crate::sync::Mutex;
use std::task::{Context, Poll, Waker};

/// The capacity for deliveries, divided by the capacity for parked ones.
const PARKED_PART: usize = 4;
/// The capacity for parked deliveries, divided by that of one mbox.
const MBOX_PART: usize = 4;

/// How many deliveries may wait or be in progress at once. Callers that submit deliveries enforce
/// the bound ([`Capacity::poll`]).
#[derive(Debug)]
pub(super) struct Capacity {
    capacity: usize,
    parked_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// Parked deliveries.
    parked: usize,
    waiting: Vec<Waker>,
}

impl Capacity {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            parked_max: (capacity / PARKED_PART).max(1),
            state: Mutex::default(),
        }
    }

    /// Counts so many deliveries, even past the limit.
    pub(super) fn take(&self, deliveries: usize) {
        self.state.lock().taken += deliveries;
    }

    /// Stops counting so many deliveries, and wakes waiting tasks.
    pub(super) fn give_back(&self, deliveries: usize) {
        let mut state = self.state.lock();
        debug_assert!(deliveries <= state.taken, "capacity is given back once");
        state.taken = state.taken.saturating_sub(deliveries);
        let wakers = match state.taken < self.capacity {
            true => std::mem::take(&mut state.waiting),
            false => Vec::new(),
        };
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns how many deliveries of one mbox may be parked.
    pub(super) fn parked_per_mbox(&self) -> usize {
        (self.parked_max / MBOX_PART).max(1)
    }

    /// Parks up to so many deliveries, and returns how many fit.
    pub(super) fn park(&self, deliveries: usize) -> usize {
        let mut state = self.state.lock();
        let placed = deliveries.min(self.parked_max.saturating_sub(state.parked));
        state.parked += placed;
        placed
    }

    /// Stops counting so many deliveries as parked.
    pub(super) fn unpark(&self, deliveries: usize) {
        if deliveries > 0 {
            let mut state = self.state.lock();
            debug_assert!(deliveries <= state.parked, "a delivery is unparked once");
            state.parked = state.parked.saturating_sub(deliveries);
        }
    }

    /// Returns how many deliveries are parked.
    #[cfg(test)]
    pub(super) fn parked(&self) -> usize {
        self.state.lock().parked
    }

    /// Returns how many deliveries are counted, without parked ones.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.state.lock().taken
    }

    /// Returns true while another delivery fits.
    pub(super) fn is_left(&self) -> bool {
        self.state.lock().taken < self.capacity
    }

    /// Returns ready while another delivery fits; otherwise the task is woken when one may fit.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.taken < self.capacity {
            return Poll::Ready(());
        }
        let waker = context.waker();
        let is_known = |known: &Waker| known.will_wake(waker);
        if !state.waiting.iter().any(is_known) {
            state.waiting.push(waker.clone());
        }
        Poll::Pending
    }
}
