//! Records, settings and the oracle of the log's tests.

use super::super::record::*;
use super::super::segments::Segments;
use super::super::sim::SimMedium;
use super::super::{EncodedRecord, LogError, LogScan, LogWriterSettings, StepwiseLog};
use crate::io::sim::SimRandom;
use crate::sync::Arc;
use std::collections::BTreeMap;
use std::time::Duration;

/// Small segments, so that a few records make many.
pub(super) fn small() -> LogWriterSettings {
    LogWriterSettings {
        segment_bytes: 16 << 10,
        log_bytes_max: 96 << 10,
        in_flight_bytes_max: 64 << 10,
        record_bytes_max: 24 << 10,
        full_wait_max: Duration::from_secs(20),
        ..LogWriterSettings::default()
    }
}

/// A record no other has: its id is `id`, its content is `bytes` long.
pub(super) fn record(id: u128, bytes: usize) -> Record<'static> {
    // The content repeats after 256 bytes. To copy them is quick even without optimisation.
    let pattern: Vec<u8> = (0..=255).map(|at: u8| at ^ id.to_le_bytes()[0]).collect();
    let mut content = pattern.repeat(bytes / pattern.len() + 1);
    content.truncate(bytes);
    Record::Accepted {
        envelope: Accepted {
            id: DeliveryId(id),
            accepted_at: Duration::from_secs(1_700_000_000),
            reverse_path: "sender@example.com".to_owned(),
            queue_id: "4XyZ".to_owned(),
            recipients: vec![AcceptedRecipient {
                address: "ann@example.org".to_owned(),
                original: String::new(),
                mailbox: "example.org/ann".to_owned(),
                uid: 5000,
                gid: 5000,
                location: CopyLocation::Maildir {
                    file_name: format!("1700000000.M1P1V1I{id}.host"),
                },
            }],
        },
        content: content.into(),
    }
}

/// Says that nothing before `below` is needed any more.
pub(super) fn checkpoint(below: u64) -> EncodedRecord {
    let checkpoint = Checkpoint {
        below: Sequence(below),
        in_doubt: Vec::new(),
    };
    Record::Checkpoint(checkpoint).encode()
}

/// A log that works on request, so that runs repeat.
pub(super) struct Bench {
    log: StepwiseLog,
}

impl Bench {
    pub(super) fn open(
        medium: &SimMedium,
        settings: &LogWriterSettings,
    ) -> Result<(Self, LogScan<SimMedium>), LogError> {
        let medium = Arc::new(medium.clone());
        let (log, found) = StepwiseLog::open_stepwise(medium, settings.clone())?;
        Ok((Self { log }, found))
    }

    /// Appends one batch; returns the sequences, or `None` when the log has no room for all of it.
    pub(super) fn batch(
        &mut self,
        records: &[EncodedRecord],
    ) -> Result<Option<Vec<u64>>, LogError> {
        let (sequences, is_full) = self.watched_batch(records, &mut |_, _| {})?;
        Ok((!is_full).then_some(sequences))
    }

