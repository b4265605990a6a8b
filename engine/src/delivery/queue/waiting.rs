//! The deliveries that wait for a writer, and their order.
//!
//! Takes no lock and reads no clock, so that tests control time. Deliveries wait with their mbox
//! while a writer works on it, or another program holds its lock. Such mboxes take turns with each
//! other and with all other deliveries for places in a batch. Invariants: at most one writer works
//! on an mbox; deliveries that wait for a lock use no capacity of others; attempts to take a lock
//! are few, however many are held, and no mbox is tried twice before all others that are due.

use super::super::capacity::Capacity;
use super::fair::FairQueue;
use super::taken::{Queued, Taken};
use crate::limits::BATCH_BYTES_MAX;
use crate::sync::Arc;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Pause between two attempts to take locks that another program held before, for all mboxes of a
/// file system: an attempt takes about a hundredth of that.
pub(super) const ATTEMPT_PAUSE: Duration = Duration::from_millis(4);
/// First pause before a lock is tried again; it doubles up to the longest.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(100);

/// The deliveries that wait.
#[derive(Debug)]
pub(super) struct Waiting<J> {
    /// Deliveries that were not assigned to an mbox yet.
    ready: FairQueue<J>,
    mboxes: HashMap<Arc<str>, Mbox<J>>,
    turns: VecDeque<Turn>,
    /// Mboxes with the times at which their locks are tried again.
    due: BTreeSet<(Instant, Arc<str>)>,
    /// No lock is tried again before this.
    next_attempt: Option<Instant>,
    /// How many deliveries wait for mboxes.
    beside: usize,
    /// How many mboxes writers work on.
    taken_mboxes: usize,
    capacity: Arc<Capacity>,
}

/// What gets places in a batch next.
#[derive(Debug)]
enum Turn {
    /// Deliveries that were not assigned yet.
    Ready,
    /// Deliveries that wait for an mbox.
    Mbox(Arc<str>),
}

/// An mbox that a writer works on, or that deliveries wait for.
#[derive(Debug)]
struct Mbox<J> {
    waiting: VecDeque<J>,
    is_taken: bool,
    locked: Option<Locked>,
    /// Its parked deliveries, while it is locked.
    parked: usize,
}

/// Another program holds its lock.
#[derive(Debug)]
struct Locked {
    since: Instant,
    lock: &'static str,
    attempts: u32,
    due: Instant,
    /// A writer is about to try it.
    is_tried: bool,
}

/// Deliveries that a writer does not get; handled without the lock of the queue.
#[derive(Debug)]
pub(super) struct LeftOut<J> {
    abandoned: Vec<J>,
    /// Deliveries that exceed the capacity for a lock, with that lock.
    refused: Vec<(J, &'static str)>,
    /// How many places became free.
    freed: usize,
}

impl<J> Default for LeftOut<J> {
    fn default() -> Self {
        Self {
            abandoned: Vec::new(),
            refused: Vec::new(),
            freed: 0,
        }
    }
}

impl<J: Queued> LeftOut<J> {
    pub(super) fn is_empty(&self) -> bool {
        self.freed == 0 && self.abandoned.is_empty() && self.refused.is_empty()
    }

    /// Frees the capacity, and answers the deliveries that are refused.
    pub(super) fn settle(self, capacity: &Capacity) {
        if self.freed > 0 {
            capacity.give_back(self.freed);
        }
        for (job, lock) in self.refused {
            job.refuse(lock);
        }
    }
}

impl<J: Queued> Taken<J> {
    fn holds(&self, path: &str) -> bool {
        self.hold.mboxes.iter().any(|held| **held == *path)
    }

    fn has_place(&self, most: usize) -> bool {
        self.hold.places < most && self.hold.bytes < BATCH_BYTES_MAX
    }

