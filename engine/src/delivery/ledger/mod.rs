//! The ledger: what a store must remember of deliveries until they are settled.
//!
//! Part of it is in the delivery log. The rest is in memory only, because recovery restores it from
//! the records in the log. A checkpoint frees the records of deliveries that are settled.

mod checkpoint;
pub(super) mod deferred;
pub(super) mod deferred_mail;
pub(super) mod dirty_file_systems;
pub(super) mod fingerprint;
pub(super) mod handle;
pub(super) mod journal;
pub(super) mod late_ends;
pub(super) mod lease_term;
pub(super) mod logged_message;
mod queue_id;
pub(super) mod refusals;
pub(super) mod retention;
pub(super) mod sector_sums;
pub(super) mod suspect_note;
pub(super) mod unconfirmed;

use crate::config::DeliveryLogSettings;
use crate::log::{EncodedRecord, InDoubt, LogError, OnDurable};
use crate::sync::{Arc, Mutex};
use deferred::Deferred;
use dirty_file_systems::FileSystems;
use handle::LogHandle;
use journal::{Journal, confirmed_records, in_doubt_max, in_doubt_records, log_settings};
use late_ends::LateEnds;
use refusals::Refusals;
use retention::Retention;
use std::fmt;
use std::io;
use unconfirmed::{Keep, Unconfirmed};

/// The memory of a store with a delivery log.
pub(super) struct Ledger<H> {
    /// Longest message for the log, in bytes.
    pub(super) message_bytes_max: u64,
    /// Longest record that the log takes, in bytes.
    pub(super) record_bytes_max: usize,
    pub(super) log: LogHandle,
    /// The records that deliveries in progress need.
    pub(super) retention: Retention,
    pub(super) file_systems: FileSystems<H>,
    pub(super) unconfirmed: Unconfirmed,
    pub(super) refusals: Refusals,
    /// The outcomes of deliveries that were answered before they ended.
    pub(super) late_ends: LateEnds,
    pub(super) deferred: Deferred,
}

impl<H> fmt::Debug for Ledger<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl<H: fmt::Debug> Ledger<H> {
    pub(super) fn new(settings: &DeliveryLogSettings) -> Self {
        let log = log_settings(settings);
        Self {
            message_bytes_max: settings.message_bytes_max,
            record_bytes_max: log.record_bytes_max,
            log: LogHandle::new(),
            retention: Retention::default(),
            file_systems: FileSystems::default(),
            unconfirmed: Unconfirmed::new(Keep::from(settings), in_doubt_max(&log)),
            refusals: Refusals::default(),
            late_ends: LateEnds::default(),
            deferred: Deferred::default(),
        }
    }

    /// Frees space on a full disk: asks the log to give back space that it does not need. Returns
    /// true when some was freed, and the write may be tried again. Asks for a checkpoint, which
    /// frees more of the log.
    pub(super) fn make_room(&self, journal: &dyn Journal) -> bool {
        let gained = journal.give_back(false);
        self.log.ask_checkpoint();
        gained > 0
    }

    /// As [`Self::make_room`], for a caller without a lease.
    pub(super) fn make_room_for_others(&self) -> bool {
        let lease = self.log.lease();
        lease.is_ok_and(|lease| self.make_room(lease.journal.as_ref()))
    }

    /// Notes that a flush by a delivery failed, which may have covered logged mail for that file
    /// system.
    pub(super) fn flush_failed(&self, device: u64, source: &Arc<io::Error>) {
        self.file_systems.fails(device, source);
        self.log.ask_checkpoint();
    }

    /// Appends deliveries in doubt, which are in memory already, without waiting. `then` is called
    /// once, when the log durably has all of them or never will.
    pub(super) fn append_in_doubt(&self, entries: &[InDoubt], then: OnDurable) {
        let lease = match self.log.lease() {
            Ok(lease) => lease,
            Err(error) => return then(Err(error)),
        };
        let mut records: Vec<EncodedRecord> = in_doubt_records(entries).collect();
        let Some(last) = records.pop() else {
            return then(Ok(lease.journal.durable_up_to()));
        };
        let failed: Arc<Mutex<Option<LogError>>> = Arc::default();
        for record in records {
            let failed = Arc::clone(&failed);
            let note = move |durable: Result<_, LogError>| {
                if let Err(error) = durable {
                    *failed.lock() = Some(error);
                }
            };
            lease.journal.append_then(record, Box::new(note));
        }
        // Calls come in the order of the log, so this is the last one.
        let then = move |durable| {
            let failed = failed.lock().take();
            then(failed.map_or(durable, Err));
        };
        lease.journal.append_then(last, Box::new(then));
    }

    /// Appends which replies were read, without waiting.
    pub(super) fn append_confirmations(&self) {
        let Ok(lease) = self.log.lease() else {
            return;
        };
        for record in confirmed_records(&self.unconfirmed.take_pending()) {
            // Records that a failing log loses are appended to the next log.
            drop(lease.journal.append_anyway(record));
        }
    }
}
