//! Opens the delivery log: recovers what it holds when the store opens, and takes it into service
//! again after it failed.

use super::super::recovery::{Recovery, RecoveryReport, Trust};
use super::Keeper;
use crate::io::Disk;
use crate::log::{LogError, Sequence};
use crate::mailbox::{Known, MailboxSettings};
use std::fmt;

impl<H: fmt::Debug + Send + Sync> Keeper<H> {
    /// Opens the log, which nobody may be using. `None`: it was recovered before, and is in service
    /// again.
    pub(in crate::delivery) fn open<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        settings: &MailboxSettings,
        known: &Known,
    ) -> Result<Option<RecoveryReport>, LogError> {
        let is_recovered = self.state.lock().is_recovered;
        match is_recovered {
            true => self.reopen(disk).map(|()| None),
            false => self.recover(disk, settings, known).map(Some),
        }
    }

    /// Opens the log and recovers what it holds.
    fn recover<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        settings: &MailboxSettings,
        known: &Known,
    ) -> Result<RecoveryReport, LogError> {
        known.clear();
        self.doubts.clear();
        self.stuck.clear();
        let (journal, found) = self.source.open()?;
        // The kernel may still show what a process before this one found it had dropped.
        let has_suspects = self.source.has_suspects();
        *self.noted_suspects.lock() = has_suspects;
        let trust = match has_suspects {
            true => Trust::Nothing,
            false => Trust::WhatIsWhole,
        };
        let recovery = Recovery {
            disk,
            settings,
            known,
            journal: journal.as_ref(),
            file_systems: &self.file_systems,
            trust,
        };
        let (mut report, stuck, doubts) = recovery.run(found.as_ref())?;
        drop(found);
        self.doubts.add_recovered(doubts);
        self.stuck.put(stuck, false);
        let checkpoint = || {
            // What recovery wrote itself is of no use after it either.
            let next = Sequence(journal.durable_up_to().0 + 1);
            self.checkpoint_on(disk, journal.as_ref(), next)
        };
        let mut checkpoint_at = checkpoint()?;
        // The segments that were freed may have kept mailboxes from being written.
        while self.stuck.wants_room() && self.retry_on(&recovery) {
            checkpoint_at = checkpoint()?;
        }
        report.waiting = self.stuck.deliveries();
        let mut state = self.state.lock();
        state.is_recovered = true;
        state.is_in_service(journal, checkpoint_at);
        Ok(report)
    }

    /// Takes the log into service again after it failed. The mailboxes need no recovery: the kernel
    /// has all that was written to them, and the process knows what became of each delivery. A
    /// message that a reader has removed since does not come back.
    ///
    /// Deliveries that were refused while the log could not say so are refused in it now, before
    /// their clients can repeat them.
    fn reopen<D: Disk<Handle = H>>(&self, disk: &D) -> Result<(), LogError> {
        let (journal, found) = self.source.open()?;
        drop(found);
        self.refusals.append_again(journal.as_ref())?;
        self.doubts.tell_again();
        let below = self.floors.lowest(|| journal.durable_up_to());
        let checkpoint_at = self.checkpoint_on(disk, journal.as_ref(), below)?;
        self.state.lock().is_in_service(journal, checkpoint_at);
        Ok(())
    }
}
