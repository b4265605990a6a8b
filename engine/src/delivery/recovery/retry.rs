//! Tries failed deliveries again.

use super::super::ledger::deferred_mail::{DeferredMail, Held, Unfinished};
use super::mbox_work::MboxWorkList;
use super::worker::{Message, Recovery, Worker, on_own_thread};
use crate::io::Disk;
use crate::log::{CopyLocation, DeliveryId, LogError};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

impl<D: Disk> Recovery<'_, D> {
    /// Tries deliveries again and returns those that still fail. Waits for no lock, because there
    /// are later attempts.
    ///
    /// # Errors
    /// No thread can be started for the work, or it panicked: all of it still waits.
    pub(in crate::delivery) fn retry(
        &self,
        unfinished: &Unfinished,
    ) -> Result<Unfinished, LogError> {
        on_own_thread(|| Worker::new(self, Duration::ZERO).retry(unfinished))
    }
}

impl<D: Disk> Worker<'_, D> {
    fn retry(mut self, unfinished: &Unfinished) -> Unfinished {
        let waiting = unfinished.mails.as_slice();
        self.searches_all = true;
        let mut mboxes = MboxWorkList::default();
        let by_id: HashMap<DeliveryId, &DeferredMail> =
            waiting.iter().map(|s| (s.envelope.id, s)).collect();
        let refused = |id| {
            let deferred = by_id.get(&id);
            deferred.map_or_else(Vec::new, |deferred| deferred.refused.clone())
        };
        // Of the deliveries that wait for space, one in each directory shows whether there is
        // space.
        let mut full = HashSet::new();
        for deferred in waiting {
            let mut failed = Vec::new();
            let mut wants_room = false;
            let message = Message::of(deferred);
            for delivery in &deferred.recipients {
                let at = usize::try_from(delivery.recipient).unwrap_or(usize::MAX);
                let Some(recipient) = deferred.envelope.recipients.get(at) else {
                    continue;
                };
                match &recipient.location {
                    // A recheck handles these.
                    _ if delivery.held != Held::Undelivered => failed.push(delivery.clone()),
                    CopyLocation::Shared => {}
                    CopyLocation::Mbox { .. } => {
                        mboxes.add_waiting(message, delivery);
                    }
                    CopyLocation::Maildir { file_name } => {
                        let place = first_directory(&recipient.mailbox);
                        let again = match full.contains(place) {
                            true => Err(true),
                            false => self
                                .with_room(|worker| {
                                    worker.maildir(message, delivery.recipient, file_name)
                                })
                                .map_err(|error| error.is_no_space()),
                        };
                        if let Err(is_full) = again {
                            failed.push(delivery.clone());
                            wants_room |= is_full;
                            if is_full {
                                full.insert(place);
                            }
                        }
                    }
                }
            }
            let refused = || deferred.refused.clone();
            self.defer(message, failed, wants_room, refused);
        }
        for waiting in &unfinished.extents {
            mboxes.add_extent(waiting);
        }
        for (target, work) in mboxes.take() {
            let place = first_directory(&target.path);
            let is_full = full.contains(place);
            let done = match is_full {
                true => Ok(0),
                false => self.with_room(|worker| worker.mbox(&target, &work)),
            };
            let error = done.err();
            if is_full || error.is_some() {
                let wants_room = is_full || error.is_some_and(|error| error.is_no_space());
                self.unlooked.extend(work.extents.iter().cloned());
                for entry in &work.entries {
                    let refused = || refused(entry.envelope.id);
                    let waiting = vec![entry.waiting()];
                    self.defer(entry.message(), waiting, wants_room, refused);
                }
            }
        }
        let done = waiting.len() - self.deferred.len().min(waiting.len());
        if done > 0 {
            tracing::info!(
                messages = done,
                "messages that waited for their mailboxes since recovery are delivered"
            );
        }
        Unfinished {
            mails: self.deferred,
            extents: self.unlooked,
        }
    }
}

/// Returns the directory below the base that contains a mailbox: a file system may be mounted
/// there.
fn first_directory(mailbox: &str) -> &str {
    mailbox.split('/').next().unwrap_or_default()
}
