//! Properties of the recovery of an mbox, for any content of the file.
//!
//! A fuzzer composes messages that the delivery log has, whole or by their sums only, and a damaged
//! file: a crash kept some of its sectors, or other programs changed it. Then recovery runs,
//! perhaps interrupted, and runs again.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a check fails by panicking"
)]

use super::capacity::Capacity;
use super::ledger::dirty_file_systems::FileSystems;
use super::ledger::logged_message::mbox_header;
use super::ledger::sector_sums::{SECTOR_BYTES, SectorSums};
use super::recovery::{PageCache, Part, Recovery};
use super::writer_pools::WriterPools;
use crate::choices::Choices;
use crate::config::Settings;
use crate::io::Disk as _;
use crate::io::sim::{DiskFault, SimDisk};
use crate::log::sim::SimMedium;
use crate::log::{
    Accepted, AcceptedRecipient, CopyLocation, DeliveryId, Done, DoneOutcome, EncodedRecord,
    Extent, LogScan, LogWriterSettings, Record, StepwiseLog, scan,
};
use crate::mailbox::mbox::render;
use crate::mailbox::{DurableDirs, MailboxSettings};
use crate::sync::Arc;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

/// The mailbox, and its path below the root of the disk.
const MAILBOX: &str = "box";
const PATH: &str = "base/box";
/// Longest content of a message that is composed: a few sectors.
const CONTENT_BYTES_MAX: u16 = 1500;

/// Recovers an mbox.
///
/// # Panics
/// Something before the messages has changed, bytes of other programs are gone, an acknowledged
/// message is missing or duplicated, or a second recovery still changes something.
pub fn check_mbox_recovery(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut case = Case::default();
    case.compose(&mut choices);
    let mut disk = case.disk();
    let page_cache = match choices.byte() % 4 {
        0 => PageCache::Suspect,
        _ => PageCache::Trusted,
    };
    if choices.byte().is_multiple_of(2) {
        let at = disk.operations() + u64::from(choices.byte() % 16);
        disk.set_fault(DiskFault::Crash { at });
        case.recover(&disk, page_cache);
        disk = disk.after_crash(choices.byte().into());
    }
    let waiting = case.recover(&disk, page_cache);
    assert_eq!(waiting, 0, "nothing holds recovery up");
    let after = disk.content(PATH).unwrap_or_default();
    case.check(&after);
    case.recover(&disk, PageCache::Trusted);
    let again = disk.content(PATH).unwrap_or_default();
    same(&again, &after, "recovered again");
}

fn same(found: &[u8], expected: &[u8], why: &str) {
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert_eq!(shown(found), shown(expected), "{why}");
}

/// The log's record of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It was acknowledged.
    Pending,
    /// Its client was refused.
    Refused,
    /// The log has its place and its sums.
    Extent,
}

#[derive(Debug)]
struct Message {
    kind: Kind,
    /// The bytes of the message in the mbox.
    rendered: Vec<u8>,
    /// Its offset; a message without one was never written.
    place: Option<usize>,
}

impl Message {
    fn end(&self) -> Option<usize> {
        self.place.map(|place| place + self.rendered.len())
    }
}

/// An mbox, its messages and the log.
#[derive(Debug, Default)]
struct Case {
    messages: Vec<Message>,
    /// The records in the log when recovery begins for the first time.
    records: Vec<EncodedRecord>,
    /// The disk of the log, once the records are on it.
    medium: Option<SimMedium>,
    /// The file when recovery begins.
    found: Vec<u8>,
    /// The offset of the first of the messages.
    first: usize,
    /// Another program wrote to it.
    is_foreign: bool,
}

