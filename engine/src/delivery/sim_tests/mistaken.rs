//! A delivery log that receives wrong records and calls: the effect of a faulty store. Tests can
//! also interrupt a store directly after one of its records.

use super::super::ledger::journal::Journal;
use super::running::Running;
use crate::log::{
    Checkpoint, Done, DoneOutcome, EncodedRecord, LogError, LogUsage, OnDurable, Record,
    RecordTicket, ScannedRecord, Sequence,
};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use std::collections::BTreeSet;

/// A fault of a store in its use of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// Answers do not wait for the flush of the log.
    AnswerEarly,
    /// A checkpoint covers deliveries in progress.
    CheckpointTooFar,
    /// The log gets no places of messages in mboxes.
    PlaceForgotten,
    /// The log gets no refusals of deliveries.
    RefusalForgotten,
}

/// A log that may be used with a fault.
#[derive(Debug)]
pub(super) struct MistakenJournal {
    journal: Arc<dyn Journal>,
    mistake: Option<Mistake>,
    running: Arc<Running>,
    /// Records that a delivery would wait for.
    of_deliveries: Mutex<BTreeSet<Sequence>>,
    /// The record that the last checkpoint covers.
    below: AtomicU64,
}

impl MistakenJournal {
    pub(super) fn new(
        journal: Arc<dyn Journal>,
        mistake: Option<Mistake>,
        running: Arc<Running>,
    ) -> Self {
        Self {
            journal,
            mistake,
            running,
            of_deliveries: Mutex::default(),
            below: AtomicU64::new(0),
        }
    }

    /// Returns the record as the fault changes it.
    fn mistaken(&self, encoded: EncodedRecord) -> EncodedRecord {
        let Some(mistake) = self.mistake else {
            return encoded;
        };
        let record = Record::decode(encoded.kind().to_byte(), encoded.payload()).unwrap();
        let without = |done: &[Done], is_forgotten: fn(DoneOutcome) -> bool| {
            let left = done.iter().filter(|done| !is_forgotten(done.outcome));
            Record::Done(left.copied().collect()).encode()
        };
        let is_refusal = |outcome| outcome == DoneOutcome::Refused;
        let is_place = |outcome| matches!(outcome, DoneOutcome::Mbox { .. });
        match (mistake, record) {
            (Mistake::RefusalForgotten, Record::Done(done)) => without(&done, is_refusal),
            (Mistake::PlaceForgotten, Record::Done(done)) => without(&done, is_place),
            (Mistake::CheckpointTooFar, Record::Checkpoint(Checkpoint { in_doubt, .. })) => {
                let below = Sequence(self.journal.durable_up_to().0 + 1);
                self.below.store(below.0, Ordering::Relaxed);
                Record::Checkpoint(Checkpoint { below, in_doubt }).encode()
            }
            _ => encoded,
        }
    }
}

impl Journal for MistakenJournal {
    fn append(&self, record: EncodedRecord) -> Result<RecordTicket, LogError> {
        let kind = record.kind();
        let ticket = self.journal.append(self.mistaken(record))?;
        self.of_deliveries.lock().insert(ticket.sequence());
        self.running.is_appended(kind);
        Ok(ticket)
    }

    fn append_anyway(&self, record: EncodedRecord) -> Result<RecordTicket, LogError> {
        self.journal.append_anyway(self.mistaken(record))
    }

    fn append_then(&self, record: EncodedRecord, then: OnDurable) {
        let then = match self.mistake {
            Some(Mistake::AnswerEarly) => {
                then(Ok(Sequence(0)));
                Box::new(|_| {})
            }
            _ => then,
        };
        self.journal.append_then(self.mistaken(record), then);
    }

    fn set_uncounted(&self, bytes: u64) {
        self.journal.set_uncounted(bytes);
    }

    fn wait(&self, ticket: RecordTicket) -> Result<Sequence, LogError> {
        let sequence = ticket.sequence();
        let is_early = self.mistake == Some(Mistake::AnswerEarly);
        match is_early && self.of_deliveries.lock().contains(&sequence) {
            true => Ok(sequence),
            false => self.journal.wait(ticket),
        }
    }

    fn durable_up_to(&self) -> Sequence {
        self.journal.durable_up_to()
    }

    fn read_back(
        &self,
        range: (Sequence, Sequence),
        visit: &mut dyn FnMut(ScannedRecord<'_>),
    ) -> Result<(), LogError> {
        self.journal.read_back(range, visit)
    }

    fn truncate_before(&self, sequence: Sequence) -> Result<u64, LogError> {
        let sequence = match self.mistake {
            Some(Mistake::CheckpointTooFar) => Sequence(self.below.load(Ordering::Relaxed)),
            _ => sequence,
        };
        self.journal.truncate_before(sequence)
    }

    fn frees_before(&self, sequence: Sequence) -> bool {
        self.journal.frees_before(sequence)
    }

    fn usage(&self) -> LogUsage {
        self.journal.usage()
    }

    fn poisoned(&self) -> Option<LogError> {
        self.journal.poisoned()
    }

    fn give_back(&self, is_recovering: bool) -> u64 {
        self.journal.give_back(is_recovering)
    }

    fn look_at_room(&self) {
        self.journal.look_at_room();
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        self.journal.has_room_for(bytes)
    }

    fn let_go(&self) {
        self.journal.let_go();
    }
}
