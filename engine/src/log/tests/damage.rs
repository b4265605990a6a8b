//! Goal: damage to acknowledged records is reported with its place, a torn tail is not called
//! damage, and neither is ever skipped in silence.

use super::super::frame::{FrameHeader, frame_bytes};
use super::super::medium::LogMedium as _;
use super::super::scan::{ScanReport, ScannedSegment, scan};
use super::super::segment::{SegmentHeader, fresh_name, live_name, spare_name};
use super::super::sim::SimMedium;
use super::super::{
    DirectoryMedium, EncodedRecord, LogError, LogWriter, LogWriterSettings, Sequence,
};
use super::support::{Bench, Oracle, record, small};
use std::path::Path;

/// A log of `batches` batches of one record of 1000 bytes: one block each.
fn filled(batches: u128) -> SimMedium {
    let medium = SimMedium::new(1);
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    for id in 1..=batches {
        bench.batch(&[record(id, 1000).encode()]).unwrap().unwrap();
    }
    medium
}

fn report(medium: &SimMedium) -> ScanReport {
    scan(medium, &mut |_| {}).unwrap()
}

#[test]
fn a_flipped_bit_in_the_middle_is_reported_with_file_and_offset() {
    let medium = filled(8);
    medium.flip(&live_name(1), 4096 * 2 + 100);
    let report = report(&medium);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    let damage = &report.damage[0];
    assert_eq!(damage.file, live_name(1));
    assert_eq!(damage.expected, Sequence(2));
    assert!(
        (4096 + 1000..=4096 * 2).contains(&damage.offset),
        "{damage:?}"
    );
    assert_eq!(report.records, 7, "the others are still read");
}

