//! The delivery log as the delivery code uses it. A simulation may run it without threads, or
//! falsify records.

use super::super::bounds::{LOG_BYTES_MIN, LogBounds, log_directory};
use super::suspect_note::{has_suspects, note_suspects};
use crate::config::{DeliveryLogSettings, Settings};
use crate::limits::IN_DOUBT_MAX;
use crate::log::{
    BackendChoice, Confirmed, Done, EncodedRecord, InDoubt, LogError, LogMedium, LogScan, LogUsage,
    LogWriter, LogWriterSettings, OnDurable, Record, RecordTicket, ScannedRecord, Sequence,
    SetAside, Workers as LogWorkers,
};
use crate::sync::Arc;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An open log.
pub(in crate::delivery) trait Journal: fmt::Debug + Send + Sync {
    /// Appends a record; may wait for room.
    fn append(&self, record: EncodedRecord) -> Result<RecordTicket, LogError>;
    /// As [`Journal::append`]; a full log grows past its bound.
    fn append_anyway(&self, record: EncodedRecord) -> Result<RecordTicket, LogError>;
    /// As [`Journal::append`], without waiting: a full log refuses the record. `then` is called
    /// once, when the record is durable or never will be.
    fn append_then(&self, record: EncodedRecord, then: OnDurable);
    /// Sets how many bytes of records do not count against the bound.
    fn set_uncounted(&self, bytes: u64);
    /// Waits until the record, and all before it, are durable.
    fn wait(&self, ticket: RecordTicket) -> Result<Sequence, LogError>;
    /// Returns the newest durable record.
    fn durable_up_to(&self) -> Sequence;
    /// Passes the records from the first to the second, which is durable, in order.
    fn read_back(
        &self,
        range: (Sequence, Sequence),
        visit: &mut dyn FnMut(ScannedRecord<'_>),
    ) -> Result<(), LogError>;
    /// Frees the segments that end before this record.
    fn truncate_before(&self, sequence: Sequence) -> Result<u64, LogError>;
    /// Returns true if that would free any segment.
    fn frees_before(&self, sequence: Sequence) -> bool;
    /// Returns how full it is.
    fn usage(&self) -> LogUsage;
    /// Returns the failure that stopped it.
    fn poisoned(&self) -> Option<LogError>;
    /// Gives back space that it does not need, because the disk is full. Returns the bytes gained.
    fn give_back(&self, is_recovering: bool) -> u64;
    /// Checks whether it should leave more space to other files.
    fn look_at_room(&self);
    /// Returns true if so many bytes of records can be appended, also past the bound.
    fn has_room_for(&self, bytes: u64) -> bool;
    /// Takes no more records and frees nothing, so that the log may be opened again although a
    /// thread still holds this one.
    fn let_go(&self);
}

impl<M: LogMedium, W: LogWorkers> Journal for LogWriter<M, W> {
    fn append(&self, record: EncodedRecord) -> Result<RecordTicket, LogError> {
        Self::append(self, record, None)
    }

    fn append_anyway(&self, record: EncodedRecord) -> Result<RecordTicket, LogError> {
        Self::append_anyway(self, record)
    }

    fn append_then(&self, record: EncodedRecord, then: OnDurable) {
        Self::append_then(self, record, then);
    }

    fn set_uncounted(&self, bytes: u64) {
        Self::set_uncounted(self, bytes);
    }

    fn wait(&self, ticket: RecordTicket) -> Result<Sequence, LogError> {
        Self::wait(self, ticket)
    }

    fn durable_up_to(&self) -> Sequence {
        Self::durable_up_to(self)
    }

