//! The log's records for each mbox: its messages in their mbox form, and the sums of messages that
//! are not in the log.

use super::super::ledger::deferred_mail::{DeferredDelivery, DeferredExtent, Held};
use super::super::ledger::logged_message::mbox_header;
use super::logged_mailbox::LoggedMailbox;
use super::survey::Survey;
use super::worker::Message;
use crate::log::{Accepted, CopyLocation, Sequence};
use crate::mailbox::mbox::render;
use crate::target::{Format, Owner};
use std::collections::HashMap;
use std::convert::Infallible;

/// One message for an mbox.
#[derive(Debug)]
pub(super) struct MboxEntry {
    /// Its record in the log.
    pub(super) at: Sequence,
    pub(super) envelope: Accepted,
    pub(super) recipient: u32,
    pub(super) content: Vec<u8>,
    /// The delivery was not refused.
    pub(super) is_pending: bool,
    /// Its bytes in the mbox.
    pub(super) rendered: Vec<u8>,
    pub(super) places: Vec<u64>,
    pub(super) held: Held,
}

impl MboxEntry {
    pub(super) fn message(&self) -> Message<'_> {
        Message {
            at: self.at,
            envelope: &self.envelope,
            content: &self.content,
        }
    }

    /// Returns the deferred delivery, for when it cannot be made now.
    pub(super) fn waiting(&self) -> DeferredDelivery {
        let length = self.rendered.len() as u64;
        DeferredDelivery {
            recipient: self.recipient,
            places: self.places.iter().map(|place| (*place, length)).collect(),
            held: self.held,
        }
    }

    /// Returns where it was appended last, and its bytes there.
    pub(super) fn newest_place(&self) -> Option<(u64, &[u8])> {
        let place = self.places.last()?;
        Some((*place, &self.rendered))
    }
}

/// The messages for one mbox, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct MboxWork {
    pub(super) entries: Vec<MboxEntry>,
    /// Messages that are not in the log.
    pub(super) extents: Vec<DeferredExtent>,
}

/// The work on all mboxes.
#[derive(Debug, Default)]
pub(super) struct MboxWorkList(HashMap<LoggedMailbox, MboxWork>);

impl MboxWorkList {
    /// Adds a delivery from the log.
    pub(super) fn add(&mut self, survey: &Survey, message: Message<'_>, index: u32) {
        let envelope = message.envelope;
        if survey.is_settled(envelope.id, index) {
            return;
        }
        let places = survey.places(envelope.id, index);
        let is_pending = !survey.is_refused(envelope.id, index);
        // Refused and never written: the mbox can hold nothing of it.
        if is_pending || !places.is_empty() {
            let places = places.iter().map(|(offset, _)| *offset).collect();
            self.push(message, index, places, (is_pending, Held::Undelivered));
        }
    }

    /// Adds a delivery that could not be made before.
    pub(super) fn add_waiting(&mut self, message: Message<'_>, delivery: &DeferredDelivery) {
        let places = delivery.places.iter().map(|(offset, _)| *offset).collect();
        self.push(message, delivery.recipient, places, (true, delivery.held));
    }

    /// Adds a message that is not in the log.
    pub(super) fn add_extent(&mut self, waiting: &DeferredExtent) {
        let extent = &waiting.extent;
        let target = LoggedMailbox {
            path: extent.mailbox.clone(),
            format: Format::Mbox,
            owner: Owner {
                uid: extent.uid,
                gid: extent.gid,
            },
        };
        let work = self.0.entry(target).or_default();
        work.extents.push(waiting.clone());
    }

    fn push(
        &mut self,
        message: Message<'_>,
        index: u32,
        places: Vec<u64>,
        (is_pending, held): (bool, Held),
    ) {
        let Message {
            at: sequence,
            envelope,
            content,
        } = message;
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(recipient) = envelope.recipients.get(at) else {
            return;
        };
        let header = mbox_header(envelope, at);
        let mut rendered = Vec::new();
        let without_status = matches!(
            recipient.location,
            CopyLocation::Mbox {
                without_status: true,
                ..
            }
        );
        let Ok(()) = render((&header, without_status), &mut rendered, |take| {
            take(content);
            Ok::<(), Infallible>(())
        });
        debug_assert!(
            rendered.starts_with(b"From ") && rendered.ends_with(b"\n"),
            "a message in an mbox is complete lines after its `From ` line"
        );
        let work = self
            .0
            .entry(LoggedMailbox::of(recipient, Format::Mbox))
            .or_default();
        work.entries.push(MboxEntry {
            at: sequence,
            envelope: envelope.clone(),
            recipient: index,
            content: content.to_vec(),
            is_pending,
            rendered,
            places,
            held,
        });
    }

    pub(super) fn take(self) -> impl Iterator<Item = (LoggedMailbox, MboxWork)> {
        self.0.into_iter()
    }
}