#[test]
fn a_damaged_log_is_opened_only_when_the_loss_is_accepted() {
    let medium = filled(8);
    medium.flip(&live_name(1), 4096 * 2 + 100);
    let refused = Bench::open(&medium, &small()).err().unwrap();
    assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
    assert!(
        refused.to_string().contains("mailstow log inspect"),
        "{refused}"
    );
    let settings = LogWriterSettings {
        accept_damage: true,
        ..small()
    };
    let (_, found) = Bench::open(&medium, &settings).unwrap();
    let mut sequences = Vec::new();
    found
        .for_each(Sequence(0), |entry| sequences.push(entry.sequence.0))
        .unwrap();
    assert_eq!(sequences, [1, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn damage_at_the_end_of_a_segment_shows_in_the_segment_behind() {
    let medium = filled(8);
    // Three blocks of frames fit a segment of four blocks: record 3 is the last of the first.
    medium.flip(&live_name(1), 4096 * 3 + 50);
    let report = report(&medium);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].expected, Sequence(3));
    assert!(
        report.damage[0].found.contains("continues with record 4"),
        "{report:?}"
    );
}

#[test]
fn a_segment_that_lost_its_header_is_reported() {
    let medium = filled(8);
    medium.flip(&live_name(2), 20);
    let report = report(&medium);
    assert_eq!(report.damage[0].file, live_name(2));
    assert_eq!(report.damage[0].offset, 0);
}

/// Opens a damaged log, and once more after a checkpoint; the records that were read first.
fn recovered_in_part(medium: &SimMedium) -> Vec<u64> {
    let settings = LogWriterSettings {
        accept_damage: true,
        ..small()
    };
    let (mut bench, found) = Bench::open(medium, &settings).unwrap();
    let mut read = Vec::new();
    found
        .for_each(Sequence(0), |entry| read.push(entry.sequence.0))
        .unwrap();
    let next = bench.next();
    bench.batch(&[record(9, 10).encode()]).unwrap().unwrap();
    bench.checkpoint(next, &mut Oracle::default()).unwrap();
    drop(bench);
    let (_, found) = Bench::open(medium, &small()).unwrap();
    assert_eq!(found.report().records, 2, "one, and the checkpoint");
    read
}

#[test]
fn the_records_of_a_segment_without_header_are_read_when_the_loss_is_accepted() {
    for number in [1, 2, 3] {
        let medium = filled(8);
        medium.flip(&live_name(number), 20);
        let report = report(&medium);
        assert_eq!(report.damage.len(), 1, "{report:?}");
        assert_eq!(
            (report.records, report.unreadable.len()),
            (8, 0),
            "{report:?}"
        );
        assert_eq!(recovered_in_part(&medium), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

#[test]
fn a_record_that_goes_on_in_a_segment_without_header_comes_back_whole() {
    let medium = SimMedium::new(3);
    let long = record(1, 20_000).encode();
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    bench.batch(std::slice::from_ref(&long)).unwrap().unwrap();
    medium.flip(&live_name(2), 20);
    let mut read = Vec::new();
    scan(&medium, &mut |entry| read.push(entry.payload.to_vec())).unwrap();
    assert_eq!(read, [long.payload()]);
}

#[test]
fn a_segment_without_header_and_frames_is_set_aside_when_the_loss_is_accepted() {
    let medium = filled(8);
    for at in [20, 4096 + 8, 2 * 4096 + 8, 3 * 4096 + 8] {
        medium.flip(&live_name(2), at);
    }
    assert_eq!(recovered_in_part(&medium), [1, 2, 3, 7, 8]);
    assert!(
        medium
            .list()
            .unwrap()
            .contains(&"damaged-0000000000000002.log".to_owned())
    );
}

#[test]
fn a_torn_last_record_is_cut_and_not_called_damage() {
    let medium = filled(2);
    medium.flip(&live_name(1), 4096 * 2 + 100);
    let report = report(&medium);
    assert_eq!(report.damage, []);
    assert_eq!((report.records, report.next_sequence), (1, Sequence(2)));
}

#[test]
fn a_flipped_bit_in_padding_loses_nothing_and_reports_nothing() {
    let medium = filled(2);
    medium.flip(&live_name(1), 4096 * 2 - 1);
    let report = report(&medium);
    assert_eq!((report.records, report.damage.len()), (2, 0), "{report:?}");
}

#[test]
fn records_longer_than_a_segment_come_back_whole() {
    let medium = SimMedium::new(3);
    let long: Vec<EncodedRecord> = (1..3).map(|id| record(id, 20_000).encode()).collect();
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    bench.batch(&long).unwrap().unwrap();
    let mut read = Vec::new();
    let report = scan(&medium, &mut |entry| {
        read.push((entry.frames > 1, entry.payload.to_vec()));
    });
    assert_eq!(report.unwrap().damage, []);
    assert_eq!(read.len(), 2);
    for ((spans, bytes), record) in read.iter().zip(&long) {
        assert!(spans, "the record takes several frames");
        assert_eq!(bytes, record.payload());
    }
}

#[test]
fn opening_again_and_again_uses_no_more_segments() {
    let medium = filled(4);
    let count = report(&medium).segments.len();
    for _ in 0..20 {
        drop(Bench::open(&medium, &small()).unwrap());
    }
    let report = report(&medium);
    assert!(report.segments.len() <= count + 1, "{report:?}");
    assert!(
        report.segments.len() + report.spares.len() <= 6,
        "{report:?}"
    );
}

/// What is reported of a log that lost one of its segments; it opens only when that is accepted.
fn report_without(lost: impl Fn(&[ScannedSegment]) -> &ScannedSegment) -> ScanReport {
    let medium = filled(8);
    let (bench, _) = Bench::open(&medium, &small()).unwrap();
    bench.segments().reserve().unwrap();
    drop(bench);
    let whole = report(&medium);
    assert_eq!(whole.damage, []);
    medium.remove(&lost(&whole.segments).file).unwrap();
    let refused = Bench::open(&medium, &small()).err();
    let is_told = matches!(refused, Some(LogError::Damaged { .. }));
    assert!(is_told, "{refused:?}");
    let report = report(&medium);
    let settings = LogWriterSettings {
        accept_damage: true,
        ..small()
    };
    let (mut bench, _) = Bench::open(&medium, &settings).unwrap();
    bench
        .checkpoint(bench.next(), &mut Oracle::default())
        .unwrap();
    drop(bench);
    Bench::open(&medium, &small()).unwrap();
    report
}

#[test]
fn the_oldest_segment_is_missed() {
    let report = report_without(|segments| &segments[0]);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].expected, Sequence(1));
    assert_eq!(report.damage[0].file, live_name(2));
}

#[test]
fn the_newest_segment_is_missed() {
    let report = report_without(|segments| &segments[segments.len() - 1]);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert!(report.damage[0].found.contains("newest"), "{report:?}");
}

fn all_are_missed(medium: &SimMedium) {
    for segment in report(medium).segments {
        medium.remove(&segment.file).unwrap();
    }
    let report = report(medium);
    assert!(report.damage[0].found.contains("no segment"), "{report:?}");
}

#[test]
fn all_segments_are_missed_once_one_was_freed() {
    let medium = filled(8);
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    let freed = bench
        .checkpoint(bench.next(), &mut Oracle::default())
        .unwrap();
    assert!(freed > 0);
    drop(bench);
    all_are_missed(&medium);
}

#[test]
fn all_segments_are_missed_once_the_next_was_named_ahead() {
    let medium = filled(8);
    let (bench, _) = Bench::open(&medium, &small()).unwrap();
    bench.segments().reserve().unwrap();
    drop(bench);
    all_are_missed(&medium);
}

#[test]
fn a_stray_segment_of_another_log_does_not_make_strangers_of_the_others() {
    let directory = || tempfile::tempdir().unwrap();
    let (ours, others) = (directory(), directory());
    let fill = |directory: &Path, records| {
        let (log, _) = LogWriter::open(directory, small()).unwrap();
        for id in 0..records {
            log.append_and_wait(record(id, 1000).encode()).unwrap();
        }
        log.close().unwrap();
    };
    fill(others.path(), 2);
    fill(ours.path(), 8);
    let oldest = |directory: &Path| directory.join(live_name(1));
    // As if the first had been freed long ago.
    std::fs::rename(oldest(ours.path()), ours.path().join(live_name(0x99))).unwrap();
    std::fs::copy(oldest(others.path()), oldest(ours.path())).unwrap();
    let medium = DirectoryMedium::open_read_only(ours.path()).unwrap();
    let report = scan(&medium, &mut |_| {}).unwrap();
    assert!(report.segments.len() > 1, "{report:?}");
    assert_eq!(report.unreadable, [1, 0x99], "{report:?}");
}

#[test]
fn segments_freed_below_a_checkpoint_are_not_missed() {
    let medium = filled(8);
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    // In the middle of a segment.
    let freed = bench.checkpoint(6, &mut Oracle::default()).unwrap();
    assert!(freed > 0);
    let report = report(&medium);
    assert_eq!(report.damage, []);
    assert!(report.segments[0].header.first_sequence > 1);
}

#[test]
fn a_record_that_goes_on_in_a_segment_that_was_cut_behind_it_is_read() {
    let medium = SimMedium::new(1);
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    // The second goes on in the next segment, where the third follows.
    for (id, bytes) in [(1, 3000), (2, 9000), (3, 3000)] {
        bench.batch(&[record(id, bytes).encode()]).unwrap().unwrap();
    }
    let report = report(&medium);
    let [first, second, ..] = report.segments.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(second.header.first_fragment, 1, "{report:?}");
    assert!(first.frames > 1, "{report:?}");
    let mut cut = medium.contents().remove(&second.file).unwrap();
    cut.truncate(4096 * 2);
    medium.put(&second.file, cut);
    let mut read = Vec::new();
    let report = scan(&medium, &mut |entry| read.push(entry.sequence.0)).unwrap();
    assert_eq!(read, [1, 2], "{report:?}");
    assert!(!report.damage.is_empty(), "{report:?}");
}

/// A log whose last record goes on in its second segment. Answers the number of that record.
fn ending_with_a_record_in_two_segments() -> (SimMedium, Sequence) {
    let medium = SimMedium::new(1);
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    for (id, bytes) in [(1, 3000), (2, 9000)] {
        bench.batch(&[record(id, bytes).encode()]).unwrap().unwrap();
    }
    drop(bench);
    let report = report(&medium);
    assert_eq!(report.segments[1].header.first_fragment, 1, "{report:?}");
    (medium, Sequence(2))
}

#[test]
fn the_end_of_a_record_that_was_whole_when_the_log_was_opened_is_missed() {
    let harms: [fn(&SimMedium); 2] = [
        |medium| medium.flip(&live_name(2), 4096 + 100),
        |medium| medium.lose(&live_name(2)),
    ];
    for harm in harms {
        for openings in 1..3 {
            let (medium, last) = ending_with_a_record_in_two_segments();
            for _ in 0..openings {
                drop(Bench::open(&medium, &small()).unwrap());
            }
            harm(&medium);
            let report = report(&medium);
            assert_eq!((report.damage.len(), report.records), (1, 1), "{report:?}");
            assert_eq!(report.damage[0].expected, last);
            assert_eq!(report.cut, []);
        }
    }
}

#[test]
fn the_end_of_a_record_that_a_crash_left_unfinished_is_not_missed() {
    let (medium, last) = ending_with_a_record_in_two_segments();
    medium.flip(&live_name(2), 4096 + 100);
    for _ in 0..3 {
        let (_, found) = Bench::open(&medium, &small()).unwrap();
        assert_eq!(found.report().damage, []);
        assert_eq!(found.report().cut, [last]);
    }
}

/// A log of one segment, whose spare was the one behind it and has another header now.
fn with_a_spare_of_the_next_number(spare: &str, header: &[u8]) -> SimMedium {
    let medium = filled(6);
    let files = medium.contents();
    for name in files.keys().filter(|name| **name != live_name(1)) {
        medium.lose(name);
    }
    let mut next = files.get(&live_name(2)).cloned().unwrap();
    next[..header.len()].copy_from_slice(header);
    medium.put(spare, next);
    medium
}

#[test]
fn frames_in_a_spare_that_lost_its_header_are_never_read() {
    for spare in [fresh_name(3), spare_name(2)] {
        for header in [[0; 4096].as_slice(), b"torn"] {
            let medium = with_a_spare_of_the_next_number(&spare, header);
            for _ in 0..3 {
                let (_, found) = Bench::open(&medium, &small()).unwrap();
                let found = found.report();
                assert_eq!(
                    (found.records, found.next_sequence),
                    (3, Sequence(4)),
                    "{found:?}"
                );
            }
        }
    }
}

/// The segment as it would be with another number.
fn renumbered(file: &[u8], number: u64) -> Vec<u8> {
    let old = SegmentHeader::decode(file).unwrap();
    let new = SegmentHeader { number, ..old };
    let mut out = file.to_vec();
    out[..4096].copy_from_slice(&new.encode());
    let mut at = 4096;
    while let Some(bytes) = file.get(at..).and_then(<[u8]>::first_chunk) {
        match FrameHeader::decode(bytes, &old.epoch()) {
            Ok(frame) => {
                out[at..at + bytes.len()].copy_from_slice(&frame.encode(&new.epoch()));
                at += frame_bytes(frame.payload_bytes as usize);
            }
            // The rest of the block is padding.
            Err(_) => at = (at + 1).next_multiple_of(4096),
        }
    }
    out
}

#[test]
fn a_record_that_goes_on_behind_a_file_that_is_no_segment_is_counted_and_shown() {
    let medium = SimMedium::new(1);
    let (mut bench, _) = Bench::open(&medium, &small()).unwrap();
    for (id, bytes) in [(1, 3000), (2, 9000)] {
        bench.batch(&[record(id, bytes).encode()]).unwrap().unwrap();
    }
    drop(bench);
    let second = medium.contents().remove(&live_name(2)).unwrap();
    medium.put(&live_name(3), renumbered(&second, 3));
    for stray in [vec![7; 16 << 10], renumbered(&second, 9)] {
        let medium = medium.after_crash(1);
        medium.put(&live_name(2), stray);
        let settings = LogWriterSettings {
            accept_damage: true,
            ..small()
        };
        let (_, found) = Bench::open(&medium, &settings).unwrap();
        let mut shown = Vec::new();
        let each = found.for_each(Sequence(0), |entry| shown.push(entry.sequence.0));
        each.unwrap();
        assert_eq!(shown, [1, 2]);
        assert_eq!(found.report().records, 2, "{:?}", found.report());
        assert_eq!(found.report().unreadable, [2], "{:?}", found.report());
    }
}
