//! How the deliveries of a batch become durable: the only difference between batches.
//!
//! Invariant: through the log, nothing is published or answered before every record of the batch
//! is durable, and a failure is answered only when the log has it or is out of service.

use super::super::active_batch::ActiveBatch;
use super::super::delivery::Delivery;
use super::super::error::DeliveryError;
use super::super::ledger::Ledger;
use super::super::ledger::handle::LogLease;
use super::super::ledger::journal::{confirmed_records, done_records};
use super::super::ledger::logged_message::InLog;
use super::super::ledger::retention::RetentionMark;
use crate::io::Disk;
use crate::log::{Done, DoneOutcome, LogError, RecordTicket};
use crate::mailbox::{Flush, Unflushed};
use crate::sync::Arc;
use std::fmt;
use std::io;
use std::path::Path;

/// How a batch becomes durable.
pub(in crate::delivery) enum Commit<'a, H> {
    /// Through the delivery log. The mailboxes are flushed by its next checkpoint.
    Log(LogCommit<'a, H>),
    /// Flushes the mailboxes, in a store without a log.
    Flush,
    /// As [`Commit::Flush`], in a store with a log. The log has an extent record of each message
    /// for an mbox before the message is written.
    FlushWithExtents(&'a Ledger<H>),
}

/// The state of a batch in the log.
pub(in crate::delivery) struct LogCommit<'a, H> {
    ledger: &'a Ledger<H>,
    lease: LogLease<'a>,
    /// Keeps the records of the batch in the log.
    mark: Arc<RetentionMark>,
    /// The newest record that must be durable before anything is published.
    newest: Option<RecordTicket>,
}

/// When the data written to a mailbox is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushTime {
    /// By the next checkpoint of the log.
    AtCheckpoint,
    /// Right after it was written, because no checkpoint can flush its file system.
    AtOnce,
    /// Together with the rest of the batch.
    WithBatch,
}

