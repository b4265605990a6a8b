//! Finished messages on their way to the host: a queue with an eventfd, or a function.
//!
//! Invariants: the eventfd is readable exactly while finished messages wait, so that any event loop
//! can poll it, level-triggered; a message is handed over once, and never while a lock is held.

use crate::boundary::{CompletionCallback, insert};
use crate::failure::Failure;
use crate::flight::Flight;
use crate::results::Results;
use crate::thread;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often late deliveries are checked for.
const LATE_INTERVAL: Duration = Duration::from_millis(100);

/// The number 1 as eventfd(2) takes it.
#[allow(
    clippy::host_endian_bytes,
    reason = "the kernel reads a number in native byte order"
)]
const ONE: [u8; 8] = 1_u64.to_ne_bytes();

/// Finished messages, and those in flight.
#[derive(Debug)]
pub(crate) struct Completions {
    event: OwnedFd,
    state: Mutex<State>,
    /// A message is in flight, or the queue ends.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    done: VecDeque<(u64, Results)>,
    function: Option<CompletionCallback>,
    flights: HashMap<u64, (u64, Arc<Flight>)>,
    next: u64,
    clock: Option<JoinHandle<()>>,
    is_closing: bool,
}

impl Completions {
    pub(crate) fn new() -> Result<Self, Failure> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            event: eventfd(0, flags).map_err(std::io::Error::from)?,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the eventfd, which this library owns.
    pub(crate) fn descriptor(&self) -> i32 {
        self.event.as_raw_fd()
    }

    /// Passes finished messages to `function` instead of the queue from now on.
    pub(crate) fn set_function(&self, function: Option<CompletionCallback>) {
        self.state().function = function;
    }

    /// Starts the thread that gives late deliveries up, if it is not running.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), Failure> {
        let mut state = self.state();
        if state.clock.is_none() {
            let watched = Arc::clone(self);
            state.clock = Some(thread::spawn("mailstow-late", move || watched.run())?);
        }
        Ok(())
    }

    /// Watches a message from now on. Returns its number.
    pub(crate) fn watch(&self, token: u64, flight: &Arc<Flight>) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.flights.insert(number, (token, Arc::clone(flight)));
        if state.flights.len() == 1 {
            self.changed.notify_one();
        }
        number
    }

    /// Hands over the results of a message that was watched.
    pub(crate) fn land(&self, number: u64, results: Results) {
        let mut state = self.state();
        if let Some((token, _)) = state.flights.remove(&number) {
            self.finish(state, token, results);
        }
    }

    /// Hands over the results of a message that was not watched.
    pub(crate) fn put(&self, token: u64, results: Results) {
        self.finish(self.state(), token, results);
    }

    fn finish(&self, mut state: MutexGuard<'_, State>, token: u64, results: Results) {
        if let Some(function) = state.function {
            drop(state);
            function.call(token, insert(results));
            return;
        }
        state.done.push_back((token, results));
        if state.done.len() == 1 {
            // It cannot be full.
            let _ = rustix::io::write(&self.event, &ONE);
        }
    }

    /// Takes up to `most` finished messages.
    pub(crate) fn drain(&self, most: usize) -> Vec<(u64, Results)> {
        let mut state = self.state();
        if state.done.is_empty() || most == 0 {
            return Vec::new();
        }
        let count = most.min(state.done.len());
        let drained = state.done.drain(..count).collect();
        if state.done.is_empty() {
            let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
        }
        drained
    }

    /// Gives late deliveries up until the end.
    fn run(&self) {
        let mut state = self.state();
        loop {
            while state.flights.is_empty() && !state.is_closing {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.is_closing {
                return;
            }
            let waited = self.changed.wait_timeout(state, LATE_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let flights: Vec<(u64, Arc<Flight>)> = state
                .flights
                .iter()
                .map(|(number, (_, flight))| (*number, Arc::clone(flight)))
                .collect();
            drop(state);
            let now = Instant::now();
            for (number, flight) in flights {
                if let Some(results) = flight.expire(now) {
                    self.land(number, results);
                }
            }
            state = self.state();
        }
    }

    /// Ends the thread. No message is in flight any more.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closing = true;
        let clock = state.clock.take();
        drop(state);
        self.changed.notify_all();
        if let Some(clock) = clock
            && clock.join().is_err()
        {
            tracing::error!("the thread that gives up late deliveries ended by a panic");
        }
    }
}
