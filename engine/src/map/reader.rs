//! Looking up keys in the bytes of a recipient map.
//!
//! Imports `format`, `bucket`, `record`, `value`, `blocks`, `domains`, `segment`, `mmap`, `error`.
//! Invariants: safe for any bytes: a damaged map gives an error, never a panic and never a wrong
//! answer; a lookup takes no lock and allocates nothing.

use super::blocks::Blocks;
use super::bucket::{LINE_BYTES, Line};
use super::cursor::Cursor;
use super::domains::{self, Domains};
use super::error::MapError;
use super::format::{self, Header, Section, TABLES_MAX};
use super::mmap::prefetch;
use super::record::{self, Entry, Payload, RawRecord, StoredKey, Values, Wanted};
use super::segment::{Place, Segments};
use super::value::Value;

/// Shared texts are mostly shorter, and then read at once with their length.
const SHARED_BYTES_USUAL: u64 = 64;
/// Cache lines that are fetched about the place where a record most likely lies, and how many
/// bytes before it the first of them begins.
const FETCHED_LINES: usize = 4;
const FETCHED_BEFORE_BYTES: usize = 64;

/// A table of one opened map. Numbers differ from map to map: ask [`MapReader::table`] again
/// after a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub(super) u32);

/// A recipient map over bytes from anywhere: a mapped file, a buffer in a test.
///
/// May be shared between threads as far as `B` may.
#[derive(Debug)]
pub struct MapReader<B> {
    bytes: B,
    header: Header,
    tables: Vec<String>,
    blocks: Blocks,
    segments: Segments,
    domains: Domains,
}

/// Numbers about a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapStats {
    /// Different keys.
    pub keys: u64,
    /// Values of all keys in all tables.
    pub values: u64,
    /// Size of the file, in bytes.
    pub file_bytes: u64,
    /// Size of the hash index, in bytes.
    pub index_bytes: u64,
    /// Version of the file format.
    pub format_version: u32,
    /// Random name of this very map.
    pub id: [u8; 16],
}

impl MapStats {
    pub(super) fn of(header: &Header) -> Self {
        Self {
            keys: header.keys,
            values: header.values,
            file_bytes: header.file_bytes,
            index_bytes: header.index.len,
            format_version: format::VERSION,
            id: header.id,
        }
    }
}

impl<B: AsRef<[u8]>> MapReader<B> {
    /// Checks the header and the table names; reads nothing else, so that opening costs the same
    /// for ten recipients and ten million.
    ///
    /// # Errors
    /// [`MapError::Header`], [`MapError::TooNew`] or [`MapError::Corrupt`].
    pub fn new(bytes: B) -> Result<Self, MapError> {
        let file = bytes.as_ref();
        let header = Header::decode(file)?;
        let damaged = || MapError::header("the checksums' own checksum does not match");
        let checksums = slice(file, header.checksums).ok_or_else(damaged)?;
        if crc32fast::hash(checksums) != header.checksums_crc {
            return Err(damaged());
        }
        let blocks = Blocks::new(header.checksums);
        let tables = read_tables(file, &header, &blocks)?;
        let segments = read_segments(file, &header, &blocks)?;
        Ok(Self {
            segments,
            domains: Domains::new(header.domains, header.seed),
            bytes,
            header,
            tables,
            blocks,
        })
    }

    /// The table called `name`, if the map has it.
    #[inline]
    pub fn table(&self, name: &str) -> Option<TableId> {
        let at = self.tables.iter().position(|table| table == name)?;
        u32::try_from(at).ok().map(TableId)
    }

    /// The names of all tables, in the order of their numbers.
    pub fn tables(&self) -> &[String] {
        &self.tables
    }

    /// Numbers about the map.
    pub fn stats(&self) -> MapStats {
        MapStats::of(&self.header)
    }

    /// The value of `key` in `table`.
    ///
    /// # Errors
    /// [`MapError::Corrupt`]: the answer is not known; defer.
    #[inline]
    pub fn get<'a>(&'a self, table: TableId, key: &'a str) -> Result<Option<Value<'a>>, MapError> {
        match self.find(key)? {
            Some(record) => record.value(table),
            None => Ok(None),
        }
    }

