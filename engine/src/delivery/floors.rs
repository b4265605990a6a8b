//! How far back the log is still needed by deliveries under way.
//!
//! Imports `sync`; does no I/O. Invariant: a floor is taken before the first record it covers is
//! appended, from what was durable then, so that it is never above that record; it is given back
//! only when every delivery of these records was published or refused, or is held elsewhere.

use crate::log::Sequence;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use std::collections::BTreeMap;

/// The floors in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Floors(Arc<Mutex<BTreeMap<u64, usize>>>);

/// Records from here on are needed, until it is dropped or lifted.
#[derive(Debug)]
pub(super) struct Floor {
    floors: Floors,
    sequence: u64,
    /// No record may rely on it any more.
    is_closed: AtomicBool,
    is_given_back: AtomicBool,
}

impl Floor {
    fn new(floors: &Floors, sequence: u64) -> Self {
        Self {
            floors: floors.clone(),
            sequence,
            is_closed: AtomicBool::new(false),
            is_given_back: AtomicBool::new(false),
        }
    }

    /// Takes another one at the same record.
    pub(super) fn again(&self) -> Self {
        *self.floors.0.lock().entry(self.sequence).or_default() += 1;
        Self::new(&self.floors, self.sequence)
    }

    /// Has no record rely on it from now on.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Gives it back before it is dropped; nothing may rely on it any more.
    pub(super) fn give_back(&self) {
        if self.is_given_back.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut floors = self.floors.0.lock();
        if let Some(count) = floors.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                floors.remove(&self.sequence);
            }
        }
    }
}

impl Floors {
    /// A floor at the record behind what `durable` says; asked while the floors are locked, so
    /// that no checkpoint can come in between.
    pub(super) fn take(&self, durable: impl FnOnce() -> Sequence) -> Floor {
        let mut floors = self.0.lock();
        let sequence = durable().0 + 1;
        *floors.entry(sequence).or_default() += 1;
        drop(floors);
        Floor::new(self, sequence)
    }

    /// Everything before this was settled.
    pub(super) fn lowest(&self, durable: impl FnOnce() -> Sequence) -> Sequence {
        let floors = self.0.lock();
        let next = durable().0 + 1;
        let lowest = floors.first_key_value().map_or(next, |(first, _)| *first);
        drop(floors);
        Sequence(lowest.min(next))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_needed_until_the_last_of_its_deliveries_is_settled() {
        let floors = Floors::default();
        let first = floors.take(|| Sequence(9));
        let second = floors.take(|| Sequence(9));
        let later = floors.take(|| Sequence(20));
        let lowest = || floors.lowest(|| Sequence(30));
        assert_eq!(lowest(), Sequence(10));
        drop(first);
        assert_eq!(lowest(), Sequence(10));
        drop(second);
        assert_eq!(lowest(), Sequence(21));
        drop(later);
        assert_eq!(lowest(), Sequence(31));
    }
}
