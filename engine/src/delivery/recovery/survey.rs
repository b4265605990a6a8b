//! Collects the records of the log about each delivery: checkpoint, refusals, places,
//! confirmations, without contents. Decides which deliveries recovery must make.

use super::super::ledger::deferred_mail::DeferredExtent;
use super::super::ledger::fingerprint::{BaseDigest, Digest};
use super::super::ledger::journal::Found;
use super::super::ledger::logged_message::in_doubt_entry;
use super::part::Part;
use crate::log::{
    Accepted, Checkpoint, Confirmed, CopyLocation, DeliveryId, Done, DoneOutcome, InDoubt,
    LogError, Record, RecordKind, ScannedRecord, Sequence,
};
use crate::sync::Weak;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The content of the records, without the messages.
#[derive(Debug, Default)]
pub(super) struct Survey {
    below: Sequence,
    at_checkpoint: Vec<InDoubt>,
    known: HashSet<(DeliveryId, u32)>,
    later_doubts: Vec<(Sequence, InDoubt)>,
    refused: HashSet<(DeliveryId, u32)>,
    settled: HashSet<(DeliveryId, u32)>,
    places: HashMap<(DeliveryId, u32), Vec<(u64, u64)>>,
    confirmed: HashSet<(DeliveryId, Option<u32>)>,
    /// Bytes of messages for each mbox.
    mboxes: BTreeMap<String, u64>,
    extents: Vec<DeferredExtent>,
    messages: u64,
}

impl Survey {
    pub(super) fn of(found: &dyn Found) -> Result<Self, LogError> {
        let mut survey = Self::default();
        // The beginning of the last checkpoint decides which messages count.
        visit(found, &mut |_, record| {
            if let Record::Checkpoint(Checkpoint { below, in_doubt }) = record {
                survey.below = below;
                survey.at_checkpoint = in_doubt;
            }
        })?;
        visit(found, &mut |sequence, record| survey.add(sequence, record))?;
        let known = survey.at_checkpoint.iter();
        survey.known = known.map(|d| (d.id, d.recipient)).collect();
        Ok(survey)
    }

    fn add(&mut self, sequence: Sequence, record: Record<'_>) {
        match record {
            Record::Checkpoint(_) => {}
            Record::Accepted { envelope, content } => {
                if sequence < self.below {
                    return;
                }
                self.messages += 1;
                for recipient in envelope.recipients {
                    if matches!(recipient.location, CopyLocation::Mbox { .. }) {
                        let bytes = self.mboxes.entry(recipient.mailbox).or_default();
                        *bytes += content.len() as u64;
                    }
                }
            }
            Record::Done(done) => done.into_iter().for_each(|done| self.add_done(done)),
            Record::Confirmed(confirmed) => {
                let key = |Confirmed { id, recipient }| (id, recipient);
                self.confirmed.extend(confirmed.into_iter().map(key));
            }
            Record::InDoubt(entries) => {
                let entries = entries.into_iter().map(|entry| (sequence, entry));
                self.later_doubts.extend(entries);
            }
            Record::Extent(extent) => {
                if sequence >= self.below {
                    self.mboxes.entry(extent.mailbox.clone()).or_default();
                    let at = sequence;
                    let writer = Weak::new();
                    self.extents.push(DeferredExtent { at, extent, writer });
                }
            }
        }
    }

    fn add_done(&mut self, done: Done) {
        let key = (done.id, done.recipient);
        match done.outcome {
            DoneOutcome::Settled => {
                self.settled.insert(key);
            }
            DoneOutcome::Mbox { offset, length } => {
                // Recorded again when the message was copied: each place counts once, the last is
                // the newest.
                let places = self.places.entry(key).or_default();
                places.retain(|place| *place != (offset, length));
                places.push((offset, length));
            }
            DoneOutcome::Refused => {
                self.refused.insert(key);
            }
        }
    }

    /// Returns the record before which everything was settled when the last checkpoint was made.
    pub(super) fn below(&self) -> Sequence {
        self.below
    }

