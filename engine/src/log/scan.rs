//! Reads the whole log: puts records together, and tells a torn tail from damage.
//!
//! Invariants: a frame that is not the expected one ends a segment only if nothing proves that it
//! had been durable; whatever else is missing is reported with its place; what a running writer
//! does meanwhile is never called damage. What is visited was acknowledged or in the last batch.

use super::ends::Ends;
use super::error::LogError;
use super::frame::FrameHeader;
use super::listing::{has_begun, identity, is_gone, list};
use super::medium::{Access, LogFile as _, LogMedium};
use super::record::{Record, RecordKind, Sequence};
use super::segment::{FORMAT_VERSION, HeaderFault, SegmentHeader, live_name};
use super::walk::{Frame, SegmentWalk};
use std::io;

/// A record as it stands in the log.
#[derive(Clone, Copy, Debug)]
pub struct ScannedRecord<'a> {
    /// Its place in the order.
    pub sequence: Sequence,
    /// Number of the segment its first frame is in.
    pub segment: u64,
    /// Of its first frame, in that file.
    pub offset: u64,
    /// Frames it takes.
    pub frames: u32,
    /// Kind, as written.
    pub kind: u8,
    /// The bytes of the record.
    pub payload: &'a [u8],
}

impl<'a> ScannedRecord<'a> {
    /// Whether it is of this kind, in any version of the format.
    pub(crate) fn is_a(&self, kind: RecordKind) -> bool {
        RecordKind::from_byte(self.kind) == Some(kind)
    }

    /// The record in these bytes.
    ///
    /// # Errors
    /// [`LogError::Record`]: they are not a record of this version.
    pub fn record(&self) -> Result<Record<'a>, LogError> {
        Record::decode(self.kind, self.payload).map_err(|source| LogError::Record {
            file: live_name(self.segment),
            offset: self.offset,
            sequence: self.sequence,
            source,
        })
    }
}

/// Acknowledged bytes that are missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment file.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What should stand there.
    pub expected: Sequence,
    /// What stands there, or where the log goes on.
    pub found: String,
}

/// One segment, as scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedSegment {
    /// The file.
    pub file: String,
    /// What its header says.
    pub header: SegmentHeader,
    /// Valid frames in it.
    pub frames: u64,
    /// Where the last valid frame ends, in bytes.
    pub end: u64,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// In their order.
    pub segments: Vec<ScannedSegment>,
    /// Names of spare files, and of segments that were reserved and not begun.
    pub spares: Vec<String>,
    /// Whole records.
    pub records: u64,
    /// The sequence the next record gets; 1 in an empty log.
    pub next_sequence: Sequence,
    /// Records that were begun and never finished, before a crash.
    pub cut: Vec<Sequence>,
    /// What is lost.
    pub damage: Vec<Damage>,
    /// Numbers of segments whose header cannot be read.
    pub unreadable: Vec<u64>,
    /// Highest number any header names, live or spare.
    pub number_max: u64,
}

impl ScanReport {
    /// The first damage, as an error.
    pub fn damage_error(&self) -> Option<LogError> {
        self.damage.first().map(|damage| LogError::Damaged {
            file: damage.file.clone(),
            offset: damage.offset,
            expected: damage.expected,
            found: damage.found.clone(),
        })
    }
}

/// The expected next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    sequence: u64,
    fragment: u32,
}

impl Place {
    fn of(header: &FrameHeader) -> Self {
        Self {
            sequence: header.sequence,
            fragment: header.fragment,
        }
    }
}

/// A record of which not all frames were seen yet.
#[derive(Debug)]
struct Partial {
    sequence: u64,
    segment: u64,
    offset: u64,
    frames: u32,
    kind: u8,
    record_bytes: u32,
    payload: Vec<u8>,
}

