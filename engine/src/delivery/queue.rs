//! Deliveries waiting for a writer.
//!
//! Does no I/O, and knows deliveries only as [`Queued`], so that a model checker can run it.
//! [`Waiting`] decides the order; this file suspends and wakes writers.
//!
//! As few writers as possible are busy: a writer that finishes a batch takes all deliveries that
//! arrived meanwhile, and large batches need far fewer flushes and thread switches than small ones.
//! Another writer is woken when more than [`WAITING_MAX`] deliveries wait, when a writer reports
//! that its batch takes long, and when no writer has come back for [`WAKE_AFTER`]. Invariant: while
//! a delivery waits for a busy writer and another writer sleeps, one sleeping writer watches.
//! delivery waits for a busy writer and another writer sleeps, one sleeping writer watches.

mod fair;
mod taken;
mod waiting;

use super::capacity::Capacity;
use crate::clock;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, wait, wait_timeout};
use std::time::Duration;
pub(super) use taken::{Hold, Queued, Taken};
use waiting::{LeftOut, Waiting};

/// Deliveries that may wait for a busy writer before another is woken. Measured with 64 sessions on
/// two processors: with 0 and with 24 there were fewer messages a second, in Maildirs and mboxes.
const WAITING_MAX: usize = 12;
/// How long they wait before another writer takes them.
const WAKE_AFTER: Duration = Duration::from_millis(10);

/// A queue of deliveries to one file system.
#[derive(Debug)]
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    work: Condvar,
    capacity: Arc<Capacity>,
    /// Most deliveries in a batch.
    batch: usize,
}

#[derive(Debug)]
struct State<J> {
    waiting: Waiting<J>,
    /// Batches of writers that will soon be back for more.
    batches: usize,
    /// Batches taken so far.
    takes: u64,
    /// A sleeping writer checks periodically whether the others come back.
    is_watched: bool,
    /// A writer was woken to watch, and does not watch yet.
    is_watch_wanted: bool,
    closing: bool,
    /// Writers that wait for work.
    asleep: usize,
    /// One of them was woken and does not run yet.
    is_waking: bool,
    /// Mboxes of writers that were given up.
    given_up: usize,
}

