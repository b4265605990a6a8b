//! The delivery log as the rest of the engine sees it: open, append, wait, truncate, close.
//!
//! Imports the other files of this room, `sync`, `clock`. Two threads: one writes and flushes
//! batches and is the only one that touches the segment in use; one makes spare segments ready,
//! so that nobody waits for zeros to be written. Invariants: a record is reported durable only
//! after the flush of its batch returned; after any failed write or flush nothing is reported
//! durable any more.

use super::appender::{Appender, charge};
use super::codec::EncodedRecord;
use super::directory::DirectoryMedium;
use super::error::LogError;
use super::group_commit::{Bounds, Class, GroupCommit, Refused, Ticket, Weight};
use super::live::read_back;
use super::log_scan::LogScan;
use super::medium::{Access, Haste, LogFile as _, LogMedium};
use super::record::{RecordKind, Sequence};
use super::scan::{Entry, scan_records};
use super::segment::{FileRole, role};
use super::segments::{Prepared, Segments};
use super::settings::LogSettings;
use super::steward::{Room, Steward};
use crate::clock;
use crate::sync::{Arc, Mutex};
use crate::thread;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

/// Called on the log thread once a record's fate is known; must be short and must not append
/// and wait. Calls come in the order of the log.
pub type OnDurable = Box<dyn FnOnce(Result<Sequence, LogError>) + Send>;

/// How long an append that must not be refused waits before it looks whether the disk is full.
const FORCED_WAIT: Duration = Duration::from_millis(200);

/// Segments kept ready besides the one in use: the fewest that let the log go on while another
/// is made, and one more, which is made without haste.
pub(super) const SPARES_MIN: usize = 2;
pub(super) const SPARES_WANTED: usize = SPARES_MIN + 1;

/// What cannot be started, and the remedy.
const THREADS: &str = "the log's threads (raise the limit on processes: TasksMax=, ulimit -u)";

struct Item {
    record: EncodedRecord,
    on_durable: Option<OnDurable>,
}

/// How full the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogUsage {
    /// Bytes a new message may still take before segments are freed or made.
    pub bytes_free: u64,
    /// The setting.
    pub log_bytes_max: u64,
    /// Segments that hold records, but for those set aside with [`LogWriter::set_uncounted`].
    pub segments_live: u64,
    /// Size of each, in bytes.
    pub segment_bytes: u64,
}

/// Segments that a log keeps ready on a full disk: one for what frees others, and one for mail.
pub(super) fn spares_kept(is_recovering: bool) -> usize {
    match is_recovering {
        true => 1,
        false => SPARES_MIN,
    }
}

/// The room of a log for its steward.
struct CommitRoom<'a> {
    commit: &'a GroupCommit<Item, LogError>,
    /// Bytes for frames in one segment.
    usable: u64,
}

impl Room for CommitRoom<'_> {
    fn made(&self) {
        self.commit.add_room(self.usable);
    }

    fn take(&self) -> bool {
        self.commit.take_room(self.usable)
    }
}

/// What the threads share.
struct Shared<M: LogMedium> {
    commit: Arc<GroupCommit<Item, LogError>>,
    segments: Arc<Segments<M>>,
    steward: Arc<Steward>,
}

/// The open log. Any number of threads may use it at once; dropping it flushes what waits.
pub struct LogWriter<M: LogMedium = DirectoryMedium> {
    shared: Shared<M>,
    medium: Arc<M>,
    settings: LogSettings,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<M: LogMedium> fmt::Debug for LogWriter<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter")
            .field("backend", &self.backend())
            .field("durable_up_to", &self.durable_up_to())
            .finish_non_exhaustive()
    }
}

impl LogWriter {
    /// Opens the log in `directory`, making it if it is missing, and takes its lock. The scan is
    /// what recovery works through; appending may begin meanwhile.
    ///
    /// # Errors
    /// [`LogError::Locked`] names the process that has it; [`LogError::Damaged`] if acknowledged
    /// records are missing and `accept_damage` is off; else what the disk said.
    pub fn open(directory: &Path, settings: LogSettings) -> Result<(Self, LogScan), LogError> {
        settings.validate()?;
        let medium = DirectoryMedium::open(directory, settings.backend)?;
        Self::open_on(Arc::new(medium), settings).map_err(|error| error.in_directory(directory))
    }
}

