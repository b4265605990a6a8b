//! Threads, each of which runs one command at a time.
//!
//! Threads are started when there is work, and end when there has been none for a while.
//! Invariants: no more commands run than the process limit allows; no more deliveries to one
//! destination than its limit allows; at most [`WAITING_MAX`] deliveries wait.

use super::super::{Done, TransportRecipient};
use crate::clock;
use crate::dsn::Disposition;
use crate::envelope::Recipient;
use crate::status::{EnhancedCode, Status};
use crate::sync::{Arc, Condvar, Mutex, wait, wait_timeout};
use crate::thread;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Most deliveries that wait for a thread.
const WAITING_MAX: usize = 4096;

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// Stack of a thread, in bytes. Reading the time zone, for the `From ` line, needs some of it.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Runs a command for recipients.
type Work = dyn FnOnce(&[&Recipient]) -> Status + Send;

/// One run of a command.
pub(super) struct Job {
    /// The destination that the concurrency limit counts.
    pub(super) destination: String,
    pub(super) recipients: Vec<TransportRecipient>,
    pub(super) deadline: Instant,
    pub(super) done: Done,
    /// What a success means for the sender.
    pub(super) disposition: Disposition,
    pub(super) work: Box<Work>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("destination", &self.destination)
            .field("recipients", &self.recipients)
            .finish_non_exhaustive()
    }
}

/// The threads and the waiting jobs.
#[derive(Debug)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    threads_max: usize,
    per_destination_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// How many deliveries run, by destination.
    running: HashMap<String, usize>,
    is_closing: bool,
}

impl Pool {
    /// `per_destination_max` 0: any number.
    pub(super) fn new((threads_max, per_destination_max): (usize, usize)) -> Self {
        Self(Arc::new(Shared {
            threads_max,
            per_destination_max: match per_destination_max {
                0 => usize::MAX,
                most => most,
            },
            state: Mutex::default(),
            changed: Condvar::default(),
        }))
    }

    /// Queues a job; never waits.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.0.state.lock();
        if state.waiting.len() >= WAITING_MAX || state.is_closing {
            drop(state);
            let code = EnhancedCode::new(4, 3, 2);
            let text = "Too many deliveries wait for the command";
            return job.answer(&Status::new(451, code, text));
        }
        state.waiting.push_back(job);
        let is_wanted = state.waiting.len() > state.idle && state.threads < self.0.threads_max;
        if !is_wanted {
            self.0.changed.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.0);
        let thread = thread::spawn_small("mailstow-pipe", STACK_BYTES, move || shared.work());
        if let Err(error) = thread {
            tracing::warn!(%error, "cannot start a thread for a command");
            let mut state = self.0.state.lock();
            state.threads -= 1;
            if state.threads == 0 {
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                for job in waiting {
                    job.answer(&Status::system("the system has no threads left"));
                }
            }
        }
    }

    /// Answers the waiting deliveries, and waits until the running commands have ended.
    pub(super) fn close(&self) {
        let mut state = self.0.state.lock();
        state.is_closing = true;
        let waiting = std::mem::take(&mut state.waiting);
        self.0.changed.notify_all();
        drop(state);
        let code = EnhancedCode::new(4, 3, 2);
        for job in waiting {
            job.answer(&Status::new(451, code, "System is shutting down"));
        }
        let mut state = self.0.state.lock();
        while state.threads > 0 {
            state = wait(&self.0.changed, state);
        }
    }
}

impl Drop for Pool {
    /// Lets the threads end once no job waits.
    fn drop(&mut self) {
        self.0.state.lock().is_closing = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            let destination = job.destination.clone();
            if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
                tracing::error!("a thread that runs commands panicked");
            }
            let mut state = self.state.lock();
            if let Some(count) = state.running.get_mut(&destination) {
                *count -= 1;
                if *count == 0 {
                    state.running.remove(&destination);
                }
            }
            drop(state);
            // Another thread may wait for this destination.
            self.changed.notify_one();
        }
    }

    /// Waits for a job that may run; `None` when the thread is to end.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let idle_until = clock::now() + IDLE;
        loop {
            let at = state.waiting.iter().position(|job| {
                let running = state.running.get(&job.destination);
                running.is_none_or(|running| *running < self.per_destination_max)
            });
            if let Some(job) = at.and_then(|at| state.waiting.remove(at)) {
                *state.running.entry(job.destination.clone()).or_default() += 1;
                return Some(job);
            }
            let left = idle_until.saturating_duration_since(clock::now());
            let is_over = state.is_closing && state.waiting.is_empty();
            if is_over || left.is_zero() {
                state.threads -= 1;
                self.changed.notify_all();
                return None;
            }
            state.idle += 1;
            state = wait_timeout(&self.changed, state, left);
            state.idle -= 1;
        }
    }
}

impl Job {
    fn run(mut self) {
        // Jobs that were given up.
        self.recipients
            .retain(|recipient| self.done.begin(recipient.index));
        if self.recipients.is_empty() {
            return;
        }
        if self.deadline <= clock::now() {
            return self.answer(&Status::system("Too many commands were running"));
        }
        let Self {
            recipients,
            done,
            disposition,
            work,
            ..
        } = self;
        let to: Vec<_> = recipients.iter().map(|one| &one.recipient).collect();
        let status = work(&to);
        for recipient in &recipients {
            done.answer_as(recipient.index, status.clone(), disposition);
        }
    }

    fn answer(&self, status: &Status) {
        for recipient in &self.recipients {
            self.done.answer(recipient.index, status.clone());
        }
    }
}
