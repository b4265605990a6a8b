//! Goal: fields that no log of ours has, under checksums that are right, are refused or bounded
//! where they are read.

use super::super::StepwiseLog;
use super::super::frame::FrameHeader;
use super::super::record::{RecordKind, Sequence};
use super::super::scan::{ScanReport, scan};
use super::super::segment::{SegmentHeader, live_name};
use super::super::sim::SimMedium;
use super::support::small;
use crate::sync::Arc;

fn header() -> SegmentHeader {
    SegmentHeader {
        identity: 7,
        number: 1,
        segment_bytes: 16 << 10,
        first_sequence: 1,
        first_fragment: 0,
        after_open: false,
        follows_whole: false,
        reserved: false,
        created_ns: 0,
    }
}

fn frame() -> FrameHeader {
    FrameHeader {
        sequence: 1,
        payload_bytes: 8,
        record_bytes: 8,
        fragment: 0,
        payload_crc: crc32fast::hash(&[5; 8]),
        kind: RecordKind::Done.to_byte(),
        last: true,
        batch_start: true,
    }
}

/// Puts a segment with this name, header and frames.
fn put(medium: &SimMedium, name: u64, header: &SegmentHeader, frames: &[FrameHeader]) {
    let mut bytes = header.encode();
    for frame in frames {
        bytes.extend_from_slice(&frame.encode(&header.epoch()));
        bytes.extend_from_slice(&[5; 8]);
    }
    bytes.resize(16 << 10, 0);
    medium.put(&live_name(name), bytes);
}

/// Scans a log of one segment; the records that it shows.
fn scanned(header: SegmentHeader, frames: &[FrameHeader]) -> (ScanReport, Vec<Sequence>) {
    let medium = SimMedium::new(1);
    put(&medium, 1, &header, frames);
    let mut shown = Vec::new();
    let report = scan(&medium, &mut |entry| shown.push(entry.sequence)).unwrap();
    (report, shown)
}

#[test]
fn a_segment_that_claims_to_be_longer_than_its_file_is_read_to_the_end_of_the_file() {
    let header = SegmentHeader {
        segment_bytes: !4095,
        ..header()
    };
    let (report, shown) = scanned(header, &[frame()]);
    assert_eq!(shown, [Sequence(1)]);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].offset, 16 << 10);
}

#[test]
fn a_segment_header_with_numbers_that_are_never_reached_is_damage() {
    let odd: [fn(&mut SegmentHeader); 4] = [
        |header| header.first_sequence = u64::MAX,
        |header| header.first_sequence = 0,
        |header| header.first_fragment = u32::MAX,
        |header| header.number = u64::MAX,
    ];
    for change in odd {
        let mut header = header();
        change(&mut header);
        let (report, _) = scanned(header, &[]);
        assert_eq!(report.damage.len(), 1, "{header:?}: {report:?}");
    }
}

#[test]
fn frames_with_numbers_that_are_never_reached_end_a_segment() {
    for (sequence, fragment) in [(u64::MAX, 0), (0, 0), (1, u32::MAX), (1, 8)] {
        let header = SegmentHeader {
            first_sequence: sequence.clamp(1, 1 << 62),
            ..header()
        };
        let odd = FrameHeader {
            sequence,
            fragment,
            last: fragment == 0,
            ..frame()
        };
        let (report, shown) = scanned(header, &[odd]);
        assert_eq!(shown, [], "{odd:?}");
        assert_eq!(report.segments[0].frames, 0, "{odd:?}: {report:?}");
    }
}

#[test]
fn a_log_opens_again_where_an_empty_segment_alone_tells_of_a_crash() {
    let medium = Arc::new(SimMedium::new(1));
    let unfinished = FrameHeader {
        last: false,
        record_bytes: 16,
        ..frame()
    };
    put(&medium, 1, &header(), &[unfinished]);
    let empty = SegmentHeader {
        number: 2,
        first_sequence: 2,
        after_open: true,
        ..header()
    };
    put(&medium, 2, &empty, &[]);
    let next = SegmentHeader {
        number: 3,
        after_open: false,
        ..empty
    };
    let second = FrameHeader {
        sequence: 2,
        ..unfinished
    };
    put(&medium, 3, &next, &[second]);
    for _ in 0..3 {
        let (_, found) = StepwiseLog::open_stepwise(Arc::clone(&medium), small()).unwrap();
        assert_eq!(found.report().cut, [Sequence(1), Sequence(2)]);
    }
}
