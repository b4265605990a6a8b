//! Finds mail in the log that was stored on a file system and may not be durable there.

use super::super::ledger::deferred_mail::{DeferredDelivery, DeferredMail, Held};
use super::super::ledger::journal::Found;
use super::logged_mailbox::LoggedMailbox;
use super::survey::Survey;
use super::worker::{Message, Recovery, Worker, on_own_thread};
use crate::io::Disk;
use crate::log::{Accepted, AcceptedRecipient, CopyLocation, LogError, Sequence};
use crate::target::Format;
use std::collections::HashSet;
use std::time::Duration;

/// Returns whether the mailbox of a recipient is on a file system.
type IsThere<'a, R> = dyn Fn(&mut R, &AcceptedRecipient, Format) -> bool + 'a;

impl<D: Disk> Recovery<'_, D> {
    /// Returns the mail in `found`, between these records, that was stored on one of these devices
    /// or cannot be checked.
    ///
    /// # Errors
    /// The log cannot be read, or no thread can be started for the work.
    pub(in crate::delivery) fn hold(
        &self,
        found: &dyn Found,
        range: (Sequence, Sequence),
        (device, now): (u64, u64),
    ) -> Result<Vec<DeferredMail>, LogError> {
        let held = Held::Unflushed {
            device,
            after: self.file_systems.flush_number(device),
            is_left_over: false,
        };
        on_own_thread(|| {
            let mut worker = Worker::new(self, Duration::ZERO);
            worker.hold(found, range, held, &|worker, recipient, format| {
                // A message that cannot be checked may be there.
                let on = worker.device(recipient, format);
                on.is_none_or(|on| on == device || on == now)
            })?;
            Ok(worker.deferred)
        })?
    }

    /// Returns the mail in `found`, between these records, for the mailboxes for which `is_there`
    /// returns true. Does not access any file system.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(in crate::delivery) fn hold_by_path(
        &self,
        found: &dyn Found,
        range: (Sequence, Sequence),
        (held, is_there): (Held, &(dyn Fn(&str) -> bool + Sync)),
    ) -> Result<Vec<DeferredMail>, LogError> {
        on_own_thread(|| {
            let mut worker = Worker::new(self, Duration::ZERO);
            worker.hold(found, range, held, &|_, recipient, _| {
                is_there(&recipient.mailbox)
            })?;
            Ok(worker.deferred)
        })?
    }
}

impl<D: Disk> Worker<'_, D> {
    fn hold(
        &mut self,
        found: &dyn Found,
        (from, until): (Sequence, Sequence),
        held: Held,
        is_there: &IsThere<'_, Self>,
    ) -> Result<(), LogError> {
        let survey = Survey::of(found)?;
        let mut seen = HashSet::new();
        survey.for_each(found, &mut |at, envelope, content| {
            if at < from || at >= until || !seen.insert(envelope.id) {
                return;
            }
            let kept = self.held(&survey, &envelope, (held, is_there));
            let refused = || survey.refused_of(&envelope);
            let message = Message {
                at,
                envelope: &envelope,
                content,
            };
            self.defer(message, kept, false, refused);
            self.leave();
        })
    }

    /// Returns the copies of a message that were stored there.
    fn held(
        &mut self,
        survey: &Survey,
        envelope: &Accepted,
        (held, is_there): (Held, &IsThere<'_, Self>),
    ) -> Vec<DeferredDelivery> {
        let mut kept = Vec::new();
        for (index, recipient) in (0..).zip(&envelope.recipients) {
            let format = match recipient.location {
                CopyLocation::Maildir { .. } => Format::Maildir,
                CopyLocation::Mbox { .. } => Format::Mbox,
                CopyLocation::Shared => continue,
            };
            if survey.is_refused(envelope.id, index) || survey.is_settled(envelope.id, index) {
                continue;
            }
            if is_there(self, recipient, format) {
                kept.push(DeferredDelivery {
                    recipient: index,
                    places: survey.places(envelope.id, index).to_vec(),
                    held,
                });
            }
        }
        kept
    }

    fn device(&mut self, recipient: &AcceptedRecipient, format: Format) -> Option<u64> {
        let disk = self.with.disk;
        let (base, path) = self.enter(&LoggedMailbox::of(recipient, format)).ok()?;
        let stat = match format {
            Format::Maildir => disk
                .open_directory(&base, &path.below("new"))
                .and_then(|new| disk.stat(&new)),
            Format::Mbox => {
                let (above, name) = (path.parent(), path.name());
                disk.open_directory(&base, above)
                    .and_then(|above| disk.stat_at(&above, name))
            }
        };
        stat.ok().map(|stat| stat.device)
    }
}
