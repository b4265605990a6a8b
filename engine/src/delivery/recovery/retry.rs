//! Deliveries that could not be made are tried again.

use super::super::stuck::{Held, Stuck};
use super::{Message, Run, mbox};
use crate::io::Disk;
use crate::log::{DeliveryId, Plan};
use std::collections::{HashMap, HashSet};

impl<D: Disk> Run<'_, D> {
    /// Returns what still cannot be made.
    pub(super) fn retry(mut self, waiting: &[Stuck]) -> Vec<Stuck> {
        self.searches_all = true;
        let mut mboxes = mbox::Gathered::default();
        let by_id: HashMap<DeliveryId, &Stuck> =
            waiting.iter().map(|s| (s.envelope.id, s)).collect();
        let refused = |id| {
            let stuck = by_id.get(&id);
            stuck.map_or_else(Vec::new, |stuck| stuck.refused.clone())
        };
        // Of those that wait for space, one in each directory tells whether there is some.
        let mut full = HashSet::new();
        for stuck in waiting {
            let mut failed = Vec::new();
            let mut wants_room = false;
            let message = Message {
                at: stuck.at,
                envelope: &stuck.envelope,
                content: &stuck.content,
            };
            for delivery in &stuck.recipients {
                let at = usize::try_from(delivery.recipient).unwrap_or(usize::MAX);
                let Some(recipient) = stuck.envelope.recipients.get(at) else {
                    continue;
                };
                match &recipient.plan {
                    // Another pass sees to it.
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
                                .maildir_with_room(
                                    &stuck.envelope,
                                    delivery.recipient,
                                    file_name,
                                    &stuck.content,
                                )
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
                false => self.mbox_with_room(&target, &work),
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

/// The directory below the base that a mailbox is in, for a file system may be mounted there.
fn first_directory(mailbox: &str) -> &str {
    mailbox.split('/').next().unwrap_or_default()
}
