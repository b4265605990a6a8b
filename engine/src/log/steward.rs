//! Keeps spare segments ready, on a thread of its own.
//!
//! Imports `segments`, `sync`, `clock`. A full disk only keeps the log from growing; any other
//! failure ends the thread and poisons the log.

use super::error::LogError;
use super::medium::{Haste, LogMedium};
use super::segments::{Prepared, Segments};
use super::writer::{DISK_FULL_RETRY, SPARES_MIN, SPARES_WANTED};
use crate::clock;
use crate::sync::{Condvar, Mutex, wait, wait_timeout};
use std::time::Duration;

/// How long a delivery waits for space that the log gives back.
const GIVE_WAIT: Duration = Duration::from_secs(2);

/// The count of the bytes that the log may still take.
pub(super) trait Room {
    /// A spare was made.
    fn made(&self);
    /// A spare is to be removed; false when its room is promised to somebody.
    fn take(&self) -> bool;
}

#[derive(Debug, Default)]
struct Orders {
    asked: bool,
    stopped: bool,
    /// Spares somebody waits for, and such that may pass the limit.
    wanted: u64,
    forced: u64,
    /// The last spare could not be made.
    disk_full: bool,
    /// Spares are to be given back, but for so many, for somebody found the disk full.
    give: Option<usize>,
    /// How often that was done, and the bytes gained the last time.
    given: u64,
    gained: u64,
}

/// The thread waits a while before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    DiskFull,
    Shortage,
}

impl Obstacle {
    /// Says once, and not at every attempt, what stands in the way.
    fn tell(self) {
        match self {
            Self::DiskFull => tracing::warn!(
                "the disk of the delivery log is full: the log cannot grow, and mail is put off \
                 when what there is of it is used up; make room"
            ),
            Self::Shortage => tracing::warn!(
                "too many files are open, or memory is short: no segment of the delivery log can \
                 be made ready now; raise LimitNOFILE= (ulimit -n) or the limit on memory"
            ),
        }
    }
}

/// The mailbox of the steward's thread.
#[derive(Debug)]
pub(super) struct Steward {
    orders: Mutex<Orders>,
    changed: Condvar,
    gave: Condvar,
}

impl Steward {
    pub(super) fn new() -> Self {
        Self {
            orders: Mutex::new(Orders::default()),
            changed: Condvar::new(),
            gave: Condvar::new(),
        }
    }

