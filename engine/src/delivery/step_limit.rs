//! The time limit of a step in a mailbox.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, wait_timeout};
use std::time::Duration;

/// The limit while the store closes.
const CLOSING: Duration = Duration::from_millis(1500);

/// The time limit of a step, and whether the store closes.
#[derive(Debug)]
pub(super) struct StepLimit {
    limit_ms: AtomicU64,
    is_hurried: AtomicBool,
    is_over: Mutex<bool>,
    ended: Condvar,
}

impl StepLimit {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit_ms: AtomicU64::new(milliseconds(limit)),
            is_hurried: AtomicBool::new(false),
            is_over: Mutex::new(false),
            ended: Condvar::new(),
        }
    }

    pub(super) fn limit(&self) -> Duration {
        // Relaxed: nothing else depends on it.
        Duration::from_millis(self.limit_ms.load(Ordering::Relaxed))
    }

    /// Shortens the limit, because the store is about to close.
    pub(super) fn hurry(&self) {
        let closing = milliseconds(CLOSING);
        self.limit_ms.fetch_min(closing, Ordering::Relaxed);
        self.is_hurried.store(true, Ordering::Relaxed);
    }

    /// Returns true once the store is about to close.
    pub(super) fn is_hurried(&self) -> bool {
        // Relaxed: nothing else depends on it.
        self.is_hurried.load(Ordering::Relaxed)
    }

    /// Notes that the store closes.
    pub(super) fn end(&self) {
        *self.is_over.lock() = true;
        self.ended.notify_all();
    }

    /// Waits for the pause; returns true as soon as the store closes.
    pub(super) fn is_over_after(&self, pause: Duration) -> bool {
        let is_over = self.is_over.lock();
        match *is_over {
            true => true,
            false => *wait_timeout(&self.ended, is_over, pause),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
