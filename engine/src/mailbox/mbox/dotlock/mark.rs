//! What tells our lock files from those of other programs, and a lock in use from one left behind.

use crate::clock;
// Not the seam: the model checker's atomics cannot be statics.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The bit of the mode that marks our lock files.
pub(super) const OUR_MARK: u32 = 0o1000;

/// Tells the helper names of this process apart.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// What tells a lock that is in use from one that was left behind.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct StalePolicy<'a> {
    /// `store.host`
    pub(in super::super) host: &'a str,
    /// `stale_lock_time`
    pub(in super::super) stale_age: Duration,
}

/// Returns a name beside `lock` that nothing else has.
pub(super) fn helper_name(lock: &str) -> String {
    // Relaxed: only the numbers must differ.
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let now = clock::since_epoch().as_micros();
    format!("{lock}.{now}.{}.{sequence}", std::process::id())
}
