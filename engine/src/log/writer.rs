//! The delivery log as the rest of the engine sees it: open, append, wait, truncate, close.

use super::appender::charge;
use super::codec::EncodedRecord;
use super::committer::Committer;
use super::directory::DirectoryMedium;
use super::error::LogError;
use super::group_commit::{Bounds, Class, GroupCommit, RecordTicket, Refused, Weight};
use super::live::read_back;
use super::log_scan::LogScan;
use super::medium::LogMedium;
use super::opening::start;
use super::orders::Orders;
use super::preallocator::Preallocator;
use super::record::{RecordKind, Sequence};
use super::scan::ScannedRecord;
use super::segments::spares_kept;
use super::settings::LogWriterSettings;
use super::shared::{Item, OnDurable, Shared};
use super::unreadable::LeftOut;
use super::workers::{Threads, Workers};
use crate::clock;
use crate::sync::Arc;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// How long an append that must not be refused waits before it looks whether the disk is full.
const FORCED_WAIT: Duration = Duration::from_millis(200);
/// How long a delivery waits for space that the log gives back.
const GIVE_WAIT: Duration = Duration::from_secs(2);

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

/// The open log. Any number of threads may use it at once; dropping it flushes what waits.
///
/// Its threads do its work. In a simulation its callers do that work step by step, and dropping it
/// flushes nothing, as if the process had been killed.
pub struct LogWriter<M: LogMedium = DirectoryMedium, W: Workers = Threads> {
    pub(super) shared: Shared<M>,
    medium: Arc<M>,
    settings: LogWriterSettings,
    workers: W,
    /// Records that make no sense and are never shown.
    left_out: Arc<LeftOut>,
}

impl<M: LogMedium, W: Workers> fmt::Debug for LogWriter<M, W> {
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
    pub fn open(
        directory: &Path,
        settings: LogWriterSettings,
    ) -> Result<(Self, LogScan), LogError> {
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
    pub fn open_on(
        medium: Arc<M>,
        settings: LogWriterSettings,
    ) -> Result<(Self, LogScan<M>), LogError> {
        Self::open_with(medium, settings, Threads::start)
    }
}

impl<M: LogMedium, W: Workers> LogWriter<M, W> {
    /// Opens the log, and has `hire` find who does its work.
    pub(super) fn open_with(
        medium: Arc<M>,
        settings: LogWriterSettings,
        hire: impl FnOnce(&Shared<M>, Committer<M>, Preallocator<M>) -> Result<W, LogError>,
    ) -> Result<(Self, LogScan<M>), LogError> {
        let (segments, appender, found) = start(&medium, &settings)?;
        let room = appender.room() + segments.spare_room();
        let bounds = Bounds {
            in_flight_bytes_max: settings.in_flight_bytes_max,
            reserve: settings.usable_bytes(),
        };
        let next = found.report().next_sequence.0;
        let left_out = Arc::clone(found.left_out());
        let shared = Shared {
            commit: Arc::new(GroupCommit::new(next, room, bounds)),
            segments,
            orders: Arc::new(Orders::new()),
        };
        let committer = Committer::new(shared.clone(), appender);
        let preallocator = Preallocator::new(shared.clone(), settings.usable_bytes());
        let writer = Self {
            workers: hire(&shared, committer, preallocator)?,
            medium,
            settings,
            shared,
            left_out,
        };
        writer.shared.orders.ask();
        Ok((writer, found))
    }

    #[cfg(any(test, fuzzing, feature = "sim"))]
    pub(super) fn workers(&self) -> &W {
        &self.workers
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
    ) -> Result<RecordTicket, LogError> {
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
            Err((item, obstacle @ (Refused::Full | Refused::InFlight))) => {
                self.shared.orders.ask_for(self.segments_of(weight), false);
                match obstacle {
                    Refused::InFlight => self.workers.commit(None),
                    _ => self.workers.preallocate(),
                }
                let deadline = now + self.workers.wait_limit(self.settings.full_wait_max);
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
    pub fn append_anyway(&self, record: EncodedRecord) -> Result<RecordTicket, LogError> {
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
                Err((_, Refused::Full)) if self.shared.orders.is_disk_full() => {
                    return Err(self.refusal(Refused::Full));
                }
                Err((refused, Refused::Full)) => item = refused,
                Err((_, refused)) => return Err(self.refusal(refused)),
            }
            // Its thread makes them: this one may have taken another's identity.
            self.shared.orders.ask_for(self.segments_of(weight), true);
            self.workers.preallocate();
            deadline = clock::now() + self.workers.wait_limit(FORCED_WAIT);
        }
    }