    /// Appends one batch, or as much of it as there is room for; returns the sequences, and whether
    /// the log is full. Shows each record that it has taken before any is flushed.
    pub(super) fn watched_batch(
        &mut self,
        records: &[EncodedRecord],
        taken: &mut dyn FnMut(u64, &EncodedRecord),
    ) -> Result<(Vec<u64>, bool), LogError> {
        let (mut sequences, mut newest) = (Vec::new(), None);
        for record in records {
            match self.log.append(record.clone(), None) {
                Ok(ticket) => {
                    let sequence = ticket.sequence().0;
                    taken(sequence, record);
                    sequences.push(sequence);
                    newest = Some(ticket);
                }
                Err(LogError::Full { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        if let Some(newest) = newest {
            self.log.wait(newest)?;
        }
        let is_full = sequences.len() < records.len();
        Ok((sequences, is_full))
    }

    /// What a thread does when a segment was used, or at any time.
    pub(super) fn preallocate(&self) -> Result<(), LogError> {
        self.log.preallocate();
        self.log.poisoned().map_or(Ok(()), Err)
    }

    pub(super) fn log(&self) -> &StepwiseLog {
        &self.log
    }

    pub(super) fn segments(&self) -> &Segments<SimMedium> {
        &self.log.shared.segments
    }

    /// A checkpoint, for which the log grows past its bound, and what it frees.
    pub(super) fn checkpoint(
        &mut self,
        sequence: u64,
        oracle: &mut Oracle,
    ) -> Result<u64, LogError> {
        let record = checkpoint(sequence);
        let ticket = self.log.append_anyway(record.clone())?;
        let at = ticket.sequence().0;
        oracle.handed_over(at, &record);
        self.log.wait(ticket)?;
        oracle.reported_durable(at, &record);
        oracle.truncated(sequence);
        self.log.truncate_before(Sequence(sequence))
    }

    pub(super) fn next(&self) -> u64 {
        self.log.durable_up_to().0 + 1
    }
}

/// What must be true of the log after any crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Oracle {
    /// Every record ever handed to the log, by sequence; a number may be given again after a
    /// crash lost the first.
    appended: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Reported durable and not truncated.
    durable: BTreeMap<u64, Vec<u8>>,
    /// Nothing below is expected any more.
    below: u64,
}

impl Oracle {
    pub(super) fn handed_over(&mut self, sequence: u64, record: &EncodedRecord) {
        let bytes = record.payload().to_vec();
        self.appended.entry(sequence).or_default().push(bytes);
    }

    pub(super) fn reported_durable(&mut self, sequence: u64, record: &EncodedRecord) {
        if sequence >= self.below {
            self.durable.insert(sequence, record.payload().to_vec());
        }
    }

    /// As [`Self::truncated`], for reports that come late.
    pub(super) fn truncated_for_good(&mut self, below: u64) {
        self.below = self.below.max(below);
        self.truncated(self.below);
    }

    pub(super) fn truncated(&mut self, below: u64) {
        self.durable = self.durable.split_off(&below);
    }

    /// Compares what was read with what was promised; from now on what was read is promised.
    pub(super) fn check(&mut self, found: &LogScan<SimMedium>) -> Result<(), String> {
        if let Some(damage) = found.report().damage.first() {
            return Err(format!("damage reported without any: {damage:?}"));
        }
        let mut read = BTreeMap::new();
        let (mut last, mut disorder) = (0, None);
        let read_all = found.for_each(Sequence(0), |entry| {
            if entry.sequence.0 <= last {
                disorder = Some(entry.sequence.0);
            }
            last = entry.sequence.0;
            read.insert(entry.sequence.0, entry.payload.to_vec());
        });
        read_all.map_err(|error| error.to_string())?;
        if let Some(sequence) = disorder {
            return Err(format!("record {sequence} is out of order"));
        }
        for (sequence, bytes) in &self.durable {
            if read.get(sequence) != Some(bytes) {
                let state = if read.contains_key(sequence) {
                    "changed"
                } else {
                    "lost"
                };
                return Err(format!(
                    "record {sequence} was reported durable and is {state}"
                ));
            }
        }
        for (sequence, bytes) in &read {
            let known = self
                .appended
                .get(sequence)
                .is_some_and(|all| all.contains(bytes));
            if !known {
                return Err(format!("record {sequence} was never appended"));
            }
        }
        if last >= found.report().next_sequence.0 {
            return Err("the next sequence was given before".to_owned());
        }
        self.durable = read;
        Ok(())
    }
}

/// Records of mixed lengths: mostly small, some over several blocks, some over segments.
pub(super) fn some_records(random: &mut SimRandom, ids: &mut u128) -> Vec<EncodedRecord> {
    (0..=random.below(4))
        .map(|_| {
            *ids += 1;
            let bytes = match random.below(8) {
                0 => random.below(18 << 10),
                1 | 2 => 4096,
                _ => random.below(900),
            };
            record(*ids, usize::try_from(bytes).unwrap()).encode()
        })
        .collect()
}
