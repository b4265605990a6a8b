//! Deliveries waiting for a writer.
//!
//! Imports `sync`, `clock`, `limits`. Holds no I/O, and knows of deliveries only what [`Queued`]
//! says, so that a model checker can run it. Invariants: an mbox is in
//! the hands of one writer at most, and deliveries to it meanwhile wait beside it without
//! occupying a writer, to go out together next time; a delivery takes up room until a writer is
//! done with it, so that one which tries a lock again and again never frees its room in between;
//! whoever waits for room is woken when there is some.

use super::job::Job;
use crate::clock;
use crate::limits::BATCH_BYTES_MAX;
use crate::sync::{Condvar, Mutex, wait, wait_timeout};
use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// What the queue asks of a delivery.
pub(super) trait Queued {
    /// Nobody wants it any more.
    fn is_abandoned(&self) -> bool;
    /// The path of its mailbox, if that is an mbox.
    fn mbox(&self) -> Option<&str>;
    /// A writer begins to work on it.
    fn take(&mut self);
    /// How long its message is.
    fn bytes(&self) -> u64;
}

/// A bounded queue; the bound is kept by those who submit ([`Queue::poll_room`]).
#[derive(Debug)]
pub(super) struct Queue<J = Job> {
    state: Mutex<State<J>>,
    work: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<J> {
    ready: VecDeque<J>,
    /// Waiting for a busy lock, with the time of the next attempt.
    delayed: Vec<(Instant, J)>,
    /// Paths of mboxes in a writer's hands, and what came for them since.
    in_hand: HashMap<String, VecDeque<J>>,
    /// Deliveries beside mboxes in hand.
    parked: usize,
    /// Deliveries in the hands of writers.
    taken: usize,
    closing: bool,
    /// Writers that wait for work.
    asleep: usize,
    /// One of them was woken and is on its way.
    is_waking: bool,
    waiting_for_room: Vec<Waker>,
}

/// What one writer takes at once.
#[derive(Debug)]
pub(super) struct Batch<J = Job> {
    pub(super) jobs: Vec<J>,
    /// What to give back with [`Queue::give_back`] when the writer is done.
    pub(super) hold: Hold,
}

/// What a batch occupies: room in the queue, and the mboxes that are in the writer's hands.
#[derive(Debug, Default)]
pub(super) struct Hold {
    jobs: usize,
    mboxes: Vec<String>,
}

impl<J: Queued> Queue<J> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                delayed: Vec::new(),
                in_hand: HashMap::new(),
                parked: 0,
                taken: 0,
                closing: false,
                asleep: 0,
                is_waking: false,
                waiting_for_room: Vec::new(),
            }),
            work: Condvar::new(),
            capacity,
        }
    }

    /// Adds deliveries, whether there is room or not.
    pub(super) fn push(&self, jobs: impl Iterator<Item = J>) {
        let mut state = self.state.lock();
        state.ready.extend(jobs);
        let is_wanted = state.wake_one();
        drop(state);
        if is_wanted {
            self.work.notify_one();
        }
    }

    /// A delivery whose mailbox was busy waits until `due`.
    pub(super) fn push_delayed(&self, due: Instant, job: J) {
        let mut state = self.state.lock();
        state.delayed.push((due, job));
        // Another writer may sleep past that time.
        let is_wanted = state.wake_one();
        drop(state);
        if is_wanted {
            self.work.notify_one();
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.state.lock().occupied() < self.capacity
    }

    /// Ready when there is room; else the task is woken when there may be.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.occupied() < self.capacity {
            return Poll::Ready(());
        }
        let waker = context.waker();
        let is_known = |known: &Waker| known.will_wake(waker);
        if !state.waiting_for_room.iter().any(is_known) {
            state.waiting_for_room.push(waker.clone());
        }
        Poll::Pending
    }

    /// No more deliveries will come; writers end when all are done.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_all();
    }

    /// Waits for work and takes up to `most` deliveries; `None` when closed and empty.
    pub(super) fn take(&self, most: usize) -> Option<Batch<J>> {
        let mut batch = Batch {
            jobs: Vec::new(),
            hold: Hold::default(),
        };
        let mut abandoned = Vec::new();
        let mut state = self.state.lock();
        let wakers = loop {
            let next_due = state.wake_delayed();
            state.fill(most.max(1), &mut batch, &mut abandoned);
            if !batch.jobs.is_empty() {
                break state.wakers_if_room(self.capacity);
            }
            if !abandoned.is_empty() {
                let wakers = state.wakers_if_room(self.capacity);
                drop(state);
                abandoned.clear();
                wakers.into_iter().for_each(Waker::wake);
                state = self.state.lock();
                continue;
            }
            if state.closing && state.is_done() {
                return None;
            }
            state.asleep += 1;
            state = match next_due {
                Some(due) => {
                    let pause = due.saturating_duration_since(clock::now());
                    wait_timeout(&self.work, state, pause)
                }
                None => wait(&self.work, state),
            };
            state.asleep -= 1;
            state.is_waking = false;
        };
        let is_more = !state.ready.is_empty() && state.wake_one();
        drop(state);
        if is_more {
            self.work.notify_one();
        }
        wakers.into_iter().for_each(Waker::wake);
        Some(batch)
    }

    /// A writer is done with a batch: its room and its mboxes are free again, and what waited
    /// beside these goes first.
    pub(super) fn give_back(&self, hold: Hold) {
        let mut state = self.state.lock();
        state.taken -= hold.jobs;
        for path in hold.mboxes {
            let parked = state.in_hand.remove(&path).unwrap_or_default();
            state.parked -= parked.len();
            for job in parked.into_iter().rev() {
                state.ready.push_front(job);
            }
        }
        let is_end = state.closing && state.is_done();
        let wakers = state.wakers_if_room(self.capacity);
        drop(state);
        // Nobody is woken for what was parked: this writer takes next.
        if is_end {
            self.work.notify_all();
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<J: Queued> State<J> {
    /// True when a writer is to be woken. One that is on its way takes everything that comes
    /// before it has the lock, which makes batches larger and saves the others their wakes.
    fn wake_one(&mut self) -> bool {
        let is_wanted = !self.is_waking && self.asleep > 0;
        self.is_waking |= is_wanted;
        is_wanted
    }

    fn waiting(&self) -> usize {
        self.ready.len() + self.delayed.len() + self.parked
    }

    /// The room that is taken up.
    fn occupied(&self) -> usize {
        self.waiting() + self.taken
    }

    /// True when nothing waits, and no writer can give anything back any more.
    fn is_done(&self) -> bool {
        self.waiting() == 0 && self.in_hand.is_empty()
    }

    /// Makes ready what is due; the time of the next that is not.
    fn wake_delayed(&mut self) -> Option<Instant> {
        if self.delayed.is_empty() {
            return None;
        }
        let now = clock::now();
        let (due, later) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|(due, job)| *due <= now || job.is_abandoned());
        self.delayed = later;
        let due: Vec<(Instant, J)> = due;
        for (_, job) in due.into_iter().rev() {
            self.ready.push_front(job);
        }
        self.delayed.iter().map(|(due, _)| *due).min()
    }

    /// Moves deliveries into the batch; abandoned ones aside, to be dropped without the lock.
    fn fill(&mut self, most: usize, batch: &mut Batch<J>, abandoned: &mut Vec<J>) {
        let mut bytes = 0;
        while batch.jobs.len() < most && bytes < BATCH_BYTES_MAX {
            let Some(mut job) = self.ready.pop_front() else {
                break;
            };
            if job.is_abandoned() {
                abandoned.push(job);
                continue;
            }
            if let Some(path) = job.mbox()
                && !batch.hold.mboxes.iter().any(|held| held == path)
            {
                if let Some(parked) = self.in_hand.get_mut(path) {
                    parked.push_back(job);
                    self.parked += 1;
                    continue;
                }
                self.in_hand.insert(path.to_owned(), VecDeque::new());
                batch.hold.mboxes.push(path.to_owned());
            }
            job.take();
            bytes += job.bytes();
            batch.jobs.push(job);
        }
        batch.hold.jobs = batch.jobs.len();
        self.taken += batch.jobs.len();
    }

    fn wakers_if_room(&mut self, capacity: usize) -> Vec<Waker> {
        if self.occupied() < capacity {
            std::mem::take(&mut self.waiting_for_room)
        } else {
            Vec::new()
        }
    }
}