    /// As [`Self::append`], for who never waits: a full log refuses the record at once. `then` is
    /// called once, when the record is durable or never will be; perhaps before this returns.
    pub fn append_then(&self, record: EncodedRecord, then: OnDurable) {
        let weight = self.weight(&record);
        let on_durable = Some(then);
        let item = Item { record, on_durable };
        match self.shared.commit.append(item, weight, Some(clock::now())) {
            Ok(_) => self.workers.commit(None),
            Err((item, refused)) => {
                if matches!(refused, Refused::Full) {
                    self.shared.orders.ask_for(self.segments_of(weight), false);
                    self.workers.preallocate();
                }
                if let Some(then) = item.on_durable {
                    then(Err(self.refusal(refused)));
                }
            }
        }
    }

    /// A file system was found full: gives back the space of what the log can do without, if it is
    /// on that one; the bytes gained. `is_recovering`: no mail is to be taken before others are
    /// freed. Waits for another thread, as this one may have the identity of a user who may not
    /// change the log.
    pub fn give_back(&self, is_recovering: bool) -> u64 {
        let orders = &self.shared.orders;
        let order = orders.ask_to_give_back(spares_kept(is_recovering));
        self.workers.preallocate();
        orders.wait_for_gain(order, self.workers.wait_limit(GIVE_WAIT))
    }

    /// Whether so many bytes of records can be appended with [`Self::append_anyway`], as far as is
    /// known.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let room = self.shared.commit.room();
        room >= bytes || self.shared.segments.can_grow_by(bytes - room)
    }

    /// Has the log look whether it should leave more space to others.
    pub fn look_at_room(&self) {
        self.shared.orders.ask();
        self.workers.preallocate();
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
    pub fn wait(&self, ticket: RecordTicket) -> Result<Sequence, LogError> {
        self.workers.commit(Some(ticket.sequence));
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
    /// use, but for those set aside. They must not be freed meanwhile.
    ///
    /// # Errors
    /// The disk failed, a record of the range is missing, or the log was let go of.
    pub fn read_back(
        &self,
        (from, to): (Sequence, Sequence),
        visit: &mut dyn FnMut(ScannedRecord<'_>),
    ) -> Result<(), LogError> {
        self.check_open()?;
        read_back(self.medium.as_ref(), (from, to), &mut |entry| {
            if !self.left_out.has(&entry) {
                visit(entry);
            }
        })
    }

    /// Frees the segments whose records all come before `sequence`; tells how many. The caller
    /// knows that their messages are durable in the mailboxes, and that what is left of the
    /// in-doubt memory stands in a durable checkpoint record at or after `sequence`.
    ///
    /// # Errors
    /// The disk failed; the log is poisoned, or was let go of.
    pub fn truncate_before(&self, sequence: Sequence) -> Result<u64, LogError> {
        if let Some(error) = self.poisoned() {
            return Err(error);
        }
        self.check_open()?;
        match self.shared.segments.free_before(sequence) {
            Ok((count, room)) => {
                self.shared.commit.add_room(room);
                Ok(count)
            }
            Err(error) => Err(self.shared.fail(error, &mut Vec::new())),
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
    #[cfg(any(test, fuzzing, feature = "sim"))]
    pub fn close(self) -> Result<(), LogError> {
        self.workers.commit(None);
        self.stop();
        self.poisoned().map_or(Ok(()), Err)
    }

    /// Flushes what waits, and gives the directory's lock back although a caller may still have the
    /// log, who gets errors from now on. Nothing that is done with it then concerns a log that is
    /// opened in its place.
    pub fn let_go(&self) {
        self.stop();
        self.medium.unlock();
    }

    fn check_open(&self) -> Result<(), LogError> {
        match self.shared.commit.is_closed() {
            true => Err(LogError::Closed),
            false => Ok(()),
        }
    }

    fn stop(&self) {
        self.shared.close();
        self.workers.end();
    }
}

impl<M: LogMedium, W: Workers> Drop for LogWriter<M, W> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl RecordTicket {
    /// The record's place in the log.
    pub fn sequence(self) -> Sequence {
        Sequence(self.sequence)
    }
}
