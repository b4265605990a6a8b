//! Suspect file systems: writes their logged mail again, and flushes them again.

use super::super::context::Context;
use super::super::ledger::deferred_mail::Held;
use super::super::ledger::dirty_file_systems::{Attempt, Mounted};
use super::super::ledger::journal::{Found, Journal};
use super::super::recovery::{PageCache, Recheck, Recovery};
use super::{LogSupervisor, Work};
use crate::clock;
use crate::io::Disk;
use crate::log::{LogError, Record, ScannedRecord, Sequence};
use crate::sync::Arc;
use std::fmt;
use std::io;

/// Records of a log in use.
pub(super) struct LiveRecords<'a> {
    pub(super) journal: &'a dyn Journal,
    pub(super) from: Sequence,
    pub(super) to: Sequence,
}

impl Found for LiveRecords<'_> {
    fn for_each(&self, visit: &mut dyn FnMut(ScannedRecord<'_>)) -> Result<(), LogError> {
        self.journal.read_back((self.from, self.to), visit)
    }
}

impl<H: fmt::Debug + Send + Sync + 'static> LogSupervisor<H> {
    /// Continues every attempt that is due to make a suspect file system durable again.
    pub(in crate::delivery) fn recheck_suspects<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
    ) {
        self.note_suspects();
        // Before an attempt opens a handle, which would report the errors of these flushes.
        self.each_recheck(
            self.ledger.deferred.left_overs(),
            context,
            Self::recheck_left_over,
        );
        let due = self.ledger.file_systems.suspects_due(clock::now());
        self.each_recheck(due, context, Self::recheck);
    }

    /// Calls `recheck` for each of these file systems, all at once, and waits for those that
    /// answer.
    fn each_recheck<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        devices: impl IntoIterator<Item = u64>,
        context: &Arc<Context<D>>,
        recheck: fn(&Self, &Recovery<'_, D>, u64) -> Result<(), LogError>,
    ) {
        let begin = |device| {
            let (supervisor, context) = (Arc::clone(self), Arc::clone(context));
            let mount_point = self.ledger.file_systems.mount_point(device);
            self.work_with_log(mount_point, move |term| {
                let Ok(lease) = supervisor.ledger.log.lease_for(term) else {
                    return;
                };
                let recovery =
                    supervisor.recovery(&context, lease.journal.as_ref(), PageCache::Trusted);
                if let Err(error) = recheck(&supervisor, &recovery, device) {
                    tracing::error!(%error, "mail on a suspect file system was not checked");
                }
            })
            .unwrap_or_else(|error| {
                tracing::error!(
                    %error,
                    "mail on a suspect file system was not checked: no thread can be started"
                );
                None
            })
        };
        let begun: Vec<Work> = devices.into_iter().filter_map(begin).collect();
        self.wait_for(begun);
    }

    fn recheck_left_over<D: Disk<Handle = H>>(
        &self,
        recovery: &Recovery<'_, D>,
        device: u64,
    ) -> Result<(), LogError> {
        match self.ledger.file_systems.mounted(recovery.disk, device) {
            Mounted::Same => {
                let how = Recheck::LeftOver { device };
                self.rewrite(recovery, (device, how)).map(drop)
            }
            Mounted::Other => {
                self.ledger.deferred.is_undelivered(device);
                Ok(())
            }
            Mounted::Nothing => Ok(()),
        }
    }

    /// Notes suspect file systems for the next start of the process. A restart of the machine voids
    /// the note, because the kernel then drops data that the disk does not have.
    fn note_suspects(&self) {
        let deferred = &self.ledger.deferred;
        let mut noted = self.noted_suspects.lock();
        // Mail that could not be delivered again since then may be on a suspect file system.
        let is_suspect = self.ledger.file_systems.has_suspects()
            || !deferred.left_overs().is_empty()
            || *noted && deferred.undelivered() > 0;
        if *noted != is_suspect {
            match self.source.note_suspects(is_suspect) {
                Ok(()) => *noted = is_suspect,
                Err(error) => tracing::error!(
                    %error,
                    "cannot note in the log directory whether a file system is suspect"
                ),
            }
        }
    }

    fn recheck<D: Disk<Handle = H>>(
        &self,
        recovery: &Recovery<'_, D>,
        device: u64,
    ) -> Result<(), LogError> {
        let journal = recovery.journal;
        let barrier = || {
            let nothing = Record::Confirmed(Vec::new()).encode();
            journal.wait(journal.append_anyway(nothing)?)
        };
        let begun = self
            .ledger
            .file_systems
            .begin(recovery.disk, device, barrier)?;
        let Some((attempt, until)) = begun else {
            return Ok(());
        };
        if self
            .ledger
            .retention
            .low_water_mark(|| journal.durable_up_to())
            <= until
        {
            // A delivery that began before is still in progress.
            self.ledger.log.ask_checkpoint();
            return Ok(());
        }
        self.hold(recovery, attempt, until)?;
        let Attempt {
            is_remounted,
            is_repeated,
            ..
        } = attempt;
        let how = match is_repeated {
            true => Recheck::Each {
                device,
                is_remounted,
            },
            false => Recheck::Whole {
                device,
                is_remounted,
            },
        };
        match self.rewrite(recovery, (device, how))? {
            None => self.ledger.file_systems.is_rewritten(device),
            Some(error) => self.ledger.file_systems.fails(device, &Arc::new(error)),
        }
        Ok(())
    }

    /// Defers the mail of a suspect file system.
    fn hold<D: Disk<Handle = H>>(
        &self,
        recovery: &Recovery<'_, D>,
        Attempt { device, now, .. }: Attempt,
        until: Sequence,
    ) -> Result<(), LogError> {
        let from = self.ledger.file_systems.flushed_below(device);
        if from < until {
            let to = recovery.journal.durable_up_to();
            let journal = recovery.journal;
            let found = LiveRecords { journal, from, to };
            let held = recovery.hold(&found, (from, until), (device, now))?;
            self.ledger.deferred.hold(held);
            self.ledger.file_systems.is_held(device, until);
        }
        Ok(())
    }

    /// Writes held mail again. Returns the error if some could not be written.
    fn rewrite<D: Disk<Handle = H>>(
        &self,
        recovery: &Recovery<'_, D>,
        (device, how): (u64, Recheck),
    ) -> Result<Option<io::Error>, LogError> {
        let is_there = |held| matches!(held, Held::Unflushed { device: on, .. } if on == device);
        let mails = self.ledger.deferred.snapshot(is_there);
        let rechecked = recovery.recheck(&mails, how)?;
        // A missing message is gone only if it was looked for on that file system.
        if self.ledger.file_systems.mounted(recovery.disk, device) != Mounted::Same {
            return Ok(Some(io::Error::other("it was unmounted")));
        }
        self.ledger.deferred.settle(&mails, rechecked.left);
        Ok(rechecked.error.map(io::Error::other))
    }
}
