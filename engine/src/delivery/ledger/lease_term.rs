//! The term of a lease of the log.
//!
//! Invariant: a lease counts from the begin of its term to its end, and never after that.

use crate::sync::atomic::{AtomicBool, Ordering};

/// The term of a lease. Changed only while the log's handle is locked.
#[derive(Debug, Default)]
pub(in crate::delivery) struct LeaseTerm {
    has_begun: AtomicBool,
    is_over: AtomicBool,
}

impl LeaseTerm {
    /// Begins the term; returns false if it was ended before.
    pub(super) fn begin(&self) -> bool {
        let begins = !self.is_over();
        self.has_begun.store(begins, Ordering::Release);
        begins
    }

    /// Ends the term; returns true if the lease counted until now.
    pub(super) fn end(&self) -> bool {
        !self.is_over.swap(true, Ordering::AcqRel) && self.has_begun.load(Ordering::Acquire)
    }

    /// Returns true if it was ended.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}
