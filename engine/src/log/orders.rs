//! What the preallocator of segments is asked to do, by those who need them.

use super::medium::Pacing;
use super::segments::SPARES_WANTED;
use crate::clock;
use crate::sync::{Condvar, Mutex, wait, wait_timeout};
use std::time::Duration;

/// How long the preallocator sleeps before it tries a full disk again.
const DISK_FULL_RETRY: Duration = Duration::from_secs(1);

/// What the preallocator is to do, and what it did.
#[derive(Debug, Default)]
struct Pending {
    asked: bool,
    stopped: bool,
    /// Spares that a caller waits for, and those that may pass the limit.
    wanted: u64,
    forced: u64,
    /// The last spare could not be made.
    disk_full: bool,
    /// All spares but so many are to be given back, because the disk was found full.
    give: Option<usize>,
    /// How often that was done, and the bytes gained the last time.
    given: u64,
    gained: u64,
}

/// Orders for the preallocator.
#[derive(Debug)]
pub(super) struct Orders {
    pending: Mutex<Pending>,
    changed: Condvar,
    gave: Condvar,
}

/// An order to give spares back.
#[derive(Debug)]
pub(super) struct GiveOrder {
    /// How often that had been done before.
    given: u64,
}

impl Orders {
    pub(super) fn new() -> Self {
        Self {
            pending: Mutex::new(Pending::default()),
            changed: Condvar::new(),
            gave: Condvar::new(),
        }
    }

    /// All spares are to be given back but for so many.
    pub(super) fn ask_to_give_back(&self, kept: usize) -> GiveOrder {
        let mut pending = self.pending.lock();
        let given = pending.given;
        pending.give = Some(kept);
        pending.asked = true;
        self.changed.notify_one();
        GiveOrder { given }
    }

    /// Waits until they were given back; returns the bytes gained.
    pub(super) fn wait_for_gain(&self, order: GiveOrder, limit: Duration) -> u64 {
        let deadline = clock::now() + limit;
        let mut pending = self.pending.lock();
        while pending.given == order.given && !pending.stopped {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return 0;
            }
            pending = wait_timeout(&self.gave, pending, left);
        }
        pending.gained
    }

    /// A spare was used.
    pub(super) fn ask(&self) {
        self.pending.lock().asked = true;
        self.changed.notify_one();
    }

    /// Orders the room of so many spares, for which a caller waits; with `force`, past the limit of
    /// the log.
    pub(super) fn ask_for(&self, spares: u64, force: bool) {
        let mut pending = self.pending.lock();
        let order = match force {
            true => &mut pending.forced,
            false => &mut pending.wanted,
        };
        *order = spares.max(*order);
        pending.disk_full = false;
        pending.asked = true;
        drop(pending);
        self.changed.notify_one();
    }

    /// The last order could not be carried out.
    pub(super) fn is_disk_full(&self) -> bool {
        self.pending.lock().disk_full
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.pending.lock().stopped = true;
        self.changed.notify_one();
        self.gave.notify_all();
    }

    /// How many spares are to be ready, and whether past the limit; `None` when stopped.
    pub(super) fn order(&self, held_back: impl Fn() -> bool) -> Option<(usize, bool)> {
        let pending = self.pending.lock();
        if pending.stopped {
            return None;
        }
        let (is_forced, is_wanted) = (pending.forced > 0, pending.wanted > 0);
        drop(pending);
        Some(match is_forced || is_wanted || held_back() {
            true => (usize::MAX, is_forced),
            false => (SPARES_WANTED, false),
        })
    }

    /// Returns how the spare is to be made, for which no caller waited when it was begun.
    pub(super) fn pacing(&self, is_awaited: impl FnOnce() -> bool) -> Pacing {
        let pending = self.pending.lock();
        let (stopped, ordered) = (
            pending.stopped || pending.give.is_some(),
            pending.wanted > 0 || pending.forced > 0,
        );
        drop(pending);
        match stopped {
            true => Pacing::Stop,
            false if ordered || is_awaited() => Pacing::Hurry,
            false => Pacing::Rest,
        }
    }

    /// One more spare was made.
    pub(super) fn carried_out(&self, force: bool) {
        let mut pending = self.pending.lock();
        let order = match force {
            true => &mut pending.forced,
            false => &mut pending.wanted,
        };
        *order = order.saturating_sub(1);
        pending.disk_full = false;
    }

    /// There are spares enough, or as many as there may be.
    pub(super) fn are_enough(&self) {
        self.pending.lock().wanted = 0;
    }

    /// No spare can be made now.
    pub(super) fn cannot_be_carried_out(&self) {
        let mut pending = self.pending.lock();
        (pending.wanted, pending.forced) = (0, 0);
        pending.disk_full = true;
    }

    /// An order to give back, but for how many spares.
    pub(super) fn take_give_order(&self) -> Option<usize> {
        self.pending.lock().give.take()
    }

    /// That was done.
    pub(super) fn gave_back(&self, gained: u64) {
        let mut pending = self.pending.lock();
        pending.given += 1;
        pending.gained = gained;
        drop(pending);
        self.gave.notify_all();
    }

    /// True when there is something to do. With `awaits_orders` it sleeps until asked, or for a
    /// while when something is in the way, and false says that it is stopped.
    pub(super) fn take(&self, is_hindered: bool, awaits_orders: bool) -> bool {
        let mut pending = self.pending.lock();
        if is_hindered && !pending.asked && !pending.stopped {
            if awaits_orders {
                pending = wait_timeout(&self.changed, pending, DISK_FULL_RETRY);
            }
            pending.asked = true;
        }
        while awaits_orders && !pending.asked && !pending.stopped {
            pending = wait(&self.changed, pending);
        }
        std::mem::take(&mut pending.asked) && !pending.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_nobody_awaits_is_made_without_haste_and_given_up_at_the_end() {
        let orders = Orders::new();
        assert_eq!(orders.pacing(|| false), Pacing::Rest);
        assert_eq!(orders.pacing(|| true), Pacing::Hurry);
        orders.ask_for(1, false);
        assert_eq!(orders.pacing(|| false), Pacing::Hurry);
        orders.carried_out(false);
        assert_eq!(orders.pacing(|| false), Pacing::Rest);
        orders.stop();
        assert_eq!(orders.pacing(|| true), Pacing::Stop);
    }
}
