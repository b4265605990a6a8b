//! Keeps spare segments ready, on a thread of its own.
//!
//! Imports `segments`, `sync`. A full disk only keeps the log from growing; any other failure
//! ends the thread and poisons the log.

use super::error::LogError;
use super::medium::LogMedium;
use super::segments::{Prepared, Segments};
use super::writer::{DISK_FULL_RETRY, SPARES_WANTED};
use crate::sync::{Condvar, Mutex, wait, wait_timeout};

#[derive(Debug, Default)]
struct Orders {
    asked: bool,
    stopped: bool,
}

/// The mailbox of the steward's thread.
#[derive(Debug)]
pub(super) struct Steward {
    orders: Mutex<Orders>,
    changed: Condvar,
}

impl Steward {
    pub(super) fn new() -> Self {
        Self {
            orders: Mutex::new(Orders::default()),
            changed: Condvar::new(),
        }
    }

    /// A spare was used, or somebody waits for room.
    pub(super) fn ask(&self) {
        self.orders.lock().asked = true;
        self.changed.notify_one();
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.orders.lock().stopped = true;
        self.changed.notify_one();
    }

    /// The thread: makes spares while fewer than wanted are ready, or while appends are held
    /// back and the limit allows; tells `made` of each.
    pub(super) fn run<M: LogMedium>(
        &self,
        segments: &Segments<M>,
        held_back: impl Fn() -> bool,
        made: impl Fn(),
    ) -> Result<(), LogError> {
        let mut disk_full = false;
        while self.next_order(disk_full) {
            disk_full = false;
            while !self.orders.lock().stopped {
                let wanted = if held_back() {
                    usize::MAX
                } else {
                    SPARES_WANTED
                };
                match segments.prepare(wanted, false)? {
                    Prepared::Made => made(),
                    Prepared::Enough => break,
                    Prepared::DiskFull => {
                        tracing::warn!("the disk of the delivery log is full; the log cannot grow");
                        disk_full = true;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sleeps until asked, or for a while when the disk is full; false when stopped.
    fn next_order(&self, disk_full: bool) -> bool {
        let mut orders = self.orders.lock();
        if disk_full && !orders.asked && !orders.stopped {
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
