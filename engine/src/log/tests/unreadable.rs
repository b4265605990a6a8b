//! Goal: a record with a right checksum that cannot be read is never passed over in silence: it
//! keeps the log closed, or, where the loss is accepted, is copied before the log is opened.
//! Method: a record in the middle of a log gets a kind that no version has.

use super::super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use super::super::medium::LogMedium as _;
use super::super::segment::{SegmentHeader, live_name};
use super::super::sim::{SimFault, SimMedium};
use super::super::{DirectoryMedium, LogError, LogWriter, LogWriterSettings, Sequence};
use super::support::{Bench, Oracle, record, small};

const UNKNOWN_KIND: u8 = 99;
const COPY: &str = "unreadable-0000000000000001-8192.kind-99";

fn accepting() -> LogWriterSettings {
    LogWriterSettings {
        accept_damage: true,
        ..small()
    }
}

/// A log of five records, the second of which has an unknown kind.
fn log() -> SimMedium {
    let medium = SimMedium::new(1);
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    for id in 1..=5 {
        bench.batch(&[record(id, 1000).encode()]).unwrap().unwrap();
    }
    drop(bench);
    let name = live_name(1);
    let mut bytes = medium.contents().remove(&name).unwrap();
    let epoch = SegmentHeader::decode(&bytes).unwrap().epoch();
    // One block for each record, behind the header.
    let second = &mut bytes[4096 * 2..][..FRAME_HEADER_BYTES];
    let frame = FrameHeader::decode(second.first_chunk().unwrap(), &epoch).unwrap();
    assert_eq!(frame.sequence, 2);
    let unknown = FrameHeader {
        kind: UNKNOWN_KIND,
        ..frame
    };
    second.copy_from_slice(&unknown.encode(&epoch));
    medium.put(&name, bytes);
    medium
}

fn content_of(medium: &SimMedium, name: &str) -> Option<Vec<u8>> {
    medium.contents().remove(name)
}

#[test]
fn a_record_that_cannot_be_read_keeps_the_log_closed_and_as_it_is() {
    let medium = log();
    let before = medium.contents();
    let refused = Bench::open(&medium, &small()).err().unwrap();
    let is_told = matches!(&refused, LogError::Record { sequence, .. } if sequence.0 == 2);
    assert!(is_told, "{refused}");
    let text = refused.to_string();
    assert!(text.contains("recover --accept-damage"), "{text}");
    assert!(medium.contents() == before, "the log was changed");
}

#[test]
fn a_record_that_cannot_be_read_is_copied_and_the_rest_is_read_when_the_loss_is_accepted() {
    let medium = log();
    let (mut bench, found) = Bench::open(&medium, &accepting()).unwrap();
    let [aside] = found.set_aside() else {
        panic!("{:?}", found.set_aside());
    };
    assert_eq!((aside.sequence, aside.offset), (Sequence(2), 4096 * 2));
    assert_eq!((aside.segment, aside.copy.as_str()), (1, COPY));
    let expected = record(2, 1000).encode();
    assert!(content_of(&medium, COPY).unwrap() == expected.payload());
    let mut read = Vec::new();
    found
        .for_each(Sequence(0), |entry| {
            read.push(entry.record().unwrap() == record(entry.sequence.0.into(), 1000))
        })
        .unwrap();
    assert_eq!(read, [true; 4]);
    let mut read = Vec::new();
    let range = (Sequence(1), Sequence(5));
    bench
        .log()
        .read_back(range, &mut |entry| read.push(entry.sequence.0))
        .unwrap();
    assert_eq!(read, [1, 3, 4, 5]);
    // What a checkpoint covers needs no acceptance any more.
    let next = bench.next();
    bench.checkpoint(next, &mut Oracle::default()).unwrap();
    drop(bench);
    Bench::open(&medium, &small()).unwrap();
    assert!(content_of(&medium, COPY).unwrap() == expected.payload());
}

#[test]
fn a_crash_while_a_record_is_set_aside_loses_neither_the_record_nor_its_copy() {
    let expected = record(2, 1000).encode();
    let mut points = 0;
    for at in 0.. {
        let medium = log();
        medium.set_fault(SimFault::Crash {
            at: medium.operations() + at,
        });
        let opened = Bench::open(&medium, &accepting()).is_ok();
        let medium = medium.after_crash(at);
        let (_, found) = Bench::open(&medium, &accepting()).unwrap();
        assert_eq!(found.report().records, 5, "crash at {at}");
        assert_eq!(found.set_aside().len(), 1, "crash at {at}");
        assert!(content_of(&medium, COPY).unwrap() == expected.payload());
        if opened {
            break;
        }
        points += 1;
    }
    assert!(points > 10, "opening has become short: {points}");
}

#[test]
fn a_copy_on_a_real_file_system_has_the_bytes_of_the_record_and_replaces_an_older_one() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in log().contents() {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let copy = directory.path().join(COPY);
    std::fs::write(&copy, [b'x'; 5000]).unwrap();
    let (log, found) = LogWriter::open(directory.path(), accepting()).unwrap();
    assert_eq!(found.set_aside().len(), 1);
    log.close().unwrap();
    assert!(std::fs::read(&copy).unwrap() == record(2, 1000).encode().payload());
    let medium = DirectoryMedium::open_read_only(directory.path()).unwrap();
    assert!(medium.list().unwrap().contains(&COPY.to_owned()));
}
