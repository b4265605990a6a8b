//! What must hold for any bytes in a delivery log, and for any life of one.

mod content;
mod segments;

use super::record::{Checkpoint, Record, Sequence};
use super::sim::{SimFault, SimMedium};
use super::{EncodedRecord, LogMedium as _, LogScan, RecordTicket, StepwiseLog};
use crate::choices::Choices;
use crate::sync::Arc;
use std::collections::{BTreeMap, HashSet};
use std::io;

use content::{accepted, settings};
pub use segments::check_log_segments;

/// Reads `bytes` as a record: the first is its kind.
///
/// # Panics
/// A record that was read is another one when it is written and read again.
pub fn check_log_record(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else {
        return;
    };
    let Ok(record) = Record::decode(*kind, payload) else {
        return;
    };
    let encoded = record.encode();
    assert_eq!(encoded.kind(), record.kind());
    let again = Record::decode(encoded.kind().to_byte(), encoded.payload());
    assert_eq!(again.as_ref(), Ok(&record), "written and read again");
}

/// Lives through a history of a log on a simulated disk: records are appended and awaited, the log
/// is truncated, the power goes at any operation, operations fail, bits flip. After each opening
/// the log holds everything that was durable, in order, and nothing that was never appended.
///
/// # Panics
/// It does not.
pub fn check_log_history(bytes: &[u8]) {
    let mut history = History::default();
    let mut choices = Choices::new(bytes);
    let mut medium = SimMedium::new(u64::from(choices.number()));
    let mut openings = 0;
    while !choices.is_empty() && openings < 12 {
        openings += 1;
        let seed = u64::from(choices.number());
        let shared = Arc::new(medium.clone());
        let (log, found) = match StepwiseLog::open_stepwise(shared, settings()) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(history.is_damaged, "a log without damage opens: {error}");
                return;
            }
        };
        if !history.check(&found) {
            return;
        }
        history.live(&log, &medium, &mut choices);
        drop(log);
        medium = restarted(&medium, seed);
    }
}

/// The disk as it is found when the power went, or when only the process ended.
fn restarted(medium: &SimMedium, seed: u64) -> SimMedium {
    if medium.is_crashed() || seed.is_multiple_of(2) {
        return medium.after_crash(seed);
    }
    medium.set_fault(SimFault::None);
    medium.clone()
}

/// What the log was given and what it owes.
#[derive(Debug, Default)]
struct History {
    appended: HashSet<Vec<u8>>,
    durable: BTreeMap<u64, Vec<u8>>,
    next_id: u128,
    /// A bit was flipped.
    is_damaged: bool,
}

impl History {
    fn live(&mut self, log: &StepwiseLog, medium: &SimMedium, choices: &mut Choices<'_>) {
        let mut waiting: Vec<(RecordTicket, Vec<u8>)> = Vec::new();
        while !choices.is_empty() {
            match choices.byte() % 16 {
                0..=5 => {
                    let record = self.record(usize::from(choices.number()) % (18 << 10));
                    let payload = self.hand_over(&record);
                    if let Ok(ticket) = log.append(record, None) {
                        waiting.push((ticket, payload));
                    }
                }
                6 => log.preallocate(),
                7..=9 => {
                    let Some((ticket, _)) = waiting.last() else {
                        continue;
                    };
                    if log.wait(*ticket).is_err() {
                        return;
                    }
                    let durable = waiting.drain(..);
                    let durable = durable.map(|(ticket, payload)| (ticket.sequence().0, payload));
                    self.durable.extend(durable);
                }
                10 | 11 => {
                    let below =
                        Sequence(log.durable_up_to().0.saturating_sub(choices.byte().into()));
                    let in_doubt = Vec::new();
                    let record = Record::Checkpoint(Checkpoint { below, in_doubt }).encode();
                    let payload = self.hand_over(&record);
                    let Ok(ticket) = log.append_anyway(record) else {
                        return;
                    };
                    waiting.push((ticket, payload));
                    if log.wait(ticket).is_err() {
                        return;
                    }
                    let durable = waiting.drain(..);
                    let durable = durable.map(|(ticket, payload)| (ticket.sequence().0, payload));
                    self.durable.extend(durable);
                    self.durable = self.durable.split_off(&below.0);
                    if log.truncate_before(below).is_err() {
                        return;
                    }
                }
                12 => {
                    let at = medium.operations() + u64::from(choices.byte());
                    medium.set_fault(SimFault::Crash { at });
                }
                13 => {
                    let at = medium.operations() + u64::from(choices.byte() % 64);
                    let kind = match choices.byte() % 2 {
                        0 => io::ErrorKind::StorageFull,
                        _ => io::ErrorKind::Other,
                    };
                    medium.set_fault(SimFault::Error { at, kind });
                }
                14 => return,
                _ => {
                    let names = medium.list().unwrap_or_default();
                    let name = names.get(usize::from(choices.byte()) % names.len().max(1));
                    if let Some(name) = name {
                        medium.flip(name, usize::from(choices.number()));
                        self.is_damaged = true;
                    }
                }
            }
        }
    }

    /// A record that no other equals.
    fn record(&mut self, bytes: usize) -> EncodedRecord {
        self.next_id += 1;
        accepted(self.next_id, bytes)
    }

    fn hand_over(&mut self, record: &EncodedRecord) -> Vec<u8> {
        let payload = record.payload().to_vec();
        self.appended.insert(payload.clone());
        payload
    }

    /// Compares what was read with what is owed; false when there is damage and no more to say.
    fn check(&mut self, found: &LogScan<SimMedium>) -> bool {
        let mut read = BTreeMap::new();
        let mut last = 0;
        let shown = found.for_each(Sequence(0), |entry| {
            assert!(
                entry.sequence.0 > last,
                "{last} before {:?}",
                entry.sequence
            );
            last = entry.sequence.0;
            assert!(
                self.appended.contains(entry.payload),
                "record {last} was never appended"
            );
            read.insert(last, entry.payload.to_vec());
        });
        let is_damaged = !found.report().damage.is_empty() || shown.is_err();
        assert!(!is_damaged || self.is_damaged, "damage without a cause");
        if self.is_damaged {
            // Which records are lost depends on the bit.
            return false;
        }
        for (sequence, payload) in &self.durable {
            assert!(
                read.get(sequence) == Some(payload),
                "record {sequence} was durable and is lost or changed"
            );
        }
        self.durable = read;
        true
    }
}
