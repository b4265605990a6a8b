//! Where the engine's threads leave the outcomes that a session waits for.
//!
//! The session is woken only for the recipient whose reply is next.

use mailstow_engine::Outcome;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// The outcomes of one message.
#[derive(Debug)]
pub(super) struct Outcomes(Mutex<State>);

#[derive(Debug)]
struct State {
    slots: Vec<Option<Outcome>>,
    awaited: Option<(usize, Waker)>,
}

impl Outcomes {
    pub(super) fn new(count: usize) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(count, || None);
        Self(Mutex::new(State {
            slots,
            awaited: None,
        }))
    }

    /// Leaves an outcome; called by the engine.
    pub(super) fn put(&self, index: usize, outcome: Outcome) {
        let mut state = self.0.lock();
        if let Some(slot) = state.slots.get_mut(index) {
            *slot = Some(outcome);
        }
        let waker = match &state.awaited {
            Some((awaited, _)) if *awaited == index => state.awaited.take(),
            _ => None,
        };
        drop(state);
        if let Some((_, waker)) = waker {
            waker.wake();
        }
    }

    /// The outcome if it is there.
    pub(super) fn take(&self, index: usize) -> Option<Outcome> {
        self.0.lock().slots.get_mut(index).and_then(Option::take)
    }

    /// Waits for an outcome; one waiter at a time.
    pub(super) async fn wait(&self, index: usize) -> Outcome {
        poll_fn(|context| self.poll(index, context)).await
    }

    /// Ready when the outcome is there; else the task is woken when it is.
    pub(super) fn poll(&self, index: usize, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.0.lock();
        if let Some(outcome) = state.slots.get_mut(index).and_then(Option::take) {
            return Poll::Ready(outcome);
        }
        state.awaited = Some((index, context.waker().clone()));
        Poll::Pending
    }
}