    fn read_back(
        &self,
        range: (Sequence, Sequence),
        visit: &mut dyn FnMut(ScannedRecord<'_>),
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

    fn let_go(&self) {
        Self::let_go(self);
    }
}

/// The content of the log when it was opened.
pub(in crate::delivery) trait Found: Send + Sync {
    /// Passes every record, in order.
    fn for_each(&self, visit: &mut dyn FnMut(ScannedRecord<'_>)) -> Result<(), LogError>;
}

impl<M: LogMedium> Found for LogScan<M> {
    fn for_each(&self, visit: &mut dyn FnMut(ScannedRecord<'_>)) -> Result<(), LogError> {
        Self::for_each(self, Sequence(0), visit)
    }
}

/// An open log and its content when it was opened.
pub(in crate::delivery) type OpenedJournal = (Arc<dyn Journal>, Arc<dyn Found>);

/// Opens the log, at the start and again after it failed.
pub(in crate::delivery) trait JournalSource: fmt::Debug + Send + Sync {
    /// Opens it. It must not be open, except after [`Journal::let_go`].
    fn open(&self) -> Result<OpenedJournal, LogError>;
    /// Notes beside the log whether the kernel may return data that the disk of a mailbox does not
    /// have. A restart of the machine voids the note.
    fn note_suspects(&self, has_suspects: bool) -> io::Result<()>;
    /// Returns true if that was noted since the machine started.
    fn has_suspects(&self) -> bool;
}

/// The log in its directory.
#[derive(Debug)]
pub(in crate::delivery) struct DirectorySource {
    directory: PathBuf,
    settings: LogWriterSettings,
    bounds: LogBounds,
    wanted: DeliveryLogSettings,
}

impl DirectorySource {
    pub(in crate::delivery) fn new(settings: &Settings) -> Self {
        Self::at(&log_directory(settings), settings)
    }

    pub(in crate::delivery) fn at(directory: &Path, settings: &Settings) -> Self {
        let bounds = LogBounds::at(directory, settings);
        Self {
            directory: directory.to_owned(),
            settings: log_settings(&bounds.apply(&settings.delivery_log)),
            bounds,
            wanted: settings.delivery_log.clone(),
        }
    }

    /// Returns the settings of the log on its file system.
    pub(in crate::delivery) fn delivery_log(&self) -> DeliveryLogSettings {
        self.bounds.apply(&self.wanted)
    }

    /// Drops the damaged part, and recovers the rest.
    pub(in crate::delivery) fn accepting_damage(mut self) -> Self {
        self.settings.accept_damage = true;
        self
    }

    /// Returns true if a log exists.
    pub(in crate::delivery) fn exists(&self) -> bool {
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
        for record in found.set_aside() {
            let SetAside {
                sequence,
                segment,
                offset,
                cause,
                copy,
            } = record;
            let copy = self.directory.join(copy);
            tracing::error!(
                copy = %copy.display(),
                "record {sequence} of the delivery log (segment {segment:x} byte {offset}) was set aside, \
                 because {cause}; see what it holds with the mailstow that wrote it"
            );
        }
        let LogBounds {
            bytes_max,
            volume_bytes,
            ..
        } = self.bounds;
        if bytes_max < self.wanted.bytes_max {
            tracing::info!("delivery log: {bytes_max} bytes at most on a volume of {volume_bytes}");
        }
        Ok((Arc::new(writer), Arc::new(found)))
    }

    fn note_suspects(&self, has_suspects: bool) -> io::Result<()> {
        note_suspects(&self.directory, has_suspects)
    }

    fn has_suspects(&self) -> bool {
        has_suspects(&self.directory)
    }
}

/// Bytes in a record beside the content.
const ENVELOPE_BYTES_MAX: u64 = 4 << 20;
/// Fewest segments: with fewer, too much of the log would be unusable.
const SEGMENTS_MIN: u64 = 16;
/// Bytes of an entry of the in-doubt memory in a checkpoint record.
const IN_DOUBT_BYTES: u64 = 60;
/// Entries of a record that has one for each delivery, of 60 bytes at most: the record is shorter
/// than the smallest segment, so that it fits into a full log.
const ENTRIES_MAX: usize = 128;

pub(in crate::delivery) fn log_settings(settings: &DeliveryLogSettings) -> LogWriterSettings {
    let bytes_max = settings.bytes_max.max(LOG_BYTES_MIN);
    // The bound of the whole log takes precedence over the size of its parts.
    let segment_bytes = settings.segment_bytes.min(bytes_max / SEGMENTS_MIN) & !4095;
    let segment_bytes = segment_bytes.max(4 * 4096);
    // No record may be more than about half of the log.
    let record_most = (bytes_max / segment_bytes - 2) * ((segment_bytes - 4096) / 2);
    let record_bytes = settings.message_bytes_max + ENVELOPE_BYTES_MAX;
    let record_bytes = record_bytes.max(in_doubt_bytes(IN_DOUBT_MAX));
    let record_bytes = record_bytes.min(record_most);
    LogWriterSettings {
        segment_bytes,
        log_bytes_max: bytes_max,
        in_flight_bytes_max: settings.in_flight_bytes,
        record_bytes_max: usize::try_from(record_bytes).unwrap_or(usize::MAX),
        full_wait_max: settings.full_wait,
        backend: BackendChoice::Auto,
        accept_damage: false,
    }
}

fn in_doubt_bytes(entries: usize) -> u64 {
    // For the rest of the record.
    64 + entries as u64 * IN_DOUBT_BYTES
}

/// Returns how many deliveries in doubt a checkpoint of this log may name: a full log reserves a
/// segment, of which half is for them.
pub(in crate::delivery) fn in_doubt_max(settings: &LogWriterSettings) -> usize {
    let room = (settings.segment_bytes - 4096) / 2;
    let most = room.min(settings.record_bytes_max as u64);
    let entries = most.saturating_sub(in_doubt_bytes(0)) / IN_DOUBT_BYTES;
    usize::try_from(entries).map_or(IN_DOUBT_MAX, |entries| entries.min(IN_DOUBT_MAX))
}

/// Returns records of the outcomes of deliveries, each short enough for any log.
pub(in crate::delivery) fn done_records(entries: &[Done]) -> impl Iterator<Item = EncodedRecord> {
    let chunks = entries.chunks(ENTRIES_MAX);
    chunks.map(|entries| Record::Done(entries.to_vec()).encode())
}

/// As [`done_records`], of deliveries in doubt.
pub(in crate::delivery) fn in_doubt_records(
    entries: &[InDoubt],
) -> impl Iterator<Item = EncodedRecord> {
    let chunks = entries.chunks(ENTRIES_MAX);
    chunks.map(|entries| Record::InDoubt(entries.to_vec()).encode())
}

/// As [`done_records`], of replies that were read.
pub(in crate::delivery) fn confirmed_records(
    entries: &[Confirmed],
) -> impl Iterator<Item = EncodedRecord> {
    let chunks = entries.chunks(ENTRIES_MAX);
    chunks.map(|entries| Record::Confirmed(entries.to_vec()).encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_configured_makes_a_log_that_can_work() {
        for bytes_max in [0, 1 << 16, 1 << 20, 5 << 20, 1 << 30, 1 << 40] {
            for segment_bytes in [0, 1 << 14, (1 << 20) - 1, 32 << 20, 1 << 30] {
                for message_bytes_max in [0, 1 << 20, 1 << 28] {
                    let settings = DeliveryLogSettings {
                        bytes_max,
                        segment_bytes,
                        message_bytes_max,
                        ..DeliveryLogSettings::default()
                    };
                    let log = log_settings(&settings);
                    log.validate().unwrap();
                    assert!(log.log_bytes_max <= bytes_max.max(1 << 20));
                    assert!(in_doubt_max(&log) > 50);
                    // A message of 48 MB, four bytes for each of its sectors.
                    assert!(log.record_bytes_max > 48_000_000 / 512 * 4);
                }
            }
        }
    }

    #[test]
    fn a_log_of_the_usual_size_remembers_all_deliveries_in_doubt() {
        let log = log_settings(&DeliveryLogSettings::default());
        assert_eq!(in_doubt_max(&log), IN_DOUBT_MAX);
    }
}
