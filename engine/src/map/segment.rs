//! Segments: runs of keys with one scale each, which tells from a key's hash where to look.
//!
//! Invariant: a place that is computed here lies in the sections of the map, whatever the bytes
//! say, or the map does not open.

use super::cursor::Cursor;
use super::format::{Header, fraction};

/// Most segments of a map.
pub(super) const SEGMENTS_MAX: u64 = 256;
/// Bytes of one segment's entry.
const ENTRY_BYTES: usize = 32;
/// Fewer keys than this are not parted: the scale of a segment is the better the more it has.
const KEYS_MIN: u64 = 8192;

/// One run of keys in hash order: those whose hashes share their high bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where its records begin in the records section.
    pub(super) records: u64,
    /// Bytes over which its records were spread.
    pub(super) span: u64,
    /// Its first bucket.
    pub(super) bucket: u64,
    /// Buckets that its keys can hash to; those before the next segment's are for what overflowed.
    pub(super) homes: u64,
}

/// Where a key's record is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: u64,
    /// About where in the records section the record lies.
    pub(super) record: u64,
}

/// All segments of a map, in hash order.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    /// Their number is two to the power of this.
    log2: u32,
    list: Box<[Segment]>,
}

/// The number of segments, as its logarithm, for a map of about `keys` keys.
pub(super) fn log2_for(keys: u64) -> u32 {
    (keys / KEYS_MIN).clamp(1, SEGMENTS_MAX).ilog2()
}

/// The segment that a hash belongs to.
#[inline]
pub(super) fn number(hash: u64, log2: u32) -> u64 {
    // Two steps, as shifting by all 64 bits is none.
    (hash >> 1) >> (63 - log2)
}

impl Segment {
    /// Where a hash of this segment belongs.
    #[inline]
    pub(super) fn place(&self, hash: u64, log2: u32) -> Place {
        Place {
            bucket: self.bucket + fraction(hash << log2, self.homes),
            record: self.records + fraction(hash << log2, self.span),
        }
    }

    /// Where the records of its bucket `at`, counted from its first, begin at the earliest.
    pub(super) fn start_of(&self, at: u64) -> u64 {
        let start = u128::from(at) * u128::from(self.span) / u128::from(self.homes.max(1));
        u64::try_from(start).unwrap_or(u64::MAX)
    }
}

impl Segments {
    #[inline]
    pub(super) fn place(&self, hash: u64) -> Place {
        let at = number(hash, self.log2);
        let segment = usize::try_from(at).ok().and_then(|at| self.list.get(at));
        // There are as many as the number can say.
        segment.map_or(
            Place {
                bucket: 0,
                record: 0,
            },
            |segment| segment.place(hash, self.log2),
        )
    }

    pub(super) fn encode(list: &[Segment]) -> Vec<u8> {
        let numbers = list
            .iter()
            .flat_map(|segment| [segment.records, segment.span, segment.bucket, segment.homes]);
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    /// `None` if the bytes are not those of a map with this header.
    pub(super) fn decode(bytes: &[u8], header: &Header) -> Option<Self> {
        let count = bytes.len() / ENTRY_BYTES;
        let sound = count.is_power_of_two()
            && count as u64 <= SEGMENTS_MAX
            && bytes.len().is_multiple_of(ENTRY_BYTES);
        if !sound {
            return None;
        }
        let mut cursor = Cursor::new(bytes);
        let mut list = Vec::with_capacity(count);
        let mut before = Segment::default();
        for _ in 0..count {
            let segment = Segment {
                records: cursor.u64()?,
                span: cursor.u64()?,
                bucket: cursor.u64()?,
                homes: cursor.u64()?,
            };
            let inside = segment.records.checked_add(segment.span)? <= header.records.len
                && segment.bucket.checked_add(segment.homes)? <= header.buckets
                && segment.homes >= 1
                && segment.records >= before.records
                && segment.bucket >= before.bucket + before.homes;
            if !inside {
                return None;
            }
            list.push(segment);
            before = segment;
        }
        Some(Self {
            log2: count.ilog2(),
            list: list.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Section;
    use super::*;

    fn header() -> Header {
        Header {
            records: Section {
                offset: 4096,
                len: 1000,
            },
            buckets: 10,
            ..Header::default()
        }
    }

    fn segment(records: u64, span: u64, bucket: u64, homes: u64) -> Segment {
        Segment {
            records,
            span,
            bucket,
            homes,
        }
    }

    #[test]
    fn places_follow_hash_order_and_stay_inside() {
        let list = [segment(0, 600, 0, 7), segment(600, 400, 8, 2)];
        let segments = Segments::decode(&Segments::encode(&list), &header()).unwrap();
        let place = |hash| {
            let Place { bucket, record } = segments.place(hash);
            (bucket, record)
        };
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(u64::MAX / 4), (3, 299));
        assert_eq!(place(u64::MAX / 2), (6, 599));
        assert_eq!(place(u64::MAX / 2 + 1), (8, 600));
        assert_eq!(place(u64::MAX), (9, 999));
        let one = Segments::decode(&Segments::encode(&list[..1]), &header()).unwrap();
        assert_eq!(one.place(u64::MAX).bucket, 6);
    }

    #[test]
    fn segments_outside_the_map_are_refused() {
        let first = segment(0, 600, 0, 7);
        for second in [
            segment(601, 400, 8, 2),
            segment(600, u64::MAX, 8, 2),
            segment(600, 400, 8, 3),
            segment(600, 400, 8, 0),
            segment(600, 400, u64::MAX, 1),
            segment(600, 400, 6, 2),
        ] {
            let bytes = Segments::encode(&[first, second]);
            assert!(Segments::decode(&bytes, &header()).is_none(), "{second:?}");
        }
        let three = Segments::encode(&[first, segment(600, 1, 8, 1), segment(700, 1, 9, 1)]);
        assert!(Segments::decode(&three, &header()).is_none());
        assert!(Segments::decode(&[], &header()).is_none());
        assert!(Segments::decode(&Segments::encode(&[first])[..31], &header()).is_none());
    }

    #[test]
    fn small_maps_are_one_segment_and_large_ones_at_most_256() {
        assert_eq!(log2_for(0), 0);
        assert_eq!(log2_for(KEYS_MIN * 2 - 1), 0);
        assert_eq!(log2_for(KEYS_MIN * 2), 1);
        assert_eq!(log2_for(10_000_000), 8);
        assert_eq!(log2_for(u64::MAX), 8);
    }
}