impl<J: Queued> Queue<J> {
    /// Creates a queue whose writers take up to `batch` deliveries at once.
    pub(super) fn new(capacity: Arc<Capacity>, batch: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: Waiting::new(Arc::clone(&capacity)),
                batches: 0,
                takes: 0,
                is_watched: false,
                is_watch_wanted: false,
                closing: false,
                asleep: 0,
                is_waking: false,
                given_up: 0,
            }),
            work: Condvar::new(),
            capacity,
            batch: batch.max(1),
        }
    }

    /// Adds deliveries, even past the capacity.
    pub(super) fn push(&self, jobs: impl Iterator<Item = J>) {
        let mut state = self.state.lock();
        let count = state.waiting.push(jobs);
        self.capacity.take(count);
        let is_much = state.batches == 0 || state.waiting.ready() > WAITING_MAX;
        let is_wanted = match is_much {
            true => state.wake_one(),
            false => state.wake_watcher(),
        };
        drop(state);
        if is_wanted {
            self.work.notify_one();
        }
    }

    /// Parks deliveries to an mbox whose lock another program holds, and all others for that mbox,
    /// until the lock is tried again. The caller works on the mbox. Returns those that must be
    /// refused: they and others have waited for `lock_wait`, are abandoned, or exceed the capacity.
    pub(super) fn lock_is_held(
        &self,
        jobs: Vec<J>,
        lock: &'static str,
        lock_wait: Duration,
    ) -> Vec<J> {
        let mut state = self.state.lock();
        let when = (clock::now(), lock_wait);
        let (over, freed) = state.waiting.lock_is_held(jobs, lock, when);
        drop(state);
        self.capacity.give_back(freed);
        over
    }

    /// Takes out all waiting deliveries: no writer will take them.
    pub(super) fn take_out(&self) -> Vec<J> {
        let mut state = self.state.lock();
        let taken_out = state.waiting.take_out();
        self.took_out(state, taken_out)
    }

    /// Gives up on so many mboxes, because their writer does not come back.
    pub(super) fn give_up(&self, mboxes: usize) {
        self.state.lock().given_up += mboxes;
    }

    /// Takes out the deliveries to mboxes that were given up, also those that arrived since.
    pub(super) fn take_out_of(&self, mboxes: &[&str]) -> Vec<J> {
        let mut state = self.state.lock();
        let taken_out = state.waiting.take_out_of(mboxes);
        self.took_out(state, taken_out)
    }

    fn took_out(&self, state: MutexGuard<'_, State<J>>, (jobs, freed): (Vec<J>, usize)) -> Vec<J> {
        let is_end = state.closing && state.is_done();
        drop(state);
        if is_end {
            self.work.notify_all();
        }
        self.capacity.give_back(freed);
        jobs
    }

    /// Closes the queue: no more deliveries will come, and writers end when all are done.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_all();
    }

    /// Returns how many batches writers have that will soon be back.
    #[cfg(test)]
    pub(super) fn batches(&self) -> usize {
        self.state.lock().batches
    }

    /// Waits for work and takes a batch of it; `None` when closed and empty.
    pub(super) fn take(&self) -> Option<Taken<J>> {
        self.take_or(|state| {
            let is_over = state.closing && state.is_done();
            (!is_over).then(|| self.sleep(state))
        })
    }

    /// Takes a batch of the deliveries that wait now.
    pub(super) fn take_waiting(&self) -> Option<Taken<J>> {
        self.take_or(|_| None)
    }

    /// Takes a batch; without work, calls `idle`, which returns `None` to stop.
    fn take_or<'a>(
        &'a self,
        idle: impl Fn(MutexGuard<'a, State<J>>) -> Option<MutexGuard<'a, State<J>>>,
    ) -> Option<Taken<J>> {
        let mut batch = Taken::default();
        let mut left_out = LeftOut::default();
        let mut state = self.state.lock();
        loop {
            state.fill(self.batch, &mut batch, &mut left_out);
            if !batch.jobs.is_empty() {
                break;
            }
            if !left_out.is_empty() {
                let is_end = state.closing && state.is_done();
                drop(state);
                if is_end {
                    self.work.notify_all();
                }
                std::mem::take(&mut left_out).settle(&self.capacity);
                state = self.state.lock();
                continue;
            }
            state = idle(state)?;
        }
        let is_wanted = match state.waiting.has_work() {
            true => state.wake_one(),
            // This writer may have been the only one that knew when they are due.
            false => state.waiting.next_due().is_some() && state.wake_watcher(),
        };
        drop(state);
        if is_wanted {
            self.work.notify_one();
        }
        left_out.settle(&self.capacity);
        Some(batch)
    }

    /// Sleeps until there may be work for this writer.
    fn sleep<'a>(&'a self, mut state: MutexGuard<'a, State<J>>) -> MutexGuard<'a, State<J>> {
        loop {
            let now = clock::now();
            let next_due = state.waiting.next_due();
            let is_wanted = std::mem::take(&mut state.is_watch_wanted);
            let watches = is_wanted || state.batches > 0 && !state.is_watched;
            let takes = state.takes;
            let until = next_due
                .into_iter()
                .chain(watches.then(|| now + WAKE_AFTER))
                .min();
            state.asleep += 1;
            state.is_watched |= watches;
            state = match until {
                Some(until) => {
                    let pause = until.saturating_duration_since(now);
                    wait_timeout(&self.work, state, pause)
                }
                None => wait(&self.work, state),
            };
            state.asleep -= 1;
            if watches {
                state.is_watched = false;
            }
            let is_called = std::mem::take(&mut state.is_waking);
            let is_due = next_due.is_some_and(|due| due <= clock::now());
            let is_stuck = state.batches == 0 || watches && state.takes == takes;
            if is_called || is_due || is_stuck || state.closing {
                return state;
            }
        }
    }

    /// Leaves new deliveries to other writers, because a writer will not soon be done with a batch.
    /// Called once for a batch.
    pub(super) fn leave_to_others(&self) {
        let mut state = self.state.lock();
        state.batches -= 1;
        let is_wanted = state.waiting.has_work() && state.wake_one();
        drop(state);
        if is_wanted {
            self.work.notify_one();
        }
    }

    /// Frees the capacity and the mboxes of a batch that a writer is done with. Deliveries that
    /// waited for these mboxes become available.
    pub(super) fn give_back(&self, hold: Hold) {
        let mut state = self.state.lock();
        if hold.is_given_up {
            state.given_up -= hold.mboxes.len();
        }
        if !hold.is_left_to_others {
            state.batches -= 1;
        }
        state.waiting.give_back(hold.mboxes);
        let is_end = state.closing && state.is_done();
        // This writer takes the waiting deliveries next, and knows when the next lock is to be
        // tried, unless it has another batch to finish.
        let is_left = state.waiting.has_work() || state.waiting.next_due().is_some();
        let is_wanted = is_left && state.wake_watcher();
        drop(state);
        if is_end {
            self.work.notify_all();
        } else if is_wanted {
            self.work.notify_one();
        }
        self.capacity.give_back(hold.jobs);
    }
}

impl<J: Queued> State<J> {
    /// Returns true when a writer is to be woken. A woken writer takes everything that arrives
    /// before it has the lock, which makes batches larger and saves wakes of other writers.
    fn wake_one(&mut self) -> bool {
        let is_wanted = !self.is_waking && self.asleep > 0;
        self.is_waking |= is_wanted;
        is_wanted
    }

    /// Returns true when a writer is to be woken to watch whether the others come back. A writer
    /// that went to sleep while all were idle does not watch.
    fn wake_watcher(&mut self) -> bool {
        let is_wanted = !self.is_watched && !self.is_waking && self.asleep > 0;
        self.is_watched |= is_wanted;
        self.is_watch_wanted |= is_wanted;
        is_wanted
    }

    /// Returns true when nothing waits, and no writer can give back any mbox.
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.waiting.taken_mboxes() <= self.given_up
    }

    /// Moves deliveries into the batch, and those that are not to be made into `left_out`, which
    /// the caller handles without the lock.
    fn fill(&mut self, most: usize, batch: &mut Taken<J>, left_out: &mut LeftOut<J>) {
        if self.waiting.next_due().is_some() {
            let when = (clock::now(), most);
            self.waiting.fill_attempt(when, batch, left_out);
        }
        self.waiting.fill(most, batch, left_out);
        if !batch.jobs.is_empty() {
            self.batches += 1;
            self.takes += 1;
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
