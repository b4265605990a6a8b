//! Writing a map from records that come in the order of their hashes.
//!
//! Invariants: the file is written front to back, the header last; nothing but one segment, the
//! index (less than four bytes a key), the domains and the shared texts is held in memory.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;

use super::bucket::{self, FILL_PER_1000, OFFSET_MAX, SLOTS, Slot};
use super::cursor::put_varint;
use super::domains::{self, DomainCells};
use super::error::MapError;
use super::files::TempFile;
use super::flusher::Flusher;
use super::format::{self, BLOCK_BYTES, Header, Section};
use super::record::{self, Payload, RECORD_BYTES_MAX, StoredKey};
use super::segment::{self, Segment, Segments};
use super::shared::SharedTexts;
use crate::sync::Arc;

/// Sets of values stored once, in bytes.
const PAYLOAD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Shorter sets of values stand in their records: following a reference takes longer than
/// reading them.
const PAYLOAD_SHARED_BYTES_MIN: usize = 20;
const PAYLOAD_SHARED_BYTES_MAX: usize = 128;
/// Over how many bytes 100 bytes of records are spread: the more, the nearer they lie to the place
/// that their hashes tell.
const SPAN_PER_100: u64 = 118;
/// Bytes written at once, at a multiple of them in the file: the size of a huge page, so that the
/// page cache, where it can, keeps the new map in huge pages, in which lookups find their way in
/// fewer steps.
const BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// Room for what comes last before the buffer is written.
const BUFFER_SPARE_BYTES: usize = 64 * 1024;

/// Writes blocks and their checksums. The header is zeros until the end.
struct BlockWriter {
    temp: TempFile,
    buffer: Vec<u8>,
    checksums: Vec<u8>,
    written: u64,
    flusher: Flusher,
}

impl BlockWriter {
    fn new(temp: TempFile) -> Self {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + BUFFER_SPARE_BYTES);
        buffer.resize(BLOCK_BYTES, 0);
        Self {
            temp,
            buffer,
            checksums: Vec::new(),
            written: 0,
            flusher: Flusher::new(),
        }
    }

    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), MapError> {
        self.buffer.extend_from_slice(bytes);
        self.write_if_full()
    }

    #[inline]
    fn write_if_full(&mut self) -> Result<(), MapError> {
        if self.buffer.len() >= BUFFER_BYTES {
            return self.write(self.buffer.len() / BUFFER_BYTES * BUFFER_BYTES);
        }
        Ok(())
    }

    /// Writes the first `len` bytes of the buffer, which are whole blocks.
    fn write(&mut self, len: usize) -> Result<(), MapError> {
        debug_assert!(
            len.is_multiple_of(BLOCK_BYTES) && len <= self.buffer.len(),
            "whole blocks are written"
        );
        let blocks = self.buffer.get(..len).unwrap_or_default();
        // The header has its own checksum.
        let header = usize::from(self.written == 0);
        for block in blocks.chunks_exact(BLOCK_BYTES).skip(header) {
            self.checksums
                .extend_from_slice(&crc32fast::hash(block).to_le_bytes());
        }
        let mut file = self.temp.file();
        file.write_all(blocks)
            .map_err(|source| self.temp.error("write", source))?;
        self.written += len as u64;
        self.flusher
            .wrote(file, self.written)
            .map_err(|source| self.temp.error("flush", source))?;
        self.buffer.drain(..len);
        Ok(())
    }

    /// Puts `count` zeros.
    fn zeros(&mut self, count: u64) {
        let count = usize::try_from(count).unwrap_or(0);
        self.buffer.resize(self.buffer.len() + count, 0);
    }

    /// Fills up with zeros.
    fn align(&mut self, to: usize) {
        let len = self.buffer.len().next_multiple_of(to);
        self.buffer.resize(len, 0);
    }

    fn section(&mut self, bytes: &[u8]) -> Result<Section, MapError> {
        let offset = self.position();
        self.put(bytes)?;
        Ok(Section {
            offset,
            len: bytes.len() as u64,
        })
    }
}

/// Long records, kept aside until the short ones are written.
struct LongRecords {
    file: Option<File>,
    len: u64,
}

/// The records of one segment, until all of them are known.
#[derive(Default)]
struct OpenSegment {
    bytes: Vec<u8>,
    /// Hash and length of each.
    records: Vec<(u64, u8)>,
}

/// A map being written. Dropping it removes the unfinished file.
pub(super) struct MapWriter {
    out: BlockWriter,
    long: LongRecords,
    payloads: SharedTexts,
    domains: Arc<DomainCells>,
    open: OpenSegment,
    segments: Vec<Segment>,
    segments_log2: u32,
    index: Vec<u8>,
    keys: u64,
    values: u64,
}

