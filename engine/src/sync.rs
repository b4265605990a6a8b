//! The seam for locks and threads: every lock of the engine comes from here, so that a model
//! checker can take their place.
//!
//! A lock whose holder panicked is taken over: our critical sections leave their data whole at
//! every step, and refusing all later mail would turn one bug into an outage.

#[cfg(loom)]
use loom::{hint, sync as locks};
#[cfg(not(loom))]
use std::{hint, sync as locks};

use std::sync::{PoisonError, TryLockError};

pub(crate) use hint::spin_loop;
pub(crate) use locks::{Condvar, MutexGuard, RwLockReadGuard, RwLockWriteGuard, atomic};
// Not modelled: loom's Arc cannot hold trait objects, and it has no OnceLock or LazyLock.
pub(crate) use std::sync::{Arc, LazyLock, OnceLock, Weak};

/// A mutual exclusion lock that does not poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(locks::Mutex<T>);

impl<T> Mutex<T> {
    /// A new unlocked lock.
    pub(crate) fn new(value: T) -> Self {
        Self(locks::Mutex::new(value))
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock for many readers or one writer that does not poison.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(locks::RwLock<T>);

impl<T> RwLock<T> {
    /// A new unlocked lock.
    pub(crate) fn new(value: T) -> Self {
        Self(locks::RwLock::new(value))
    }

    /// Reads if no writer holds or awaits the lock; never waits.
    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        match self.0.try_read() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Waits for the lock.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits on `condition`, giving up the lock meanwhile.
pub(crate) fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition
        .wait(guard)
        .unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condition` for at most `limit`, giving up the lock meanwhile.
pub(crate) fn wait_timeout<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: std::time::Duration,
) -> MutexGuard<'a, T> {
    condition
        .wait_timeout(guard, limit)
        .unwrap_or_else(PoisonError::into_inner)
        .0
}
