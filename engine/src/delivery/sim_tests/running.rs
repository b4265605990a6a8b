//! What lasts as long as a simulated machine runs: its log, notes, and what is due at a moment.

use crate::log::{RecordKind, StepwiseLog};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use std::fmt;
use std::sync::Weak;

/// The run of a machine.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// As the note beside the log.
    has_suspects: AtomicBool,
    /// The log opened last.
    log: Mutex<Weak<StepwiseLog>>,
    /// Is to be done.
    behind: Mutex<Option<Behind>>,
}

/// What is done right behind the next record of a kind that is not waited for at once.
struct Behind {
    kind: RecordKind,
    work: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "behind {}", self.kind)
    }
}

impl Running {
    /// The log was opened, at first or again.
    pub(super) fn is_opened(&self, log: &Arc<StepwiseLog>) {
        *self.log.lock() = Arc::downgrade(log);
    }

    pub(super) fn note_suspects(&self, has_suspects: bool) {
        self.has_suspects.store(has_suspects, Ordering::Relaxed);
    }

    pub(super) fn has_suspects(&self) -> bool {
        self.has_suspects.load(Ordering::Relaxed)
    }

    /// Makes segments in advance.
    pub(super) fn preallocate(&self) {
        let log = self.log.lock().upgrade();
        if let Some(log) = log {
            log.preallocate();
        }
    }

    /// Has this done right behind the next record of a kind.
    pub(super) fn behind_next(&self, kind: RecordKind, work: impl FnOnce() + Send + 'static) {
        let work = Box::new(work);
        *self.behind.lock() = Some(Behind { kind, work });
    }

    /// A record was appended.
    pub(super) fn is_appended(&self, kind: RecordKind) {
        let due = self.behind.lock().take_if(|behind| behind.kind == kind);
        if let Some(behind) = due {
            (behind.work)();
        }
    }
}
