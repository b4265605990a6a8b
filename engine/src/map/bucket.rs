//! One cache line of the index: which records a bucket holds and where they lie.
//!
//! Imports nothing. Invariants: a line is 64 bytes and holds at most [`SLOTS`] records, which lie
//! one behind the other in the records section. A key that is not in the map costs this one line
//! in all but 1 of 200 cases.
//!
//! Bytes: 0..5 offset of the first record, 5 number of records (bits 0-4) and which classes of
//! keys overflowed (bits 5-7), 6..29 low eight bits of each fingerprint, 29..41 high four bits of
//! each (two to a byte, low half first), 41..64 length of each record.

/// Records in one bucket at most.
pub(super) const SLOTS: usize = 23;
/// Bytes of one bucket.
pub(super) const LINE_BYTES: usize = 64;
/// The index is filled to this many records per 1000 buckets on average: 70 percent. Fuller lines
/// save space, but more keys overflow into the next line, which a search then waits for, too.
pub(super) const FILL_PER_1000: u64 = 16_000;

const LOW_AT: usize = 6;
const HIGH_AT: usize = 29;
const LENGTHS_AT: usize = 41;
/// Largest offset of a record: 40 bits.
pub(super) const OFFSET_MAX: u64 = (1 << 40) - 1;

/// A record of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) fingerprint: u16,
    pub(super) len: u8,
}

/// Keys overflow in three classes, so that a full bucket sends only some misses onwards.
#[inline]
pub(super) fn overflow_bit(fingerprint: u16) -> u8 {
    let class = (u32::from(fingerprint & 0x0fff) * 3) >> 12;
    0x20 << class
}

/// Writes a line. `overflow` is the union of [`overflow_bit`] of all keys that belong here or
/// before and were put further on.
pub(super) fn encode(offset: u64, overflow: u8, slots: &[Slot]) -> [u8; LINE_BYTES] {
    debug_assert!(slots.len() <= SLOTS && offset <= OFFSET_MAX);
    let mut line = [0u8; LINE_BYTES];
    for (to, from) in line
        .iter_mut()
        .zip(offset.to_le_bytes().into_iter().take(5))
    {
        *to = from;
    }
    let (head, body) = line.split_at_mut(LOW_AT);
    if let Some(count) = head.last_mut() {
        *count = slots.len().to_le_bytes()[0] | overflow;
    }
    let (low, body) = body.split_at_mut(HIGH_AT - LOW_AT);
    let (high, lengths) = body.split_at_mut(LENGTHS_AT - HIGH_AT);
    for (slot, (low, len)) in slots.iter().zip(low.iter_mut().zip(lengths)) {
        *low = slot.fingerprint.to_le_bytes()[0];
        *len = slot.len;
    }
    for (pair, byte) in slots.chunks(2).zip(high) {
        for (slot, shift) in pair.iter().zip([0, 4]) {
            *byte |= (slot.fingerprint.to_le_bytes()[1] & 0x0f) << shift;
        }
    }
    line
}

/// A line as it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a>(pub(super) &'a [u8; LINE_BYTES]);

