//! The part of a recovery that works on one file system, which may never answer.
//!
//! Invariant: a delivery that is not noted here as done when the part is set aside is tried again
//! later; one that is done is not checked again, because a reader may have removed the message
//! since.

use crate::clock;
use crate::log::DeliveryId;
use crate::sync::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::time::Instant;

/// Returns whether a mailbox, by its path relative to the base, is on a file system.
type IsThere = dyn Fn(&str) -> bool + Send + Sync;

/// A part of a recovery.
pub(in crate::delivery) struct Part {
    is_there: Box<IsThere>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    done: HashSet<(DeliveryId, u32)>,
    /// The time of the latest progress.
    progress: Instant,
    is_set_aside: bool,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").finish_non_exhaustive()
    }
}

impl Part {
    pub(in crate::delivery) fn new(is_there: Box<IsThere>) -> Self {
        Self {
            is_there,
            state: Mutex::new(State {
                done: HashSet::new(),
                progress: clock::now(),
                is_set_aside: false,
            }),
        }
    }

    /// Returns true if a mailbox belongs to this part.
    pub(super) fn has(&self, mailbox: &str) -> bool {
        (self.is_there)(mailbox)
    }

    /// Notes progress, and a delivery that is done; not one that could not be made. Returns false
    /// once the part was set aside: the caller must stop.
    pub(super) fn goes_on(&self, done: Option<(DeliveryId, u32)>) -> bool {
        let mut state = self.state.lock();
        if state.is_set_aside {
            return false;
        }
        state.progress = clock::now();
        state.done.extend(done);
        true
    }

    /// Returns the time of the latest progress.
    pub(in crate::delivery) fn progress(&self) -> Instant {
        self.state.lock().progress
    }

    /// Stops the part, and returns the deliveries that are done.
    pub(super) fn set_aside(&self) -> HashSet<(DeliveryId, u32)> {
        let mut state = self.state.lock();
        state.is_set_aside = true;
        std::mem::take(&mut state.done)
    }
}
