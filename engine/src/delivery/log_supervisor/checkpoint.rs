//! Checkpoints: flushes the mailboxes, then frees the part of the log that was kept for them.

use super::super::context::Context;
use super::super::jobs::Job;
use super::super::ledger::deferred_mail::Held;
use super::super::ledger::dirty_file_systems::flush::{Flushed, Unanswered};
use super::super::ledger::journal::Journal;
use super::super::recovery::PageCache;
use super::LogSupervisor;
use super::recheck::LiveRecords;
use crate::io::Disk;
use crate::log::{LogError, Sequence};
use crate::sync::Arc;
use std::fmt;

/// The part of `delivery_log.bytes_max` that may be held for one file system.
const HELD_PART: u64 = 4;

impl<H: fmt::Debug + Send + Sync + 'static> LogSupervisor<H> {
    /// Makes the mailboxes durable, and appends a checkpoint to the log, which frees older
    /// segments.
    pub(in crate::delivery) fn checkpoint<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
    ) -> Result<(), LogError> {
        let _alone = self.checkpointing.lock();
        let Ok(lease) = self.ledger.log.lease() else {
            return Ok(());
        };
        lease.journal.look_at_room();
        let durable = || lease.journal.durable_up_to();
        let below = self.ledger.retention.low_water_mark(durable);
        let deferred = &self.ledger.deferred;
        deferred.note_ends(&self.ledger.late_ends.take());
        if self.ledger.wants_checkpoint(lease.journal.as_ref(), below) {
            let at = self.checkpoint_on(context, lease.journal.as_ref(), below)?;
            self.ledger.log.is_checkpointed(at);
        }
        Ok(())
    }

    /// Makes a checkpoint of everything before `below`, whose deliveries have all ended.
    pub(super) fn checkpoint_on<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
        journal: &dyn Journal,
        below: Sequence,
    ) -> Result<Sequence, LogError> {
        let ledger = &self.ledger;
        let made = ledger.deferred.made();
        self.flush_mailboxes(context, below);
        // When the store closes, that mail stays where it is in the log, for the next recovery: a
        // copy of all of it would take too long.
        if !self.jobs.is_hurried() {
            for unanswered in ledger.file_systems.unanswered() {
                self.hold_unanswered(context, journal, (&unanswered, below))?;
            }
            self.bound_what_is_held();
        }
        ledger.all_are_flushed(&made);
        ledger.write_checkpoint(journal, below)
    }

    fn flush_mailboxes<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
        below: Sequence,
    ) {
        let begin = |device| {
            let (supervisor, context) = (Arc::clone(self), Arc::clone(context));
            let flush = move || supervisor.flush(&context.disk, device, below);
            let job = self.jobs.begin(flush.clone());
            if job.is_err() {
                // Without a thread, waits for the flush.
                flush();
            }
            job.ok()
        };
        let jobs = self
            .ledger
            .file_systems
            .begin_flushes(below)
            .into_iter()
            .filter_map(begin);
        // Begins all of them before waiting for the first.
        let jobs: Vec<Job> = jobs.collect();
        for job in jobs {
            job.wait();
        }
    }

    fn flush<D: Disk<Handle = H>>(&self, disk: &D, device: u64, below: Sequence) {
        if let Some(Flushed {
            number,
            was_suspect,
        }) = self.ledger.file_systems.flush(disk, device, below)
        {
            self.ledger.deferred.is_flushed(device, number);
            if was_suspect {
                tracing::info!("a file system whose flush had failed is durable again");
            }
        }
    }

    /// Refuses further mail for a file system while the bound on its held mail is reached.
    fn bound_what_is_held(&self) {
        let most = self.settings.bytes_max / HELD_PART;
        for pool in self.pools.all() {
            // A lazily unmounted file system still exists beside the one in its place.
            let devices = self.ledger.file_systems.mounted_at(pool.mount_point());
            let held = |device: &u64| self.ledger.deferred.bytes_held_for(*device);
            pool.is_overfull(devices.iter().map(held).sum::<u64>() > most);
        }
    }

    /// Defers the mail of a file system whose flush does not end, so that the log can free the
    /// records of others. All deliveries before `below` have ended.
    fn hold_unanswered<D: Disk<Handle = H>>(
        &self,
        context: &Context<D>,
        journal: &dyn Journal,
        (unanswered, below): (&Unanswered, Sequence),
    ) -> Result<(), LogError> {
        let Unanswered {
            device,
            mount_point,
            flush,
            has_strays,
            ..
        } = unanswered;
        let from = self.ledger.file_systems.flushed_below(*device);
        // Mail for file systems outside their mount points cannot be separated without asking the
        // file system.
        if *has_strays || from >= below {
            return Ok(());
        }
        let found = LiveRecords {
            journal,
            from,
            to: journal.durable_up_to(),
        };
        let recovery = self.recovery(context, journal, PageCache::Trusted);
        let held = Held::Unflushed {
            device: *device,
            after: *flush,
            is_left_over: false,
        };
        // The flush continues on a file system that is unmounted meanwhile.
        let is_there = |mailbox: &str| self.pools.may_be_on(mailbox, mount_point);
        self.ledger.deferred.hold(recovery.hold_by_path(
            &found,
            (from, below),
            (held, &is_there),
        )?);
        self.ledger.file_systems.is_held(*device, below);
        tracing::error!(
            mount_point = %mount_point.display(),
            "flushing mailboxes to disk does not end; the delivery log keeps their mail until it does"
        );
        Ok(())
    }
}
