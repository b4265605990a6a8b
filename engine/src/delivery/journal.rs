//! The delivery log as deliveries see it, so that a log without threads can take the place of
//! the real one.
//!
//! Imports `log`, `config`, `sync`.

use crate::config::{DeliveryLogSettings, Settings};
use crate::log::{
    BackendChoice, EncodedRecord, Entry, LogError, LogMedium, LogScan, LogSettings, LogUsage,
    LogWriter, Sequence, Ticket,
};
use crate::sync::Arc;
use std::fmt;
use std::path::{Path, PathBuf};

/// An open log.
pub(super) trait Journal: fmt::Debug + Send + Sync {
    /// Hands a record over; may wait for room.
    fn append(&self, record: EncodedRecord) -> Result<Ticket, LogError>;
    /// Waits until the record, and all before it, are durable.
    fn wait(&self, ticket: Ticket) -> Result<Sequence, LogError>;
    /// Everything up to this record is durable.
    fn durable_up_to(&self) -> Sequence;
    /// Frees the segments that end before this record.
    fn truncate_before(&self, sequence: Sequence) -> Result<u64, LogError>;
    /// How full it is.
    fn usage(&self) -> LogUsage;
    /// What stopped it.
    fn poisoned(&self) -> Option<LogError>;
}

impl<M: LogMedium> Journal for LogWriter<M> {
    fn append(&self, record: EncodedRecord) -> Result<Ticket, LogError> {
        Self::append(self, record, None)
    }

    fn wait(&self, ticket: Ticket) -> Result<Sequence, LogError> {
        Self::wait(self, ticket)
    }

    fn durable_up_to(&self) -> Sequence {
        Self::durable_up_to(self)
    }

    fn truncate_before(&self, sequence: Sequence) -> Result<u64, LogError> {
        Self::truncate_before(self, sequence)
    }

    fn usage(&self) -> LogUsage {
        Self::usage(self)
    }

    fn poisoned(&self) -> Option<LogError> {
        Self::poisoned(self)
    }
}

/// What stood in the log when it was opened.
pub(super) trait Found: Send + Sync {
    /// Shows every record, in order.
    fn for_each(&self, visit: &mut dyn FnMut(Entry<'_>)) -> Result<(), LogError>;
    /// The first sequence given out after opening.
    fn next(&self) -> Sequence;
}

impl<M: LogMedium> Found for LogScan<M> {
    fn for_each(&self, visit: &mut dyn FnMut(Entry<'_>)) -> Result<(), LogError> {
        Self::for_each(self, Sequence(0), visit)
    }

    fn next(&self) -> Sequence {
        self.report().next_sequence
    }
}

/// An open log and what stood in it.
pub(super) type OpenedJournal = (Arc<dyn Journal>, Box<dyn Found>);

/// Opens the log, at the start and again after it failed.
pub(super) trait JournalSource: fmt::Debug + Send + Sync {
    /// Opens it; whoever has it open must have dropped it before.
    fn open(&self) -> Result<OpenedJournal, LogError>;
}

/// The log in its directory.
#[derive(Debug)]
pub(super) struct DirectorySource {
    directory: PathBuf,
    settings: LogSettings,
}

impl DirectorySource {
    pub(super) fn new(settings: &Settings) -> Self {
        Self::at(&directory(settings), settings)
    }

    pub(super) fn at(directory: &Path, settings: &Settings) -> Self {
        Self {
            directory: directory.to_owned(),
            settings: log_settings(&settings.delivery_log),
        }
    }

    /// Somebody used the log before.
    pub(super) fn exists(&self) -> bool {
        self.directory.is_dir()
    }
}

impl JournalSource for DirectorySource {
    fn open(&self) -> Result<OpenedJournal, LogError> {
        let (writer, found) = LogWriter::open(&self.directory, self.settings.clone())?;
        tracing::info!(
            directory = %self.directory.display(),
            "delivery log: {}", writer.backend()
        );
        Ok((Arc::new(writer), Box::new(found)))
    }
}

/// Where the delivery log stands.
pub(super) fn directory(settings: &Settings) -> PathBuf {
    settings.state_directory.join("delivery-log")
}

/// Room in a record for what stands beside the content.
pub(super) const ENVELOPE_BYTES_MAX: u64 = 4 << 20;

pub(super) fn log_settings(settings: &DeliveryLogSettings) -> LogSettings {
    let segment_bytes = settings.segment_bytes.max(4 * 4096);
    let bytes_max = settings.bytes_max.max(4 * segment_bytes);
    // No record may be more than about half of the log.
    let record_most = (bytes_max / segment_bytes - 2) * ((segment_bytes - 4096) / 2);
    let record_bytes = (settings.message_bytes_max + ENVELOPE_BYTES_MAX).min(record_most);
    LogSettings {
        segment_bytes,
        log_bytes_max: bytes_max,
        in_flight_bytes_max: settings.in_flight_bytes,
        record_bytes_max: usize::try_from(record_bytes).unwrap_or(usize::MAX),
        full_wait_max: settings.full_wait,
        backend: BackendChoice::Auto,
        accept_damage: false,
    }
}
