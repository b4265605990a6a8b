//! The low-water mark: the first record of the log that deliveries in progress still need.
//!
//! Invariant: a mark is taken before the first record it covers is appended, at the newest durable
//! record then, so that it is never above that record; it is given back only when every delivery of
//! these records was published, refused or deferred.

use crate::log::Sequence;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use std::collections::BTreeMap;

/// The marks in use. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub(in crate::delivery) struct Retention(Arc<Mutex<BTreeMap<u64, usize>>>);

/// Keeps the records from this one on in the log until it is dropped or given back.
#[derive(Debug)]
pub(in crate::delivery) struct RetentionMark {
    retention: Retention,
    sequence: u64,
    /// No record may rely on it any more.
    is_closed: AtomicBool,
    is_given_back: AtomicBool,
}

impl RetentionMark {
    fn new(retention: &Retention, sequence: u64) -> Self {
        Self {
            retention: retention.clone(),
            sequence,
            is_closed: AtomicBool::new(false),
            is_given_back: AtomicBool::new(false),
        }
    }

    /// Takes another mark at the same record.
    pub(in crate::delivery) fn again(&self) -> Self {
        debug_assert!(
            !self.is_given_back.load(Ordering::Acquire),
            "a mark that was given back keeps nothing in the log"
        );
        *self.retention.0.lock().entry(self.sequence).or_default() += 1;
        Self::new(&self.retention, self.sequence)
    }

    /// Closes the mark, after which no record relies on it.
    pub(in crate::delivery) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(in crate::delivery) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Gives the mark back before it is dropped; nothing may rely on it any more.
    pub(in crate::delivery) fn give_back(&self) {
        if self.is_given_back.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut marks = self.retention.0.lock();
        debug_assert!(
            marks.get(&self.sequence).is_some_and(|count| *count > 0),
            "a mark keeps its records until it is given back"
        );
        if let Some(count) = marks.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                marks.remove(&self.sequence);
            }
        }
    }
}

impl Retention {
    /// Takes a mark at the record after the one that `durable` returns, which is called while the
    /// marks are locked, so that no checkpoint runs in between.
    pub(in crate::delivery) fn take(&self, durable: impl FnOnce() -> Sequence) -> RetentionMark {
        let mut marks = self.0.lock();
        let sequence = durable().0 + 1;
        *marks.entry(sequence).or_default() += 1;
        drop(marks);
        debug_assert!(sequence > 0, "records are numbered from 1");
        RetentionMark::new(self, sequence)
    }

    /// Returns the low-water mark: every record before it is settled.
    pub(in crate::delivery) fn low_water_mark(
        &self,
        durable: impl FnOnce() -> Sequence,
    ) -> Sequence {
        let marks = self.0.lock();
        let next = durable().0 + 1;
        let lowest = marks.first_key_value().map_or(next, |(first, _)| *first);
        drop(marks);
        Sequence(lowest.min(next))
    }
}

impl Drop for RetentionMark {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_needed_until_the_last_of_its_deliveries_is_settled() {
        let retention = Retention::default();
        let first = retention.take(|| Sequence(9));
        let second = retention.take(|| Sequence(9));
        let later = retention.take(|| Sequence(20));
        let lowest = || retention.low_water_mark(|| Sequence(30));
        assert_eq!(lowest(), Sequence(10));
        drop(first);
        assert_eq!(lowest(), Sequence(10));
        drop(second);
        assert_eq!(lowest(), Sequence(21));
        drop(later);
        assert_eq!(lowest(), Sequence(31));
    }
}
