//! The log without threads: the same appender, driven by whoever waits, so that a simulation
//! repeats itself.
//!
//! Imports what `writer` imports. Whoever waits for a record writes everything that was appended
//! before as one batch.

use super::appender::{Appender, charge};
use super::codec::EncodedRecord;
use super::error::LogError;
use super::group_commit::Ticket;
use super::live::read_back;
use super::log_scan::LogScan;
use super::medium::{Haste, LogMedium};
use super::record::{RecordKind, Sequence};
use super::scan::Entry;
use super::segments::{Prepared, Segments};
use super::settings::LogSettings;
use super::writer::{LogUsage, spares_kept, start};
use crate::sync::{Arc, Mutex};
use std::fmt;

/// An open log that does its work when it is asked to.
pub struct StepLog<M: LogMedium> {
    medium: Arc<M>,
    settings: LogSettings,
    segments: Arc<Segments<M>>,
    state: Mutex<State<M>>,
}

struct State<M: LogMedium> {
    appender: Appender<M>,
    waiting: Vec<(u64, EncodedRecord)>,
    /// Bytes of the log that were charged for these, at most.
    charged: u64,
    room: u64,
    next: u64,
    durable: u64,
    poisoned: Option<LogError>,
}

impl<M: LogMedium> fmt::Debug for StepLog<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepLog").finish_non_exhaustive()
    }
}

impl<M: LogMedium> StepLog<M> {
    /// Opens the log on `medium`.
    ///
    /// # Errors
    /// As [`super::LogWriter::open_on`].
    pub fn open_on(
        medium: &Arc<M>,
        settings: &LogSettings,
    ) -> Result<(Self, LogScan<M>), LogError> {
        let (segments, appender, found) = start(medium, settings)?;
        let next = found.report().next_sequence.0;
        let state = State {
            room: appender.room() + segments.spare_room(),
            appender,
            waiting: Vec::new(),
            charged: 0,
            next,
            durable: next - 1,
            poisoned: None,
        };
        let log = Self {
            medium: Arc::clone(medium),
            settings: settings.clone(),
            segments,
            state: Mutex::new(state),
        };
        Ok((log, found))
    }

    /// Hands a record over; nothing is written yet.
    ///
    /// # Errors
    /// The log is full or failed.
    pub fn append(&self, record: EncodedRecord) -> Result<Ticket, LogError> {
        self.take(record, false)
    }

    /// As [`super::LogWriter::append_anyway`].
    ///
    /// # Errors
    /// The log failed, or its disk is full.
    pub fn append_anyway(&self, record: EncodedRecord) -> Result<Ticket, LogError> {
        self.take(record, true)
    }

    /// As [`super::LogWriter::frees_before`].
    pub fn frees_before(&self, sequence: Sequence) -> bool {
        self.segments.frees_before(sequence)
    }

    /// As [`super::LogWriter::set_uncounted`].
    pub fn set_uncounted(&self, bytes: u64) {
        self.segments.set_uncounted(bytes);
    }

    /// As [`super::LogWriter::give_back`].
    pub fn give_back(&self, is_recovering: bool) -> u64 {
        self.make_room(spares_kept(is_recovering), self.segments.give())
    }

    /// As [`super::LogWriter::has_room_for`].
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let room = self.state.lock().room;
        room >= bytes || self.segments.can_grow_by(bytes - room)
    }

    /// As [`super::LogWriter::look_at_room`].
    pub fn look_at_room(&self) {
        self.make_room(spares_kept(false), false);
    }

    fn make_room(&self, kept: usize, gives_all: bool) -> u64 {
        let mut state = self.state.lock();
        let usable = self.settings.usable_bytes();
        let mut gained = 0;
        while (gives_all || self.segments.is_low()) && state.room >= 2 * usable {
            match self.segments.remove_spare(kept) {
                Ok(Some(bytes)) => {
                    state.room -= usable;
                    gained += bytes;
                }
                Ok(None) => break,
                Err(error) => {
                    state.poison(error);
                    break;
                }
            }
        }
        gained
    }

    fn take(&self, record: EncodedRecord, anyway: bool) -> Result<Ticket, LogError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.poisoned {
            return Err(error.clone());
        }
        let usable = self.settings.usable_bytes();
        let needed = charge(record.payload().len() as u64, usable);
        let reserve = match record.kind() {
            RecordKind::Accepted if !anyway => usable,
            _ => 0,
        };
        while needed + reserve > state.room {
            match self.segments.prepare(usize::MAX, anyway, &|| Haste::Hurry) {
                Ok(Prepared::Made) => state.room += usable,
                Ok(_) => {
                    return Err(LogError::Full {
                        bytes_max: self.settings.log_bytes_max,
                    });
                }
                Err(error) => return Err(state.poison(error)),
            }
        }
        state.room -= needed;
        state.charged += needed;
        let sequence = state.next;
        state.next += 1;
        state.waiting.push((sequence, record));
        Ok(Ticket::of(sequence))
    }

    /// Writes what waits, unless this record is durable already.
    ///
    /// # Errors
    /// The disk failed.
    pub fn wait(&self, ticket: Ticket) -> Result<Sequence, LogError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if ticket.sequence().0 <= state.durable {
            return Ok(ticket.sequence());
        }
        if let Some(error) = &state.poisoned {
            return Err(error.clone());
        }
        let batch = std::mem::take(&mut state.waiting);
        let entries = batch.iter().map(|(sequence, record)| (*sequence, record));
        let consumed = match state.appender.write_batch(entries) {
            Ok(consumed) => consumed,
            Err(error) => return Err(state.poison(error)),
        };
        state.room += std::mem::take(&mut state.charged).saturating_sub(consumed);
        state.durable = state.next - 1;
        Ok(ticket.sequence())
    }

    /// Everything up to this record is durable.
    pub fn durable_up_to(&self) -> Sequence {
        Sequence(self.state.lock().durable)
    }

    /// As [`super::LogWriter::read_back`].
    ///
    /// # Errors
    /// As there.
    pub fn read_back(
        &self,
        (from, to): (Sequence, Sequence),
        visit: &mut dyn FnMut(Entry<'_>),
    ) -> Result<(), LogError> {
        read_back(self.medium.as_ref(), (from, to), visit)
    }

    /// As [`super::LogWriter::truncate_before`].
    ///
    /// # Errors
    /// The disk failed.
    pub fn truncate_before(&self, sequence: Sequence) -> Result<u64, LogError> {
        let freed = self.segments.free_before(sequence);
        let mut state = self.state.lock();
        match freed {
            Ok((count, room)) => {
                state.room += room;
                Ok(count)
            }
            Err(error) => Err(state.poison(error)),
        }
    }

    /// How full it is.
    pub fn usage(&self) -> LogUsage {
        LogUsage {
            bytes_free: self.state.lock().room,
            log_bytes_max: self.settings.log_bytes_max,
            segments_live: self.segments.live_count(),
            segment_bytes: self.settings.segment_bytes,
        }
    }

    /// What stopped it.
    pub fn poisoned(&self) -> Option<LogError> {
        self.state.lock().poisoned.clone()
    }
}

impl<M: LogMedium> State<M> {
    fn poison(&mut self, error: LogError) -> LogError {
        let poisoned = LogError::Poisoned {
            cause: Arc::new(error),
        };
        self.poisoned = Some(poisoned.clone());
        poisoned
    }
}
