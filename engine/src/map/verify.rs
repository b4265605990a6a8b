//! Reading a whole map: to verify it, or to visit each record.
//!
//! Invariants: memory stays under a bound that the map's size does not matter to; a map that
//! verifies answers every key it was built with; the order of records is that of their keys'
//! hashes.

use super::error::MapError;
use super::format::{fingerprint, hash};
use super::reader::{MapReader, Record, TableId};

/// Memory for reading a whole map: much less than the map, and enough that what is read again is
/// mostly still there.
const SCAN_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What [`MapReader::verify`] found sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Blocks whose checksum matched.
    pub blocks: usize,
    /// Keys found where a lookup finds them.
    pub keys: u64,
    /// Values that could be read.
    pub values: u64,
}

/// One record as it is visited.
pub(super) struct Visited<'a> {
    pub(super) hash: u64,
    pub(super) key: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) offset: u64,
}

impl MapReader {
    /// Reads everything: every checksum, every key and every value.
    ///
    /// `progress` gets the number of checked buckets and of all buckets.
    ///
    /// # Errors
    /// [`MapError::Corrupt`] with the first damage found.
    pub fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<Verified, MapError> {
        let mut scan = self.again()?;
        for block in 1..=scan.copy().blocks() {
            scan.copy().load(block)?;
            scan.forget_beyond();
        }
        let tables = self.tables().len();
        let (mut keys, mut values) = (0u64, 0u64);
        let mut text = String::new();
        self.visit(&mut progress, |visited| {
            keys += 1;
            let record = Record::new(visited.key, visited.payload, visited.offset);
            let mut before = None;
            for value in record.values() {
                let (TableId(number), value) = value?;
                let ordered = before.is_none_or(|before| before < number);
                if !ordered || usize::try_from(number).is_ok_and(|number| number >= tables) {
                    return Err(corrupt("values", visited.offset));
                }
                before = Some(number);
                values += 1;
                text.clear();
                value.append_to(&mut text)?;
            }
            Ok(())
        })?;
        if keys != self.header().keys || values != self.header().values {
            return Err(MapError::header("its numbers of keys and values are wrong"));
        }
        Ok(Verified {
            blocks: self.copy().blocks(),
            keys,
            values,
        })
    }

    /// Calls `each` for every key and every value, in no useful order.
    ///
    /// # Errors
    /// [`MapError::Corrupt`], or what `each` returned.
    pub fn for_each(
        &self,
        mut each: impl FnMut(&str, Record<'_>) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        self.visit(&mut |_, _| {}, |visited| {
            let record = Record::new(visited.key, visited.payload, visited.offset);
            each(visited.key, record)
        })
    }

    /// Gives the memory back when much of the map was copied.
    fn forget_beyond(&mut self) {
        if self.copy().copied_bytes() > SCAN_BYTES_MAX {
            self.forget();
        }
    }

    /// Every record in hash order, with the checks that a lookup would find it.
    pub(super) fn visit(
        &self,
        progress: &mut dyn FnMut(u64, u64),
        mut each: impl FnMut(Visited<'_>) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        let mut scan = self.again()?;
        let header = self.header();
        let mut place = header.index.offset;
        let (mut next_offset, mut before) = (0u64, 0u64);
        let mut key = String::new();
        for bucket in 0..header.buckets {
            scan.forget_beyond();
            let line = scan.line(bucket)?;
            if line.offset() < next_offset {
                return Err(corrupt("index", place));
            }
            next_offset = line.offset();
            for slot in 0..line.count() {
                let (raw, offset) = scan.raw(line, slot)?;
                scan.whole_key(raw.key, offset, &mut key)?;
                if scan.wanted(&key)?.key() != raw.key {
                    return Err(corrupt("key", offset));
                }
                let hash = hash(header.seed, key.as_bytes());
                let print = fingerprint(hash);
                let home = scan.segments().place(hash).bucket;
                let listed = line.matches(print) & (1 << slot) != 0;
                if !listed || home > bucket || hash < before {
                    return Err(corrupt("record", offset));
                }
                before = hash;
                for passed in home..bucket {
                    if !scan.line(passed)?.overflowed(print) {
                        return Err(corrupt("index", place));
                    }
                }
                let payload = scan.payload(raw.payload)?;
                each(Visited {
                    hash,
                    key: &key,
                    payload,
                    offset,
                })?;
                next_offset += line.len(slot) as u64;
            }
            place += 64;
            if bucket % 4096 == 0 {
                progress(bucket, header.buckets);
            }
        }
        if next_offset > header.records.len {
            return Err(corrupt("records", header.records.offset));
        }
        progress(header.buckets, header.buckets);
        Ok(())
    }
}

fn corrupt(what: &'static str, offset: u64) -> MapError {
    MapError::Corrupt { what, offset }
}
