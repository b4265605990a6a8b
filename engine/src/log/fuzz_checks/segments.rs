//! What must hold for a log directory with any files in it.
//!
//! A log either has files that a fuzzer composes, with checksums that are right, or it is the log
//! of a history whose files the fuzzer damages. In both cases it is opened more than once, as an
//! operator does who first learns of the damage and then accepts it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a check fails by panicking"
)]

use super::super::frame::{FRAGMENT_BYTES_MAX, FrameHeader, frame_bytes};
use super::super::record::{Checkpoint, Record, Sequence};
use super::super::segment::{
    BLOCK, BLOCK_BYTES, FileRole, SegmentHeader, fresh_name, live_name, role, spare_name,
};
use super::super::sim::SimMedium;
use super::super::{Damage, EncodedRecord, LogError, LogWriterSettings, StepwiseLog};
use super::content::{accepted, settings};
use crate::choices::Choices;
use crate::sync::Arc;
use std::collections::BTreeMap;
use std::fmt;

/// Identity of the logs that are composed.
const IDENTITY: u64 = 0x1122_3344_5566_7788;

/// Opens a log of any files, or one of a history with any damage.
///
/// # Panics
/// A record is shown that the log did not have, one is missing that stands before the damage, or
/// the log is another one when it is opened again.
pub fn check_log_segments(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    match choices.byte() % 2 {
        0 => check_composed(&mut choices),
        _ => check_damaged(&mut choices),
    }
}

/// What an opened log shows.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    damage: Vec<Damage>,
    records: Vec<Seen>,
    next: u64,
}

/// A record, and where it begins.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    sequence: u64,
    kind: u8,
    payload: Vec<u8>,
    frames: u32,
    at: Place,
}

/// A number of a segment, and an offset in it.
type Place = (u64, u64);

/// Names a payload by its length and checksum: a failed check is to be read by people.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("sequence", &self.sequence)
            .field("kind", &self.kind)
            .field("bytes", &self.payload.len())
            .field("crc", &crc32fast::hash(&self.payload))
            .field("frames", &self.frames)
            .field("at", &self.at)
            .finish()
    }
}

fn copy_of(medium: &SimMedium) -> SimMedium {
    let copy = SimMedium::new(1);
    for (name, bytes) in medium.contents() {
        copy.put(&name, bytes);
    }
    copy
}

fn open(medium: &SimMedium, accept_damage: bool) -> Result<(StepwiseLog, Shown), LogError> {
    let settings = LogWriterSettings {
        accept_damage,
        ..settings()
    };
    let (log, found) = StepwiseLog::open_stepwise(Arc::new(medium.clone()), settings)?;
    let report = found.report();
    let mut records: Vec<Seen> = Vec::new();
    found.for_each(Sequence(0), |entry| {
        records.push(Seen {
            sequence: entry.sequence.0,
            kind: entry.kind,
            payload: entry.payload.to_vec(),
            frames: entry.frames,
            at: (entry.segment, entry.offset),
        });
    })?;
    let all = records.len() + found.set_aside().len();
    assert_eq!(all as u64, report.records, "all that was counted");
    let shown = Shown {
        damage: report.damage.clone(),
        next: report.next_sequence.0,
        records,
    };
    let is_sound = shown.is_in_order() || !shown.damage.is_empty();
    assert!(is_sound, "without damage, records are in order");
    Ok((log, shown))
}

impl Shown {
    /// Whether no number is given twice.
    fn is_in_order(&self) -> bool {
        let numbers = self.records.iter().map(|seen| seen.sequence);
        numbers
            .chain([self.next])
            .is_sorted_by(|one, other| one < other)
    }
}

/// Opens the log as it is, and again; then its damage is accepted.
fn check_openings(medium: &SimMedium) -> Result<Shown, LogError> {
    let (one, other) = (copy_of(medium), copy_of(medium));
    let first = open(&one, false).map(|(_, shown)| shown);
    let same = open(&other, false).map(|(_, shown)| shown);
    match (&first, &same) {
        (Ok(first), Ok(same)) => assert_eq!(first, same, "the same log"),
        (Err(first), Err(same)) => assert_eq!(first.to_string(), same.to_string()),
        _ => panic!("{first:?} and then {same:?}"),
    }
    match &first {
        Ok(first) => {
            assert_eq!(first.damage, [], "a damaged log does not open");
            let again = open(&one, false).map(|(_, shown)| shown);
            match again {
                Ok(again) => {
                    assert_eq!(again.records, first.records, "what was read is read again")
                }
                Err(error) => {
                    panic!("a log that opened does not open again: {error}; it had {first:?}")
                }
            }
        }
        Err(LogError::Damaged { .. }) => {
            assert_eq!(
                one.contents(),
                medium.contents(),
                "a refused log stays as it is"
            );
        }
        Err(_) => {}
    }
    accept(&copy_of(medium))
}