    fn add(&mut self, mut job: J) {
        job.take();
        self.hold.bytes += job.bytes();
        self.hold.places += 1;
        self.hold.jobs += 1;
        self.jobs.push(job);
    }
}

impl<J: Queued> Waiting<J> {
    pub(super) fn new(capacity: Arc<Capacity>) -> Self {
        Self {
            ready: FairQueue::new(),
            mboxes: HashMap::new(),
            turns: VecDeque::from([Turn::Ready]),
            due: BTreeSet::new(),
            next_attempt: None,
            beside: 0,
            taken_mboxes: 0,
            capacity,
        }
    }

    /// Adds deliveries, whose capacity is taken.
    pub(super) fn push(&mut self, jobs: impl Iterator<Item = J>) -> usize {
        let before = self.ready.len();
        jobs.for_each(|job| self.ready.push(job));
        self.ready.len() - before
    }

    /// Returns how many are not assigned yet.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Returns true if a writer may take something now.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.turns.len() > 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.beside == 0
    }

    /// Returns how many mboxes writers work on.
    pub(super) fn taken_mboxes(&self) -> usize {
        self.taken_mboxes
    }

    /// Returns when a lock is tried again; `None` while none is waited for.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let (due, _) = self.due.first()?;
        Some(self.next_attempt.map_or(*due, |next| next.max(*due)))
    }

    /// Moves the deliveries that wait for a lock into the batch, if a lock is due to be tried. They
    /// take up one place, however many they are.
    pub(super) fn fill_attempt(
        &mut self,
        (now, most): (Instant, usize),
        batch: &mut Taken<J>,
        left_out: &mut LeftOut<J>,
    ) {
        if self.next_due().is_none_or(|due| due > now) {
            return;
        }
        let Some((_, path)) = self.due.pop_first() else {
            return;
        };
        let Some(mbox) = self.mboxes.get_mut(&path) else {
            return;
        };
        self.next_attempt = Some(now + ATTEMPT_PAUSE);
        self.beside -= mbox.move_to(batch, left_out, most);
        if batch.jobs.is_empty() {
            self.remove(&path);
            return;
        }
        // Reserves places for deliveries that fail to get the lock.
        self.capacity.take(batch.jobs.len());
        batch.hold.places = 1;
        mbox.is_taken = true;
        if let Some(locked) = &mut mbox.locked {
            locked.is_tried = true;
        }
        self.taken_mboxes += 1;
        batch.hold.mboxes.push(path);
    }

    /// Moves deliveries into the batch. Each mbox gets a share of the places in turn; then the
    /// remaining places go to mboxes that still have deliveries.
    pub(super) fn fill(&mut self, most: usize, batch: &mut Taken<J>, left_out: &mut LeftOut<J>) {
        let claimants = self.turns.len();
        let share = (most / claimants.max(1)).max(1);
        for _ in 0..claimants {
            if !batch.has_place(most) {
                return;
            }
            let places = most.min(batch.hold.places + share);
            match self.turns.pop_front() {
                Some(Turn::Ready) => {
                    self.turns.push_back(Turn::Ready);
                    self.fill_from_ready(places, batch, left_out);
                }
                Some(Turn::Mbox(path)) => self.fill_from_mbox(path, places, batch, left_out),
                None => {}
            }
        }
        if claimants > 1 {
            self.fill_from_ready(most, batch, left_out);
        }
        self.fill_from_held(most, batch, left_out);
    }

    fn fill_from_ready(&mut self, most: usize, batch: &mut Taken<J>, left_out: &mut LeftOut<J>) {
        while batch.has_place(most)
            && let Some(job) = self.ready.pop()
        {
            if job.is_abandoned() {
                left_out.abandoned.push(job);
                left_out.freed += 1;
                continue;
            }
            let Some(path) = job.mbox() else {
                batch.add(job);
                continue;
            };
            let is_held = batch.holds(path);
            if is_held && self.beside == 0 {
                batch.add(job);
                continue;
            }
            match self.mboxes.get_mut(path) {
                // In the order of arrival.
                Some(mbox) if is_held && mbox.waiting.is_empty() => batch.add(job),
                Some(mbox) => {
                    if let Some(locked) = &mbox.locked {
                        left_out.freed += 1;
                        let is_full = mbox.parked >= self.capacity.parked_per_mbox();
                        if is_full || self.capacity.park(1) == 0 {
                            left_out.refused.push((job, locked.lock));
                            continue;
                        }
                        mbox.parked += 1;
                    }
                    mbox.waiting.push_back(job);
                    self.beside += 1;
                }
                None => {
                    let path: Arc<str> = path.into();
                    batch.hold.mboxes.push(Arc::clone(&path));
                    self.mboxes.insert(path, Mbox::taken_mboxes());
                    self.taken_mboxes += 1;
                    batch.add(job);
                }
            }
        }
    }

    /// Assigns an mbox to the writer, with the deliveries that wait for it.
    fn fill_from_mbox(
        &mut self,
        path: Arc<str>,
        most: usize,
        batch: &mut Taken<J>,
        left_out: &mut LeftOut<J>,
    ) {
        let before = batch.jobs.len();
        let Some(mbox) = self.mboxes.get_mut(&path) else {
            return;
        };
        self.beside -= mbox.move_to(batch, left_out, most);
        if batch.jobs.len() > before {
            mbox.is_taken = true;
            self.taken_mboxes += 1;
            batch.hold.mboxes.push(path);
        } else if mbox.waiting.is_empty() {
            self.remove(&path);
        } else {
            self.turns.push_back(Turn::Mbox(path));
        }
    }

    /// Moves more of the deliveries for mboxes that the batch holds.
    fn fill_from_held(&mut self, most: usize, batch: &mut Taken<J>, left_out: &mut LeftOut<J>) {
        let mut at = 0;
        while self.beside > 0
            && batch.has_place(most)
            && let Some(path) = batch.hold.mboxes.get(at)
        {
            // Deliveries that wait for a lock have no place in this batch.
            if let Some(mbox) = self.mboxes.get_mut(path)
                && mbox.locked.is_none()
            {
                self.beside -= mbox.move_to(batch, left_out, most);
            }
            at += 1;
        }
    }

    /// Parks deliveries to an mbox whose lock another program holds, and that a writer works on,
    /// until the next attempt. Returns the deliveries that are not parked (abandoned, too old, or
    /// exceeding the capacity), and how much capacity became free.
    pub(super) fn lock_is_held(
        &mut self,
        jobs: Vec<J>,
        lock: &'static str,
        (now, lock_wait): (Instant, Duration),
    ) -> (Vec<J>, usize) {
        let path = jobs.first().and_then(J::mbox);
        let Some(mbox) = path.and_then(|path| self.mboxes.get_mut(path)) else {
            return (jobs, 0);
        };
        let freed = match mbox.locked {
            Some(_) => 0,
            None => mbox.waiting.len(),
        };
        self.beside -= mbox.waiting.len();
        let (since, attempts) = match &mbox.locked {
            Some(locked) => (locked.since, locked.attempts),
            None => (now, 0),
        };
        let left = |job: &J| {
            let waited = now.saturating_duration_since(job.submitted().max(since));
            lock_wait.saturating_sub(waited)
        };
        let (mut waiting, mut over) = (VecDeque::new(), Vec::new());
        for job in jobs.into_iter().chain(mbox.waiting.drain(..)) {
            match left(&job).is_zero() || job.is_abandoned() {
                true => over.push(job),
                false => waiting.push_back(job),
            }
        }
        let wanted = waiting.len().min(self.capacity.parked_per_mbox());
        mbox.parked = match wanted.checked_sub(mbox.parked) {
            Some(more) => mbox.parked + self.capacity.park(more),
            None => {
                self.capacity.unpark(mbox.parked - wanted);
                wanted
            }
        };
        over.extend(waiting.drain(mbox.parked..));
        let pause = LOCK_PAUSE.saturating_mul(1 << attempts.min(4));
        let least = waiting.iter().map(left).min();
        let pause = pause.min(LOCK_PAUSE_MAX).min(least.unwrap_or(pause));
        mbox.locked = Some(Locked {
            since,
            lock,
            attempts: attempts.saturating_add(1),
            due: now + pause,
            is_tried: false,
        });
        self.beside += waiting.len();
        mbox.waiting = waiting;
        (over, freed)
    }

    /// Frees mboxes that a writer is done with.
    pub(super) fn give_back(&mut self, paths: Vec<Arc<str>>) {
        for path in paths {
            let Some(mbox) = self.mboxes.get_mut(&path) else {
                continue;
            };
            self.taken_mboxes -= 1;
            mbox.is_taken = false;
            if mbox.waiting.is_empty() {
                self.remove(&path);
                continue;
            }
            match &mbox.locked {
                Some(locked) if !locked.is_tried => {
                    self.due.insert((locked.due, path));
                    continue;
                }
                // The lock was free, and others may be free by now.
                Some(_) => {
                    self.next_attempt = None;
                    self.capacity.take(mbox.waiting.len());
                    self.capacity.unpark(std::mem::take(&mut mbox.parked));
                    mbox.locked = None;
                }
                None => {}
            }
            self.turns.push_back(Turn::Mbox(path));
        }
    }

    /// Forgets an mbox without waiting deliveries.
    fn remove(&mut self, path: &str) {
        if let Some(mbox) = self.mboxes.remove(path) {
            self.capacity.unpark(mbox.parked);
        }
    }

    /// Takes out all deliveries. Returns how many places became free, too.
    pub(super) fn take_out(&mut self) -> (Vec<J>, usize) {
        let mut jobs: Vec<J> = std::iter::from_fn(|| self.ready.pop()).collect();
        let mut freed = jobs.len();
        for mbox in self.mboxes.values_mut() {
            freed += mbox.take_out(&self.capacity, &mut jobs);
        }
        self.mboxes.retain(|_, mbox| mbox.is_taken);
        self.turns = VecDeque::from([Turn::Ready]);
        self.due.clear();
        self.beside = 0;
        (jobs, freed)
    }

    /// Takes out the deliveries to these mboxes, which a writer works on.
    pub(super) fn take_out_of(&mut self, paths: &[&str]) -> (Vec<J>, usize) {
        let mut jobs = Vec::new();
        let mut freed = 0;
        for path in paths {
            if let Some(mbox) = self.mboxes.get_mut(*path)
                && mbox.is_taken
            {
                freed += mbox.take_out(&self.capacity, &mut jobs);
            }
        }
        self.beside -= jobs.len();
        (jobs, freed)
    }
}

impl<J> Mbox<J> {
    fn taken_mboxes() -> Self {
        Self {
            waiting: VecDeque::new(),
            is_taken: true,
            locked: None,
            parked: 0,
        }
    }

    /// Moves waiting deliveries while the batch has places; returns how many were abandoned.
    fn move_to(&mut self, batch: &mut Taken<J>, left_out: &mut LeftOut<J>, most: usize) -> usize
    where
        J: Queued,
    {
        let before = self.waiting.len();
        while batch.has_place(most)
            && let Some(job) = self.waiting.pop_front()
        {
            match job.is_abandoned() {
                true => {
                    left_out.abandoned.push(job);
                    // Deliveries that wait for a lock are parked.
                    left_out.freed += usize::from(self.locked.is_none());
                }
                false => batch.add(job),
            }
        }
        before - self.waiting.len()
    }

    /// Takes out all deliveries; returns how many places became free.
    fn take_out(&mut self, capacity: &Capacity, jobs: &mut Vec<J>) -> usize {
        let count = self.waiting.len();
        jobs.extend(self.waiting.drain(..));
        capacity.unpark(std::mem::take(&mut self.parked));
        match self.locked {
            Some(_) => 0,
            None => count,
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