/// Scans every segment of `medium` and shows each whole record to `visit`.
///
/// # Errors
/// The medium fails, or a newer mailstow wrote a segment. Damage is no error: it is reported.
pub fn scan<M: LogMedium>(
    medium: &M,
    visit: &mut dyn FnMut(ScannedRecord<'_>),
) -> Result<ScanReport, LogError> {
    let (live, spares) = list(medium)?;
    let mut scanner = Scanner::new(visit);
    scanner.report.number_max = live.iter().copied().max().unwrap_or(0);
    for name in &spares {
        let file = match medium.open(name, Access::Read) {
            Ok(file) => file,
            // A running writer took it into use.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(LogError::io("open", name, error)),
        };
        if let Ok(walk) = SegmentWalk::open(file).map_err(|e| LogError::io("read", name, e))? {
            let number = walk.header.number;
            scanner.report.number_max = scanner.report.number_max.max(number);
            scanner.ends.spare(walk.header);
        }
    }
    scanner.report.spares = spares;
    scanner.identity = identity(medium, &live);
    for number in live {
        scanner.segment(medium, number)?;
    }
    scanner.ends(medium)?;
    Ok(scanner.finish())
}

/// Scans only these segments, which are live and in order.
pub(super) fn scan_segments<'s, M: LogMedium>(
    medium: &M,
    segments: impl IntoIterator<Item = &'s ScannedSegment>,
    visit: &mut dyn FnMut(ScannedRecord<'_>),
) -> Result<ScanReport, LogError> {
    let mut scanner = Scanner::new(visit);
    for segment in segments {
        scanner.identity = Some(segment.header.identity);
        scanner.segment(medium, segment.header.number)?;
    }
    Ok(scanner.finish())
}

struct Scanner<'v> {
    visit: &'v mut dyn FnMut(ScannedRecord<'_>),
    report: ScanReport,
    identity: Option<u64>,
    expected: Option<Place>,
    partial: Option<Partial>,
    /// File and offset at which the segment before ended.
    ended: (String, u64),
    /// What tells where the log must begin and end.
    ends: Ends,
    /// A running writer freed segments while we looked.
    moved: bool,
}