/// Opens a log in spite of its damage and works with it.
fn accept(medium: &SimMedium) -> Result<Shown, LogError> {
    let (log, shown) = open(medium, true)?;
    drop(log);
    let (log, again) = open(medium, true)?;
    assert_eq!(again.records, shown.records, "what was read is read again");
    if !shown.is_in_order() {
        return Ok(shown);
    }
    let record = accepted(u128::MAX, 700);
    let payload = record.payload().to_vec();
    let Ok(ticket) = log.append(record, None) else {
        // It may be full of what has to be recovered first.
        return Ok(shown);
    };
    log.wait(ticket)?;
    drop(log);
    let (log, with_one) = open(medium, true)?;
    let (last, before) = with_one.records.split_last().expect("the new one");
    assert_eq!(before, shown.records, "a record more, and no other");
    assert_eq!((last.sequence, &last.payload), (again.next, &payload));
    let below = Sequence(with_one.next);
    let in_doubt = Vec::new();
    let checkpoint = Record::Checkpoint(Checkpoint { below, in_doubt }).encode();
    let ticket = log.append_anyway(checkpoint)?;
    log.wait(ticket)?;
    log.truncate_before(below)?;
    drop(log);
    let (_, rest) = open(medium, false)?;
    let needed = rest.records.iter().filter(|seen| seen.sequence >= below.0);
    assert_eq!(needed.count(), 1, "the checkpoint alone");
    Ok(shown)
}

/// A log whose files the fuzzer composes.
fn check_composed(choices: &mut Choices<'_>) {
    let medium = SimMedium::new(1);
    let mut composer = Composer::default();
    let mut number = 1;
    for _ in 0..=choices.byte() % 5 {
        let named = edge(choices, number);
        let name = match choices.byte() % 8 {
            0 => spare_name(named),
            1 => fresh_name(named),
            _ => live_name(named),
        };
        let mut file = composer.file(choices, named);
        if let (FileRole::Spare(_), Some(begin)) = (role(&name), file.get(..2 * BLOCK_BYTES))
            && begin.iter().all(|byte| *byte == 0)
        {
            // Frames stand from the second block on: it never held any.
            file.fill(0);
        }
        medium.put(&name, file);
        number = named.wrapping_add(1);
    }
    let Ok(shown) = check_openings(&medium) else {
        return;
    };
    for seen in &shown.records {
        assert!(
            composer.has(seen.sequence, 0, seen.frames, &seen.payload),
            "record {} is in no file",
            seen.sequence
        );
    }
}

/// The usual number, or one at the edge of what a field holds.
fn edge(choices: &mut Choices<'_>, usual: u64) -> u64 {
    match choices.byte() % 24 {
        0 => u64::MAX,
        1 => 0,
        2 => 1 << 63,
        3 => u64::MAX - u64::from(choices.byte()),
        4 => u64::from(choices.number()),
        5 => usual.wrapping_add(1),
        _ => usual,
    }
}

/// Makes segment files and keeps what is in them.
#[derive(Default)]
struct Composer {
    frames: BTreeMap<(u64, u32), Vec<Vec<u8>>>,
    next: (u64, u32),
    /// Of a record that goes on.
    rest: Vec<u8>,
    record_bytes: usize,
    kind: u8,
}

impl Composer {
    fn file(&mut self, choices: &mut Choices<'_>, number: u64) -> Vec<u8> {
        if self.next.0 == 0 {
            self.next.0 = 1;
        }
        let flags = choices.byte();
        let header = SegmentHeader {
            identity: match flags % 16 {
                0 => 7,
                _ => IDENTITY,
            },
            number: edge(choices, number),
            segment_bytes: match choices.byte() % 16 {
                0 => !(BLOCK - 1),
                1 => 1 << 40,
                2 => 2 * BLOCK,
                _ => settings().segment_bytes,
            },
            first_sequence: edge(choices, self.next.0),
            first_fragment: match choices.byte() % 16 {
                0 => u32::MAX,
                1 => 1,
                _ => self.next.1,
            },
            after_open: flags & 0x20 != 0,
            follows_whole: flags & 0x30 == 0x30,
            reserved: flags & 0xe0 == 0x80,
            created_ns: 0,
        };
        let mut file = match choices.byte() % 16 {
            0 => choices.piece(200).to_vec(),
            _ => header.encode(),
        };
        file.resize(BLOCK_BYTES, 0);
        for _ in 0..choices.byte() % 8 {
            self.frame(choices, &header, &mut file);
        }
        let bytes = match choices.byte() % 8 {
            0 => file.len(),
            1 => usize::from(choices.number()),
            _ => 16 << 10,
        };
        file.resize(bytes, 0);
        file
    }