impl Case {
    fn compose(&mut self, choices: &mut Choices<'_>) {
        let mut file = choices.piece(600).to_vec();
        if !file.is_empty() {
            let missing = match file.as_slice() {
                [.., b'\n', b'\n'] => 0,
                [.., b'\n'] => 1,
                _ => 2,
            };
            file.resize(file.len() + missing, b'\n');
        }
        self.first = file.len();
        // The length that was flushed before the crash.
        let mut durable = file.len();
        for id in 1..=u128::from(choices.byte() % 4) {
            let kind = match choices.byte() % 6 {
                0 => Kind::Refused,
                1 | 2 => Kind::Extent,
                _ => Kind::Pending,
            };
            let has_place = kind == Kind::Extent || !choices.byte().is_multiple_of(8);
            let mut placed = self.messages.iter().rev();
            let before = placed.find(|message| message.place.is_some());
            if let Some(before) = before.filter(|_| has_place) {
                match before.kind {
                    Kind::Pending => {}
                    // A refused message is cut off before the next is appended.
                    Kind::Refused => file.truncate(before.place.unwrap_or(file.len())),
                    Kind::Extent => durable = before.end().unwrap_or(durable),
                }
            }
            let place = has_place.then_some(file.len());
            let message = self.promise(id, kind, choices.piece(CONTENT_BYTES_MAX), place);
            if has_place {
                if kind == Kind::Extent {
                    durable = file.len();
                }
                file.extend_from_slice(&message.rendered);
            }
            self.messages.push(message);
        }
        self.found = file;
        self.crash(choices, durable);
        for _ in 0..choices.byte() % 3 {
            self.meddle(choices);
        }
    }

    /// Puts a message into the log.
    fn promise(&mut self, id: u128, kind: Kind, content: &[u8], place: Option<usize>) -> Message {
        let (uid, gid) = owner();
        let recipient = AcceptedRecipient {
            address: "ann@example.org".to_owned(),
            original: String::new(),
            mailbox: MAILBOX.to_owned(),
            uid,
            gid,
            location: CopyLocation::Mbox {
                size_before: 0,
                without_status: false,
            },
        };
        let envelope = Accepted {
            id: DeliveryId(id),
            accepted_at: Duration::from_secs(1_700_000_000),
            reverse_path: format!("s{id}@example.com"),
            queue_id: String::new(),
            recipients: vec![recipient],
        };
        let mut rendered = Vec::new();
        let header = mbox_header(&envelope, 0);
        let Ok(()) = render((&header, false), &mut rendered, |take| {
            take(content);
            Ok::<(), Infallible>(())
        });
        let (offset, length) = (place.unwrap_or_default() as u64, rendered.len() as u64);
        let done = |outcome| {
            let done = Done {
                id: envelope.id,
                recipient: 0,
                outcome,
            };
            Record::Done(vec![done]).encode()
        };
        let placed = done(DoneOutcome::Mbox { offset, length });
        let refused = done(DoneOutcome::Refused);
        if kind == Kind::Extent {
            let mut sums = SectorSums::from(offset);
            sums.feed(&rendered);
            let extent = Extent {
                mailbox: MAILBOX.to_owned(),
                uid,
                gid,
                offset,
                length,
                sums: sums.finish().1,
            };
            self.records.push(Record::Extent(extent).encode());
        } else {
            let content = content.into();
            self.records
                .push(Record::Accepted { envelope, content }.encode());
            if place.is_some() {
                self.records.push(placed);
            }
        }
        if kind == Kind::Refused {
            self.records.push(refused);
        }
        Message {
            kind,
            rendered,
            place,
        }
    }

    /// Loses data that was not flushed: the end of the file, or some sectors.
    fn crash(&mut self, choices: &mut Choices<'_>, durable: usize) {
        let room = self.found.len() - durable;
        let lost = usize::from(choices.number()) % (room + 1);
        let sector = usize::try_from(SECTOR_BYTES).unwrap_or(512);
        if choices.byte().is_multiple_of(2) {
            // Each write ends at a page boundary, except for the last one of a message.
            let end = (self.found.len() - lost).next_multiple_of(sector);
            self.found.truncate(end);
        }
        for _ in 0..choices.byte() % 4 {
            let from = (durable / sector + usize::from(choices.byte() % 8)) * sector;
            let to = (from + sector).min(self.found.len());
            if let Some(bytes) = self.found.get_mut(from.max(durable)..to) {
                bytes.fill(0);
            }
        }
    }

    /// Changes the file as another program.
    fn meddle(&mut self, choices: &mut Choices<'_>) {
        self.is_foreign = true;
        let at = usize::from(choices.number()) % (self.found.len() + 1);
        match choices.byte() % 4 {
            0 => self.found.extend_from_slice(choices.piece(200)),
            1 => {
                let piece = choices.piece(200);
                let end = (at + piece.len()).min(self.found.len());
                self.found.splice(at..end, piece.iter().copied());
            }
            2 => {
                let piece = choices.piece(200);
                self.found.splice(at..at, piece.iter().copied());
            }
            _ => {
                let end = (at + usize::from(choices.number())).min(self.found.len());
                self.found.drain(at..end);
            }
        }
    }

