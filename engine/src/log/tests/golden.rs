//! Goal: a format version stays what it is. Method: a log of each version is kept in the tree and
//! must read back as written, and the writer must write the bytes of the newest.
//! `WRITE_FIXTURES=1` writes that one anew, which is right only together with a new format version.

use super::super::medium::{Access, LogFile as _, LogMedium as _};
use super::super::record::*;
use super::super::segment::{BLOCK_BYTES, FORMAT_VERSION, SegmentHeader, live_name};
use super::super::sim::SimMedium;
use super::super::{
    DirectoryMedium, EncodedRecord, LogError, LogWriter, LogWriterSettings, ScannedRecord, scan,
};
use super::support::{Bench, record, small};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SEED: u64 = 0x6d61_696c;

fn fixture(version: u32) -> PathBuf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/src/log/fixtures");
    PathBuf::from(format!("{fixtures}/v{version}"))
}

/// Three batches: every kind, a message that goes on in the next segment, a message for several.
/// Version 2 has recipients that share a copy and copies that lack header fields.
fn batches(version: u32) -> Vec<Vec<Record<'static>>> {
    let id = DeliveryId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let doubt = InDoubt {
        id,
        recipient: 1,
        key: [0xab; 32],
        since: Duration::from_secs(1_700_000_001),
    };
    let mut several = record(id.0, 300);
    if let Record::Accepted { envelope, .. } = &mut several {
        let mut second = envelope.recipients[0].clone();
        second.address = "\u{fc}ber@example.org".to_owned();
        second.original = "list@example.org".to_owned();
        second.location = CopyLocation::Mbox {
            size_before: 8191,
            without_status: version > 1,
        };
        envelope.recipients.push(second);
        if version > 1 {
            for (original, address) in [("", "third@example.org"), ("list@example.org", "iv@x")] {
                envelope.recipients.push(AcceptedRecipient {
                    original: original.to_owned(),
                    address: address.to_owned(),
                    location: CopyLocation::Shared,
                    ..envelope.recipients[1].clone()
                });
            }
        }
    }
    let done = |recipient, outcome| Done {
        id,
        recipient,
        outcome,
    };
    vec![
        vec![several, record(2, 15_000)],
        vec![
            Record::Done(vec![
                done(0, DoneOutcome::Settled),
                done(
                    1,
                    DoneOutcome::Mbox {
                        offset: 8191,
                        length: 411,
                    },
                ),
                done(2, DoneOutcome::Refused),
            ]),
            Record::Confirmed(vec![
                Confirmed {
                    id,
                    recipient: None,
                },
                Confirmed {
                    id,
                    recipient: Some(1),
                },
            ]),
        ],
        vec![
            Record::InDoubt(vec![doubt]),
            Record::Checkpoint(Checkpoint {
                below: Sequence(3),
                in_doubt: vec![doubt, doubt],
            }),
        ],
    ]
}

