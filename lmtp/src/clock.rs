//! The date, for ids and reports.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the time since the UNIX epoch; zero if the machine's clock stands before it.
pub(crate) fn since_epoch() -> Duration {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.unwrap_or(Duration::ZERO)
}
