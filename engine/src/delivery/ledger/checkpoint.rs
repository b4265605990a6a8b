//! Which records of the log a checkpoint frees, and what it writes in their place.
//!
//! Invariant: a checkpoint covers only messages of which every delivery ended before the flush of
//! the file systems began, and which are durable there, or deferred with new records after it.

use super::Ledger;
use super::handle::is_half_full;
use super::journal::{Journal, confirmed_records};
use crate::log::{Checkpoint, DeliveryId, LogError, Record, Sequence};
use std::collections::HashSet;
use std::fmt;

impl<H: fmt::Debug> Ledger<H> {
    /// Returns true if a checkpoint of everything before `below` is worth its cost: it makes
    /// something durable, or frees something.
    pub(in crate::delivery) fn wants_checkpoint(
        &self,
        journal: &dyn Journal,
        below: Sequence,
    ) -> bool {
        let has_pending = self.unconfirmed.has_pending() || self.refusals.is_behind();
        let is_behind = has_pending || self.deferred.is_changed() || self.awaits_flush();
        let is_idle = journal.durable_up_to() <= self.log.checkpoint_at() && !is_behind;
        let is_full = journal.usage().bytes_free == 0;
        // A checkpoint that frees nothing only fills the log further.
        // One that frees nothing at first holds the mail of a file system whose flush does not end.
        let needed = self.file_systems.needed_from_once_held().unwrap_or(below);
        let freed = self.deferred.coverable(journal, needed.min(below));
        let is_vain = (is_idle || is_full) && !self.awaits_flush() && !journal.frees_before(freed);
        let may_wait = self.deferred.rests() && !is_half_full(journal);
        !(is_vain || may_wait)
    }

    /// Writes a checkpoint of everything before `below`, whose deliveries have all ended and were
    /// flushed, and frees the log up to there. Covers less where a file system is suspect, or where
    /// there is no room for a copy of deferred mail. Returns its record.
    ///
    /// # Errors
    /// The log failed.
    pub(in crate::delivery) fn write_checkpoint(
        &self,
        journal: &dyn Journal,
        below: Sequence,
    ) -> Result<Sequence, LogError> {
        let needed = self.file_systems.needed_from();
        let below = needed.map_or(below, |needed| needed.min(below));
        let below = self.deferred.coverable(journal, below);
        let copied = self.deferred.copy(journal, &self.unconfirmed, below)?;
        self.refusals.append(journal)?;
        for record in confirmed_records(&self.unconfirmed.take_pending()) {
            journal.append_anyway(record)?;
        }
        let written = self.unconfirmed.written();
        let checkpoint = Record::Checkpoint(Checkpoint {
            below,
            in_doubt: self.unconfirmed.snapshot(),
        });
        let at = journal.wait(journal.append_anyway(checkpoint.encode())?)?;
        debug_assert!(at >= below, "a checkpoint comes after what it covers");
        debug_assert!(
            needed.is_none_or(|needed| below <= needed),
            "what a file system still needs stays in the log"
        );
        self.unconfirmed.forget_written(written);
        self.deferred.is_copied(copied);
        self.refusals.forget_durable(at);
        journal.truncate_before(below)?;
        Ok(at)
    }

    /// Notes that every file system was flushed since these deliveries were `made`, unless one is
    /// suspect or does not answer.
    pub(in crate::delivery) fn all_are_flushed(&self, made: &HashSet<(DeliveryId, u32)>) {
        if self.file_systems.unanswered().is_empty() && !self.file_systems.has_suspects() {
            let failures = self.file_systems.failures();
            self.deferred.made_is_flushed(made, failures);
        }
    }

    fn awaits_flush(&self) -> bool {
        self.file_systems.awaits_flush() || self.deferred.awaits_flush()
    }
}
