//! The delivery log of a simulated machine.

use super::super::ledger::journal::{JournalSource, OpenedJournal};
use super::mistaken::{Mistake, MistakenJournal};
use super::running::Running;
use crate::log::sim::SimMedium;
use crate::log::{LogError, LogWriterSettings, StepwiseLog};
use crate::sync::Arc;
use std::io;
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
        self.running.is_opened(&log);
        let log = MistakenJournal::new(log, self.mistake, Arc::clone(&self.running));
        Ok((Arc::new(log), Arc::new(found)))
    }

    fn note_suspects(&self, has_suspects: bool) -> io::Result<()> {
        self.running.note_suspects(has_suspects);
        Ok(())
    }

    fn has_suspects(&self) -> bool {
        self.running.has_suspects()
    }
}
