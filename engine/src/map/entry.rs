//! The entries of a build on their way from the sources to the map, and how they are sorted.
//!
//! Invariant: sorting keeps entries of equal hashes in the order they came in, on which it depends
//! which of two entries for one key counts.
//!
//! Bytes: hash of the key (8), length of what follows (4), varint with the key's length, the key,
//! varint with the table's number, the value as the map stores it.

use super::changes::check_entry;
use super::cursor::{Cursor, put_varint};
use super::domains::DomainCells;
use super::error::MapError;
use super::format;
use super::overlay::Overlay;
use super::reader::TableId;
use super::spill::{PARTS, part_of};
use super::value::{self, KeyParts};
use crate::sync::Arc;

/// Bytes of the hash and of the length.
const HASH_BYTES: usize = 8;
const HEAD_BYTES: usize = 12;

/// One entry as it lies in a part.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) hash: u64,
    pub(super) key: &'a [u8],
    /// The number of the key's domain, once it was looked up.
    pub(super) domain: Option<u32>,
    /// The table's number and the value, as they stand in a record.
    pub(super) payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The next entry, `None` at the end.
    #[inline]
    pub(super) fn next(cursor: &mut Cursor<'a>) -> Result<Option<Self>, MapError> {
        if cursor.is_empty() {
            return Ok(None);
        }
        Self::decode(cursor).map(Some).ok_or_else(damaged)
    }

    #[inline]
    fn decode(cursor: &mut Cursor<'a>) -> Option<Self> {
        let (hash, len) = head(cursor)?;
        let mut entry = Cursor::new(cursor.take(len)?);
        let key_len = entry.length()?;
        Some(Self {
            hash,
            key: entry.take(key_len)?,
            domain: None,
            payload: entry.rest(),
        })
    }

    /// The number of the table that has the entry.
    #[inline]
    pub(super) fn table(&self) -> Result<u32, MapError> {
        let number = Cursor::new(self.payload).varint().ok_or_else(damaged)?;
        u32::try_from(number).map_err(|_| damaged())
    }
}

#[inline]
fn head(cursor: &mut Cursor<'_>) -> Option<(u64, usize)> {
    let hash = cursor.u64()?;
    Some((hash, usize::try_from(cursor.u32()?).ok()?))
}

/// Our own temporary file came back changed.
fn damaged() -> MapError {
    MapError::header("the temporary file of the build was damaged")
}

/// Makes entries of one table, on whatever thread.
#[derive(Clone, Debug)]
pub(crate) struct EntryEncoder<'n> {
    seed: u64,
    table: TableId,
    name: &'n str,
    /// Changes that replace what the sources say.
    kept: Arc<Overlay>,
}

impl<'n> EntryEncoder<'n> {
    pub(super) fn new(seed: u64, table: TableId, name: &'n str, kept: Arc<Overlay>) -> Self {
        Self {
            seed,
            table,
            name,
            kept,
        }
    }

    /// Adds an entry to `to`. The key must be folded as lookups fold it.
    ///
    /// # Errors
    /// [`MapError::Entry`].
    #[inline]
    pub(crate) fn encode(
        &self,
        key: &str,
        value: &str,
        to: &mut PartedEntries,
    ) -> Result<(), MapError> {
        if let Some(hash) = self.hash(key, value)?
            && let Some(part) = to.parts.get_mut(part_of(hash))
        {
            self.append(hash, key, value, part);
            to.entries += 1;
        }
        Ok(())
    }

    /// The hash of `key`; `None` if the entry does not count.
    ///
    /// # Errors
    /// [`MapError::Entry`].
    #[inline]
    pub(super) fn hash(&self, key: &str, value: &str) -> Result<Option<u64>, MapError> {
        check_entry(self.name, key, value)?;
        if !self.kept.is_empty() && self.kept.value(self.name, key).is_some() {
            return Ok(None);
        }
        Ok(Some(format::hash(self.seed, key.as_bytes())))
    }

    /// Appends the entry's bytes.
    #[inline]
    pub(super) fn append(&self, hash: u64, key: &str, value: &str, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&[0; HEAD_BYTES - HASH_BYTES]);
        put_varint(out, key.len() as u64);
        out.extend_from_slice(key.as_bytes());
        put_varint(out, u64::from(self.table.0));
        value::encode(KeyParts::new(key), value, out);
        let len = out.len() - start - HEAD_BYTES;
        let place = out.get_mut(start + HASH_BYTES..start + HEAD_BYTES);
        // Keys and values are bounded far below.
        if let (Some(place), Ok(len)) = (place, u32::try_from(len)) {
            place.copy_from_slice(&len.to_le_bytes());
        }
    }
}

/// Entries parted by the high bits of their keys' hashes.
#[derive(Debug)]
pub(crate) struct PartedEntries {
    parts: Vec<Vec<u8>>,
    entries: u64,
}

