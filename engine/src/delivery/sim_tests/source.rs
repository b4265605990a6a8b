//! The delivery log of a simulated machine.

use super::super::ledger::journal::{Journal, JournalSource, OpenedJournal};
use super::mistaken::{Mistake, MistakenJournal};
use crate::log::sim::SimMedium;
use crate::log::{LogError, LogWriterSettings, StepwiseLog};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use std::io;
use std::sync::Weak;
use std::time::Duration;

/// Size of a segment of the log.
pub(super) const SEGMENT_BYTES: u64 = 32 << 10;

/// The log of the simulated machine.
#[derive(Debug)]
pub(super) struct SimSource {
    pub(super) medium: SimMedium,
    pub(super) mistake: Option<Mistake>,
    pub(super) running: Arc<Running>,
}

/// State that lasts as long as the machine runs.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// The note beside the log.
    has_suspects: AtomicBool,
    /// The log that was opened last.
    log: Mutex<Weak<StepwiseLog>>,
}

impl Running {
    /// Makes segments in advance.
    pub(super) fn preallocate(&self) {
        let log = self.log.lock().upgrade();
        if let Some(log) = log {
            log.preallocate();
        }
    }
}

pub(super) fn log_settings() -> LogWriterSettings {
    LogWriterSettings {
        segment_bytes: SEGMENT_BYTES,
        log_bytes_max: 320 << 10,
        in_flight_bytes_max: 1 << 20,
        record_bytes_max: 24 << 10,
        full_wait_max: Duration::ZERO,
        ..LogWriterSettings::default()
    }
}

impl JournalSource for SimSource {
    fn open(&self) -> Result<OpenedJournal, LogError> {
        let medium = Arc::new(self.medium.clone());
        let (log, found) = StepwiseLog::open_stepwise(medium, log_settings())?;
        let log = Arc::new(log);
        *self.running.log.lock() = Arc::downgrade(&log);
        let log: Arc<dyn Journal> = match self.mistake {
            Some(mistake) => Arc::new(MistakenJournal::new(log, mistake)),
            None => log,
        };
        Ok((log, Arc::new(found)))
    }

    fn note_suspects(&self, has_suspects: bool) -> io::Result<()> {
        self.running
            .has_suspects
            .store(has_suspects, Ordering::Relaxed);
        Ok(())
    }

    fn has_suspects(&self) -> bool {
        self.running.has_suspects.load(Ordering::Relaxed)
    }
}
