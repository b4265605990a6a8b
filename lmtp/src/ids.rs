//! Short ids of connections and transactions, to find them in the log.
//!
//! Unique within a process, and across restarts as long as a process hands out less than a million
//! a second.

use crate::clock::since_epoch;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hands out ids.
#[derive(Debug)]
pub(crate) struct Ids(AtomicU64);

impl Ids {
    /// Starts at the present microsecond.
    pub(crate) fn new() -> Self {
        let start = u64::try_from(since_epoch().as_micros()).unwrap_or(0);
        Self(AtomicU64::new(start))
    }

    /// The next id: 11 digits and letters of which none looks like another.
    pub(crate) fn next(&self) -> String {
        // Relaxed: only uniqueness matters, no other memory is ordered by it.
        let mut number = self.0.fetch_add(1, Ordering::Relaxed);
        let mut digits = [b'0'; 11];
        for digit in digits.iter_mut().rev() {
            let index = usize::try_from(number % 32).unwrap_or(0);
            *digit = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
                .get(index)
                .copied()
                .unwrap_or(b'0');
            number /= 32;
        }
        String::from_utf8_lossy(&digits).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Ids;

    #[test]
    fn ids_are_short_and_differ() {
        let ids = Ids::new();
        let (first, second) = (ids.next(), ids.next());
        assert_ne!(first, second);
        assert_eq!(first.len(), 11);
    }
}
