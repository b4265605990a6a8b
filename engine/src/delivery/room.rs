//! Room for deliveries, shared by all queues of a store.
//!
//! Imports `sync`; does no I/O. Invariants: a delivery takes up room until a writer is done with
//! it, so that one which tries a lock again and again never frees its room in between; whoever
//! waits for room is woken when there is some.

use crate::sync::Mutex;
use std::task::{Context, Poll, Waker};

/// How many deliveries may wait or be made at once; the bound is kept by those who submit
/// ([`Room::poll`]).
#[derive(Debug)]
pub(super) struct Room {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    waiting: Vec<Waker>,
}

impl Room {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
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
