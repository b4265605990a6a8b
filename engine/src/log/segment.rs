//! The header of a segment and the names of segment files.
//!
//! Invariants: a file is named `segment-*` only after a header with its number was flushed, and no
//! number is used twice in one log, so that number and log identity tell live frames from those an
//! earlier use of the file left behind; a reserved segment holds no frames, its header is written
//! again before it takes any. The layout is drawn in `manual::log_format`.

use super::bytes::{DecodeError, NUMBER_MAX, Put as _, Take};
use super::frame::RECORD_BYTES_LIMIT;
use crc32fast::Hasher;

/// The unit of writing: every batch starts at a multiple of it and is padded to one.
pub const BLOCK_BYTES: usize = 4096;
/// [`BLOCK_BYTES`], for file offsets.
pub(crate) const BLOCK: u64 = 4096;
/// The version of the format this code writes. It reads that one and all before it: a record that
/// was changed has another kind since.
pub const FORMAT_VERSION: u32 = 3;

const MAGIC: [u8; 8] = *b"MSTOWLOG";
/// Bytes of the header in use; the rest of its block is zero.
const HEADER_BYTES: usize = 72;
const FLAG_AFTER_OPEN: u32 = 1;
const FLAG_RESERVED: u32 = 2;

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log this segment belongs to: a number drawn when the log was made.
    pub identity: u64,
    /// Number of the segment, counting up through the life of the log.
    pub number: u64,
    /// Size of the file.
    pub segment_bytes: u64,
    /// The record whose frame comes first; of a reserved segment, in the newest one then.
    pub first_sequence: u64,
    /// The fragment of that record that comes first, likewise.
    pub first_fragment: u32,
    /// True for the first segment after the log was opened: a torn tail may stand before it.
    pub after_open: bool,
    /// True for such a segment if the record before it was whole then: what is missing of it was
    /// lost since. Builds that did not tell this wrote false.
    pub follows_whole: bool,
    /// True for a segment that was named ahead of its need and holds no frames: a spare.
    pub reserved: bool,
    /// When the segment was begun, in nanoseconds since the UNIX epoch; for people.
    pub created_ns: u64,
}

/// Why a block is not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// It does not begin with the magic bytes.
    Magic,
    /// Its checksum is wrong.
    Checksum,
    /// Another version of the format.
    Version(u32),
    /// A field is out of its range although the checksum is right.
    Field(&'static str),
}

impl SegmentHeader {
    /// The header as it is written: one whole block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        debug_assert!(
            !(self.after_open && self.reserved),
            "a reserved segment was not begun"
        );
        debug_assert!(
            self.after_open || !self.follows_whole,
            "only opening the log checks the previous record"
        );
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        out.put(&MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.put_u32(4096);
        out.put_u64(self.identity);
        out.put_u64(self.number);
        out.put_u64(self.segment_bytes);
        out.put_u64(self.first_sequence);
        out.put_u32(self.first_fragment);
        let after_open = if self.after_open { FLAG_AFTER_OPEN } else { 0 };
        let reserved = if self.reserved { FLAG_RESERVED } else { 0 };
        out.put_u32(after_open | reserved);
        out.put_u64(self.created_ns);
        out.put_u32(u32::from(self.follows_whole));
        let checksum = crc32fast::hash(&out);
        out.put_u32(checksum);
        debug_assert_eq!(out.len(), HEADER_BYTES, "the header has a fixed size");
        out.resize(BLOCK_BYTES, 0);
        out
    }

    /// Reads a header from the first bytes of a segment.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, HeaderFault> {
        let Some(bytes) = block.get(..HEADER_BYTES) else {
            return Err(HeaderFault::Magic);
        };
        if bytes.get(..MAGIC.len()) != Some(MAGIC.as_slice()) {
            return Err(HeaderFault::Magic);
        }
        Self::fields(bytes).unwrap_or(Err(HeaderFault::Checksum))
    }

    fn fields(bytes: &[u8]) -> Result<Result<Self, HeaderFault>, DecodeError> {
        let mut take = Take::new(bytes);
        let covered = take.bytes(HEADER_BYTES - 4, "header")?;
        if take.u32("checksum")? != crc32fast::hash(covered) {
            return Ok(Err(HeaderFault::Checksum));
        }
        let mut take = Take::new(covered);
        take.bytes(MAGIC.len(), "magic")?;
        let version = take.u32("version")?;
        if !(1..=FORMAT_VERSION).contains(&version) {
            return Ok(Err(HeaderFault::Version(version)));
        }
        let block_bytes = take.u32("block_bytes")?;
        let mut header = Self {
            identity: take.u64("identity")?,
            number: take.u64("number")?,
            segment_bytes: take.u64("segment_bytes")?,
            first_sequence: take.u64("first_sequence")?,
            first_fragment: take.u32("first_fragment")?,
            after_open: false,
            follows_whole: false,
            reserved: false,
            created_ns: 0,
        };
        match take.u32("flags")? {
            0 => {}
            FLAG_AFTER_OPEN => header.after_open = true,
            FLAG_RESERVED => header.reserved = true,
            _ => return Ok(Err(HeaderFault::Field("flags"))),
        }
        header.created_ns = take.u64("created_ns")?;
        match take.u32("follows_whole")? {
            0 => {}
            1 if header.after_open => header.follows_whole = true,
            _ => return Ok(Err(HeaderFault::Field("follows_whole"))),
        }
        if u64::from(block_bytes) != BLOCK {
            return Ok(Err(HeaderFault::Field("block_bytes")));
        }
        if !header.segment_bytes.is_multiple_of(BLOCK) || header.segment_bytes < 2 * BLOCK {
            return Ok(Err(HeaderFault::Field("segment_bytes")));
        }
        // A reserved segment may know of no record yet.
        let first_least = u64::from(!header.reserved);
        let fragment = usize::try_from(header.first_fragment);
        let is_counted = (1..=NUMBER_MAX).contains(&header.number)
            && (first_least..=NUMBER_MAX).contains(&header.first_sequence)
            && fragment.is_ok_and(|fragment| fragment < RECORD_BYTES_LIMIT);
        if !is_counted {
            return Ok(Err(HeaderFault::Field("number")));
        }
        Ok(Ok(header))
    }

    /// Whether opening the log with this segment may have given up a record of which this fragment
    /// is missing, because a crash had left it unfinished.
    pub(crate) fn may_give_up(&self, sequence: u64, fragment: u32) -> bool {
        let goes_on = self.first_sequence == sequence + 1 && self.first_fragment == 0;
        self.after_open && !self.follows_whole && fragment > 0 && goes_on
    }

    /// The checksum state every frame header of this segment starts from.
    pub(crate) fn epoch(&self) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.update(&self.identity.to_le_bytes());
        hasher.update(&self.number.to_le_bytes());
        hasher
    }
}

