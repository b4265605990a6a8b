//! What became of the mail for one server: totals, and the rate of the last minute.

use mailstow_engine::Status;
use parking_lot::Mutex;
use std::time::Instant;

/// Seconds over which the rate is averaged.
const WINDOW: u64 = 60;
const SECONDS: usize = 60;

/// Counts recipients by what became of them.
#[derive(Debug)]
pub(super) struct Counters {
    begun: Instant,
    counted: Mutex<Counted>,
}

#[derive(Clone, Debug)]
struct Counted {
    totals: Totals,
    /// Second, and recipients that were delivered in it.
    seconds: [(u64, u64); SECONDS],
}

/// Recipients since the server was first needed, and in the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) delivered: u64,
    pub(super) deferred: u64,
    pub(super) refused: u64,
    /// Sessions that were opened.
    pub(super) connections: u64,
    /// Delivered in the last 60 s.
    pub(super) last_minute: u64,
}

impl Counters {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            counted: Mutex::new(Counted {
                totals: Totals::default(),
                seconds: [(0, 0); SECONDS],
            }),
        }
    }

    /// Counts the outcomes of some recipients.
    pub(super) fn count<'a>(&self, outcomes: impl Iterator<Item = &'a Status>, now: Instant) {
        let second = self.second(now);
        let mut counted = self.counted.lock();
        let mut delivered = 0;
        for status in outcomes {
            let total = match (status.is_success(), status.is_permanent()) {
                (true, _) => {
                    delivered += 1;
                    continue;
                }
                (_, true) => &mut counted.totals.refused,
                _ => &mut counted.totals.deferred,
            };
            *total += 1;
        }
        counted.totals.delivered += delivered;
        let slot = usize::try_from(second % WINDOW).unwrap_or(0);
        if let Some((at, count)) = counted.seconds.get_mut(slot) {
            if *at != second {
                (*at, *count) = (second, 0);
            }
            *count += delivered;
        }
    }

    /// Counts a session.
    pub(super) fn connected(&self) {
        self.counted.lock().totals.connections += 1;
    }

    /// Returns what was counted.
    pub(super) fn totals(&self, now: Instant) -> Totals {
        let second = self.second(now);
        let counted = self.counted.lock();
        let recent = counted.seconds.iter();
        let recent = recent.filter(|(at, _)| at + WINDOW > second);
        Totals {
            last_minute: recent.map(|(_, count)| count).sum(),
            ..counted.totals
        }
    }

    /// Seconds from well before the first count.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs() + WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_rate_forgets_what_is_older_than_a_minute() {
        let start = Instant::now();
        let counters = Counters::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let ok = Status::ok("sent");
        counters.count([&ok, &ok, &Status::system("x")].into_iter(), at(0));
        counters.count([&ok, &Status::unknown_user("x")].into_iter(), at(59));
        assert_eq!(counters.totals(at(59)).last_minute, 3);
        assert_eq!(counters.totals(at(60)).last_minute, 1);
        counters.count([&ok].into_iter(), at(119));
        let totals = counters.totals(at(120));
        assert_eq!(totals.last_minute, 1);
        assert_eq!(
            (totals.delivered, totals.deferred, totals.refused),
            (4, 1, 1)
        );
    }
}