    /// Returns how many messages the last checkpoint does not cover.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    pub(super) fn is_refused(&self, id: DeliveryId, recipient: u32) -> bool {
        self.refused.contains(&(id, recipient))
    }

    /// Returns true when the end of a delivery is durable: recovery neither makes nor removes it.
    pub(super) fn is_settled(&self, id: DeliveryId, recipient: u32) -> bool {
        self.settled.contains(&(id, recipient))
    }

    /// Returns true if recovery must check that the recipient's copy is in a mailbox of this part.
    pub(super) fn is_due(&self, part: &Part, envelope: &Accepted, recipient: u32) -> bool {
        let copy = envelope.copy_of(recipient);
        let at = usize::try_from(recipient).unwrap_or(usize::MAX);
        let mailbox = envelope.recipients.get(at).map(|to| &to.mailbox);
        mailbox.is_some_and(|mailbox| part.has(mailbox))
            && !self.is_refused(envelope.id, copy)
            && !self.is_settled(envelope.id, copy)
    }

    /// Returns the refused recipients of a message.
    pub(super) fn refused_of(&self, envelope: &Accepted) -> Vec<u32> {
        (0..)
            .zip(&envelope.recipients)
            .map(|(index, _)| index)
            .filter(|index| self.is_refused(envelope.id, envelope.copy_of(*index)))
            .collect()
    }

    /// Returns the places where the delivery was appended, or was to be; the last is the newest.
    pub(super) fn places(&self, id: DeliveryId, recipient: u32) -> &[(u64, u64)] {
        self.places.get(&(id, recipient)).map_or(&[], Vec::as_slice)
    }

    fn is_confirmed(&self, id: DeliveryId, recipient: u32) -> bool {
        self.confirmed.contains(&(id, None)) || self.confirmed.contains(&(id, Some(recipient)))
    }

    /// Returns the in-doubt memory by the records, without the messages that recovery checks.
    pub(super) fn in_doubt(&self) -> Vec<InDoubt> {
        // What was noted while the checkpoint was made is not in it.
        let later = self.later_doubts.iter();
        let later = later
            .filter(|(sequence, _)| *sequence >= self.below)
            .map(|(_, entry)| entry);
        let mut known = HashSet::new();
        self.at_checkpoint
            .iter()
            .chain(later)
            .filter(|entry| !self.is_confirmed(entry.id, entry.recipient))
            .filter(|entry| known.insert((entry.id, entry.recipient)))
            .copied()
            .collect()
    }

    /// Returns the deliveries of a message that are in doubt.
    pub(super) fn in_doubt_of(
        &self,
        base: BaseDigest,
        envelope: &Accepted,
        digest: impl FnOnce() -> Digest,
    ) -> Vec<InDoubt> {
        let known = |index: u32| self.known.contains(&(envelope.id, index));
        let open: Vec<u32> = (0..)
            .zip(&envelope.recipients)
            .map(|(index, _)| index)
            .filter(|index| !self.is_refused(envelope.id, envelope.copy_of(*index)))
            .filter(|index| !self.is_confirmed(envelope.id, *index) && !known(*index))
            .collect();
        if open.is_empty() {
            return Vec::new();
        }
        let digest = digest();
        let entry = |index: u32| in_doubt_entry(base, envelope, index, &digest);
        open.into_iter().filter_map(entry).collect()
    }

    /// Returns the mboxes, in groups whose messages fit into memory together.
    pub(super) fn mbox_groups(&self, bytes_max: u64) -> Vec<HashSet<String>> {
        let mut groups: Vec<HashSet<String>> = Vec::new();
        let mut left = 0;
        for (mailbox, bytes) in &self.mboxes {
            if groups.is_empty() || left < *bytes {
                groups.push(HashSet::new());
                left = bytes_max;
            }
            left = left.saturating_sub(*bytes);
            if let Some(group) = groups.last_mut() {
                group.insert(mailbox.clone());
            }
        }
        debug_assert_eq!(
            groups.iter().map(HashSet::len).sum::<usize>(),
            self.mboxes.len(),
            "each mbox is in one group"
        );
        debug_assert!(
            groups.iter().all(|group| !group.is_empty()),
            "the log is read for each group"
        );
        groups
    }

    /// Returns the messages in mboxes that are not in the log.
    pub(super) fn extents(&self) -> &[DeferredExtent] {
        &self.extents
    }

    /// Passes the messages that the last checkpoint does not cover, in order.
    pub(super) fn for_each(
        &self,
        found: &dyn Found,
        show: &mut dyn FnMut(Sequence, Accepted, &[u8]),
    ) -> Result<(), LogError> {
        let mut failed = None;
        found.for_each(&mut |entry| {
            if entry.sequence < self.below || !entry.is_a(RecordKind::Accepted) {
                return;
            }
            match entry.record() {
                Ok(Record::Accepted { envelope, content }) => {
                    show(entry.sequence, envelope, &content);
                }
                Ok(_) => {}
                Err(error) => failed = failed.take().or(Some(error)),
            }
        })?;
        failed.map_or(Ok(()), Err)
    }
}

