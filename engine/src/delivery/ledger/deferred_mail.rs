//! A message that is kept in the log past a checkpoint, and why.

use super::journal::{confirmed_records, done_records};
use crate::log::{
    Accepted, Confirmed, DeliveryId, Done, DoneOutcome, EncodedRecord, Extent, Record, Sequence,
};
use crate::sync::{Arc, Weak};
use std::collections::HashSet;

/// A message with deliveries that could not be made yet, or may not be durable.
#[derive(Clone, Debug)]
pub(in crate::delivery) struct DeferredMail {
    /// Its record in the log, the newest one.
    pub(in crate::delivery) at: Sequence,
    pub(in crate::delivery) envelope: Accepted,
    pub(in crate::delivery) content: Arc<[u8]>,
    pub(in crate::delivery) recipients: Vec<DeferredDelivery>,
    /// Recipients that were refused.
    pub(in crate::delivery) refused: Vec<u32>,
    /// Some of them wait for space on a disk.
    pub(in crate::delivery) wants_room: bool,
}

/// A message of which the log has only the sums, and whose mbox was not checked since: part of the
/// message may be there.
#[derive(Clone, Debug)]
pub(in crate::delivery) struct DeferredExtent {
    /// Its record in the log, the newest one.
    pub(in crate::delivery) at: Sequence,
    pub(in crate::delivery) extent: Extent,
    /// Is dropped when no writer works on the mbox; the mbox must not be checked before.
    pub(in crate::delivery) writer: Weak<()>,
}

impl DeferredExtent {
    /// Returns true while a writer works on the mbox.
    pub(super) fn has_writer(&self) -> bool {
        self.writer.strong_count() > 0
    }
}

/// What is left to do in the mailboxes of a file system.
#[derive(Clone, Debug, Default)]
pub(in crate::delivery) struct Unfinished {
    pub(in crate::delivery) mails: Vec<DeferredMail>,
    pub(in crate::delivery) extents: Vec<DeferredExtent>,
}

/// One of its deliveries, and where it may be in the mbox: offset and length.
#[derive(Clone, Debug)]
pub(in crate::delivery) struct DeferredDelivery {
    pub(in crate::delivery) recipient: u32,
    pub(in crate::delivery) places: Vec<(u64, u64)>,
    pub(in crate::delivery) held: Held,
}

/// Why a delivery is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum Held {
    /// It could not be made.
    Undelivered,
    /// It was made, but may not be durable, because a flush of its file system failed.
    Unflushed {
        device: u64,
        /// The number of the last flush that began before it was held.
        after: u64,
        /// A separate flush of its file failed, too.
        is_left_over: bool,
    },
    /// Its writer does not come back.
    ActiveBatch {
        /// How many flushes had failed when the writer took it.
        failures: u64,
    },
    /// Its writer came back and has made it. The next flush makes it durable, unless a flush failed
    /// since the writer took it and may have dropped it.
    Made {
        /// How many flushes had failed when the writer took it.
        failures: u64,
        /// The file system that it was written to.
        device: Option<u64>,
    },
}

impl DeferredMail {
    /// Adds deliveries that are not in it yet.
    pub(super) fn add(&mut self, recipients: Vec<DeferredDelivery>) {
        for waiting in recipients {
            let is_it = |known: &DeferredDelivery| known.recipient == waiting.recipient;
            if !self.recipients.iter().any(is_it) {
                self.recipients.push(waiting);
            }
        }
    }

    /// Returns the records that keep it in the log past a checkpoint: the message, its possible
    /// places, the settled recipients, and the replies that were read.
    pub(super) fn records(
        &self,
        in_doubt: &HashSet<(DeliveryId, u32)>,
    ) -> impl Iterator<Item = EncodedRecord> + use<> {
        let id = self.envelope.id;
        let done = |recipient, outcome| Done {
            id,
            recipient,
            outcome,
        };
        let count = u32::try_from(self.envelope.recipients.len()).unwrap_or(u32::MAX);
        let waiting: HashSet<u32> = self.recipients.iter().map(|w| w.recipient).collect();
        let mut ends: Vec<Done> = (0..count)
            .filter(|recipient| self.envelope.copy_of(*recipient) == *recipient)
            .filter(|recipient| !waiting.contains(recipient))
            .map(|recipient| done(recipient, DoneOutcome::Settled))
            .collect();
        let refused = self.refused.iter();
        ends.extend(refused.map(|recipient| done(*recipient, DoneOutcome::Refused)));
        for DeferredDelivery {
            recipient, places, ..
        } in &self.recipients
        {
            let places = places.iter();
            ends.extend(places.map(|(offset, length)| {
                let (offset, length) = (*offset, *length);
                done(*recipient, DoneOutcome::Mbox { offset, length })
            }));
        }
        let confirmed: Vec<Confirmed> = (0..count)
            .filter(|recipient| !in_doubt.contains(&(id, *recipient)))
            .map(|recipient| Confirmed {
                id,
                recipient: Some(recipient),
            })
            .collect();
        let accepted = Record::Accepted {
            envelope: self.envelope.clone(),
            content: self.content.as_ref().into(),
        };
        let mut records = vec![accepted.encode()];
        records.extend(done_records(&ends));
        records.extend(confirmed_records(&confirmed));
        records.into_iter()
    }
}
