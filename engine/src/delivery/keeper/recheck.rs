//! Suspect file systems: what the log has for them is written again, and they are flushed again.

use super::super::file_systems::{Attempt, Mounted};
use super::super::journal::{Found, Journal};
use super::super::recovery::{Recheck, Recovery, Trust};
use super::Keeper;
use crate::clock;
use crate::io::Disk;
use crate::log::{LogError, Record, ScannedRecord, Sequence};
use crate::mailbox::{Known, MailboxSettings};
use std::fmt;
use std::io;

/// Records of a log in use.
struct LiveRecords<'a> {
    journal: &'a dyn Journal,
    from: Sequence,
    to: Sequence,
}

impl Found for LiveRecords<'_> {
    fn for_each(&self, visit: &mut dyn FnMut(ScannedRecord<'_>)) -> Result<(), LogError> {
        self.journal.read_back((self.from, self.to), visit)
    }
}

impl<H: fmt::Debug + Send + Sync> Keeper<H> {
    /// Goes on with every attempt that is due to make a suspect file system durable again. Others
    /// are not concerned.
    pub(in crate::delivery) fn recheck_suspects<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        settings: &MailboxSettings,
        known: &Known,
    ) {
        self.note_suspects();
        let Ok(pass) = self.enter() else {
            return;
        };
        let recovery = Recovery {
            disk,
            settings,
            known,
            journal: pass.journal.as_ref(),
            file_systems: &self.file_systems,
            trust: Trust::WhatIsWhole,
        };
        // Before a handle is opened for an attempt, which would report the errors of these.
        for device in self.stuck.left_overs() {
            let tried = match self.file_systems.mounted(disk, device) {
                Mounted::Same => self.rewrite(&recovery, (device, Recheck::LeftOver { device })),
                Mounted::Other => {
                    self.stuck.is_undelivered(device);
                    Ok(None)
                }
                Mounted::Nothing => Ok(None),
            };
            if let Err(error) = tried {
                tracing::error!(%error, "mail that could not be flushed was not looked at");
            }
        }
        for device in self.file_systems.suspects_due(clock::now()) {
            if let Err(error) = self.recheck(&recovery, device) {
                tracing::error!(%error, "mail on a suspect file system was not looked at");
            }
        }
    }

    /// Has the next start know of suspect file systems, as long as the machine is not restarted:
    /// then the kernel forgets what it shows and the disk does not have.
    fn note_suspects(&self) {
        let is_suspect =
            self.file_systems.needed_from().is_some() || !self.stuck.left_overs().is_empty();
        let mut noted = self.noted_suspects.lock();
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
        let begun = self.file_systems.begin(recovery.disk, device, barrier)?;
        let Some((attempt, until)) = begun else {
            return Ok(());
        };
        if self.floors.lowest(|| journal.durable_up_to()) <= until {
            // A delivery that began before is still under way.
            self.ask();
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
            None => self.file_systems.is_rewritten(device),
            Some(error) => self.file_systems.fails(device, &error),
        }
        Ok(())
    }

    /// Takes the mail of a suspect file system out of the log's way.
    fn hold<D: Disk<Handle = H>>(
        &self,
        recovery: &Recovery<'_, D>,
        Attempt { device, now, .. }: Attempt,
        until: Sequence,
    ) -> Result<(), LogError> {
        let from = self.file_systems.flushed_below(device);
        if from < until {
            let to = recovery.journal.durable_up_to();
            let journal = recovery.journal;
            let found = LiveRecords { journal, from, to };
            let held = recovery.hold(&found, (from, until), (device, now))?;
            self.stuck.hold(held);
            self.file_systems.is_held(device, until);
        }
        Ok(())
    }

    /// Writes what is held again. Returns why something could not be written.
    fn rewrite<D: Disk<Handle = H>>(
        &self,
        recovery: &Recovery<'_, D>,
        (device, how): (u64, Recheck),
    ) -> Result<Option<io::Error>, LogError> {
        let mails = self.stuck.take();
        let rechecked = match recovery.recheck(&mails, how) {
            Ok(rechecked) => rechecked,
            Err(error) => {
                self.stuck.put(mails, false);
                return Err(error);
            }
        };
        // Whatever was not found is gone only if it was looked for on that file system.
        if self.file_systems.mounted(recovery.disk, device) != Mounted::Same {
            self.stuck.put(mails, false);
            return Ok(Some(io::Error::other("it was unmounted")));
        }
        self.stuck.put(rechecked.left, true);
        Ok(rechecked.error.map(io::Error::other))
    }
}
