//! Checkpoints: the mailboxes are flushed, and the log frees what it kept for them.

use super::super::journal::{Journal, confirmed_records};
use super::Keeper;
use super::is_half_full;
use crate::io::Disk;
use crate::log::{Checkpoint, LogError, Record, Sequence};
use std::fmt;
use std::io;

impl<H: fmt::Debug + Send + Sync> Keeper<H> {
    /// Makes the mailboxes durable and says so in the log, which frees its older segments.
    pub(in crate::delivery) fn checkpoint<D: Disk<Handle = H>>(
        &self,
        disk: &D,
    ) -> Result<(), LogError> {
        let Ok(pass) = self.enter() else {
            return Ok(());
        };
        pass.journal.look_at_room();
        let durable = || pass.journal.durable_up_to();
        let below = self.floors.lowest(durable);
        let last = self.state.lock().checkpoint_at;
        let has_news = self.doubts.has_news() || self.refusals.is_behind();
        let is_behind = has_news || self.stuck.is_changed() || self.file_systems.awaits_flush();
        let is_idle = durable() <= last && !is_behind;
        let is_full = pass.journal.usage().bytes_free == 0;
        // One that frees nothing makes a full log only fuller.
        let needed = self.file_systems.needed_from().unwrap_or(below);
        let freed = self
            .stuck
            .coverable(pass.journal.as_ref(), needed.min(below));
        let is_vain = (is_idle || is_full)
            && !self.file_systems.awaits_flush()
            && !pass.journal.frees_before(freed);
        let may_wait = self.stuck.rests() && !is_half_full(pass.journal.as_ref());
        if is_vain || may_wait {
            return Ok(());
        }
        let at = self.checkpoint_on(disk, pass.journal.as_ref(), below)?;
        self.state.lock().checkpoint_at = at;
        Ok(())
    }

    /// A checkpoint of everything before `below`, whose deliveries have all ended.
    pub(super) fn checkpoint_on<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        journal: &dyn Journal,
        below: Sequence,
    ) -> Result<Sequence, LogError> {
        self.flush_mailboxes(disk, below);
        // What may not be durable on one of them must not be freed with the rest, nor what could
        // not be delivered yet.
        let needed = self.file_systems.needed_from();
        let below = needed.map_or(below, |needed| needed.min(below));
        let below = self.stuck.coverable(journal, below);
        let copied = self.stuck.copy(journal, &self.doubts, below)?;
        self.refusals.append(journal)?;
        for record in confirmed_records(&self.doubts.take_confirmed()) {
            journal.append_anyway(record)?;
        }
        let told = self.doubts.told();
        let checkpoint = Record::Checkpoint(Checkpoint {
            below,
            in_doubt: self.doubts.snapshot(),
        });
        let at = journal.wait(journal.append_anyway(checkpoint.encode())?)?;
        self.doubts.told_durably(told);
        self.stuck.is_copied(copied);
        self.refusals.forget_durable(at);
        journal.truncate_before(below)?;
        Ok(at)
    }

    /// Notes that a delivery found a flush to fail which may have covered what the log has for that
    /// file system.
    pub(in crate::delivery) fn flush_failed(&self, device: u64, source: &io::Error) {
        self.file_systems.fails(device, source);
        self.ask();
    }

    fn flush_mailboxes<D: Disk<Handle = H>>(&self, disk: &D, below: Sequence) {
        for device in self.file_systems.flush(disk, below) {
            self.stuck.is_flushed(device);
            tracing::info!("a file system whose flush had failed is durable again");
        }
    }
}