impl<'v> Scanner<'v> {
    fn new(visit: &'v mut dyn FnMut(ScannedRecord<'_>)) -> Self {
        Self {
            visit,
            report: ScanReport::default(),
            identity: None,
            expected: None,
            partial: None,
            ended: (String::new(), 0),
            ends: Ends::default(),
            moved: false,
        }
    }

    fn segment<M: LogMedium>(&mut self, medium: &M, number: u64) -> Result<(), LogError> {
        let name = live_name(number);
        let failed = |error| LogError::io("read", &name, error);
        let file = match medium.open(&name, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.begin_anew();
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        let size = file.size().map_err(failed)?;
        let mut walk = match SegmentWalk::open(file).map_err(failed)? {
            Ok(walk) => walk,
            Err(HeaderFault::Version(version)) => {
                return Err(LogError::Version {
                    file: name,
                    version,
                    known: FORMAT_VERSION,
                });
            }
            Err(_) if is_gone(medium, number) => {
                self.begin_anew();
                return Ok(());
            }
            Err(fault) => {
                let found = format!("no segment header ({fault:?})");
                self.damage_beside(&name, 0, found);
                let Some(walk) = self.without_header(medium, number, size).map_err(failed)? else {
                    // The next segment shows whether any of it is missing.
                    self.report.unreadable.push(number);
                    return Ok(());
                };
                walk
            }
        };
        let header = walk.header;
        self.report.number_max = self.report.number_max.max(header.number);
        if header.number != number && is_gone(medium, number) {
            self.begin_anew();
            return Ok(());
        }
        if header.reserved {
            // Whatever its number: it gets another header before it gets another name.
            self.report.spares.push(name);
            self.ends.reserved(header);
            return Ok(());
        }
        if header.number != number
            || *self.identity.get_or_insert(header.identity) != header.identity
        {
            self.report.unreadable.push(number);
            let found = format!("header of segment {} of another log or name", header.number);
            self.damage_beside(&name, 0, found);
            return Ok(());
        }
        if size < header.segment_bytes {
            self.damage_beside(&name, size, format!("the file ends at byte {size}"));
        }
        let before = self.report.segments.last().map(|s| s.header.number);
        if let Some(before) = before
            && !self.joins(&header)
        {
            if is_gone(medium, before) {
                self.begin_anew();
            } else {
                self.look_again(medium, before)?;
            }
        }
        self.join(&header);
        let frames = self.frames(medium, &mut walk, &name).map_err(failed)?;
        self.ended = (name.clone(), walk.position());
        self.report.segments.push(ScannedSegment {
            file: name,
            header,
            frames,
            end: walk.position(),
        });
        Ok(())
    }

    /// A segment that lost its header: its name and the other segments tell what that said, and
    /// the checksums of its frames whether that is true. `None` if it has no such frame.
    fn without_header<M: LogMedium>(
        &self,
        medium: &M,
        number: u64,
        size: u64,
    ) -> io::Result<Option<SegmentWalk<M::File>>> {
        let Some(identity) = self.identity else {
            return Ok(None);
        };
        let header = SegmentHeader {
            identity,
            number,
            segment_bytes: size,
            first_sequence: 0,
            first_fragment: 0,
            after_open: false,
            follows_whole: false,
            reserved: false,
            created_ns: 0,
        };
        let mut walk =
            SegmentWalk::with_header(medium.open(&live_name(number), Access::Read)?, header);
        let Some(first) = walk.first_batch()? else {
            return Ok(None);
        };
        walk.header.first_sequence = first.sequence;
        walk.header.first_fragment = first.fragment;
        Ok(Some(walk))
    }

    /// A running writer freed the segments up to here while we looked: what was read of them may
    /// have ended early, and what comes next is the oldest now.
    fn begin_anew(&mut self) {
        self.expected = None;
        self.partial = None;
        self.moved = true;
    }

    /// Goes on behind what was read of the segment before: it may have been the newest then.
    fn look_again<M: LogMedium>(&mut self, medium: &M, number: u64) -> Result<(), LogError> {
        let name = live_name(number);
        let failed = |error| LogError::io("read", &name, error);
        let file = medium.open(&name, Access::Read).map_err(failed)?;
        if let Ok(mut walk) = SegmentWalk::open(file).map_err(failed)?
            && walk.header.number == number
        {
            walk.look_again_at(self.ended.1);
            let frames = self.frames(medium, &mut walk, &name).map_err(failed)?;
            self.ended = (name, walk.position());
            if let Some(segment) = self.report.segments.last_mut() {
                segment.frames += frames;
                segment.end = self.ended.1;
            }
        }
        Ok(())
    }

    /// Whether a segment begins where those before it ended.
    fn joins(&self, header: &SegmentHeader) -> bool {
        let first = (header.first_sequence, header.first_fragment);
        self.expected
            .is_none_or(|expected| (expected.sequence, expected.fragment) == first)
    }

    /// Compares where the segments before ended with where this one begins.
    fn join(&mut self, header: &SegmentHeader) {
        let first = Place {
            sequence: header.first_sequence,
            fragment: header.first_fragment,
        };
        let expected = self.expected.replace(first);
        match expected {
            // The oldest segment may begin inside of a record that was recycled.
            None => {}
            Some(expected) if expected == first => {}
            // A crash left the record unfinished; opening the log went on behind it.
            Some(expected) if header.may_give_up(expected.sequence, expected.fragment) => {
                self.report.cut.push(Sequence(expected.sequence));
                self.partial = None;
            }
            Some(expected) => {
                let (file, offset) = self.ended.clone();
                let found = format!(
                    "segment {:016x} continues with record {}",
                    header.number, first.sequence
                );
                self.expected = Some(expected);
                self.damage(&file, offset, found);
                self.expected = Some(first);
            }
        }
    }

    fn frames<M: LogMedium>(
        &mut self,
        medium: &M,
        walk: &mut SegmentWalk<M::File>,
        name: &str,
    ) -> io::Result<u64> {
        let number = walk.header.number;
        let mut frames = 0;
        loop {
            while let Some(frame) =
                walk.next_frame(|header| self.expected == Some(Place::of(header)))?
            {
                frames += 1;
                self.frame(number, frame);
            }
            let stopped = walk.position();
            let behind = |header: &FrameHeader| {
                self.expected
                    .is_none_or(|expected| Place::of(header) >= expected)
            };
            let Some(header) = walk.find_batch(behind)? else {
                return Ok(frames);
            };
            // Another process may write during the scan: what was missing may have arrived.
            let found_at = walk.look_again_at(stopped);
            if let Some(frame) =
                walk.next_frame(|header| self.expected == Some(Place::of(header)))?
            {
                frames += 1;
                self.frame(number, frame);
                continue;
            }
            walk.look_again_at(found_at);
            // A batch with the expected record: only padding was damaged, nothing is missing.
            if self.expected != Some(Place::of(&header)) {
                if is_gone(medium, number) {
                    self.begin_anew();
                    return Ok(frames);
                }
                let at = walk.position();
                let found = format!("record {} follows at byte {at}", header.sequence);
                self.damage(name, stopped, found);
            }
            self.expected = Some(Place::of(&header));
        }
    }

    fn frame(&mut self, segment: u64, frame: Frame<'_>) {
        let header = frame.header;
        self.expected = Some(if header.last {
            Place {
                sequence: header.sequence + 1,
                fragment: 0,
            }
        } else {
            Place {
                sequence: header.sequence,
                fragment: header.fragment + 1,
            }
        });
        if header.fragment == 0 {
            if header.last {
                self.show(ScannedRecord {
                    sequence: Sequence(header.sequence),
                    segment,
                    offset: frame.offset,
                    frames: 1,
                    kind: header.kind,
                    payload: frame.payload,
                });
                return;
            }
            self.partial = Some(Partial {
                sequence: header.sequence,
                segment,
                offset: frame.offset,
                frames: 0,
                kind: header.kind,
                record_bytes: header.record_bytes,
                payload: Vec::new(),
            });
        }
        // Without a beginning it belongs to a recycled or damaged record.
        let Some(mut partial) = self.partial.take() else {
            return;
        };
        debug_assert_eq!(partial.sequence, header.sequence, "fragments of one record");
        debug_assert_eq!(partial.frames, header.fragment, "each in its turn");
        partial.frames += 1;
        partial.payload.extend_from_slice(frame.payload);
        if !header.last {
            self.partial = Some(partial);
            return;
        }
        let whole = partial.payload.len() as u64 == u64::from(partial.record_bytes)
            && partial.sequence == header.sequence
            && partial.kind == header.kind;
        if !whole {
            let file = live_name(partial.segment);
            let found = format!("{} of its bytes", partial.payload.len());
            self.damage(&file, partial.offset, found);
            return;
        }
        self.show(ScannedRecord {
            sequence: Sequence(partial.sequence),
            segment: partial.segment,
            offset: partial.offset,
            frames: partial.frames,
            kind: partial.kind,
            payload: &partial.payload,
        });
    }

    fn show(&mut self, entry: ScannedRecord<'_>) {
        self.report.records += 1;
        if entry.is_a(RecordKind::Checkpoint)
            && let Ok(Record::Checkpoint(checkpoint)) = entry.record()
        {
            self.ends.checkpoint(checkpoint.below);
        }
        (self.visit)(entry);
    }

    /// Reports segments missing at the ends. Other damage may have taken what tells of those.
    fn ends<M: LogMedium>(&mut self, medium: &M) -> Result<(), LogError> {
        if self.moved || !self.report.damage.is_empty() {
            return Ok(());
        }
        let segments = &self.report.segments;
        // What was true of a moment that has passed is no damage: the oldest was freed, or the
        // first one begun, while we looked.
        let has_moved = match segments.first() {
            Some(oldest) => is_gone(medium, oldest.header.number),
            None => has_begun(medium, &list(medium)?.0),
        };
        if has_moved {
            return Ok(());
        }
        let around = segments.first().zip(segments.last());
        let missing = self
            .ends
            .missing(around.map(|(f, l)| (&f.header, &l.header)));
        let damage = missing.into_iter().map(|missing| Damage {
            file: missing.file,
            offset: 0,
            expected: missing.expected,
            found: missing.found,
        });
        self.report.damage.extend(damage);
        Ok(())
    }

    /// Reports damage at the place that was reached: a record that goes on there is lost.
    fn damage(&mut self, file: &str, offset: u64, found: String) {
        self.partial = None;
        self.damage_beside(file, offset, found);
    }

    /// Reports damage elsewhere in a segment. Its frames may be whole, and so may be a record that
    /// goes on in them.
    fn damage_beside(&mut self, file: &str, offset: u64, found: String) {
        let expected = self.expected.map_or(0, |place| place.sequence);
        self.report.damage.push(Damage {
            file: file.to_owned(),
            offset,
            expected: Sequence(expected),
            found,
        });
    }

    fn finish(mut self) -> ScanReport {
        let next = match self.expected {
            None => 1,
            // The unfinished record keeps its number; it was never acknowledged.
            Some(place) if place.fragment > 0 => {
                self.report.cut.push(Sequence(place.sequence));
                place.sequence + 1
            }
            Some(place) => place.sequence,
        };
        let numbers = self.report.segments.iter().map(|s| s.header.number);
        debug_assert!(
            numbers.clone().is_sorted_by(|a, b| a < b),
            "segments are visited in the order of their numbers"
        );
        debug_assert!(
            numbers.max() <= Some(self.report.number_max),
            "the highest number is known"
        );
        self.report.next_sequence = Sequence(next);
        self.report
    }
}
