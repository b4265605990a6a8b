//! Selects the mail that is written again on a file system whose flush failed, and the mail that is
//! held afterwards.

use super::super::ledger::deferred_mail::{DeferredDelivery, Held};

/// Which mail to write again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum Recheck {
    /// The mail that is held for this file system, which is flushed as a whole.
    Whole {
        /// The file system.
        device: u64,
        /// It was unmounted meanwhile.
        is_remounted: bool,
    },
    /// The same mail; each file is flushed separately.
    Each {
        /// The file system.
        device: u64,
        /// It was unmounted meanwhile.
        is_remounted: bool,
    },
    /// The mail whose separate flush failed before.
    LeftOver {
        /// The file system.
        device: u64,
    },
}

impl Recheck {
    /// Returns true when each file is flushed separately.
    pub(super) fn flushes_each(self) -> bool {
        !matches!(self, Self::Whole { .. })
    }

    /// Returns true when the file system was unmounted: readers may see less than before.
    pub(super) fn is_remounted(self) -> bool {
        match self {
            Self::Whole { is_remounted, .. } | Self::Each { is_remounted, .. } => is_remounted,
            Self::LeftOver { .. } => false,
        }
    }

    /// Returns what is still held of a delivery after an attempt.
    pub(super) fn after(
        self,
        mut waiting: DeferredDelivery,
        is_done: bool,
    ) -> Option<DeferredDelivery> {
        if self.is_remounted() {
            if !is_done {
                // Recovery must make the delivery.
                waiting.held = Held::Undelivered;
            }
        } else if self.flushes_each() {
            match &mut waiting.held {
                _ if is_done => return None,
                Held::Unflushed { is_left_over, .. } => *is_left_over = true,
                Held::Undelivered | Held::ActiveBatch { .. } | Held::Made { .. } => {}
            }
        }
        Some(waiting)
    }

    /// Returns true for a delivery that is written again.
    pub(super) fn concerns(self, waiting: &DeferredDelivery) -> bool {
        match (self, waiting.held) {
            (_, Held::Undelivered | Held::ActiveBatch { .. } | Held::Made { .. }) => false,
            (
                Self::Whole { device, .. } | Self::Each { device, .. },
                Held::Unflushed {
                    device: held,
                    is_left_over,
                    ..
                },
            ) => held == device && !is_left_over,
            (
                Self::LeftOver { device },
                Held::Unflushed {
                    device: held,
                    is_left_over,
                    ..
                },
            ) => held == device && is_left_over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: u64 = 7;

    fn unflushed(is_left_over: bool) -> DeferredDelivery {
        DeferredDelivery {
            recipient: 0,
            places: Vec::new(),
            held: Held::Unflushed {
                device: DEVICE,
                after: 1,
                is_left_over,
            },
        }
    }

    #[test]
    fn only_mail_held_for_the_file_system_is_written_again() {
        let is_remounted = false;
        let whole = |device| Recheck::Whole {
            device,
            is_remounted,
        };
        let left_over = Recheck::LeftOver { device: DEVICE };
        assert!(whole(DEVICE).concerns(&unflushed(false)));
        assert!(!whole(DEVICE).concerns(&unflushed(true)));
        assert!(!whole(8).concerns(&unflushed(false)));
        assert!(left_over.concerns(&unflushed(true)));
        assert!(!left_over.concerns(&unflushed(false)));
        let undelivered = DeferredDelivery {
            held: Held::Undelivered,
            ..unflushed(false)
        };
        assert!(!whole(DEVICE).concerns(&undelivered));
    }

    #[test]
    fn mail_is_held_until_it_was_flushed() {
        let is_remounted = false;
        let whole = Recheck::Whole {
            device: DEVICE,
            is_remounted,
        };
        let each = Recheck::Each {
            device: DEVICE,
            is_remounted,
        };
        let held = |how: Recheck, is_done| how.after(unflushed(false), is_done).map(|w| w.held);
        assert_eq!(held(whole, true), Some(unflushed(false).held));
        assert_eq!(held(each, true), None);
        assert_eq!(held(each, false), Some(unflushed(true).held));
    }

    #[test]
    fn mail_that_was_missing_after_a_remount_is_delivered_again() {
        let is_remounted = true;
        let whole = Recheck::Whole {
            device: DEVICE,
            is_remounted,
        };
        let held = |is_done| whole.after(unflushed(false), is_done).map(|w| w.held);
        assert_eq!(held(false), Some(Held::Undelivered));
        assert_eq!(held(true), Some(unflushed(false).held));
    }
}