impl MapWriter {
    /// A map of about `keys` keys, where `domains` have numbers.
    pub(super) fn new(temp: TempFile, keys: u64, domains: Arc<DomainCells>) -> Self {
        Self {
            out: BlockWriter::new(temp),
            long: LongRecords { file: None, len: 0 },
            payloads: SharedTexts::new(PAYLOAD_BYTES_MAX),
            domains,
            open: OpenSegment::default(),
            segments: Vec::new(),
            segments_log2: segment::log2_for(keys),
            index: Vec::new(),
            keys: 0,
            values: 0,
        }
    }

    /// Adds a key with `values` values encoded in `payload`. Hashes must not decrease, and no key
    /// may come twice.
    pub(super) fn push(
        &mut self,
        hash: u64,
        key: StoredKey<'_>,
        payload: &[u8],
        values: u64,
    ) -> Result<(), MapError> {
        debug_assert!(
            self.open.records.last().is_none_or(|last| last.0 <= hash),
            "records come in the order of their hashes"
        );
        while segment::number(hash, self.segments_log2) > self.segments.len() as u64 {
            self.write_segment()?;
        }
        debug_assert_eq!(
            segment::number(hash, self.segments_log2),
            self.segments.len() as u64,
            "the segment of the hash is not written yet"
        );
        let stored =
            if (PAYLOAD_SHARED_BYTES_MIN..=PAYLOAD_SHARED_BYTES_MAX).contains(&payload.len()) {
                match self.payloads.place(payload) {
                    Some(place) => Payload::Reference(place),
                    None => Payload::Here(payload),
                }
            } else {
                Payload::Here(payload)
            };
        let start = self.open.bytes.len();
        record::encode(key, stored, &mut self.open.bytes);
        if self.open.bytes.len() - start > RECORD_BYTES_MAX {
            self.set_aside(start)?;
        }
        let Ok(len) = u8::try_from(self.open.bytes.len() - start) else {
            return Err(self
                .out
                .temp
                .error("write", std::io::ErrorKind::InvalidData.into()));
        };
        self.open.records.push((hash, len));
        self.keys += 1;
        self.values += values;
        Ok(())
    }

