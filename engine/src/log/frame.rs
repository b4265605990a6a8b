//! The header of a frame: one record, or one fragment of a long one.
//!
//! Invariants: the header's checksum covers the log's identity and the segment's number, so that a
//! frame left by an earlier use of the file is never taken as live, and it covers the payload's
//! checksum, which ties the payload to its header. The layout is drawn in `manual::log_format`.

use super::bytes::{NUMBER_MAX, Put as _, Take};
use crc32fast::Hasher;

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGN: usize = 8;
/// Longest payload of one frame; longer records go on in further frames.
pub const FRAGMENT_BYTES_MAX: usize = 256 * 1024;
/// Longest record, with its envelope. It bounds what a reader reserves for one.
pub const RECORD_BYTES_LIMIT: usize = 1 << 30;

const FLAG_LAST: u8 = 1;
const FLAG_BATCH_START: u8 = 2;

/// What precedes every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) sequence: u64,
    /// Bytes of this frame's payload.
    pub(crate) payload_bytes: u32,
    /// Bytes of the whole record over all its fragments.
    pub(crate) record_bytes: u32,
    /// 0 for the first fragment.
    pub(crate) fragment: u32,
    pub(crate) payload_crc: u32,
    pub(crate) kind: u8,
    /// No further fragment follows.
    pub(crate) last: bool,
    /// Everything before this frame was durable when it was written.
    pub(crate) batch_start: bool,
}

/// Why bytes are not a live frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameFault {
    /// All zero: padding up to the end of the block, or never written.
    Empty,
    /// Wrong checksum: torn, damaged, or from an earlier use of the file.
    Checksum,
    /// The checksum is right and a field is out of its range.
    Field,
}

impl FrameHeader {
    pub(crate) fn encode(&self, epoch: &Hasher) -> [u8; FRAME_HEADER_BYTES] {
        let mut covered = Vec::with_capacity(FRAME_HEADER_BYTES);
        covered.put_u32(self.payload_crc);
        covered.put_u64(self.sequence);
        covered.put_u32(self.payload_bytes);
        covered.put_u32(self.fragment);
        covered.put_u32(self.record_bytes);
        covered.put_u8(self.kind);
        let last = if self.last { FLAG_LAST } else { 0 };
        let start = if self.batch_start {
            FLAG_BATCH_START
        } else {
            0
        };
        covered.put_u8(last | start);
        covered.put(&[0, 0]);
        let mut hasher = epoch.clone();
        hasher.update(&covered);
        let mut out = [0; FRAME_HEADER_BYTES];
        let (head, tail) = out.split_at_mut(4);
        head.copy_from_slice(&hasher.finalize().to_le_bytes());
        tail.copy_from_slice(&covered);
        out
    }

    pub(crate) fn decode(
        bytes: &[u8; FRAME_HEADER_BYTES],
        epoch: &Hasher,
    ) -> Result<Self, FrameFault> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(FrameFault::Empty);
        }
        let (checksum, covered) = bytes.split_first_chunk::<4>().ok_or(FrameFault::Empty)?;
        let mut hasher = epoch.clone();
        hasher.update(covered);
        if hasher.finalize() != u32::from_le_bytes(*checksum) {
            return Err(FrameFault::Checksum);
        }
        Self::fields(covered).ok_or(FrameFault::Field)
    }

    fn fields(covered: &[u8]) -> Option<Self> {
        let mut take = Take::new(covered);
        let payload_crc = take.u32("payload_crc").ok()?;
        let sequence = take.u64("sequence").ok()?;
        let payload_bytes = take.u32("payload_bytes").ok()?;
        let fragment = take.u32("fragment").ok()?;
        let record_bytes = take.u32("record_bytes").ok()?;
        let kind = take.u8("kind").ok()?;
        let flags = take.u8("flags").ok()?;
        let zero = take.array::<2>("zero").ok()?;
        let payload = usize::try_from(payload_bytes).ok()?;
        let record = usize::try_from(record_bytes).ok()?;
        // Each fragment before this one has a byte at least.
        let fits = payload > 0
            && (1..=NUMBER_MAX).contains(&sequence)
            && fragment < record_bytes
            && payload <= FRAGMENT_BYTES_MAX
            && payload <= record
            && record <= RECORD_BYTES_LIMIT
            && flags & !(FLAG_LAST | FLAG_BATCH_START) == 0
            && zero == [0, 0];
        fits.then_some(Self {
            sequence,
            payload_bytes,
            record_bytes,
            fragment,
            payload_crc,
            kind,
            last: flags & FLAG_LAST != 0,
            batch_start: flags & FLAG_BATCH_START != 0,
        })
    }
}

/// Bytes a frame with this payload takes up, alignment included.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(FRAME_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch(number: u64) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.update(&number.to_le_bytes());
        hasher
    }

    fn any_header() -> impl Strategy<Value = FrameHeader> {
        (
            1..=NUMBER_MAX,
            1..=256 * 1024u32,
            any::<(u32, u32, u8, bool, bool)>(),
            0..1000u32,
        )
            .prop_map(|(sequence, payload_bytes, rest, more)| FrameHeader {
                sequence,
                payload_bytes,
                record_bytes: payload_bytes + more,
                fragment: rest.0 % (payload_bytes + more),
                payload_crc: rest.1,
                kind: rest.2,
                last: rest.3,
                batch_start: rest.4,
            })
    }

    proptest! {
        #[test]
        fn a_frame_header_reads_back_as_it_was_written(header in any_header(), number: u64) {
            let bytes = header.encode(&epoch(number));
            prop_assert_eq!(FrameHeader::decode(&bytes, &epoch(number)), Ok(header));
        }

        #[test]
        fn a_frame_of_another_segment_is_never_live(header in any_header(), a: u32, b: u32) {
            prop_assume!(a != b);
            let bytes = header.encode(&epoch(u64::from(a)));
            prop_assert_eq!(
                FrameHeader::decode(&bytes, &epoch(u64::from(b))),
                Err(FrameFault::Checksum)
            );
        }

        #[test]
        fn any_flipped_bit_of_a_frame_header_is_noticed(
            header in any_header(),
            byte in 0..FRAME_HEADER_BYTES,
            bit in 0..8u8,
        ) {
            let mut bytes = header.encode(&epoch(1));
            bytes[byte] ^= 1 << bit;
            prop_assert!(FrameHeader::decode(&bytes, &epoch(1)).is_err());
        }
    }

    #[test]
    fn zeros_are_padding_and_not_a_frame() {
        let zeros = [0; FRAME_HEADER_BYTES];
        assert_eq!(
            FrameHeader::decode(&zeros, &epoch(1)),
            Err(FrameFault::Empty)
        );
    }
}