    fn frame(&mut self, choices: &mut Choices<'_>, header: &SegmentHeader, file: &mut Vec<u8>) {
        let how = choices.byte();
        if how & 7 == 7 {
            return file.extend_from_slice(choices.piece(100));
        }
        if self.rest.is_empty() {
            self.begin(choices);
        }
        let take = match how & 8 {
            0 => self.rest.len(),
            _ => usize::from(choices.number()) % self.rest.len() + 1,
        };
        let payload: Vec<u8> = self.rest.drain(..take.min(FRAGMENT_BYTES_MAX)).collect();
        let (sequence, fragment) = self.next;
        let sequence = edge(choices, sequence);
        let fragment = match choices.byte() % 16 {
            0 => u32::MAX,
            1 => 0,
            _ => fragment,
        };
        let is_last = match choices.byte() % 16 {
            0 => !self.rest.is_empty(),
            _ => self.rest.is_empty(),
        };
        let batch_start = how & 0x30 == 0 || file.len() == BLOCK_BYTES;
        if batch_start {
            file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        let frame = FrameHeader {
            sequence,
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            record_bytes: match choices.byte() % 16 {
                0 => u32::from(choices.number()),
                _ => u32::try_from(self.record_bytes).unwrap_or(u32::MAX),
            },
            fragment,
            payload_crc: crc32fast::hash(&payload),
            kind: self.kind,
            last: is_last,
            batch_start,
        };
        let end = file.len() + frame_bytes(payload.len());
        file.extend_from_slice(&frame.encode(&header.epoch()));
        file.extend_from_slice(&payload);
        file.resize(end, 0);
        self.next = match self.rest.is_empty() {
            true => (sequence.wrapping_add(1), 0),
            false => (sequence, fragment.wrapping_add(1)),
        };
        let known = self.frames.entry((sequence, fragment)).or_default();
        known.push(payload);
    }

    fn begin(&mut self, choices: &mut Choices<'_>) {
        let record = match choices.byte() % 8 {
            0 => checkpoint(edge(choices, self.next.0)),
            _ => accepted(self.next.0.into(), usize::from(choices.number()) % 9000),
        };
        self.kind = record.kind().to_byte();
        self.rest = record.payload().to_vec();
        self.record_bytes = self.rest.len();
        if choices.byte().is_multiple_of(16) {
            let piece = choices.piece(40);
            self.rest.splice(..0, piece.iter().copied());
        }
    }

    /// Whether frames of this record, from `fragment` on, make up the payload.
    fn has(&self, sequence: u64, fragment: u32, frames: u32, payload: &[u8]) -> bool {
        let pieces = self.frames.get(&(sequence, fragment));
        let mut behind = pieces
            .into_iter()
            .flatten()
            .filter_map(|piece| payload.strip_prefix(piece.as_slice()));
        match frames {
            0 => false,
            1 => behind.any(<[u8]>::is_empty),
            _ => behind.any(|rest| self.has(sequence, fragment + 1, frames - 1, rest)),
        }
    }
}

fn checkpoint(below: u64) -> EncodedRecord {
    let (below, in_doubt) = (Sequence(below), Vec::new());
    Record::Checkpoint(Checkpoint { below, in_doubt }).encode()
}

/// A history of a log, and what was done to its files.
#[derive(Default)]
struct Damaged {
    /// Everything that was appended.
    appended: BTreeMap<u64, Vec<u8>>,
    /// The first record of the last batch.
    last_batch: u64,
    /// The first place that was changed in a segment.
    first: Option<Place>,
    /// So many bytes were changed, each within one block.
    patches: usize,
    /// Files were replaced, cut or removed.
    is_rough: bool,
}

/// A log of a history, with damage.
fn check_damaged(choices: &mut Choices<'_>) {
    let medium = SimMedium::new(1);
    let mut damaged = Damaged::default();
    for _ in 0..=choices.byte() % 2 {
        damaged.live(&medium, choices);
    }
    let (_, whole) = open(&copy_of(&medium), false).expect("a log without damage");
    for _ in 0..choices.byte() % 4 {
        damaged.harm(&medium, choices);
    }
    let shown = check_openings(&medium).expect("a log whose damage is accepted");
    assert!(shown.is_in_order(), "a history has one order");
    for seen in &shown.records {
        let known = damaged.appended.get(&seen.sequence);
        assert!(
            known == Some(&seen.payload),
            "record {} was never appended",
            seen.sequence
        );
    }
    damaged.check_what_stays(&whole, &shown);
}

impl Damaged {
    fn live(&mut self, medium: &SimMedium, choices: &mut Choices<'_>) {
        let (log, _) = open(medium, false).expect("a log without damage");
        for _ in 0..choices.byte() % 16 {
            let (mut first, mut newest) = (None, None);
            for _ in 0..=choices.byte() % 3 {
                let id = self.appended.len() as u128;
                let record = accepted(id, usize::from(choices.number()) % (10 << 10));
                let payload = record.payload().to_vec();
                let Ok(ticket) = log.append(record, None) else {
                    break;
                };
                self.appended.insert(ticket.sequence().0, payload);
                first = first.or(Some(ticket.sequence().0));
                newest = Some(ticket);
            }
            if let (Some(first), Some(newest)) = (first, newest) {
                self.last_batch = first;
                log.wait(newest).expect("a disk that works");
            }
            let Some((newest, _)) = self.appended.last_key_value() else {
                continue;
            };
            if choices.byte().is_multiple_of(8) {
                let below = newest.saturating_sub(u64::from(choices.byte() % 8));
                let record = checkpoint(below);
                let payload = record.payload().to_vec();
                let ticket = log.append_anyway(record).expect("room");
                self.appended.insert(ticket.sequence().0, payload);
                self.last_batch = ticket.sequence().0;
                log.wait(ticket).expect("a disk that works");
                log.truncate_before(Sequence(below))
                    .expect("a disk that works");
            }
        }
    }

