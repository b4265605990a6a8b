//! The delivery log of a simulated machine.

use super::super::journal::{Journal, JournalSource, OpenedJournal};
use super::mistaken::{Mistake, MistakenJournal};
use crate::log::sim::SimMedium;
use crate::log::{EncodedRecord, Entry, LogError, LogSettings, LogUsage, Sequence, StepLog};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::time::Duration;

/// Size of a segment of the log.
pub(super) const SEGMENT_BYTES: u64 = 32 << 10;

impl Journal for StepLog<SimMedium> {
    fn append(&self, record: EncodedRecord) -> Result<crate::log::Ticket, LogError> {
        Self::append(self, record)
    }

    fn append_anyway(&self, record: EncodedRecord) -> Result<crate::log::Ticket, LogError> {
        Self::append_anyway(self, record)
    }

    fn set_uncounted(&self, bytes: u64) {
        Self::set_uncounted(self, bytes);
    }

    fn wait(&self, ticket: crate::log::Ticket) -> Result<Sequence, LogError> {
        Self::wait(self, ticket)
    }

    fn durable_up_to(&self) -> Sequence {
        Self::durable_up_to(self)
    }

    fn read_back(
        &self,
        range: (Sequence, Sequence),
        visit: &mut dyn FnMut(Entry<'_>),
    ) -> Result<(), LogError> {
        Self::read_back(self, range, visit)
    }

    fn truncate_before(&self, sequence: Sequence) -> Result<u64, LogError> {
        Self::truncate_before(self, sequence)
    }

    fn frees_before(&self, sequence: Sequence) -> bool {
        Self::frees_before(self, sequence)
    }

    fn usage(&self) -> LogUsage {
        Self::usage(self)
    }

    fn poisoned(&self) -> Option<LogError> {
        Self::poisoned(self)
    }

    fn give_back(&self, is_recovering: bool) -> u64 {
        Self::give_back(self, is_recovering)
    }

    fn look_at_room(&self) {
        Self::look_at_room(self);
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        Self::has_room_for(self, bytes)
    }
}

/// The log of the simulated machine.
#[derive(Debug)]
pub(super) struct SimSource {
    pub(super) medium: SimMedium,
    pub(super) mistake: Option<Mistake>,
    /// As the note beside the log, which lasts as long as the machine runs.
    pub(super) has_suspects: Arc<AtomicBool>,
}

pub(super) fn log_settings() -> LogSettings {
    LogSettings {
        segment_bytes: SEGMENT_BYTES,
        log_bytes_max: 320 << 10,
        in_flight_bytes_max: 1 << 20,
        record_bytes_max: 24 << 10,
        full_wait_max: Duration::ZERO,
        ..LogSettings::default()
    }
}

impl JournalSource for SimSource {
    fn open(&self) -> Result<OpenedJournal, LogError> {
        let settings = log_settings();
        let (log, found) = StepLog::open_on(&Arc::new(self.medium.clone()), &settings)?;
        let log: Arc<dyn Journal> = Arc::new(log);
        let log = match self.mistake {
            Some(mistake) => Arc::new(MistakenJournal::new(log, mistake)),
            None => log,
        };
        Ok((log, Box::new(found)))
    }

    fn note_suspects(&self, has_suspects: bool) -> io::Result<()> {
        self.has_suspects.store(has_suspects, Ordering::Relaxed);
        Ok(())
    }

    fn has_suspects(&self) -> bool {
        self.has_suspects.load(Ordering::Relaxed)
    }
}
