//! Group commit: many threads append, one flushes; whatever came while it flushed goes with the
//! next flush. No timer: an idle log flushes at once, a busy one gathers by itself.
//!
//! Invariants: sequences are given out and completed in order; a batch holds everything that waited
//! when it was taken, so the batch after the one being flushed is the one being filled; after a
//! failure nothing more is taken or completed. Items are generic: nothing here knows records.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, wait, wait_timeout};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What an append is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A new promise: waits while too much is in flight or the log is full.
    Content,
    /// What settles promises and lets the log be freed: may use the reserve.
    Bookkeeping,
}

/// How much an append weighs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight {
    pub(crate) class: Class,
    /// Of memory until it is flushed.
    pub(crate) bytes: usize,
    /// Of the log, at most.
    pub(crate) charge: u64,
}

/// A record's place in the order and in the batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTicket {
    pub(super) sequence: u64,
    batch: u64,
}

/// Why an append was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused<E> {
    /// No room in the log.
    Full,
    /// Too much waits for its flush.
    InFlight,
    /// An earlier flush failed.
    Poisoned(E),
    /// No more appends.
    Closed,
}

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) in_flight_bytes_max: usize,
    /// Of the log's room, kept for bookkeeping.
    pub(crate) reserve: u64,
}

#[derive(Debug)]
struct State<T, E> {
    waiting: Vec<(u64, T)>,
    waiting_charge: u64,
    /// Charged for the batch that is being flushed.
    flushing_charge: u64,
    waiting_bytes: usize,
    flushing_bytes: usize,
    /// Bytes of the log that may still be charged.
    room: u64,
    next_sequence: u64,
    /// Number of the batch being filled.
    filling: u64,
    /// Batches up to this one are durable.
    flushed: u64,
    /// Appenders of content waiting for room, in the order they came.
    line: VecDeque<u64>,
    line_next: u64,
    poisoned: Option<E>,
    closed: bool,
}

/// The meeting place of appenders and the log thread.
#[derive(Debug)]
pub(crate) struct GroupCommit<T, E> {
    state: Mutex<State<T, E>>,
    bounds: Bounds,
    /// The log thread waits here for records.
    work: Condvar,
    /// Appenders wait here for room.
    room: Condvar,
    /// A thread that waits for batch N waits at N modulo 2, so that a flush wakes its own batch
    /// only.
    done: [Condvar; 2],
    durable: AtomicU64,
}