/// The files that the writer makes of the batches.
fn written() -> Vec<(String, Vec<u8>)> {
    let medium = SimMedium::new(SEED);
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    for batch in batches(FORMAT_VERSION) {
        let encoded: Vec<EncodedRecord> = batch.iter().map(Record::encode).collect();
        bench.batch(&encoded).unwrap().unwrap();
    }
    (1..=2)
        .map(|number| {
            let name = live_name(number);
            let file = medium.open(&name, Access::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
            file.read_at(&mut bytes, 0).unwrap();
            (name, bytes)
        })
        .collect()
}

#[test]
fn a_log_of_every_format_version_reads_back_as_it_was_written() {
    if std::env::var_os("WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(fixture(FORMAT_VERSION)).unwrap();
        for (name, bytes) in written() {
            std::fs::write(fixture(FORMAT_VERSION).join(name), bytes).unwrap();
        }
    }
    for version in 1..=FORMAT_VERSION {
        let medium = DirectoryMedium::open_read_only(&fixture(version)).unwrap();
        let expected: Vec<_> = batches(version).into_iter().flatten().collect();
        let mut read = 0;
        let report = scan(&medium, &mut |entry| {
            assert_eq!(entry.record().unwrap(), expected[read]);
            read += 1;
            assert_eq!(entry.sequence, Sequence(read as u64));
        })
        .unwrap();
        assert_eq!(report.damage, []);
        assert_eq!((read, report.segments.len()), (expected.len(), 2));
    }
}

#[test]
fn the_writer_writes_the_bytes_of_the_newest_format_version() {
    for (name, bytes) in written() {
        let kept = std::fs::read(fixture(FORMAT_VERSION).join(&name)).unwrap();
        let header = |bytes: &[u8]| SegmentHeader {
            created_ns: 0,
            ..SegmentHeader::decode(bytes).unwrap()
        };
        assert_eq!(header(&bytes), header(&kept), "{name}");
        assert_eq!(bytes[8..12], kept[8..12], "the version of {name}");
        assert!(
            bytes[BLOCK_BYTES..] == kept[BLOCK_BYTES..],
            "{name} differs in its frames"
        );
    }
}

/// A copy of the log of a version.
fn copied(version: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(version)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    directory
}

/// The version of each segment.
fn versions(directory: &Path) -> Vec<u8> {
    let names = std::fs::read_dir(directory).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("segment-")).collect();
    names.sort();
    let version = |name| std::fs::read(directory.join(name)).unwrap()[8];
    names.iter().map(version).collect()
}

#[test]
fn a_log_begun_by_an_older_version_goes_on() {
    for version in 1..FORMAT_VERSION {
        goes_on(version);
    }
}

fn goes_on(version: u32) {
    let directory = copied(version);
    let (log, found) = LogWriter::open(directory.path(), small()).unwrap();
    let mut expected: Vec<_> = batches(version).into_iter().flatten().collect();
    let mut read = 0;
    found
        .for_each(Sequence(1), &mut |_: ScannedRecord<'_>| read += 1)
        .unwrap();
    assert_eq!(read, expected.len());
    let added = batches(FORMAT_VERSION)
        .into_iter()
        .flatten()
        .next()
        .unwrap();
    log.append_and_wait(added.encode()).unwrap();
    log.close().unwrap();
    expected.push(added);
    let versions = versions(directory.path());
    for known in [version, FORMAT_VERSION] {
        assert!(
            versions.iter().any(|v| u32::from(*v) == known),
            "{versions:?}"
        );
    }
    let medium = DirectoryMedium::open_read_only(directory.path()).unwrap();
    let mut records = expected.iter();
    let report = scan(&medium, &mut |entry| {
        assert_eq!(Some(&entry.record().unwrap()), records.next());
    })
    .unwrap();
    assert_eq!(report.damage, []);
    assert!(records.next().is_none());
}

#[test]
fn a_log_of_a_later_version_is_refused_and_left_as_it_is() {
    let directory = copied(FORMAT_VERSION);
    let newest = directory.path().join(live_name(2));
    let mut bytes = std::fs::read(&newest).unwrap();
    let later = FORMAT_VERSION + 1;
    bytes[8..12].copy_from_slice(&later.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..68]);
    bytes[68..72].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&newest, bytes).unwrap();
    let contents = || [1, 2].map(|n| std::fs::read(directory.path().join(live_name(n))).unwrap());
    let before = contents();
    for accept_damage in [false, true] {
        let settings = LogWriterSettings {
            accept_damage,
            ..LogWriterSettings::default()
        };
        let refused = LogWriter::open(directory.path(), settings).unwrap_err();
        assert!(
            matches!(&refused, LogError::Version { version, known, .. }
                if (*version, *known) == (later, FORMAT_VERSION)),
            "{refused}"
        );
        let text = refused.to_string();
        assert!(text.contains("use the mailstow that wrote it"), "{text}");
        assert!(contents() == before, "the log was changed");
    }
    let names = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(names, 3, "the segments and the lock");
}
