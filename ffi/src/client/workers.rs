//! Threads that deliver submitted messages to the server.
//!
//! The server acknowledges many messages with one flush, if they arrive at the same time: hence
//! many threads, as long as there is work for them.

use super::deliver::deliver;
use super::pool::Pool;
use super::submission::Submission;
use crate::completions::Completions;
use crate::counters::Counters;
use crate::failure::Failure;
use crate::thread;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Most threads.
const THREADS_MAX: usize = 64;

/// The threads and the waiting messages.
#[derive(Debug)]
pub(super) struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    pool: Arc<Pool>,
    completions: Arc<Completions>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Submission, u64)>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    is_closing: bool,
}

impl Workers {
    pub(super) fn new(
        pool: &Arc<Pool>,
        completions: &Arc<Completions>,
        counters: &Arc<Counters>,
    ) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            pool: Arc::clone(pool),
            completions: Arc::clone(completions),
            counters: Arc::clone(counters),
        }))
    }

    /// Starts the first thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(&self) -> Result<(), Failure> {
        let mut state = self.0.state();
        if state.threads.is_empty() {
            let thread = self.spawn()?;
            state.threads.push(thread);
        }
        Ok(())
    }

    fn spawn(&self) -> std::io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.0);
        thread::spawn("mailstow-client", move || shared.run())
    }

    /// Queues a message for the next free thread, after [`Workers::start`].
    pub(super) fn put(&self, submission: Submission, token: u64) {
        let mut state = self.0.state();
        state.waiting.push_back((submission, token));
        if state.idle < state.waiting.len()
            && state.threads.len() < THREADS_MAX
            // The running threads do the work later.
            && let Ok(thread) = self.spawn()
        {
            state.threads.push(thread);
        }
        self.0.changed.notify_one();
    }

    /// Waits for all queued messages.
    pub(super) fn close(&self) {
        let mut state = self.0.state();
        state.is_closing = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.0.changed.notify_all();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of a client ended by a panic");
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let mut state = self.state();
            let (submission, token) = loop {
                if let Some(next) = state.waiting.pop_front() {
                    break next;
                }
                if state.is_closing {
                    return;
                }
                state.idle += 1;
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            };
            drop(state);
            let results = deliver(&self.pool, submission, &self.counters);
            self.completions.put(token, results);
        }
    }
}