impl Line<'_> {
    #[inline]
    fn word(&self, at: usize) -> u64 {
        self.0
            .get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Number of records; a damaged line may say more than [`SLOTS`], which is cut.
    #[inline]
    pub(super) fn count(&self) -> usize {
        usize::from(self.0[5] & 0x1f).min(SLOTS)
    }

    /// Whether keys of this fingerprint's class may have overflowed into the next line.
    #[inline]
    pub(super) fn overflowed(&self, fingerprint: u16) -> bool {
        self.0[5] & overflow_bit(fingerprint) != 0
    }

    #[inline]
    pub(super) fn offset(&self) -> u64 {
        self.word(0) & OFFSET_MAX
    }

    /// One bit for each slot whose fingerprint's low eight bits match, and rarely for one whose
    /// bits do not.
    #[inline]
    pub(super) fn candidates(&self, fingerprint: u16) -> u32 {
        let pattern = u64::from(fingerprint.to_le_bytes()[0]) * 0x0101_0101_0101_0101;
        let found = zero_bytes(self.word(LOW_AT) ^ pattern)
            | zero_bytes(self.word(LOW_AT + 8) ^ pattern) << 8
            | zero_bytes(self.word(LOW_AT + 16) ^ pattern) << 16;
        found & ((1u32 << self.count()) - 1)
    }

    /// Whether the other four bits match, too.
    #[inline]
    pub(super) fn confirms(&self, slot: usize, fingerprint: u16) -> bool {
        let byte = self.0.get(HIGH_AT + slot / 2).copied().unwrap_or(0);
        (byte >> (4 * (slot % 2))) & 0x0f == fingerprint.to_le_bytes()[1] & 0x0f
    }

    #[inline]
    pub(super) fn len(&self, slot: usize) -> usize {
        usize::from(self.0.get(LENGTHS_AT + slot).copied().unwrap_or(0))
    }

    /// Bytes of the records before `slot`.
    #[inline]
    pub(super) fn skip(&self, slot: usize) -> u64 {
        // Byte 40 stands before the lengths and is masked off; `slot` bytes behind it are kept.
        let bits = (slot + 1) * 8;
        let first = self.word(LENGTHS_AT - 1) & !0xff & low_bits(bits);
        let second = self.word(LENGTHS_AT + 7) & low_bits(bits.saturating_sub(64));
        let third = self.word(LENGTHS_AT + 15) & low_bits(bits.saturating_sub(128));
        let pairs =
            |word: u64| (word & 0x00ff_00ff_00ff_00ff) + ((word >> 8) & 0x00ff_00ff_00ff_00ff);
        let sums = pairs(first) + pairs(second) + pairs(third);
        sums.wrapping_mul(0x0001_0001_0001_0001) >> 48
    }
}

#[inline]
fn low_bits(bits: usize) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1u64 << bits) - 1
    }
}

/// One bit for each zero byte of `word`. A byte 1 above a zero byte counts, too, which costs a
/// needless comparison and nothing else.
#[inline]
fn zero_bytes(word: u64) -> u32 {
    let zero = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
    // Gathers the high bit of each byte into one byte.
    ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(count: usize) -> Vec<Slot> {
        (0u16..)
            .zip((0u8..=255).rev().step_by(3))
            .take(count)
            .map(|(i, len)| Slot {
                fingerprint: (i * 0x1b7 + 5) & 0xfff,
                len,
            })
            .collect()
    }

    #[test]
    fn a_line_returns_what_was_put_in() {
        for count in 0..=SLOTS {
            let slots = slots(count);
            let line = encode(0x12_3456_789a, 0x40, &slots);
            let line = Line(&line);
            assert_eq!(line.count(), count);
            assert_eq!(line.offset(), 0x12_3456_789a);
            let mut skip = 0;
            for (i, slot) in slots.iter().enumerate() {
                assert_eq!(line.len(i), usize::from(slot.len));
                assert_eq!(line.skip(i), skip, "slot {i} of {count}");
                assert!(line.candidates(slot.fingerprint) & (1 << i) != 0);
                assert!(line.confirms(i, slot.fingerprint));
                assert!(!line.confirms(i, slot.fingerprint ^ 0x400));
                skip += u64::from(slot.len);
            }
        }
    }

    #[test]
    fn candidates_are_all_slots_with_equal_low_bits_and_few_others() {
        let slots = slots(SLOTS);
        let line = encode(0, 0, &slots);
        let mut needless = 0;
        for fingerprint in 0..0x1000u16 {
            let found = Line(&line).candidates(fingerprint);
            let equal = slots.iter().enumerate().fold(0u32, |bits, (i, slot)| {
                bits | u32::from(slot.fingerprint & 0xff == fingerprint & 0xff) << i
            });
            assert_eq!(found & equal, equal);
            assert_eq!(found >> SLOTS, 0);
            needless += (found & !equal).count_ones();
        }
        assert!(needless <= 0x100, "{needless}");
    }

    #[test]
    fn every_fingerprint_overflows_in_one_of_three_classes() {
        let mut seen = 0;
        for fingerprint in 0..0x1000 {
            let bit = overflow_bit(fingerprint);
            assert_eq!(bit.count_ones(), 1);
            seen |= bit;
        }
        assert_eq!(seen, 0xe0);
    }
}