    /// Returns a disk with the file, durable.
    fn disk(&self) -> SimDisk {
        let (uid, gid) = owner();
        let disk = SimDisk::new("base", uid, gid);
        let made = || {
            let base = disk.open_root(Path::new("base"))?;
            let file = disk.create_new(&base, MAILBOX, 0o600)?;
            disk.write_all(&file, [&self.found, b""])?;
            disk.sync(&file)?;
            disk.sync(&base)
        };
        made().expect("a disk that works");
        disk
    }

    /// Opens the log, which at first holds the records of the messages.
    fn open_log(&mut self) -> (StepwiseLog, LogScan<SimMedium>) {
        let settings = LogWriterSettings {
            segment_bytes: 32 << 10,
            log_bytes_max: 1 << 20,
            record_bytes_max: 64 << 10,
            ..LogWriterSettings::default()
        };
        let open = |medium: &SimMedium| {
            let medium = Arc::new(medium.clone());
            StepwiseLog::open_stepwise(medium, settings.clone()).expect("a log that opens")
        };
        let medium = self.medium.get_or_insert_with(|| {
            let medium = SimMedium::new(1);
            let (log, _) = open(&medium);
            for record in &self.records {
                log.append(record.clone(), None).expect("room in the log");
            }
            log.close().expect("a disk that works");
            medium
        });
        open(medium)
    }

    fn recover(&mut self, disk: &SimDisk, page_cache: PageCache) -> u64 {
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_base = "/base".into();
        settings.routing.virtual_mailbox_limit = 0;
        settings.routing.virtual_minimum_uid = 1;
        settings.routing.deliver_lock_delay = Duration::ZERO;
        let pools = WriterPools::new(disk, &settings, (Arc::new(Capacity::new(1)), 1));
        let settings = MailboxSettings::from(&settings);
        let (log, found) = self.open_log();
        let recovery = Recovery {
            disk,
            settings: &settings,
            durable_dirs: &DurableDirs::default(),
            journal: &log,
            file_systems: &FileSystems::default(),
            pools: &pools,
            page_cache,
        };
        let all = Part::new(Box::new(|_| true));
        let recovered = recovery.run(&found, &all).expect("a log that reads");
        log.close().expect("a disk that works");
        recovered.report.waiting
    }

    fn check(&self, after: &[u8]) {
        let placed = self.messages.iter().filter_map(|message| message.place);
        let kept = placed.min().unwrap_or(self.found.len());
        let kept = kept.min(self.found.len());
        let before = self.found.get(..kept).unwrap_or_default();
        same(
            after.get(..kept).unwrap_or(after),
            before,
            "what was there before the messages",
        );
        self.check_what_is_gone(after);
        for message in &self.messages {
            self.check_message(after, message);
        }
        if !self.is_foreign {
            self.check_parses(after);
        }
    }

    /// Checks that recovery cut off or overwrote only bytes that a message was to have at its
    /// place, or that a crash left empty.
    fn check_what_is_gone(&self, after: &[u8]) {
        let common = self
            .found
            .iter()
            .zip(after)
            .take_while(|(f, a)| f == a)
            .count();
        let places = self.places();
        let found = self.found.iter().enumerate().skip(common);
        for (at, byte) in found.filter(|(at, byte)| after.get(*at) != Some(*byte)) {
            let is_ours = places.iter().any(|(place, rendered)| {
                at.checked_sub(*place).and_then(|n| rendered.get(n)) == Some(byte)
            });
            assert!(
                is_ours || matches!(byte, 0 | b'\n'),
                "byte {at} ({byte}) of the mailbox is gone and was not ours"
            );
        }
    }

    /// Returns all messages with the places that the log has for them.
    fn places(&self) -> Vec<(usize, &[u8])> {
        let mut places: Vec<(usize, &[u8])> = Vec::new();
        for message in &self.messages {
            places.extend(
                message
                    .place
                    .map(|place| (place, message.rendered.as_slice())),
            );
        }
        let mut outcomes = Vec::new();
        if let Some(medium) = &self.medium {
            let read = scan(medium, &mut |entry| {
                if let Ok(Record::Done(done)) = entry.record() {
                    outcomes.extend(done);
                }
            });
            read.expect("a log that reads");
        }
        for done in outcomes {
            let at = usize::try_from(done.id.0).unwrap_or(usize::MAX);
            let message = at.checked_sub(1).and_then(|at| self.messages.get(at));
            if let (DoneOutcome::Mbox { offset, .. }, Some(message)) = (done.outcome, message) {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                places.push((offset, &message.rendered));
            }
        }
        places
    }