/// What a file of the log directory is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileRole {
    /// Holds frames.
    Live(u64),
    /// Free to be used again; the number only keeps names apart.
    Spare(u64),
    /// Not ours.
    Other,
}

/// `segment-` and the number in 16 hexadecimal digits.
pub(crate) fn live_name(number: u64) -> String {
    format!("segment-{number:016x}.log")
}

/// The name of a recycled segment that was number `number`.
pub(crate) fn spare_name(number: u64) -> String {
    format!("spare-{number:016x}.log")
}

/// The name of a spare that never was a segment.
pub(crate) fn fresh_name(counter: u64) -> String {
    format!("spare-n{counter:015x}.log")
}

/// Tells the role of `name`.
pub(crate) fn role(name: &str) -> FileRole {
    let Some(stem) = name.strip_suffix(".log") else {
        return FileRole::Other;
    };
    let number = |digits: &str, length: usize| {
        (digits.len() == length)
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten()
    };
    if let Some(digits) = stem.strip_prefix("segment-") {
        let number = number(digits, 16).filter(|number| (1..=NUMBER_MAX).contains(number));
        return number.map_or(FileRole::Other, FileRole::Live);
    }
    if let Some(digits) = stem.strip_prefix("spare-n") {
        return number(digits, 15).map_or(FileRole::Other, FileRole::Spare);
    }
    if let Some(digits) = stem.strip_prefix("spare-") {
        return number(digits, 16).map_or(FileRole::Other, FileRole::Spare);
    }
    FileRole::Other
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: 0x1122_3344_5566_7788,
            number: 7,
            segment_bytes: 65_536,
            first_sequence: 42,
            first_fragment: 3,
            after_open: true,
            follows_whole: true,
            reserved: false,
            created_ns: 1_700_000_000_000_000_000,
        }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let block = header().encode();
        assert_eq!(block.len(), BLOCK_BYTES);
        assert_eq!(SegmentHeader::decode(&block), Ok(header()));
    }

    #[test]
    fn a_reserved_header_says_so() {
        let reserved = SegmentHeader {
            after_open: false,
            follows_whole: false,
            reserved: true,
            ..header()
        };
        assert_eq!(SegmentHeader::decode(&reserved.encode()), Ok(reserved));
    }

    #[test]
    fn another_version_is_named_and_not_guessed_at() {
        let mut block = header().encode();
        let with_version = |block: &mut Vec<u8>, version| {
            block[8] = version;
            let checksum = crc32fast::hash(&block[..HEADER_BYTES - 4]).to_le_bytes();
            block[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum);
            SegmentHeader::decode(block)
        };
        let newest = u8::try_from(FORMAT_VERSION).unwrap();
        for other in [0, newest + 1] {
            let fault = HeaderFault::Version(u32::from(other));
            assert_eq!(with_version(&mut block, other), Err(fault));
        }
        for known in 1..=newest {
            assert_eq!(with_version(&mut block, known), Ok(header()));
        }
    }

    #[test]
    fn names_tell_their_role_and_number() {
        assert_eq!(role(&live_name(0xabc)), FileRole::Live(0xabc));
        assert_eq!(role(&spare_name(u64::MAX)), FileRole::Spare(u64::MAX));
        assert_eq!(role(&fresh_name(5)), FileRole::Spare(5));
        for other in [
            "lock",
            "segment-1.log",
            "segment-000000000000000g.log",
            "segment-0000000000000000.log",
            "segment-ffffffffffffffff.log",
            "x.log",
        ] {
            assert_eq!(role(other), FileRole::Other, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_of_a_header_is_noticed(byte in 0..HEADER_BYTES, bit in 0..8u8) {
            let mut block = header().encode();
            block[byte] ^= 1 << bit;
            prop_assert!(SegmentHeader::decode(&block).is_err());
        }
    }
}
