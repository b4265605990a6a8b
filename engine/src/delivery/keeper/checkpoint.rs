//! Checkpoints: the mailboxes are flushed, and the log frees what it kept for them.

use super::super::context::Context;
use super::super::file_systems::flush::{Flushed, Unanswered};
use super::super::jobs::Job;
use super::super::journal::{Journal, confirmed_records};
use super::super::recovery::PageCache;
use super::super::stuck::Held;
use super::Keeper;
use super::is_half_full;
use super::recheck::LiveRecords;
use crate::io::Disk;
use crate::log::{Checkpoint, LogError, Record, Sequence};
use crate::sync::Arc;
use std::fmt;
use std::io;

/// This part of `delivery_log.bytes_max` may be held for one file system.
const HELD_PART: u64 = 4;

impl<H: fmt::Debug + Send + Sync + 'static> Keeper<H> {
    /// Makes the mailboxes durable and says so in the log, which frees its older segments.
    pub(in crate::delivery) fn checkpoint<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
    ) -> Result<(), LogError> {
        let _alone = self.checkpointing.lock();
        let Ok(pass) = self.enter() else {
            return Ok(());
        };
        pass.journal.look_at_room();
        let durable = || pass.journal.durable_up_to();
        let below = self.floors.lowest(durable);
        self.stuck.note_ends(&self.late_ends.take());
        let last = self.state.lock().checkpoint_at;
        let has_news = self.doubts.has_news() || self.refusals.is_behind();
        let is_behind = has_news || self.stuck.is_changed() || self.awaits_flush();
        let is_idle = durable() <= last && !is_behind;
        let is_full = pass.journal.usage().bytes_free == 0;
        // One that frees nothing makes a full log only fuller.
        let needed = self.file_systems.needed_from().unwrap_or(below);
        let freed = self
            .stuck
            .coverable(pass.journal.as_ref(), needed.min(below));
        let is_vain =
            (is_idle || is_full) && !self.awaits_flush() && !pass.journal.frees_before(freed);
        let may_wait = self.stuck.rests() && !is_half_full(pass.journal.as_ref());
        if is_vain || may_wait {
            return Ok(());
        }
        let at = self.checkpoint_on(context, pass.journal.as_ref(), below)?;
        self.state.lock().checkpoint_at = at;
        Ok(())
    }

    /// A checkpoint of everything before `below`, whose deliveries have all ended.
    pub(super) fn checkpoint_on<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
        journal: &dyn Journal,
        below: Sequence,
    ) -> Result<Sequence, LogError> {
        let made = self.stuck.made();
        self.flush_mailboxes(context, below);
        // At the end the log keeps that mail where it stands, for the next recovery: a copy of all
        // of it would take longer than the end may.
        if !self.jobs.is_hurried() {
            for unanswered in self.file_systems.unanswered() {
                self.hold_unanswered(context, journal, (&unanswered, below))?;
            }
            self.bound_what_is_held();
        }
        if self.file_systems.unanswered().is_empty() && !self.file_systems.has_suspects() {
            let device = |mailbox: &str| {
                let mount_point = self.domains.mount_point_of(mailbox);
                self.file_systems.mounted_at(&mount_point)
            };
            let failures = self.file_systems.failures();
            self.stuck.made_is_flushed(&made, failures, device);
        }
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

    fn awaits_flush(&self) -> bool {
        self.file_systems.awaits_flush() || self.stuck.awaits_flush()
    }

    fn flush_mailboxes<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
        below: Sequence,
    ) {
        let begin = |device| {
            let (keeper, context) = (Arc::clone(self), Arc::clone(context));
            let flush = move || keeper.flush(&context.disk, device, below);
            let job = self.jobs.begin(flush.clone());
            if job.is_err() {
                // There are no threads: it is waited for.
                flush();
            }
            job.ok()
        };
        let jobs = self
            .file_systems
            .begin_flushes(below)
            .into_iter()
            .filter_map(begin);
        // All of them are begun before the first is waited for.
        let jobs: Vec<Job> = jobs.collect();
        for job in jobs {
            job.wait();
        }
    }

    fn flush<D: Disk<Handle = H>>(&self, disk: &D, device: u64, below: Sequence) {
        if let Some(Flushed {
            number,
            was_suspect,
        }) = self.file_systems.flush(disk, device, below)
        {
            self.stuck.is_flushed(device, number);
            if was_suspect {
                tracing::info!("a file system whose flush had failed is durable again");
            }
        }
    }

    /// Puts off further mail for a file system while as much of its mail is held as may be.
    fn bound_what_is_held(&self) {
        let most = self.settings.bytes_max / HELD_PART;
        for domain in self.domains.all() {
            let device = self.file_systems.mounted_at(domain.mount_point());
            let held = device.map_or(0, |device| self.stuck.bytes_held_for(device));
            domain.is_overfull(held > most);
        }
    }

    /// Takes the mail of a file system whose flush does not end out of the log's way, so that the
    /// log frees what others need no more. All deliveries before `below` have ended.
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
        let from = self.file_systems.flushed_below(*device);
        // Mail for strays cannot be told apart without asking the file system.
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
        let is_there = |mailbox: &str| self.domains.mount_point_of(mailbox) == *mount_point;
        self.stuck
            .hold(recovery.hold_by_path(&found, (from, below), (held, &is_there))?);
        self.file_systems.is_held(*device, below);
        tracing::error!(
            mount_point = %mount_point.display(),
            "flushing mailboxes to disk does not end; the delivery log keeps their mail until it does"
        );
        Ok(())
    }
}