    fn check_message(&self, after: &[u8], message: &Message) {
        let ours = message.rendered.as_slice();
        let find = |bytes: &[u8]| memchr::memmem::find_iter(bytes, ours).collect::<Vec<_>>();
        let count = |bytes: &[u8]| find(bytes).len();
        let (now, before) = (count(after), count(&self.found));
        let stood_before = count(self.found.get(..self.first).unwrap_or(&self.found));
        match message.kind {
            Kind::Pending => {
                let is_there = now > 0 || is_read(after, ours);
                assert!(is_there, "an acknowledged message is missing");
                // Recovery completes a missing blank line at the end when it appends.
                let ended = find(&[self.found.as_slice(), b"\n\n"].concat());
                let is_found = ended.iter().any(|at| self.finds(message, *at));
                let most = ended.len() + stood_before + usize::from(!is_found);
                assert!(now <= most, "{now} copies of a message, {before} before");
            }
            Kind::Refused => assert!(now <= before, "a refused message is delivered"),
            Kind::Extent => {
                let place = message.place.unwrap_or_default();
                let stands = |bytes: &[u8]| bytes.get(place..).is_some_and(|b| b.starts_with(ours));
                let is_kept = !stands(&self.found) || stands(after);
                assert!(is_kept, "a message that was whole is gone");
            }
        }
    }

    /// Returns true when recovery must recognise the copy at this offset: a copy at its place, or
    /// one that is a message for readers of the file. Bytes that another program added to it make
    /// it a different message, which may have been sent on purpose.
    fn finds(&self, message: &Message, at: usize) -> bool {
        let (before, from) = self.found.split_at_checked(at).unwrap_or_default();
        let behind = from.get(message.rendered.len()..);
        let begins = before.is_empty() || before.ends_with(b"\n");
        let ends = behind.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"From "));
        let is_alone = begins && ends;
        let is_whole = behind.is_some();
        message
            .place
            .is_some_and(|place| is_whole && (place == at || is_alone))
    }

    /// Checks that after a crash alone the file has whole messages and nothing else.
    fn check_parses(&self, after: &[u8]) {
        let mut rest = after.get(self.first..).unwrap_or_default();
        let mut seen = vec![0; self.messages.len()];
        while !rest.is_empty() {
            let next = self
                .messages
                .iter()
                .zip(&mut seen)
                .find_map(|(message, seen)| {
                    let behind = rest.strip_prefix(message.rendered.as_slice())?;
                    *seen += 1;
                    Some(behind)
                });
            rest = next.unwrap_or_else(|| panic!("no message: {}", rest.escape_ascii()));
        }
        for (message, seen) in self.messages.iter().zip(seen) {
            let (least, most) = match message.kind {
                Kind::Pending => (1, 1),
                // The length of the mailbox before the refusal.
                Kind::Refused => (0, 0),
                Kind::Extent => (0, 1),
            };
            let kind = message.kind;
            assert!((least..=most).contains(&seen), "{seen} copies: {kind:?}");
        }
    }
}

/// Returns true when a message is in an mbox, perhaps with lines that a reader added to its header.
fn is_read(mbox: &[u8], ours: &[u8]) -> bool {
    let lines: Vec<&[u8]> = mbox.split_inclusive(|byte| *byte == b'\n').collect();
    let begins = |line: &&[u8]| line.starts_with(b"From ");
    (0..lines.len()).any(|at| {
        let rest = lines.get(at..).unwrap_or_default();
        let end = rest
            .iter()
            .skip(1)
            .position(begins)
            .map_or(rest.len(), |end| end + 1);
        let mut found = rest.get(..end).unwrap_or_default().iter();
        let mut in_header = true;
        let all = ours.split_inclusive(|byte| *byte == b'\n').all(|line| {
            let is_there = match in_header {
                true => found.any(|other| *other == line),
                false => found.next() == Some(&line),
            };
            in_header &= line != b"\n";
            is_there
        });
        all && found.next().is_none()
    })
}

fn owner() -> (u32, u32) {
    match nix::unistd::geteuid().is_root() {
        true => (5000, 5000),
        false => (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        ),
    }
}

#[cfg(test)]
mod tests;