    /// All that the map's tables have for `key`: one search for mailbox, uid, gid and quota.
    ///
    /// # Errors
    /// [`MapError::Corrupt`]: the answer is not known; defer.
    #[inline]
    pub fn find<'a>(&'a self, key: &'a str) -> Result<Option<Record<'a>>, MapError> {
        let found = self.locate(key)?;
        Ok(found.map(|(payload, offset)| Record::new(key, payload, offset)))
    }

    /// The values of `key`, and where in the file its record lies.
    #[inline]
    pub(super) fn locate(&self, key: &str) -> Result<Option<(&[u8], u64)>, MapError> {
        let hash = format::hash(self.header.seed, key.as_bytes());
        let fingerprint = format::fingerprint(hash);
        let Place { mut bucket, record } = self.segments.place(hash);
        let mut wanted = None;
        loop {
            let line = self.line(bucket)?;
            let mut matches = line.matches(fingerprint);
            while matches != 0 {
                let slot = matches.trailing_zeros() as usize;
                matches &= matches - 1;
                // None of this waits for the bucket: where keys are found mostly, the processor
                // does it ahead, and then waits for bucket, record and domain at once.
                let wanted = match &wanted {
                    Some(wanted) => wanted,
                    None => {
                        self.fetch_about(record);
                        wanted.insert(self.wanted(key)?)
                    }
                };
                let (bytes, offset) = self.record(line, slot)?;
                let found = match record::payload_of(bytes, wanted) {
                    Some(payload) => Some(payload),
                    None => self.compare_long(bytes, offset, wanted)?,
                };
                if let Some(payload) = found {
                    return Ok(Some((self.payload(payload)?, offset)));
                }
            }
            if !line.overflowed(fingerprint) {
                return Ok(None);
            }
            bucket += 1;
        }
    }

    /// Has the processor fetch the bucket that `key` belongs to, without waiting for it: it is at
    /// hand, or on its way, when [`MapReader::find`] comes.
    #[inline]
    pub(crate) fn fetch(&self, key: &str) {
        let hash = format::hash(self.header.seed, key.as_bytes());
        let bucket = self.segments.place(hash).bucket;
        let at = self.header.index.offset.saturating_add(bucket * 64);
        prefetch(self.file(), usize::try_from(at).unwrap_or(usize::MAX));
    }

    /// As [`MapReader::fetch`], with the record and the domain of a key that the map most likely
    /// has.
    #[inline]
    pub(crate) fn fetch_record(&self, key: &str) {
        let hash = format::hash(self.header.seed, key.as_bytes());
        let Place { bucket, record } = self.segments.place(hash);
        let at = self.header.index.offset.saturating_add(bucket * 64);
        prefetch(self.file(), usize::try_from(at).unwrap_or(usize::MAX));
        self.fetch_about(record);
        if let Some(at) =
            domains::split(key.as_bytes()).and_then(|(_, domain)| self.domains.home(domain))
        {
            prefetch(self.file(), usize::try_from(at).unwrap_or(usize::MAX));
        }
    }

    /// Has the processor fetch what lies about `record` in the records section.
    #[inline]
    fn fetch_about(&self, record: u64) {
        let at = self.header.records.offset.saturating_add(record);
        let first = usize::try_from(at).unwrap_or(usize::MAX) & !(LINE_BYTES - 1);
        let first = first.saturating_sub(FETCHED_BEFORE_BYTES);
        for line in 0..FETCHED_LINES {
            prefetch(self.file(), first.saturating_add(line * LINE_BYTES));
        }
    }