impl<M: LogMedium> LogWriter<M> {
    /// As [`LogWriter::open`], on any medium.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(medium: Arc<M>, settings: LogSettings) -> Result<(Self, LogScan<M>), LogError> {
        let (segments, appender, found) = start(&medium, &settings)?;
        let room = appender.room() + segments.spare_room();
        let bounds = Bounds {
            in_flight_bytes_max: settings.in_flight_bytes_max,
            reserve: settings.usable_bytes(),
        };
        let next = found.report().next_sequence.0;
        let shared = Shared {
            commit: Arc::new(GroupCommit::new(next, room, bounds)),
            segments,
            steward: Arc::new(Steward::new()),
        };
        let writer = Self {
            threads: Mutex::new(Vec::new()),
            medium,
            settings,
            shared,
        };
        writer.spawn("mailstow-log", {
            let shared = writer.shared.clone();
            move || run(&shared, appender)
        })?;
        writer.spawn("mailstow-spare", {
            let shared = writer.shared.clone();
            let usable = writer.settings.usable_bytes();
            move || {
                let commit = &shared.commit;
                let room = CommitRoom { commit, usable };
                let held_back = || commit.is_held_back();
                let failed = shared.steward.run(&shared.segments, held_back, &room);
                if let Err(error) = failed {
                    fail(&shared, error, &mut Vec::new());
                }
            }
        })?;
        writer.shared.steward.ask();
        Ok((writer, found))
    }

    /// Starts a thread of the log. Its panic poisons the log, which leaves no appender waiting; the
    /// log that is opened in its place has new threads.
    fn spawn(
        &self,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), LogError> {
        let shared = self.shared.clone();
        let supervised = move || {
            if catch_unwind(AssertUnwindSafe(body)).is_err() {
                let panicked = LogError::Panicked { thread: name };
                fail(&shared, panicked, &mut Vec::new());
            }
        };
        let handle = thread::spawn(name, supervised)
            .map_err(|error| LogError::io("start", THREADS, error))?;
        self.threads.lock().push(handle);
        Ok(())
    }

    /// Hands a record to the log. `on_durable` is called when it is durable or never will be; it
    /// is not called when this answers an error. A message waits while the log is full or too
    /// much is in flight, up to `full_wait_max`.
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::InFlight`] (452 4.3.1), [`LogError::Poisoned`],
    /// [`LogError::TooLong`], [`LogError::Closed`].
    pub fn append(
        &self,
        record: EncodedRecord,
        on_durable: Option<OnDurable>,
    ) -> Result<Ticket, LogError> {
        let bytes = record.payload().len();
        if bytes > self.settings.record_bytes_max {
            return Err(LogError::TooLong {
                bytes: bytes as u64,
                bytes_max: self.settings.record_bytes_max as u64,
            });
        }
        let weight = self.weight(&record);
        let item = Item { record, on_durable };
        let now = clock::now();
        let refused = match self.shared.commit.append(item, weight, Some(now)) {
            Ok(ticket) => return Ok(ticket),
            Err((item, Refused::Full | Refused::InFlight)) => {
                self.shared.steward.ask_for(self.segments_of(weight), false);
                let deadline = now + self.settings.full_wait_max;
                match self.shared.commit.append(item, weight, Some(deadline)) {
                    Ok(ticket) => return Ok(ticket),
                    Err((_, refused)) => refused,
                }
            }
            Err((_, refused)) => refused,
        };
        Err(self.refusal(refused))
    }

    /// As [`Self::append`], but a full log grows past its bound instead of refusing the record:
    /// for what has to be in it before anything can be freed.
    ///
    /// # Errors
    /// As there; [`LogError::Full`] when the disk is full.
    pub fn append_anyway(&self, record: EncodedRecord) -> Result<Ticket, LogError> {
        let mut weight = self.weight(&record);
        // It waits for no flush either.
        weight.class = Class::Bookkeeping;
        let mut item = Item {
            record,
            on_durable: None,
        };
        let mut deadline = clock::now();
        loop {
            match self.shared.commit.append(item, weight, Some(deadline)) {
                Ok(ticket) => return Ok(ticket),
                Err((_, Refused::Full)) if self.shared.steward.is_disk_full() => {
                    return Err(self.refusal(Refused::Full));
                }
                Err((refused, Refused::Full)) => item = refused,
                Err((_, refused)) => return Err(self.refusal(refused)),
            }
            // Its thread makes them: this one may have taken another's identity.
            self.shared.steward.ask_for(self.segments_of(weight), true);
            deadline = clock::now() + FORCED_WAIT;
        }
    }

    /// Somebody found a file system full: gives back the space of what the log can do without, if
    /// it is on that one; the bytes gained. `is_recovering`: no mail is to be taken before others
    /// are freed. Waits for another thread, as this one may have taken the identity of somebody who
    /// may not change the log.
    pub fn give_back(&self, is_recovering: bool) -> u64 {
        self.shared.steward.give_back(spares_kept(is_recovering))
    }

    /// Whether so many bytes of records can be appended with [`Self::append_anyway`], as far as can
    /// be told.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let room = self.shared.commit.room();
        room >= bytes || self.shared.segments.can_grow_by(bytes - room)
    }

    /// Has the log look whether it should leave more space to others.
    pub fn look_at_room(&self) {
        self.shared.steward.ask();
    }

    /// Segments that give the room for such a record.
    fn segments_of(&self, weight: Weight) -> u64 {
        1 + weight.charge.div_ceil(self.settings.usable_bytes())
    }

    /// So many bytes of records are held for long and do not count against `log_bytes_max`.
    pub fn set_uncounted(&self, bytes: u64) {
        self.shared.segments.set_uncounted(bytes);
    }

    fn weight(&self, record: &EncodedRecord) -> Weight {
        let bytes = record.payload().len();
        Weight {
            class: match record.kind() {
                RecordKind::Accepted | RecordKind::Extent => Class::Content,
                RecordKind::Done
                | RecordKind::Confirmed
                | RecordKind::InDoubt
                | RecordKind::Checkpoint => Class::Bookkeeping,
            },
            bytes,
            charge: charge(bytes as u64, self.settings.usable_bytes()),
        }
    }

    fn refusal(&self, refused: Refused<LogError>) -> LogError {
        match refused {
            Refused::Full => LogError::Full {
                bytes_max: self.settings.log_bytes_max,
            },
            Refused::InFlight => LogError::InFlight {
                bytes_max: self.settings.in_flight_bytes_max as u64,
            },
            Refused::Poisoned(error) => error,
            Refused::Closed => LogError::Closed,
        }
    }

    /// Waits until the record is durable.
    ///
    /// # Errors
    /// [`LogError::Poisoned`]: it may or may not be in the log when that is opened again.
    pub fn wait(&self, ticket: Ticket) -> Result<Sequence, LogError> {
        self.shared.commit.wait(ticket)?;
        Ok(Sequence(ticket.sequence))
    }

    /// [`Self::append`] and [`Self::wait`].
    ///
    /// # Errors
    /// As for the two.
    #[cfg(any(test, feature = "sim"))]
    pub fn append_and_wait(&self, record: EncodedRecord) -> Result<Sequence, LogError> {
        let ticket = self.append(record, None)?;
        self.wait(ticket)
    }

    /// Everything up to this record is durable.
    pub fn durable_up_to(&self) -> Sequence {
        Sequence(self.shared.commit.durable_up_to())
    }

    /// Shows the records from `from` up to the durable record `to`, in order, while the log is in
    /// use. Nobody may free them meanwhile.
    ///
    /// # Errors
    /// The disk failed, or a record of the range is missing.
    pub fn read_back(
        &self,
        (from, to): (Sequence, Sequence),
        visit: &mut dyn FnMut(Entry<'_>),
    ) -> Result<(), LogError> {
        read_back(self.medium.as_ref(), (from, to), visit)
    }

    /// Frees the segments whose records all come before `sequence`; tells how many. The caller
    /// knows that their messages are durable in the mailboxes, and that what is left of the
    /// in-doubt memory stands in a durable checkpoint record at or after `sequence`.
    ///
    /// # Errors
    /// The disk failed; the log is poisoned.
    pub fn truncate_before(&self, sequence: Sequence) -> Result<u64, LogError> {
        if let Some(error) = self.poisoned() {
            return Err(error);
        }
        match self.shared.segments.free_before(sequence) {
            Ok((count, room)) => {
                self.shared.commit.add_room(room);
                Ok(count)
            }
            Err(error) => Err(fail(&self.shared, error, &mut Vec::new())),
        }
    }

    /// Whether [`Self::truncate_before`] would free any segment.
    pub fn frees_before(&self, sequence: Sequence) -> bool {
        self.shared.segments.frees_before(sequence)
    }

    /// How full the log is.
    pub fn usage(&self) -> LogUsage {
        LogUsage {
            bytes_free: self
                .shared
                .commit
                .room()
                .saturating_sub(self.settings.usable_bytes()),
            log_bytes_max: self.settings.log_bytes_max,
            segments_live: self.shared.segments.live_count(),
            segment_bytes: self.settings.segment_bytes,
        }
    }

    /// How the log reaches the disk and why that way, in words.
    pub fn backend(&self) -> String {
        self.medium.describe()
    }

    /// The failure that stopped the log, if any.
    pub fn poisoned(&self) -> Option<LogError> {
        self.shared.commit.poisoned()
    }

    /// Flushes what waits. The directory's lock is given back once the [`LogScan`] is dropped too.
    ///
    /// # Errors
    /// The log is poisoned.
    #[cfg(any(test, feature = "sim"))]
    pub fn close(self) -> Result<(), LogError> {
        self.stop();
        self.poisoned().map_or(Ok(()), Err)
    }

    fn stop(&self) {
        self.shared.commit.close();
        self.shared.steward.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // Panics end on the thread itself, and poison the log.
            drop(thread.join());
        }
    }
}

impl<M: LogMedium> Drop for LogWriter<M> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<M: LogMedium> Clone for Shared<M> {
    fn clone(&self) -> Self {
        Self {
            commit: Arc::clone(&self.commit),
            segments: Arc::clone(&self.segments),
            steward: Arc::clone(&self.steward),
        }
    }
}

/// Scans the log and begins a new segment, so that nothing is ever written behind a torn tail.
#[expect(
    clippy::type_complexity,
    reason = "the three parts of an open log, named by the caller"
)]
pub(super) fn start<M: LogMedium>(
    medium: &Arc<M>,
    settings: &LogSettings,
) -> Result<(Arc<Segments<M>>, Appender<M>, LogScan<M>), LogError> {
    settings.validate()?;
    flush_tail(medium.as_ref())?;
    let report = scan_records(medium.as_ref())?;
    if let Some(error) = report.damage_error()
        && !settings.accept_damage
    {
        return Err(error);
    }
    let segments = Segments::adopt(Arc::clone(medium), settings.clone(), &report)?;
    // One to write into and one in reserve; after a crash with a full log, past its limit. On a
    // disk that is full or nearly so one will do: recovery frees others, and needs space itself.
    for wanted in 1..=SPARES_MIN {
        let is_needed = wanted == 1 || !segments.is_low();
        let prepared = segments.prepare(wanted, is_needed, &|| Haste::Hurry)?;
        let obstacle = match prepared {
            Prepared::Made | Prepared::Enough => None,
            Prepared::DiskFull => Some(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            Prepared::NotNow => Some(std::io::Error::from_raw_os_error(libc::EMFILE)),
        };
        if let Some(error) = obstacle.filter(|_| wanted == 1) {
            let segment = format!("a segment of {} bytes", settings.segment_bytes);
            return Err(LogError::io("prepare", &segment, error));
        }
    }
    if let Some(scratch) = segments.scratch() {
        medium
            .tune(&scratch)
            .map_err(|error| LogError::io("write", &scratch, error))?;
    }
    let segments = Arc::new(segments);
    let opened = segments.begin_after_open(&report)?;
    segments.free_empty(&report)?;
    let appender = Appender::new(Arc::clone(&segments), opened);
    let found = LogScan::new(Arc::clone(medium), report);
    Ok((segments, appender, found))
}

/// A process that died may have left bytes that were written and not flushed. Recovery acts on
/// what it reads, so that must not be lost later.
fn flush_tail<M: LogMedium>(medium: &M) -> Result<(), LogError> {
    let names = medium
        .list()
        .map_err(|error| LogError::io("list", "the log directory", error))?;
    for name in names {
        if matches!(role(&name), FileRole::Live(_)) {
            medium
                .open(&name, Access::Read)
                .and_then(|mut file| file.flush())
                .map_err(|error| LogError::io("flush", &name, error))?;
        }
    }
    Ok(())
}

/// The log thread.
fn run<M: LogMedium>(shared: &Shared<M>, mut appender: Appender<M>) {
    let mut batch = Vec::new();
    while shared.commit.take(&mut batch) {
        let last = batch.last().map_or(0, |(sequence, _)| *sequence);
        let entries = batch
            .iter()
            .map(|(sequence, item)| (*sequence, &item.record));
        match appender.write_batch(entries) {
            Ok(consumed) => {
                shared.commit.complete(last, consumed);
                if appender.take_rotated() {
                    shared.steward.ask();
                }
                for (sequence, item) in batch.drain(..) {
                    if let Some(call) = item.on_durable {
                        call(Ok(Sequence(sequence)));
                    }
                }
            }
            Err(error) => {
                fail(shared, error, &mut batch);
                break;
            }
        }
    }
}

/// Poisons the log and tells `batch` and everything that waits; answers the error later appends
/// get.
fn fail<M: LogMedium>(
    shared: &Shared<M>,
    error: LogError,
    batch: &mut Vec<(u64, Item)>,
) -> LogError {
    tracing::error!(%error, "the delivery log failed; nothing more is acknowledged");
    let poisoned = LogError::Poisoned {
        cause: Arc::new(error),
    };
    let waiting = shared.commit.poison(poisoned.clone());
    for (_, item) in batch.drain(..).chain(waiting) {
        if let Some(call) = item.on_durable {
            call(Err(poisoned.clone()));
        }
    }
    poisoned
}

impl Ticket {
    /// The record's place in the log.
    pub fn sequence(self) -> Sequence {
        Sequence(self.sequence)
    }
}

/// How long the steward sleeps before it tries a full disk again.
pub(super) const DISK_FULL_RETRY: Duration = Duration::from_secs(1);
