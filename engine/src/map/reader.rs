//! Looking up keys in the bytes of a recipient map.
//!
//! Invariants: safe for any bytes: a damaged map gives an error, never a panic and never a wrong
//! answer; a lookup takes no lock and allocates nothing.

use super::bucket::Line;
use super::copy::{PrivateCopy, Source};
use super::cursor::Cursor;
use super::domains::{self, Domains};
use super::error::MapError;
use super::format::{self, Header, Section, TABLES_MAX};
use super::record::{self, Entry, Payload, RawRecord, StoredKey, Values, Wanted};
use super::segment::{Place, Segments};
use super::value::Value;
use std::fs::File;
use std::path::Path;

/// Shared texts are mostly shorter, and then read at once with their length.
const SHARED_BYTES_USUAL: u64 = 64;
/// Cache lines that are fetched about the place where a record most likely lies, and how many
/// bytes before it the first of them begins.
const FETCHED_LINES: u64 = 4;
const FETCHED_BEFORE_BYTES: u64 = 64;

/// A table of one opened map. Numbers differ from map to map: ask [`MapReader::table`] again
/// after a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub(super) u32);

/// An opened recipient map. May be asked from any thread.
///
/// Its bytes are copied into memory of the process as they are asked for: what happens to the file
/// later is an error at worst, see [`MapReader::open`].
#[derive(Debug)]
pub struct MapReader {
    copy: PrivateCopy,
    header: Header,
    tables: Vec<String>,
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

impl MapReader {
    /// Opens the map that `bytes` are. Checks the header and the table names; reads nothing else,
    /// so that opening costs the same for ten recipients and ten million.
    ///
    /// # Errors
    /// [`MapError::Header`], [`MapError::TooNew`] or [`MapError::Corrupt`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, MapError> {
        Self::from_source(Source::Bytes(bytes.as_ref().into()))
    }

    /// As [`MapReader::new`], for a file, which `path` names in errors. A file that is truncated or
    /// written into, or that cannot be read, gives errors for what was not asked for before, and
    /// right answers for the rest.
    ///
    /// # Errors
    /// As [`MapReader::new`], or [`MapError::Io`].
    pub fn open(file: File, path: &Path) -> Result<Self, MapError> {
        let path = path.to_owned();
        Self::from_source(Source::File { file, path })
    }

    fn from_source(source: Source) -> Result<Self, MapError> {
        let (copy, header) = PrivateCopy::open(source)?;
        let tables = read_tables(&copy, &header)?;
        let segments = read_segments(&copy, &header)?;
        Ok(Self {
            segments,
            domains: Domains::new(header.domains, header.seed),
            copy,
            header,
            tables,
        })
    }

    /// The same map, of which nothing was asked for yet: for who reads all of it and keeps nothing.
    pub(super) fn again(&self) -> Result<Self, MapError> {
        Ok(Self {
            copy: self.copy.again()?,
            header: self.header.clone(),
            tables: self.tables.clone(),
            segments: self.segments.clone(),
            domains: self.domains,
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
        self.copy.prefetch(at);
    }

    /// As [`MapReader::fetch`], with the record and the domain of a key that the map most likely
    /// has.
    #[inline]
    pub(crate) fn fetch_record(&self, key: &str) {
        let hash = format::hash(self.header.seed, key.as_bytes());
        let Place { bucket, record } = self.segments.place(hash);
        let at = self.header.index.offset.saturating_add(bucket * 64);
        self.copy.prefetch(at);
        self.fetch_about(record);
        if let Some(at) =
            domains::split(key.as_bytes()).and_then(|(_, domain)| self.domains.home(domain))
        {
            self.copy.prefetch(at);
        }
    }

    /// Has the processor fetch what lies about `record` in the records section.
    #[inline]
    fn fetch_about(&self, record: u64) {
        let at = self.header.records.offset.saturating_add(record);
        let first = (at & !63).saturating_sub(FETCHED_BEFORE_BYTES);
        for line in 0..FETCHED_LINES {
            self.copy.prefetch(first.saturating_add(line * 64));
        }
    }

    /// What the record of `key` looks like.
    #[inline]
    pub(super) fn wanted<'k>(&self, key: &'k str) -> Result<Wanted<'k>, MapError> {
        let key = key.as_bytes();
        if let Some((local, domain)) = domains::split(key)
            && let Some(number) = self.domains.number(&self.copy, domain)?
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
            out.push_str(text(self.domains.text(&self.copy, number)?)?);
        }
        Ok(())
    }

    /// All domains that have numbers.
    pub(super) fn all_domains(&self) -> Result<Vec<&[u8]>, MapError> {
        self.domains.all(&self.copy)
    }

    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn copy(&self) -> &PrivateCopy {
        &self.copy
    }

    /// Gives the memory of everything that was asked for back.
    pub(super) fn forget(&mut self) {
        self.copy.forget();
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
        self.copy.line(at, "index").map(Line)
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
        let head = self.copy.bytes(at, window, what)?;
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
        Ok((self.copy.bytes(at, len, what)?, at))
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

fn read_tables(copy: &PrivateCopy, header: &Header) -> Result<Vec<String>, MapError> {
    let at = header.tables.offset;
    let len = usize::try_from(header.tables.len).unwrap_or(usize::MAX);
    let bytes = copy.bytes(at, len, "table names")?;
    decode_tables(bytes).ok_or_else(|| corrupt("table names", at))
}

fn read_segments(copy: &PrivateCopy, header: &Header) -> Result<Segments, MapError> {
    let at = header.segments.offset;
    let len = usize::try_from(header.segments.len).unwrap_or(usize::MAX);
    let bytes = copy.bytes(at, len, "segments")?;
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
