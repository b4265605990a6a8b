//! Goal: format version 1 stays what it is. Method: a log kept in the tree must read back as
//! written, and today's writer must write the same bytes. `WRITE_FIXTURES=1` writes it anew,
//! which is right only together with a new format version.

use super::super::appender::Planted;
use super::super::medium::{Access, LogFile as _, LogMedium as _};
use super::super::record::*;
use super::super::segment::{BLOCK_BYTES, SegmentHeader, live_name};
use super::super::sim::SimMedium;
use super::super::{DirectoryMedium, EncodedRecord, scan};
use super::support::{Bench, record, small};
use std::path::PathBuf;
use std::time::Duration;

const SEED: u64 = 0x6d61_696c;

fn fixture() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/log/fixtures/v1"))
}

/// Three batches: every kind, a message that goes on in the next segment, a message for several.
fn batches() -> Vec<Vec<Record<'static>>> {
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
        second.plan = Plan::Mbox { size_before: 8191 };
        envelope.recipients.push(second);
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
                done(0, DoneOutcome::Maildir),
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

/// The files today's writer makes of the batches.
fn written() -> Vec<(String, Vec<u8>)> {
    let medium = SimMedium::new(SEED);
    let (mut bench, _) = Bench::open(&medium, &small(), Planted::Nothing).unwrap();
    for batch in batches() {
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
fn the_log_of_format_version_1_reads_back_as_it_was_written() {
    if std::env::var_os("WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(fixture()).unwrap();
        for (name, bytes) in written() {
            std::fs::write(fixture().join(name), bytes).unwrap();
        }
    }
    let medium = DirectoryMedium::open_read_only(&fixture()).unwrap();
    let expected: Vec<_> = batches().into_iter().flatten().collect();
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

#[test]
fn the_writer_of_today_writes_the_bytes_of_format_version_1() {
    for (name, bytes) in written() {
        let kept = std::fs::read(fixture().join(&name)).unwrap();
        let header = |bytes: &[u8]| SegmentHeader {
            created_ns: 0,
            ..SegmentHeader::decode(bytes).unwrap()
        };
        assert_eq!(header(&bytes), header(&kept), "{name}");
        assert!(
            bytes[BLOCK_BYTES..] == kept[BLOCK_BYTES..],
            "{name} differs in its frames"
        );
    }
}
