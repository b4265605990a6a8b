//! The seam for locks and threads: every lock of the engine comes from here, so that a model
//! checker can take their place.
//!
//! Imports nothing of the engine. A lock whose holder panicked is taken over: our critical
//! sections leave their data whole at every step, and refusing all later mail would turn one
//! bug into an outage.

pub use std::sync::Arc;
use std::sync::PoisonError;
pub use std::sync::atomic;
pub use std::sync::{Condvar, MutexGuard, OnceLock};

/// A mutual exclusion lock that does not poison.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A new unlocked lock.
    pub fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits on `condition`, giving up the lock meanwhile.
pub fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition
        .wait(guard)
        .unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condition` for at most `limit`, giving up the lock meanwhile.
pub fn wait_timeout<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: std::time::Duration,
) -> MutexGuard<'a, T> {
    condition
        .wait_timeout(guard, limit)
        .unwrap_or_else(PoisonError::into_inner)
        .0
}