    /// How this map stores `key`.
    pub(super) fn stored<'k>(&self, key: &'k str) -> StoredKey<'k> {
        let key = key.as_bytes();
        let number = domains::split(key).and_then(|(_, domain)| self.domains.number(domain));
        StoredKey::new(key, number)
    }

    /// Moves the record at `start` of the segment to the long ones and leaves a stub in its place.
    fn set_aside(&mut self, start: usize) -> Result<(), MapError> {
        if self.long.file.is_none() {
            self.long.file = Some(self.out.temp.unnamed_sibling()?);
        }
        let record = self.open.bytes.get(start..).unwrap_or_default();
        let (offset, len) = (self.long.len, record.len());
        if let Some(file) = &mut self.long.file {
            file.write_all(record)
                .map_err(|source| self.out.temp.error("write long records of", source))?;
        }
        self.long.len += len as u64;
        self.open.bytes.truncate(start);
        record::encode_stub(offset, len, &mut self.open.bytes);
        debug_assert!(
            self.open.bytes.len() - start <= RECORD_BYTES_MAX,
            "a stub is short"
        );
        Ok(())
    }

    /// Fills the segment's buckets in hash order. What a full bucket cannot take moves on to the
    /// next one, ahead of that one's own keys, so that records keep their order. Before a bucket
    /// whose records would begin too early, in the scale of the segment, zeros are left.
    fn write_segment(&mut self) -> Result<(), MapError> {
        let open = std::mem::take(&mut self.open);
        let homes = (open.records.len() as u64 * 1000)
            .div_ceil(FILL_PER_1000)
            .max(1);
        let start = self.out.position() - BLOCK_BYTES as u64;
        let segment = Segment {
            records: start,
            span: open.bytes.len() as u64 * SPAN_PER_100 / 100,
            bucket: (self.index.len() / bucket::LINE_BYTES) as u64,
            homes,
        };
        let mut entries = open.records.iter().map(|(hash, len)| {
            let slot = Slot {
                fingerprint: format::fingerprint(*hash),
                len: *len,
            };
            (
                segment.place(*hash, self.segments_log2).bucket - segment.bucket,
                slot,
            )
        });
        let mut next = entries.next();
        let mut waiting: Vec<Slot> = Vec::new();
        let (mut bucket, mut offset, mut bytes) = (0, 0u64, &*open.bytes);
        while bucket < homes || !waiting.is_empty() {
            while let Some((_, slot)) = next.filter(|(home, _)| *home <= bucket) {
                waiting.push(slot);
                next = entries.next();
            }
            let (here, later) = waiting.split_at(waiting.len().min(SLOTS));
            let overflow = later.iter().fold(0, |bits, slot| {
                bits | bucket::overflow_bit(slot.fingerprint)
            });
            let gap = segment.start_of(bucket).saturating_sub(offset);
            self.out.zeros(gap);
            offset += gap;
            if start + offset > OFFSET_MAX {
                return Err(MapError::TooMany {
                    what: "bytes of records",
                    limit: OFFSET_MAX,
                });
            }
            debug_assert!(
                offset >= segment.start_of(bucket),
                "no record is before the place of its hash"
            );
            debug_assert_eq!(
                start + offset + BLOCK_BYTES as u64,
                self.out.position(),
                "the index has the places of the records"
            );
            let line = bucket::encode(start + offset, overflow, here);
            self.index.extend_from_slice(&line);
            let len = here.iter().map(|slot| usize::from(slot.len)).sum::<usize>();
            let (records, rest) = bytes.split_at(len.min(bytes.len()));
            self.out.put(records)?;
            offset += len as u64;
            bytes = rest;
            waiting.drain(..here.len());
            bucket += 1;
        }
        debug_assert!(
            bytes.is_empty() && next.is_none(),
            "every record is in a bucket"
        );
        // So that no place lies outside.
        self.out.zeros(segment.span.saturating_sub(offset));
        self.segments.push(segment);
        self.open = open;
        self.open.bytes.clear();
        self.open.records.clear();
        Ok(())
    }

    /// Writes all that follows the records, then the header. The file is complete but neither
    /// flushed nor published.
    pub(super) fn finish(
        mut self,
        tables: &[String],
        seed: u64,
        id: [u8; 16],
    ) -> Result<(TempFile, Header), MapError> {
        while self.segments.len() < 1 << self.segments_log2 {
            self.write_segment()?;
        }
        let mut header = Header {
            seed,
            id,
            keys: self.keys,
            values: self.values,
            buckets: (self.index.len() / bucket::LINE_BYTES) as u64,
            ..Header::default()
        };
        debug_assert_eq!(
            self.segments.len(),
            1 << self.segments_log2,
            "every hash has its segment"
        );
        header.records = Section {
            offset: BLOCK_BYTES as u64,
            len: self.out.position() - BLOCK_BYTES as u64,
        };
        header.long = self.write_long()?;
        header.payloads = self.out.section(self.payloads.section())?;
        self.out.align(bucket::LINE_BYTES);
        header.domains = self.out.section(&self.domains.section())?;
        self.out.align(bucket::LINE_BYTES);
        header.index = self.out.section(&self.index)?;
        header.segments = self.out.section(&Segments::encode(&self.segments))?;
        header.tables = self.out.section(&encode_tables(tables))?;
        self.out.align(BLOCK_BYTES);
        self.out.write(self.out.buffer.len())?;
        let checksums = std::mem::take(&mut self.out.checksums);
        header.checksums = Section {
            offset: self.out.position(),
            len: checksums.len() as u64,
        };
        header.checksums_crc = crc32fast::hash(&checksums);
        header.file_bytes = header.checksums.end();
        debug_assert!(
            Segments::decode(&Segments::encode(&self.segments), &header).is_some(),
            "the segments can be read again"
        );
        let temp = self.out.temp;
        let flushed = self.out.flusher.finish();
        flushed.map_err(|source| temp.error("flush", source))?;
        let mut file = temp.file();
        file.write_all(&checksums)
            .and_then(|()| file.write_all_at(&header.encode(), 0))
            .map_err(|source| temp.error("write", source))?;
        Ok((temp, header))
    }

    fn write_long(&mut self) -> Result<Section, MapError> {
        let section = Section {
            offset: self.out.position(),
            len: self.long.len,
        };
        if let Some(mut file) = self.long.file.take() {
            let mut buffer = vec![0; BUFFER_BYTES];
            let failed = |temp: &TempFile, source| temp.error("read long records of", source);
            file.seek(SeekFrom::Start(0))
                .map_err(|source| failed(&self.out.temp, source))?;
            loop {
                let len = file
                    .read(&mut buffer)
                    .map_err(|source| failed(&self.out.temp, source))?;
                match buffer.get(..len) {
                    Some(bytes) if len > 0 => self.out.put(bytes)?,
                    _ => break,
                }
            }
        }
        debug_assert_eq!(self.out.position(), section.end(), "all of it was copied");
        Ok(section)
    }
}

fn encode_tables(tables: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, tables.len() as u64);
    for table in tables {
        put_varint(&mut out, table.len() as u64);
        out.extend_from_slice(table.as_bytes());
    }
    out
}
