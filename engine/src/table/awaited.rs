//! One answer: the thread that asked waits for it for a while, then another place gets it.

use std::mem;
use std::time::Duration;

use super::reply::{Answer, Reply};
use crate::clock;
use crate::sync::{Condvar, Mutex, wait_timeout};

/// An answer that comes from another thread.
pub(super) struct Awaited {
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Default)]
enum State {
    /// It is not there.
    #[default]
    Missing,
    There(Answer),
    /// It is not there; this is to have it.
    WantedBy(Reply),
}

impl Awaited {
    /// It is not there yet.
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            told: Condvar::new(),
        }
    }

    /// Gives the answer.
    pub(super) fn tell(&self, answer: Answer) {
        let mut state = self.state.lock();
        match mem::take(&mut *state) {
            State::WantedBy(reply) => {
                drop(state);
                reply.give(answer);
            }
            State::Missing | State::There(_) => {
                *state = State::There(answer);
                self.told.notify_one();
            }
        }
    }

    /// Waits for the answer, and takes it; `None` after the time limit.
    pub(super) fn wait(&self, limit: Duration) -> Option<Answer> {
        let end = clock::now() + limit;
        let mut state = self.state.lock();
        loop {
            if let State::There(answer) = mem::take(&mut *state) {
                return Some(answer);
            }
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                return None;
            }
            state = wait_timeout(&self.told, state, left);
        }
    }

    /// Has `reply` get the answer, now or when it is there.
    pub(super) fn then(&self, reply: Reply) {
        let mut state = self.state.lock();
        match mem::take(&mut *state) {
            State::There(answer) => {
                drop(state);
                reply.give(answer);
            }
            State::Missing | State::WantedBy(_) => *state = State::WantedBy(reply),
        }
    }
}