/// Returns the deliveries in doubt by the records of a log, without the messages that recovery
/// checks.
///
/// # Errors
/// The log cannot be read.
pub(in crate::delivery) fn in_doubt(found: &dyn Found) -> Result<Vec<InDoubt>, LogError> {
    Ok(Survey::of(found)?.in_doubt())
}

/// Returns the mailboxes that recovery checks, by their paths relative to the base.
///
/// # Errors
/// The log cannot be read.
pub(in crate::delivery) fn mailboxes(found: &dyn Found) -> Result<HashSet<String>, LogError> {
    let survey = Survey::of(found)?;
    let extents = survey.extents().iter();
    let extents = extents.map(|waiting| waiting.extent.mailbox.clone());
    let mut mailboxes: HashSet<String> = extents.collect();
    survey.for_each(found, &mut |_, envelope, _| {
        mailboxes.extend(envelope.recipients.into_iter().map(|to| to.mailbox));
    })?;
    Ok(mailboxes)
}

fn visit(found: &dyn Found, take: &mut dyn FnMut(Sequence, Record<'_>)) -> Result<(), LogError> {
    let mut failed = None;
    found.for_each(&mut |entry: ScannedRecord<'_>| match entry.record() {
        Ok(record) => take(entry.sequence, record),
        Err(error) => failed = failed.take().or(Some(error)),
    })?;
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::super::super::ledger::fingerprint::digest_of;
    use super::*;
    use crate::log::sim::SimMedium;
    use crate::log::{AcceptedRecipient, LogScan, LogWriterSettings, StepwiseLog};
    use crate::sync::Arc;
    use std::time::Duration;

    fn open(medium: &SimMedium) -> (StepwiseLog, LogScan<SimMedium>) {
        let settings = LogWriterSettings {
            segment_bytes: 32 << 10,
            log_bytes_max: 1 << 20,
            record_bytes_max: 64 << 10,
            ..LogWriterSettings::default()
        };
        StepwiseLog::open_stepwise(Arc::new(medium.clone()), settings).unwrap()
    }

    /// Returns the survey of a log with these records. Each is made from the sequence of the
    /// previous one.
    fn survey(records: &[&dyn Fn(Sequence) -> Record<'static>]) -> Survey {
        let medium = SimMedium::new(1);
        let (log, _) = open(&medium);
        let mut before = Sequence(0);
        for record in records {
            let ticket = log.append(record(before).encode(), None).unwrap();
            before = ticket.sequence();
        }
        log.close().unwrap();
        let (log, found) = open(&medium);
        let survey = Survey::of(&found).unwrap();
        log.close().unwrap();
        survey
    }

    /// A message for two mboxes.
    fn message(id: u128) -> Accepted {
        let recipient = |mailbox: &str| AcceptedRecipient {
            address: "info@vm.example".into(),
            original: String::new(),
            mailbox: mailbox.into(),
            uid: 5000,
            gid: 5000,
            location: CopyLocation::Mbox {
                size_before: 0,
                without_status: false,
            },
        };
        Accepted {
            id: DeliveryId(id),
            accepted_at: Duration::from_secs(1_700_000_000),
            reverse_path: String::new(),
            queue_id: String::new(),
            recipients: vec![recipient("one"), recipient("two")],
        }
    }

    fn accepted(id: u128) -> impl Fn(Sequence) -> Record<'static> {
        move |_| Record::Accepted {
            envelope: message(id),
            content: b"\nbody\n".into(),
        }
    }

    fn done(
        id: u128,
        recipient: u32,
        outcome: DoneOutcome,
    ) -> impl Fn(Sequence) -> Record<'static> {
        let id = DeliveryId(id);
        move |_| {
            Record::Done(vec![Done {
                id,
                recipient,
                outcome,
            }])
        }
    }

    #[test]
    fn a_delivery_is_due_unless_it_was_refused_or_settled_or_is_of_another_part() {
        let refused = done(1, 0, DoneOutcome::Refused);
        let settled = done(2, 0, DoneOutcome::Settled);
        let survey = survey(&[&accepted(1), &refused, &accepted(2), &settled]);
        let all = Part::new(Box::new(|_| true));
        let due = |part: &Part, id| [0, 1].map(|to| survey.is_due(part, &message(id), to));
        assert_eq!(due(&all, 1), [false, true]);
        assert_eq!(due(&all, 2), [false, true]);
        assert_eq!(due(&all, 3), [true, true]);
        let other = Part::new(Box::new(|mailbox| mailbox == "one"));
        assert_eq!(due(&other, 3), [true, false]);
    }

    #[test]
    fn messages_that_a_checkpoint_covers_do_not_count() {
        let checkpoint = |below: Sequence| {
            Record::Checkpoint(Checkpoint {
                below,
                in_doubt: Vec::new(),
            })
        };
        let survey = survey(&[&accepted(1), &accepted(2), &checkpoint, &accepted(3)]);
        assert_eq!(survey.messages(), 2);
        let groups = survey.mbox_groups(1 << 20);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].len(), 2);
    }

    #[test]
    fn a_delivery_in_doubt_counts_though_it_was_noted_while_the_checkpoint_was_made() {
        let entry = |id: u128| {
            let base = BaseDigest::of("/var/mail".as_ref());
            in_doubt_entry(base, &message(id), 0, &digest_of(b"x\n")).expect("a recipient")
        };
        let in_doubt = |id: u128| move |_: Sequence| Record::InDoubt(vec![entry(id)]);
        let checkpoint = |below: Sequence| {
            Record::Checkpoint(Checkpoint {
                below,
                in_doubt: Vec::new(),
            })
        };
        let survey = survey(&[&in_doubt(1), &in_doubt(2), &checkpoint]);
        let ids: Vec<u128> = survey.in_doubt().iter().map(|entry| entry.id.0).collect();
        assert_eq!(ids, [2], "the first is replaced by the checkpoint");
    }

    #[test]
    fn the_newest_place_of_a_delivery_is_the_last_each_once() {
        let place = |offset| done(1, 0, DoneOutcome::Mbox { offset, length: 6 });
        let survey = survey(&[&accepted(1), &place(10), &place(20), &place(10)]);
        assert_eq!(survey.places(DeliveryId(1), 0), [(20, 6), (10, 6)]);
        assert!(survey.places(DeliveryId(1), 1).is_empty());
    }

    #[test]
    fn a_delivery_is_in_doubt_until_its_reply_was_read() {
        let confirmed = |_: Sequence| {
            Record::Confirmed(vec![Confirmed {
                id: DeliveryId(1),
                recipient: Some(1),
            }])
        };
        let survey = survey(&[&accepted(1), &confirmed]);
        let base = BaseDigest::of("/var/mail".as_ref());
        let digest = || digest_of(b"\nbody\n");
        let in_doubt = survey.in_doubt_of(base, &message(1), digest);
        let recipients: Vec<u32> = in_doubt.iter().map(|entry| entry.recipient).collect();
        assert_eq!(recipients, [0]);
    }
}