    fn harm(&mut self, medium: &SimMedium, choices: &mut Choices<'_>) {
        let files = medium.contents();
        let names: Vec<&String> = files.keys().collect();
        let any = |choices: &mut Choices<'_>| {
            let at = usize::from(choices.byte()) % names.len().max(1);
            names.get(at).map(|name| (*name).clone())
        };
        let Some(name) = any(choices) else {
            return;
        };
        let mut bytes = files.get(&name).cloned().unwrap_or_default();
        let at = usize::from(choices.number()) % bytes.len().max(1);
        match choices.byte() % 8 {
            0 => {
                self.rough(&name, 0);
                return medium.lose(&name);
            }
            1 => {
                bytes.truncate(at);
                self.rough(&name, at);
            }
            2 => {
                let to = match choices.byte() % 4 {
                    0 => live_name(u64::from(choices.byte())),
                    _ => any(choices).unwrap_or_default(),
                };
                self.rough(&to, 0);
                return medium.put(&to, bytes);
            }
            3 => {
                let end = (at + usize::from(choices.number())).min(bytes.len());
                if let Some(part) = bytes.get_mut(at..end) {
                    part.fill(0);
                }
                self.rough(&name, at);
            }
            _ => {
                // Within a block, which a disk writes in one piece.
                let room = BLOCK_BYTES - at % BLOCK_BYTES;
                let patch = choices.piece(64);
                let place = bytes.get_mut(at..).unwrap_or_default().iter_mut();
                let mut changed = false;
                for (old, new) in place.zip(patch).take(room) {
                    changed |= old != new;
                    *old = *new;
                }
                if changed {
                    self.patches += 1;
                    self.note(&name, at);
                }
            }
        }
        medium.put(&name, bytes);
    }

    fn rough(&mut self, name: &str, at: usize) {
        self.is_rough = true;
        self.note(name, at);
    }

    fn note(&mut self, name: &str, at: usize) {
        if let FileRole::Live(number) = role(name) {
            let place = (number, at as u64);
            self.first = Some(self.first.map_or(place, |first| first.min(place)));
        }
    }

    /// # Panics
    /// A record before the first damage is missing, or one that a later batch proves to have been
    /// there is missing without a word.
    fn check_what_stays(&self, whole: &Shown, shown: &Shown) {
        let read: BTreeMap<u64, &Seen> = shown.records.iter().map(|s| (s.sequence, s)).collect();
        let ends = whole.records.iter().skip(1).map(|next| next.at);
        let ends = ends.chain([(u64::MAX, 0)]);
        for (seen, end) in whole.records.iter().zip(ends) {
            let is_before = self.first.is_none_or(|first| end <= first);
            assert!(
                !is_before || read.get(&seen.sequence) == Some(&seen),
                "record {} from {:?} to {end:?} stands before the damage at {:?} and is lost: {:?}",
                seen.sequence,
                seen.at,
                self.first,
                shown.damage
            );
            let is_told = !shown.damage.is_empty() || self.is_rough || self.patches > 1;
            assert!(
                is_told || seen.sequence >= self.last_batch || read.contains_key(&seen.sequence),
                "record {} is lost and nothing tells of it",
                seen.sequence
            );
        }
    }
}
