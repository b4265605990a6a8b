//! The seam for time: everything that asks for the date asks here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the UNIX epoch; zero if the machine's clock stands before it.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}

/// Monotonic time in nanoseconds, in ticks of the kernel, a few milliseconds each; never 0. Costs
/// next to nothing to ask.
pub(crate) fn tick() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec) + 1
}

/// Monotonic time, for deadlines and delays.
pub(crate) fn now() -> Instant {
    Instant::now()
}
