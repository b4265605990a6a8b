//! One cache line of the index: which records a bucket holds and where they lie.
//!
//! Invariants: a line is 64 bytes and holds at most [`SLOTS`] records, which lie one behind the
//! other in the records section. A key that is not in the map costs this one line in all but 1 of
//! 200 cases.
//!
//! Bytes: 0..5 offset of the first record, 5 number of records (bits 0-4) and which classes of keys
//! overflowed (bits 5-7), 6..29 low eight bits of each fingerprint, 29..41 high four bits of each
//! (two to a byte, low half first), 41..64 length of each record.

#[cfg(target_arch = "x86_64")]
use super::processor;

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
    debug_assert_eq!(overflow & 0x1f, 0, "the count has separate bits");
    debug_assert!(
        slots.iter().all(|slot| slot.fingerprint < 1 << 12),
        "a fingerprint has twelve bits"
    );
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
    let again = Line(&line);
    debug_assert_eq!(
        (again.offset(), again.count()),
        (offset, slots.len()),
        "the line is read as it was written"
    );
    debug_assert!(
        slots
            .iter()
            .enumerate()
            .all(|(at, slot)| again.matches(slot.fingerprint) & 1 << at != 0),
        "every record is found by its fingerprint"
    );
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

    /// One bit for each slot with this fingerprint.
    #[inline]
    pub(super) fn matches(&self, fingerprint: u16) -> u32 {
        let words = [LOW_AT, LOW_AT + 8, LOW_AT + 16, HIGH_AT, HIGH_AT + 8].map(|at| self.word(at));
        equal(words, fingerprint) & ((1u32 << self.count()) - 1)
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

/// One bit for each slot that has all twelve bits, of the low bytes (three words) and the halves of
/// high bytes (two words); bits above [`SLOTS`] mean nothing. No branch: a processor that guesses
/// one wrongly has waited for the line for nothing, and begins the next search only then.
#[cfg(target_arch = "x86_64")]
#[inline]
fn equal(words: [u64; 5], fingerprint: u16) -> u32 {
    let [low, high] = fingerprint.to_le_bytes();
    let [a, b, c, d, e] = words;
    let [first, second] = processor::equal_pairs([a, b, c, 0], [d, e], (low, high & 0x0f));
    first | second << 16
}

/// As above, for other processors.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[cfg_attr(target_arch = "x86_64", allow(dead_code, reason = "tested everywhere"))]
fn equal_anywhere(words: [u64; 5], fingerprint: u16) -> u32 {
    let [low, high] = fingerprint.to_le_bytes();
    let [a, b, c, d, e] = words;
    let lows = [a, b, c].into_iter().flat_map(u64::to_le_bytes);
    let highs = [d, e].into_iter().flat_map(u64::to_le_bytes);
    let highs = highs.flat_map(|byte| [byte & 0x0f, byte >> 4]);
    let pairs = lows.zip(highs).enumerate();
    pairs.fold(0, |bits, (slot, pair)| {
        bits | u32::from(pair == (low, high & 0x0f)) << slot
    })
}

#[cfg(not(target_arch = "x86_64"))]
use equal_anywhere as equal;

#[cfg(test)]
mod tests {
    use super::*;

    /// All of them, or what an interpreter gets through in a second.
    fn fingerprints() -> impl Iterator<Item = u16> {
        (0..0x1000).step_by(if cfg!(miri) { 97 } else { 1 })
    }

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
        for count in (0..=SLOTS).step_by(if cfg!(miri) { 8 } else { 1 }) {
            let slots = slots(count);
            let line = encode(0x12_3456_789a, 0x40, &slots);
            let line = Line(&line);
            assert_eq!(line.count(), count);
            assert_eq!(line.offset(), 0x12_3456_789a);
            let mut skip = 0;
            for (i, slot) in slots.iter().enumerate() {
                assert_eq!(line.len(i), usize::from(slot.len));
                assert_eq!(line.skip(i), skip, "slot {i} of {count}");
                assert!(line.matches(slot.fingerprint) & (1 << i) != 0);
                assert!(line.matches(slot.fingerprint ^ 0x400) & (1 << i) == 0);
                skip += u64::from(slot.len);
            }
        }
    }

    #[test]
    fn matches_are_the_slots_with_all_bits_of_the_fingerprint_and_no_others() {
        for count in [0, 1, 2, 15, 16, 17, SLOTS] {
            let slots = slots(count);
            let line = encode(0, 0, &slots);
            for fingerprint in fingerprints() {
                let wanted = slots.iter().enumerate().fold(0u32, |bits, (i, slot)| {
                    bits | u32::from(slot.fingerprint == fingerprint) << i
                });
                assert_eq!(Line(&line).matches(fingerprint), wanted);
            }
        }
    }

    #[test]
    fn all_processors_find_the_same_matches() {
        let line = encode(0, 0, &slots(SLOTS));
        let line = Line(&line);
        let words = [LOW_AT, LOW_AT + 8, LOW_AT + 16, HIGH_AT, HIGH_AT + 8].map(|at| line.word(at));
        let known = (1u32 << SLOTS) - 1;
        for fingerprint in fingerprints() {
            assert_eq!(
                equal(words, fingerprint) & known,
                equal_anywhere(words, fingerprint) & known
            );
        }
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