impl PartedEntries {
    /// Room for about `bytes` of entries.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            parts: (0..PARTS)
                .map(|_| Vec::with_capacity(bytes / PARTS))
                .collect(),
            entries: 0,
        }
    }

    /// Forgets all entries and keeps the room they had.
    pub(crate) fn clear(&mut self) {
        self.parts.iter_mut().for_each(Vec::clear);
        self.entries = 0;
    }

    /// Number of entries.
    pub(super) fn len(&self) -> u64 {
        self.entries
    }

    /// The bytes of each part.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(Vec::as_slice)
    }
}

/// Sorts the entries of one part after another, and keeps its memory between them.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    order: Vec<(u64, usize)>,
    spare: Vec<u8>,
}

/// The entries of a part in the order of their hashes.
#[derive(Debug)]
pub(super) struct Sorted {
    bytes: Vec<u8>,
    /// The number of each entry's domain.
    domains: Vec<Option<u32>>,
}

impl Sorted {
    /// Finds the domains of entries in hash order.
    pub(super) fn new(bytes: Vec<u8>, cells: &DomainCells) -> Result<Self, MapError> {
        let mut domains = Vec::new();
        let mut cursor = Cursor::new(&bytes);
        let keys = std::iter::from_fn(|| {
            let entry = Entry::next(&mut cursor).transpose()?;
            Some(entry.map(|entry| entry.key))
        });
        cells.numbers(keys, &mut domains)?;
        Ok(Self { bytes, domains })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Entry<'_>, MapError>> {
        let mut cursor = Cursor::new(&self.bytes);
        let mut domains = self.domains.iter();
        std::iter::from_fn(move || {
            let entry = Entry::next(&mut cursor).transpose()?;
            Some(entry.map(|entry| Entry {
                domain: domains.next().copied().flatten(),
                ..entry
            }))
        })
    }
}

impl Sorter {
    /// The entries of `part` in the order of their hashes, equal ones in the order they came in.
    pub(super) fn sort(&mut self, part: Vec<u8>) -> Result<Vec<u8>, MapError> {
        self.order.clear();
        let mut cursor = Cursor::new(&part);
        while !cursor.is_empty() {
            let at = part.len() - cursor.rest().len();
            let (hash, len) = head(&mut cursor).ok_or_else(damaged)?;
            cursor.take(len).ok_or_else(damaged)?;
            self.order.push((hash, at));
        }
        self.order.sort_unstable();
        let mut sorted = std::mem::take(&mut self.spare);
        sorted.clear();
        sorted.reserve(part.len());
        for (_, at) in &self.order {
            let rest = part.get(*at..).ok_or_else(damaged)?;
            let (_, len) = head(&mut Cursor::new(rest)).ok_or_else(damaged)?;
            sorted.extend_from_slice(rest.get(..HEAD_BYTES + len).ok_or_else(damaged)?);
        }
        self.spare = part;
        Ok(sorted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_orders_by_hash_and_keeps_the_order_of_equal_keys() {
        const KEYS: u64 = if cfg!(miri) { 20 } else { 500 };
        let encoder = EntryEncoder::new(7, TableId(3), "t", Arc::default());
        let mut parted = PartedEntries::with_capacity(0);
        for value in 0..5 {
            for key in 0..KEYS {
                let (key, value) = (format!("key{key}"), format!("value {value}"));
                encoder.encode(&key, &value, &mut parted).unwrap();
            }
        }
        assert_eq!(parted.len(), 5 * KEYS);
        let (mut sorter, mut seen, mut before) = (Sorter::default(), 0, (0, 0));
        for part in parted.parts() {
            let sorted = sorter.sort(part.to_vec()).unwrap();
            let mut cursor = Cursor::new(&sorted);
            while let Some(entry) = Entry::next(&mut cursor).unwrap() {
                assert_eq!(entry.hash, format::hash(7, entry.key));
                assert_eq!(entry.table().unwrap(), 3);
                let value = *entry.payload.last().unwrap();
                assert!((entry.hash, value) > before);
                before = (entry.hash, value);
                seen += 1;
            }
        }
        assert_eq!(seen, 5 * KEYS);
    }

    #[test]
    fn entries_that_were_cut_are_refused() {
        let encoder = EntryEncoder::new(7, TableId(0), "t", Arc::default());
        let mut parted = PartedEntries::with_capacity(0);
        encoder.encode("key", "value", &mut parted).unwrap();
        let part = parted.parts().find(|part| !part.is_empty()).unwrap();
        for len in 1..part.len() {
            assert!(Sorter::default().sort(part[..len].to_vec()).is_err());
            assert!(Entry::next(&mut Cursor::new(&part[..len])).is_err());
        }
    }
}