    /// Has the thread give all spares back but for so many, and waits for it; the bytes gained.
    pub(super) fn give_back(&self, kept: usize) -> u64 {
        let mut orders = self.orders.lock();
        let before = orders.given;
        orders.give = Some(kept);
        orders.asked = true;
        self.changed.notify_one();
        let deadline = clock::now() + GIVE_WAIT;
        while orders.given == before && !orders.stopped {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return 0;
            }
            orders = wait_timeout(&self.gave, orders, left);
        }
        orders.gained
    }

    /// A spare was used.
    pub(super) fn ask(&self) {
        self.orders.lock().asked = true;
        self.changed.notify_one();
    }

    /// Somebody waits for the room of so many spares; with `force`, past the limit of the log.
    pub(super) fn ask_for(&self, spares: u64, force: bool) {
        let mut orders = self.orders.lock();
        let order = match force {
            true => &mut orders.forced,
            false => &mut orders.wanted,
        };
        *order = spares.max(*order);
        orders.disk_full = false;
        orders.asked = true;
        drop(orders);
        self.changed.notify_one();
    }

    /// The last order could not be carried out.
    pub(super) fn is_disk_full(&self) -> bool {
        self.orders.lock().disk_full
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.orders.lock().stopped = true;
        self.changed.notify_one();
        self.gave.notify_all();
    }

    /// The thread: names the next segment, and makes spares while fewer than wanted are
    /// ready, or while appends are held back and the limit allows. On a full disk it gives them
    /// back instead. The log's room is kept in `room`.
    pub(super) fn run<M: LogMedium>(
        &self,
        segments: &Segments<M>,
        held_back: impl Fn() -> bool,
        room: &impl Room,
    ) -> Result<(), LogError> {
        let mut obstacle = None;
        while self.next_order(obstacle.is_some()) {
            let before = obstacle.take();
            while let Some((wanted, force)) = self.order(&held_back) {
                self.make_room(segments, room)?;
                let is_short = || segments.has_fewer_than(SPARES_MIN);
                if is_short() {
                    // First of all: the log thread goes on to it soon.
                    obstacle = reserve(segments)?;
                }
                let haste = || self.haste(|| force || is_short() || held_back());
                match segments.prepare(wanted, force, &haste)? {
                    Prepared::Made => {
                        self.carried_out(force);
                        room.made();
                    }
                    Prepared::Enough => {
                        obstacle = reserve(segments)?;
                        self.orders.lock().wanted = 0;
                        break;
                    }
                    prepared @ (Prepared::DiskFull | Prepared::NotNow) => {
                        obstacle = Some(match prepared {
                            Prepared::DiskFull => Obstacle::DiskFull,
                            _ => Obstacle::Shortage,
                        });
                        reserve(segments)?;
                        let mut orders = self.orders.lock();
                        (orders.wanted, orders.forced) = (0, 0);
                        orders.disk_full = true;
                        break;
                    }
                }
            }
            if let Some(now) = obstacle.filter(|now| before != Some(*now)) {
                now.tell();
            }
        }
        Ok(())
    }

    /// Gives spares back, if the disk is nearly full or somebody found it full.
    fn make_room<M: LogMedium>(
        &self,
        segments: &Segments<M>,
        room: &impl Room,
    ) -> Result<(), LogError> {
        let order = self.orders.lock().give.take();
        let is_ordered = order.is_some();
        let gives_all = is_ordered && segments.give();
        let kept = order.filter(|_| gives_all).unwrap_or(SPARES_MIN);
        let mut gained = 0;
        while (gives_all || segments.is_low()) && room.take() {
            match segments.remove_spare(kept) {
                Ok(Some(bytes)) => gained += bytes,
                other => {
                    room.made();
                    other?;
                    break;
                }
            }
        }
        if gained > 0 {
            tracing::info!(
                "the disk of the delivery log is nearly full: {gained} bytes of spare segments \
                 were given back"
            );
        }
        if is_ordered {
            let mut orders = self.orders.lock();
            orders.given += 1;
            orders.gained = gained;
            drop(orders);
            self.gave.notify_all();
        }
        Ok(())
    }

    /// How many spares are to be ready, and whether past the limit; `None` when stopped.
    fn order(&self, held_back: impl Fn() -> bool) -> Option<(usize, bool)> {
        let orders = self.orders.lock();
        if orders.stopped {
            return None;
        }
        let (is_forced, is_wanted) = (orders.forced > 0, orders.wanted > 0);
        drop(orders);
        Some(match is_forced || is_wanted || held_back() {
            true => (usize::MAX, is_forced),
            false => (SPARES_WANTED, false),
        })
    }

    /// How the spare is to be made that nobody waited for when it was begun.
    fn haste(&self, is_awaited: impl FnOnce() -> bool) -> Haste {
        let orders = self.orders.lock();
        let (stopped, ordered) = (
            orders.stopped || orders.give.is_some(),
            orders.wanted > 0 || orders.forced > 0,
        );
        drop(orders);
        match stopped {
            true => Haste::Stop,
            false if ordered || is_awaited() => Haste::Hurry,
            false => Haste::Rest,
        }
    }

    fn carried_out(&self, force: bool) {
        let mut orders = self.orders.lock();
        let order = match force {
            true => &mut orders.forced,
            false => &mut orders.wanted,
        };
        *order = order.saturating_sub(1);
    }

    /// Sleeps until asked, or for a while when something is in the way; false when stopped.
    fn next_order(&self, is_hindered: bool) -> bool {
        let mut orders = self.orders.lock();
        if is_hindered && !orders.asked && !orders.stopped {
            orders = wait_timeout(&self.changed, orders, DISK_FULL_RETRY);
            orders.asked = true;
        }
        while !orders.asked && !orders.stopped {
            orders = wait(&self.changed, orders);
        }
        orders.asked = false;
        !orders.stopped
    }
}

/// Names the next segment ahead; what is in the way, if that passes.
fn reserve<M: LogMedium>(segments: &Segments<M>) -> Result<Option<Obstacle>, LogError> {
    match segments.reserve() {
        Ok(()) => Ok(None),
        Err(error) if error.is_shortage() => Ok(Some(Obstacle::Shortage)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_nobody_awaits_is_made_without_haste_and_given_up_at_the_end() {
        let steward = Steward::new();
        assert_eq!(steward.haste(|| false), Haste::Rest);
        assert_eq!(steward.haste(|| true), Haste::Hurry);
        steward.ask_for(1, false);
        assert_eq!(steward.haste(|| false), Haste::Hurry);
        steward.carried_out(false);
        assert_eq!(steward.haste(|| false), Haste::Rest);
        steward.stop();
        assert_eq!(steward.haste(|| true), Haste::Stop);
    }
}