impl<T, E: Clone> GroupCommit<T, E> {
    /// The next record gets `next_sequence`; `room` bytes of the log are free.
    pub(crate) fn new(next_sequence: u64, room: u64, bounds: Bounds) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: Vec::new(),
                waiting_charge: 0,
                flushing_charge: 0,
                waiting_bytes: 0,
                flushing_bytes: 0,
                room,
                next_sequence,
                filling: 1,
                flushed: 0,
                line: VecDeque::new(),
                line_next: 0,
                poisoned: None,
                closed: false,
            }),
            bounds,
            work: Condvar::new(),
            room: Condvar::new(),
            done: [Condvar::new(), Condvar::new()],
            durable: AtomicU64::new(next_sequence - 1),
        }
    }

    /// Hands an item to the log thread. Content waits for room until `deadline`; without one it
    /// waits as long as it takes.
    pub(crate) fn append(
        &self,
        item: T,
        weight: Weight,
        deadline: Option<Instant>,
    ) -> Result<RecordTicket, (T, Refused<E>)> {
        let state = match self.admit(weight, deadline) {
            Ok(state) => state,
            Err(refused) => return Err((item, refused)),
        };
        let mut state = state;
        let ticket = RecordTicket {
            sequence: state.next_sequence,
            batch: state.filling,
        };
        debug_assert!(
            state
                .waiting
                .last()
                .is_none_or(|last| last.0 + 1 == ticket.sequence),
            "sequences are given out in order"
        );
        debug_assert!(
            state.room >= weight.charge,
            "there is room for the taken bytes"
        );
        state.next_sequence += 1;
        state.room -= weight.charge;
        state.waiting_charge += weight.charge;
        state.waiting_bytes += weight.bytes;
        state.waiting.push((ticket.sequence, item));
        // The log thread only sleeps when nothing waits.
        let wake = state.waiting.len() == 1;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(ticket)
    }

    fn admit(
        &self,
        weight: Weight,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'_, State<T, E>>, Refused<E>> {
        let mut state = self.state.lock();
        let mut place = None;
        loop {
            if let Some(error) = state.poisoned.clone() {
                return Err(Refused::Poisoned(error));
            }
            if state.closed {
                return Err(Refused::Closed);
            }
            let first = state.line.front().copied() == place;
            let Some(obstacle) = self.obstacle(&state, weight) else {
                // Bookkeeping passes the line: it is what makes room.
                if first || weight.class == Class::Bookkeeping {
                    if place.is_some() {
                        leave(&mut state, place);
                        self.room.notify_all();
                    }
                    return Ok(state);
                }
                state = self.line_up(state, &mut place, deadline, Refused::InFlight)?;
                continue;
            };
            state = self.line_up(state, &mut place, deadline, obstacle)?;
        }
    }

    /// What stands against taking `weight` now.
    fn obstacle(&self, state: &State<T, E>, weight: Weight) -> Option<Refused<E>> {
        if weight.class == Class::Bookkeeping {
            return (state.room < weight.charge).then_some(Refused::Full);
        }
        if state.room < weight.charge.saturating_add(self.bounds.reserve) {
            return Some(Refused::Full);
        }
        let in_flight = state.waiting_bytes + state.flushing_bytes;
        // One record over the bound goes alone; it could never go otherwise.
        let fits = in_flight == 0 || in_flight + weight.bytes <= self.bounds.in_flight_bytes_max;
        (!fits).then_some(Refused::InFlight)
    }

    fn line_up<'a>(
        &self,
        mut state: MutexGuard<'a, State<T, E>>,
        place: &mut Option<u64>,
        deadline: Option<Instant>,
        obstacle: Refused<E>,
    ) -> Result<MutexGuard<'a, State<T, E>>, Refused<E>> {
        if place.is_none() {
            let mine = state.line_next;
            state.line_next += 1;
            state.line.push_back(mine);
            *place = Some(mine);
        }
        let Some(deadline) = deadline else {
            return Ok(wait(&self.room, state));
        };
        let left = deadline.saturating_duration_since(crate::clock::now());
        if left == Duration::ZERO {
            leave(&mut state, *place);
            self.room.notify_all();
            return Err(obstacle);
        }
        Ok(wait_timeout(&self.room, state, left))
    }

    /// The log thread's turn: takes all items that wait, exchanging `batch`, which must be empty.
    /// With `awaits_items` it waits until there are some. False when there are none, and will be
    /// none if it waited.
    pub(crate) fn take(&self, batch: &mut Vec<(u64, T)>, awaits_items: bool) -> bool {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if !awaits_items || state.closed || state.poisoned.is_some() {
                return false;
            }
            state = wait(&self.work, state);
        }
        debug_assert!(batch.is_empty(), "the batch before was written");
        debug_assert_eq!(
            state.filling,
            state.flushed + 1,
            "one batch is flushed at a time"
        );
        std::mem::swap(&mut state.waiting, batch);
        state.flushing_charge = std::mem::take(&mut state.waiting_charge);
        state.flushing_bytes = std::mem::take(&mut state.waiting_bytes);
        state.filling += 1;
        true
    }

    /// The batch taken last is durable up to `sequence` and has used `consumed` bytes of the log.
    pub(crate) fn complete(&self, sequence: u64, consumed: u64) {
        let mut state = self.state.lock();
        debug_assert!(
            consumed <= state.flushing_charge,
            "{consumed} bytes used, {} charged",
            state.flushing_charge
        );
        debug_assert!(state.flushed + 1 < state.filling, "a batch was taken");
        // Relaxed: stored under this lock.
        debug_assert!(
            self.durable.load(Ordering::Relaxed) < sequence,
            "batches are completed in order"
        );
        let unused = std::mem::take(&mut state.flushing_charge).saturating_sub(consumed);
        state.room += unused;
        state.flushing_bytes = 0;
        state.flushed += 1;
        // Release: who reads the watermark may rely on what the log thread did before.
        self.durable.store(sequence, Ordering::Release);
        let flushed = state.flushed;
        let somebody_waits = !state.line.is_empty();
        drop(state);
        self.wake_batch(flushed);
        if somebody_waits {
            self.room.notify_all();
        }
    }

    /// A write or flush failed: reports the failure for records that were never flushed.
    pub(crate) fn poison(&self, error: E) -> Vec<(u64, T)> {
        let mut state = self.state.lock();
        state.poisoned.get_or_insert(error);
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        self.wake_all();
        left
    }

    /// Takes no more; what waits is still flushed.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake_all();
    }

    /// Returns true if it takes no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits until the record is durable.
    pub(crate) fn wait(&self, ticket: RecordTicket) -> Result<(), E> {
        let mut state = self.state.lock();
        loop {
            if state.flushed >= ticket.batch {
                return Ok(());
            }
            if let Some(error) = state.poisoned.clone() {
                return Err(error);
            }
            state = wait(self.batch_condition(ticket.batch), state);
        }
    }

    /// Segments were freed or made.
    pub(crate) fn add_room(&self, bytes: u64) {
        self.state.lock().room += bytes;
        self.room.notify_all();
    }

    /// A segment of so many bytes is to be removed: takes them off, if there is room beyond them
    /// and the reserve.
    pub(crate) fn take_room(&self, bytes: u64) -> bool {
        let mut state = self.state.lock();
        let is_there = state.room >= bytes.saturating_add(self.bounds.reserve);
        if is_there {
            state.room -= bytes;
        }
        is_there
    }

    /// Bytes of the log that may still be charged.
    pub(crate) fn room(&self) -> u64 {
        self.state.lock().room
    }

    /// True while content waits for room in the log or for flushes.
    pub(crate) fn is_held_back(&self) -> bool {
        !self.state.lock().line.is_empty()
    }

    /// Why nothing is taken any more.
    pub(crate) fn poisoned(&self) -> Option<E> {
        self.state.lock().poisoned.clone()
    }

    /// Everything up to this sequence is durable.
    pub(crate) fn durable_up_to(&self) -> u64 {
        // Acquire: pairs with the store after the flush.
        self.durable.load(Ordering::Acquire)
    }

    fn batch_condition(&self, batch: u64) -> &Condvar {
        let [even, odd] = &self.done;
        if batch.is_multiple_of(2) { even } else { odd }
    }

    fn wake_batch(&self, batch: u64) {
        self.batch_condition(batch).notify_all();
    }

    fn wake_all(&self) {
        self.work.notify_all();
        self.room.notify_all();
        self.wake_batch(0);
        self.wake_batch(1);
    }
}

/// Gives a place in the line up.
fn leave<T, E>(state: &mut State<T, E>, place: Option<u64>) {
    debug_assert!(
        state.line.iter().is_sorted_by(|a, b| a < b),
        "the queue is in the order of arrival"
    );
    debug_assert!(
        place.is_some_and(|place| state.line.contains(&place)),
        "only a queued caller leaves the queue"
    );
    state.line.retain(|other| Some(*other) != place);
}
