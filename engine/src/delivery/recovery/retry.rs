//! Tries deliveries again that could not be made.

use super::super::stuck::{Held, Stuck};
use super::mbox_work::MboxWorkList;
use super::worker::{Message, Recovery, Worker, on_own_thread};
use crate::io::Disk;
use crate::log::{DeliveryId, LogError, Plan};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

impl<D: Disk> Recovery<'_, D> {
    /// Tries deliveries again that could not be made. Returns those that still cannot. Waits for no
    /// lock, because they are tried again later.
    ///
    /// # Errors
    /// There is no thread for the work, or it panicked: all of it still waits.
    pub(in crate::delivery) fn retry(&self, waiting: &[Stuck]) -> Result<Vec<Stuck>, LogError> {
        on_own_thread(|| Worker::new(self, Duration::ZERO).retry(waiting))
    }
}

impl<D: Disk> Worker<'_, D> {
    fn retry(mut self, waiting: &[Stuck]) -> Vec<Stuck> {
        self.searches_all = true;
        let mut mboxes = MboxWorkList::default();
        let by_id: HashMap<DeliveryId, &Stuck> =
            waiting.iter().map(|s| (s.envelope.id, s)).collect();
        let refused = |id| {
            let stuck = by_id.get(&id);
            stuck.map_or_else(Vec::new, |stuck| stuck.refused.clone())
        };
        // Of those that wait for space, one in each directory shows whether there is some.
        let mut full = HashSet::new();
        for stuck in waiting {
            let mut failed = Vec::new();
            let mut wants_room = false;
            let message = Message::of(stuck);
            for delivery in &stuck.recipients {
                let at = usize::try_from(delivery.recipient).unwrap_or(usize::MAX);
                let Some(recipient) = stuck.envelope.recipients.get(at) else {
                    continue;
                };
                match &recipient.plan {
                    // A recheck does that.
                    _ if delivery.held != Held::Undelivered => failed.push(delivery.clone()),
                    Plan::Shared => {}
                    Plan::Mbox { .. } => {
                        mboxes.add_waiting(message, delivery);
                    }
                    Plan::Maildir { file_name } => {
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
            let refused = || stuck.refused.clone();
            self.keep_stuck(message, failed, wants_room, refused);
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
                for entry in &work.entries {
                    let refused = || refused(entry.envelope.id);
                    let waiting = vec![entry.waiting()];
                    self.keep_stuck(entry.message(), waiting, wants_room, refused);
                }
            }
        }
        let done = waiting.len() - self.stuck.len().min(waiting.len());
        if done > 0 {
            tracing::info!(
                messages = done,
                "messages that waited for their mailboxes since recovery are delivered"
            );
        }
        self.stuck
    }
}

/// Returns the directory below the base that a mailbox is in: a file system may be mounted there.
fn first_directory(mailbox: &str) -> &str {
    mailbox.split('/').next().unwrap_or_default()
}