impl<'a, H: fmt::Debug + Send + Sync + 'static> Commit<'a, H> {
    /// Commits through the log.
    ///
    /// # Errors
    /// The log is out of service.
    pub(in crate::delivery) fn through_log(
        ledger: &'a Ledger<H>,
        active: &ActiveBatch,
    ) -> Result<Self, LogError> {
        let lease = lease(ledger, active)?;
        let mark = Arc::new(ledger.retention.take(|| lease.journal.durable_up_to()));
        active.is_kept_by(&mark, ledger.file_systems.failures());
        Ok(Self::Log(LogCommit {
            ledger,
            lease,
            mark,
            newest: None,
        }))
    }

    /// Commits by flushing the mailboxes.
    pub(in crate::delivery) fn in_mailboxes(ledger: Option<&'a Ledger<H>>) -> Self {
        match ledger {
            Some(ledger) => Self::FlushWithExtents(ledger),
            None => Self::Flush,
        }
    }

    /// Returns true when mboxes are locked before the batch is recorded, so that the records can
    /// name the place of each message; otherwise each mbox is locked when its messages are
    /// appended.
    pub(super) fn locks_first(&self) -> bool {
        matches!(self, Self::Log(_))
    }

    /// Returns true when the batch flushes what it wrote.
    pub(super) fn flushes_batch(&self) -> bool {
        !matches!(self, Self::Log(_))
    }

    /// Returns the ledger whose log has the extents of the messages for mboxes.
    pub(super) fn extents(&self) -> Option<&'a Ledger<H>> {
        match self {
            Self::FlushWithExtents(ledger) => Some(ledger),
            Self::Log(_) | Self::Flush => None,
        }
    }

    /// Returns the state that a directory must have to be used without a flush.
    pub(super) fn of_directories(&self) -> Flush {
        match self {
            Self::Log(_) => Flush::Later,
            Self::Flush | Self::FlushWithExtents(_) => Flush::Now,
        }
    }

    /// Decides when the data written to a mailbox is flushed, before any is written. `near` is a
    /// directory on the file system of the mailbox, and `above` are the directories that lead to
    /// it, through `mount_point`.
    pub(super) fn flush_time<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        (device, near): (u64, &H),
        above: &[Unflushed<H>],
        mount_point: &Path,
    ) -> io::Result<FlushTime> {
        let Self::Log(log) = self else {
            return Ok(FlushTime::WithBatch);
        };
        let file_systems = &log.ledger.file_systems;
        file_systems.check(device)?;
        let by_checkpoint = file_systems.enter(disk, device, (near, mount_point))?;
        file_systems.enter_all(disk, above, mount_point)?;
        Ok(match by_checkpoint {
            true => FlushTime::AtCheckpoint,
            false => FlushTime::AtOnce,
        })
    }

    /// Frees space on a full disk: asks the log to give back space that it does not need. Returns
    /// true when some was freed, and the write may be tried again.
    #[cold]
    pub(super) fn make_room(&self) -> bool {
        match self {
            Self::Log(log) => log.ledger.make_room(log.lease.journal.as_ref()),
            Self::Flush => false,
            Self::FlushWithExtents(ledger) => ledger.make_room_for_others(),
        }
    }

    /// Appends the record of the message, unless the log has it.
    pub(super) fn record(&mut self, delivery: &Delivery) -> Result<(), LogError> {
        let Self::Log(log) = self else { return Ok(()) };
        let Some(message) = delivery.logged_message() else {
            return Err(LogError::Closed);
        };
        let kept_by = (&log.mark, &log.ledger.refusals);
        let ticket = match message.append_to(&log.lease.journal, kept_by, &delivery.mail)? {
            InLog::Stale => return Err(LogError::Closed),
            InLog::Before(ticket) => ticket,
            InLog::Appended(ticket) => {
                log.ledger.unconfirmed.open(message);
                ticket
            }
        };
        log.must_wait_for(ticket);
        Ok(())
    }

    /// Appends the places of messages in mboxes.
    pub(super) fn record_places(&mut self, places: &[Done]) -> Result<(), LogError> {
        let Self::Log(log) = self else { return Ok(()) };
        for record in done_records(places) {
            let ticket = log.lease.journal.append(record)?;
            log.must_wait_for(ticket);
        }
        Ok(())
    }

    /// Appends the place of one message in an mbox, and waits until it is durable.
    pub(super) fn record_place_now(&self, place: Option<Done>) -> Result<(), LogError> {
        let (Self::Log(log), Some(place)) = (self, place) else {
            return Ok(());
        };
        for record in done_records(&[place]) {
            let journal = &log.lease.journal;
            journal.wait(journal.append(record)?)?;
        }
        Ok(())
    }

    /// Appends which replies were read, without waiting. If a failing log loses the record, the
    /// deliveries are in doubt for some time.
    pub(super) fn record_confirmations(&self) {
        let Self::Log(log) = self else { return };
        if log.lease.is_over() {
            // Another log may be in service, and must have the record.
            return;
        }
        for record in confirmed_records(&log.ledger.unconfirmed.take_pending()) {
            drop(log.lease.journal.append(record));
        }
    }

    /// Returns true while another batch may begin before this one is finished: this one waits for
    /// the disk, and the log has space for the other without the records of this one.
    pub(super) fn may_overlap(&self) -> bool {
        let Self::Log(log) = self else { return false };
        let Some(newest) = log.newest else {
            return false;
        };
        let journal = &log.lease.journal;
        let usage = journal.usage();
        newest.sequence() > journal.durable_up_to() && usage.bytes_free > usage.log_bytes_max / 4
    }

    /// Waits until every record of the batch is durable, and all other data that must be durable
    /// before anything is published.
    ///
    /// # Errors
    /// The log failed: the records may never be durable.
    pub(super) fn wait(&mut self) -> Result<(), LogError> {
        let Self::Log(log) = self else { return Ok(()) };
        let Some(newest) = log.newest.take() else {
            return Ok(());
        };
        log.lease.journal.wait(newest).map(|_| ())
    }

    /// Notes that a flush failed, which may have covered the whole file system and dropped logged
    /// messages there.
    pub(super) fn flush_failed(&self, device: u64, error: &Arc<io::Error>) {
        if let Self::FlushWithExtents(ledger) = self {
            ledger.flush_failed(device, error);
        }
    }

    /// Returns true when a failure must be in the log before it is answered.
    pub(super) fn records_refusals(&self) -> bool {
        matches!(self, Self::Log(_))
    }

    /// Prevents that recovery makes the deliveries that failed: appends refusals, and waits until
    /// they are durable. Refusals that a failed log cannot take are appended when it is opened
    /// again; after a crash before that, the in-doubt memory answers the repetition. A delivery
    /// that was answered with success before is not refused: it is tried again.
    pub(super) fn record_refusals<'r>(&self, refused: &'r mut [(Delivery, DeliveryError)]) {
        let Self::Log(log) = self else { return };
        let is_refused = |one: &'r mut (Delivery, DeliveryError)| one.0.close().then_some(one);
        let refused: Vec<&mut (Delivery, DeliveryError)> =
            refused.iter_mut().filter_map(is_refused).collect();
        let recorded = |delivery: &Delivery| delivery.done(DoneOutcome::Refused);
        let done: Vec<Done> = refused.iter().filter_map(|one| recorded(&one.0)).collect();
        if done.is_empty() {
            return;
        }
        let journal = &log.lease.journal;
        let appended = done_records(&done).map(|record| journal.append(record));
        let Ok(tickets) = appended.collect::<Result<Vec<RecordTicket>, LogError>>() else {
            return;
        };
        let is_durable = |newest: &RecordTicket| journal.wait(*newest).is_ok();
        if tickets.last().is_none_or(is_durable) {
            for (delivery, _) in refused {
                if recorded(delivery).is_some() {
                    delivery.refusal_is_logged();
                }
            }
        }
    }
}

impl<H: fmt::Debug + Send + Sync + 'static> LogCommit<'_, H> {
    fn must_wait_for(&mut self, ticket: RecordTicket) {
        let is_newer = |newest: RecordTicket| newest.sequence() < ticket.sequence();
        if self.newest.is_none_or(is_newer) {
            self.newest = Some(ticket);
        }
    }
}

/// Returns the right to use the log for a batch. It ends when the batch is given up.
///
/// # Errors
/// The log is out of service.
pub(super) fn lease<'a, H>(
    ledger: &'a Ledger<H>,
    active: &ActiveBatch,
) -> Result<LogLease<'a>, LogError> {
    let lease = ledger.log.lease()?;
    if !active.uses_log(lease.term()) {
        ledger.log.end_lease(lease.term());
    }
    Ok(lease)
}
