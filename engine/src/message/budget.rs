//! The memory all messages share.
//!
//! Invariant: the sum of all living shares is what the budget says is used, and never more than its
//! bound.

use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Memory for message contents, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    most: usize,
}

/// Memory taken from a budget; given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            most,
        })
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// An empty share of this budget.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl Share {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows to `bytes` in all; false (and unchanged) when the budget has not that much left.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let most = self.budget.most;
        // Relaxed: the number guards no other memory.
        let taken = self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|sum| *sum <= most)
            });
        if taken.is_ok() {
            self.bytes += more;
        }
        taken.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_back_on_drop_and_never_exceeds_the_budget() {
        let budget = Budget::new(100);
        let mut one = budget.share();
        assert!(one.grow_to(60));
        let mut two = budget.share();
        assert!(!two.grow_to(41));
        assert_eq!(two.bytes(), 0);
        assert!(two.grow_to(40));
        assert!(one.grow_to(10), "a smaller size needs nothing");
        assert_eq!(budget.used(), 100);
        drop(one);
        assert_eq!(budget.used(), 40);
    }
}
