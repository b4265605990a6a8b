//! Room for deliveries, shared by all queues of a store.
//!
//! Does no I/O. Deliveries that wait for a lock which another program holds have
//! places aside, so that they take up no room of others. Invariants: a delivery takes up room until
//! a writer is done with it, or a place aside; whoever waits for room is woken when there is some.

use crate::sync::Mutex;
use std::task::{Context, Poll, Waker};

/// The places aside are so many times fewer than the others.
const ASIDE_PART: usize = 4;
/// One mbox may have this part of the places aside.
const ONE_PART: usize = 4;

/// How many deliveries may wait or be made at once; the bound is kept by those who submit
/// ([`Room::poll`]).
#[derive(Debug)]
pub(super) struct Room {
    capacity: usize,
    aside_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// Places aside that are taken.
    aside: usize,
    waiting: Vec<Waker>,
}

impl Room {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            aside_max: (capacity / ASIDE_PART).max(1),
            state: Mutex::default(),
        }
    }

    /// Takes room for so many deliveries, whether there is any or not.
    pub(super) fn take(&self, deliveries: usize) {
        self.state.lock().taken += deliveries;
    }

    /// Gives the room of so many deliveries back.
    pub(super) fn give_back(&self, deliveries: usize) {
        let mut state = self.state.lock();
        debug_assert!(deliveries <= state.taken, "room is given back once");
        state.taken = state.taken.saturating_sub(deliveries);
        let wakers = match state.taken < self.capacity {
            true => std::mem::take(&mut state.waiting),
            false => Vec::new(),
        };
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns how many places aside the deliveries of one mbox may have.
    pub(super) fn aside_for_one(&self) -> usize {
        (self.aside_max / ONE_PART).max(1)
    }

    /// Takes up to so many places aside, and returns how many there were.
    pub(super) fn put_aside(&self, deliveries: usize) -> usize {
        let mut state = self.state.lock();
        let placed = deliveries.min(self.aside_max.saturating_sub(state.aside));
        state.aside += placed;
        placed
    }

    /// Gives so many places aside back.
    pub(super) fn leave_aside(&self, deliveries: usize) {
        if deliveries > 0 {
            let mut state = self.state.lock();
            debug_assert!(deliveries <= state.aside, "a place is given back once");
            state.aside = state.aside.saturating_sub(deliveries);
        }
    }

    /// Returns how many places aside are taken.
    #[cfg(test)]
    pub(super) fn aside(&self) -> usize {
        self.state.lock().aside
    }

    /// Returns how many deliveries take up room.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.state.lock().taken
    }

    pub(super) fn is_left(&self) -> bool {
        self.state.lock().taken < self.capacity
    }

    /// Ready when there is room; else the task is woken when there may be.
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