    /// What the record of `key` looks like.
    #[inline]
    pub(super) fn wanted<'k>(&self, key: &'k str) -> Result<Wanted<'k>, MapError> {
        let key = key.as_bytes();
        if let Some((local, domain)) = domains::split(key)
            && let Some(number) = self.domains.number(self.file(), &self.blocks, domain)?
        {
            return Ok(Wanted::new(StoredKey {
                domain: Some(number),
                text: local,
            }));
        }
        Ok(Wanted::new(StoredKey {
            domain: None,
            text: key,
        }))
    }

    /// Puts the text of a stored key into `out`.
    pub(super) fn whole_key(
        &self,
        key: StoredKey<'_>,
        offset: u64,
        out: &mut String,
    ) -> Result<(), MapError> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| corrupt("key", offset));
        out.clear();
        out.push_str(text(key.text)?);
        if let Some(number) = key.domain {
            out.push('@');
            out.push_str(text(self.domains.text(
                self.file(),
                &self.blocks,
                number,
            )?)?);
        }
        Ok(())
    }

    /// All domains that have numbers.
    pub(super) fn all_domains(&self) -> Result<Vec<&[u8]>, MapError> {
        self.domains.all(self.file(), &self.blocks)
    }

    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub(super) fn file(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    #[inline]
    pub(super) fn line(&self, bucket: u64) -> Result<Line<'_>, MapError> {
        // The header was checked: the index lies in the file.
        let at = self
            .header
            .index
            .offset
            .wrapping_add(bucket.wrapping_mul(64));
        if bucket >= self.header.buckets {
            return Err(corrupt("index", at));
        }
        self.blocks.line(self.file(), at, "index").map(Line)
    }

    /// The bytes of the record in `slot` of a bucket, and where in the file they lie.
    #[inline]
    fn record(&self, line: Line<'_>, slot: usize) -> Result<(&[u8], u64), MapError> {
        let within = line.offset() + line.skip(slot);
        self.part(self.header.records, within, line.len(slot), "record")
    }

    /// The values of a record that is long, or that another key's fingerprint led to.
    #[cold]
    fn compare_long<'a>(
        &'a self,
        bytes: &'a [u8],
        offset: u64,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Payload<'a>>, MapError> {
        let raw = self.decode(bytes, offset)?.0;
        Ok((raw.key == wanted.key()).then_some(raw.payload))
    }

    /// The record in `slot` of a bucket, and where in the file it lies.
    pub(super) fn raw(
        &self,
        line: Line<'_>,
        slot: usize,
    ) -> Result<(RawRecord<'_>, u64), MapError> {
        let (bytes, offset) = self.record(line, slot)?;
        self.decode(bytes, offset)
    }

    fn decode<'a>(
        &'a self,
        bytes: &'a [u8],
        offset: u64,
    ) -> Result<(RawRecord<'a>, u64), MapError> {
        match record::decode(bytes) {
            Some(Entry::Record(raw)) => Ok((raw, offset)),
            Some(Entry::Stub { offset, len }) => self.long(offset, len),
            None => Err(corrupt("record", offset)),
        }
    }

    fn long(&self, within: u64, len: usize) -> Result<(RawRecord<'_>, u64), MapError> {
        let (bytes, offset) = self.part(self.header.long, within, len, "long record")?;
        match record::decode(bytes) {
            Some(Entry::Record(raw)) => Ok((raw, offset)),
            Some(Entry::Stub { .. }) | None => Err(corrupt("long record", offset)),
        }
    }

    #[inline]
    pub(super) fn payload<'a>(&'a self, payload: Payload<'a>) -> Result<&'a [u8], MapError> {
        match payload {
            Payload::Here(bytes) => Ok(bytes),
            Payload::Reference(at) => self.shared(self.header.payloads, at, "values"),
        }
    }

    /// A text that several records share: its length, then its bytes.
    #[inline]
    fn shared(
        &self,
        section: Section,
        reference: u64,
        what: &'static str,
    ) -> Result<&[u8], MapError> {
        let at = section.offset.saturating_add(reference);
        let left = section.len.saturating_sub(reference);
        let window = left.min(SHARED_BYTES_USUAL) as usize;
        let head = self.blocks.bytes(self.file(), at, window, what)?;
        let mut cursor = Cursor::new(head);
        let len = cursor.length().ok_or_else(|| corrupt(what, at))?;
        if let Some(text) = cursor.take(len) {
            return Ok(text);
        }
        let used = (window - cursor.rest().len()) as u64;
        Ok(self.part(section, reference + used, len, what)?.0)
    }

    /// `len` checked bytes at `within` of `section`, and their place in the file.
    #[inline]
    fn part(
        &self,
        section: Section,
        within: u64,
        len: usize,
        what: &'static str,
    ) -> Result<(&[u8], u64), MapError> {
        let at = section.offset.saturating_add(within);
        if within > section.len || section.len - within < len as u64 {
            return Err(corrupt(what, at));
        }
        Ok((self.blocks.bytes(self.file(), at, len, what)?, at))
    }
}

