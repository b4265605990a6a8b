//! Replays all mail that the log holds for one part: first the Maildirs, message by message, then
//! the mboxes, one after the other.

use super::super::ledger::deferred_mail::{DeferredDelivery, Held, Unfinished};
use super::super::ledger::fingerprint::{BaseDigest, digest_of};
use super::super::ledger::journal::Found;
use super::mbox_work::MboxWorkList;
use super::part::Part;
use super::report::Recovered;
use super::survey::Survey;
use super::worker::{Message, Recovery, Worker, log_deferred};
use crate::io::Disk;
use crate::log::{CopyLocation, InDoubt, LogError};
use std::collections::HashSet;

/// Most bytes of mbox messages in memory at once.
const MBOX_BYTES_MAX: u64 = 64 << 20;

impl<D: Disk> Recovery<'_, D> {
    /// Replays all mail that the log holds for one part, on this thread, which takes the identities
    /// of mailbox owners.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(in crate::delivery) fn run(
        &self,
        found: &dyn Found,
        part: &Part,
    ) -> Result<Recovered, LogError> {
        Worker::new(self, self.settings.lock_timeout).replay(found, part)
    }
}

impl<D: Disk> Worker<'_, D> {
    fn replay(mut self, found: &dyn Found, part: &Part) -> Result<Recovered, LogError> {
        let survey = Survey::of(found)?;
        self.with.file_systems.log_begins_at(survey.below());
        let mut in_doubt = Vec::new();
        self.replay_maildirs(found, (&survey, part), &mut in_doubt)?;
        for mut group in survey.mbox_groups(MBOX_BYTES_MAX) {
            group.retain(|mailbox| part.has(mailbox));
            if !group.is_empty() {
                self.replay_mboxes(found, (&survey, part), &group)?;
            }
        }
        self.report.waiting = self
            .deferred
            .iter()
            .map(|s| s.recipients.len() as u64)
            .sum();
        debug_assert!(
            self.report.rewritten + self.report.waiting <= self.report.deliveries,
            "a copy is rewritten or waits, once: {:?}",
            self.report
        );
        Ok(Recovered {
            report: self.report,
            unfinished: Unfinished {
                mails: self.deferred,
                extents: self.unlooked,
            },
            in_doubt,
        })
    }

    /// Passes every message once, and counts those whose first recipient belongs to the part.
    pub(super) fn for_each_message(
        &mut self,
        found: &dyn Found,
        (survey, part): (&Survey, &Part),
        in_doubt: &mut Vec<InDoubt>,
        mut show: impl FnMut(&mut Self, Message<'_>),
    ) -> Result<(), LogError> {
        let mut seen = HashSet::new();
        let base = BaseDigest::of(&self.with.settings.base);
        survey.for_each(found, &mut |at, envelope, content| {
            if !seen.insert(envelope.id) {
                return;
            }
            let first = envelope.recipients.first();
            if first.is_none_or(|first| part.has(&first.mailbox)) {
                self.report.messages += 1;
                in_doubt.extend(survey.in_doubt_of(base, &envelope, || digest_of(content)));
            }
            let message = Message {
                at,
                envelope: &envelope,
                content,
            };
            show(self, message);
        })
    }

    fn replay_maildirs(
        &mut self,
        found: &dyn Found,
        (survey, part): (&Survey, &Part),
        in_doubt: &mut Vec<InDoubt>,
    ) -> Result<(), LogError> {
        self.for_each_message(found, (survey, part), in_doubt, |worker, message| {
            let envelope = message.envelope;
            let mut failed = Vec::new();
            let mut wants_room = false;
            for (index, recipient) in (0..).zip(&envelope.recipients) {
                if !survey.is_due(part, envelope, index) {
                    continue;
                }
                worker.report.deliveries += 1;
                if let CopyLocation::Maildir { file_name } = &recipient.location {
                    if !part.goes_on(None) {
                        return;
                    }
                    let done = worker.with_room(|worker| worker.maildir(message, index, file_name));
                    // Until the part ends, only this worker knows of a deferred delivery.
                    let needs_no_more = done.is_ok().then_some((envelope.id, index));
                    match done {
                        Ok(is_rewritten) => worker.report.rewritten += u64::from(is_rewritten),
                        Err(error) => {
                            log_deferred(&error);
                            wants_room |= error.is_no_space();
                            let places = Vec::new();
                            failed.push(DeferredDelivery {
                                recipient: index,
                                places,
                                held: Held::Undelivered,
                            });
                        }
                    }
                    part.goes_on(needs_no_more);
                }
            }
            let refused = || survey.refused_of(envelope);
            worker.defer(message, failed, wants_room, refused);
            worker.log_progress(survey.messages());
            worker.leave();
        })
    }

    /// Reads the messages for these mboxes from the log, then repairs one mbox after the other.
    fn replay_mboxes(
        &mut self,
        found: &dyn Found,
        (survey, part): (&Survey, &Part),
        group: &HashSet<String>,
    ) -> Result<(), LogError> {
        let mut mboxes = MboxWorkList::default();
        let mut seen = HashSet::new();
        survey.for_each(found, &mut |at, envelope, content| {
            if !seen.insert(envelope.id) {
                return;
            }
            let message = Message {
                at,
                envelope: &envelope,
                content,
            };
            for (index, recipient) in (0..).zip(&envelope.recipients) {
                if group.contains(&recipient.mailbox)
                    && matches!(recipient.location, CopyLocation::Mbox { .. })
                {
                    mboxes.add(survey, message, index);
                }
            }
        })?;
        for extent in survey.extents() {
            if group.contains(&extent.extent.mailbox) {
                mboxes.add_extent(extent);
            }
        }
        for (target, work) in mboxes.take() {
            if !part.goes_on(None) {
                break;
            }
            let done = self.with_room(|worker| worker.mbox(&target, &work));
            let is_done = done.is_ok();
            match done {
                Ok(rewritten) => self.report.rewritten += rewritten,
                Err(error) => {
                    log_deferred(&error);
                    self.unlooked.extend(work.extents.iter().cloned());
                    for entry in work.entries.iter().filter(|entry| entry.is_pending) {
                        let refused = || survey.refused_of(&entry.envelope);
                        let waiting = vec![entry.waiting()];
                        self.defer(entry.message(), waiting, error.is_no_space(), refused);
                    }
                }
            }
            for entry in work.entries.iter().filter(|_| is_done) {
                part.goes_on(Some((entry.envelope.id, entry.recipient)));
            }
            self.log_progress(survey.messages());
        }
        self.leave();
        Ok(())
    }
}
