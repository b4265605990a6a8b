//! The seam for time: everything that asks for the date asks here.
//!
//! Imports nothing of the engine.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the UNIX epoch; zero if the machine's clock stands before it.
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}

/// Monotonic time, for deadlines and delays.
pub fn now() -> Instant {
    Instant::now()
}