/// What the map's tables have for one key.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    key: &'a str,
    payload: &'a [u8],
    offset: u64,
}

impl<'a> Record<'a> {
    pub(super) fn new(key: &'a str, payload: &'a [u8], offset: u64) -> Self {
        Self {
            key,
            payload,
            offset,
        }
    }

    /// The value in `table`.
    ///
    /// # Errors
    /// [`MapError::Corrupt`]: the answer is not known; defer.
    #[inline]
    pub fn value(&self, table: TableId) -> Result<Option<Value<'a>>, MapError> {
        let mut values = Values::new(self.payload);
        while let Some(stored) = values.next().map_err(|_| self.corrupt())? {
            if stored.table == table.0 {
                return Ok(Some(Value {
                    key: self.key,
                    form: stored.form,
                    offset: self.offset,
                }));
            }
        }
        Ok(None)
    }

    /// All values, in the order of their tables' numbers.
    ///
    /// # Errors
    /// [`MapError::Corrupt`], and then nothing more.
    pub fn values(self) -> impl Iterator<Item = Result<(TableId, Value<'a>), MapError>> {
        let mut values = Values::new(self.payload);
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            match values.next() {
                Ok(Some(stored)) => {
                    let value = Value {
                        key: self.key,
                        form: stored.form,
                        offset: self.offset,
                    };
                    Some(Ok((TableId(stored.table), value)))
                }
                Ok(None) => {
                    ended = true;
                    None
                }
                Err(_) => {
                    ended = true;
                    Some(Err(self.corrupt()))
                }
            }
        })
    }

    fn corrupt(&self) -> MapError {
        corrupt("values", self.offset)
    }
}

#[cold]
fn corrupt(what: &'static str, offset: u64) -> MapError {
    MapError::Corrupt { what, offset }
}

fn slice(file: &[u8], section: Section) -> Option<&[u8]> {
    let from = usize::try_from(section.offset).ok()?;
    file.get(from..from.checked_add(usize::try_from(section.len).ok()?)?)
}

fn read_tables(file: &[u8], header: &Header, blocks: &Blocks) -> Result<Vec<String>, MapError> {
    let at = header.tables.offset;
    let len = usize::try_from(header.tables.len).unwrap_or(usize::MAX);
    let bytes = blocks.bytes(file, at, len, "table names")?;
    decode_tables(bytes).ok_or_else(|| corrupt("table names", at))
}

fn read_segments(file: &[u8], header: &Header, blocks: &Blocks) -> Result<Segments, MapError> {
    let at = header.segments.offset;
    let len = usize::try_from(header.segments.len).unwrap_or(usize::MAX);
    let bytes = blocks.bytes(file, at, len, "segments")?;
    Segments::decode(bytes, header).ok_or_else(|| corrupt("segments", at))
}

fn decode_tables(bytes: &[u8]) -> Option<Vec<String>> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.length().filter(|count| *count <= TABLES_MAX)?;
    let mut tables = Vec::with_capacity(count);
    for _ in 0..count {
        let len = cursor.length()?;
        tables.push(std::str::from_utf8(cursor.take(len)?).ok()?.to_owned());
    }
    cursor.is_empty().then_some(tables)
}
