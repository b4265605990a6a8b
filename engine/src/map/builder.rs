//! Building a map from entries in any order, in bounded memory.
//!
//! Imports `writer`, `spill`, `value`, `record`, `overlay`, `files`, `error`. Invariants: entries
//! are parted by the high bits of their keys' hashes, and what exceeds the memory bound goes to a
//! file without a name, so that each part is sorted in memory and the whole comes out in hash
//! order; the map appears under its name complete or not at all.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use super::changes::check_entry;
use super::cursor::{Cursor, put_varint};
use super::error::MapError;
use super::files::{self, TempFile, WriteLock};
use super::format::{self, TABLES_MAX};
use super::overlay::Overlay;
use super::reader::{MapStats, TableId};
use super::spill::{PARTS, Spill};
use super::value::{self, Form, KeyParts};
use super::view::read_overlay;
use super::writer::MapWriter;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Parts sorted ahead of the one being written.
const PARTS_AHEAD: usize = 2;
/// How often progress is told, in entries.
const PROGRESS_ENTRIES: u64 = 1 << 16;
/// Duplicates named one by one.
const DUPLICATES_NAMED_MAX: usize = 100;

/// Which value a key gets that comes twice in one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// The first, as postmap(1) does, with a report.
    #[default]
    FirstWins,
    /// The last, as `postmap -r`.
    LastWins,
    /// None: the build fails.
    Refuse,
}

/// What becomes of changes made with `map set` and `map unset` that no source knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PendingChanges {
    /// If there are any, the build fails before it starts.
    #[default]
    Refuse,
    /// They are applied over the sources.
    Keep,
    /// They are given up.
    Discard,
}

/// How to build.
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions {
    /// Keys that come twice.
    pub duplicates: Duplicates,
    /// Changes that are not in the sources.
    pub pending_changes: PendingChanges,
    /// Memory for entries before they go to disk, in bytes. The whole build takes about this, ten
    /// bytes more for each key, and 100 MB for shared texts at most.
    pub buffer_bytes: usize,
    /// The build's random choices, seed and name of the map: the same entries then give the same
    /// file, byte for byte. For fixtures and tests; elsewhere a known seed lets strangers choose
    /// colliding keys.
    #[doc(hidden)]
    pub chosen: Option<(u64, [u8; 16])>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            duplicates: Duplicates::default(),
            pending_changes: PendingChanges::default(),
            buffer_bytes: 512 * 1024 * 1024,
            chosen: None,
        }
    }
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildProgress {
    /// Entries taken in.
    Reading {
        /// Number of entries so far.
        entries: u64,
        /// Bytes of texts read so far.
        bytes: u64,
    },
    /// Sorting and writing.
    Writing {
        /// Entries written.
        done: u64,
        /// Entries in all.
        total: u64,
    },
}

/// What a build did.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// Numbers about the new map.
    pub stats: MapStats,
    /// Entries that came for a key and table that had one already.
    pub duplicates: u64,
    /// The first of them: table and key.
    pub duplicates_named: Vec<(String, String)>,
    /// Changes taken over from the change log.
    pub changes_kept: usize,
}

/// Told how far the build is; false stops it.
type ProgressFn<'a> = Box<dyn FnMut(BuildProgress) -> bool + 'a>;

/// A map being built. Nothing is visible under its name before [`MapBuilder::finish`]; dropping
/// the builder leaves the old map as it was. While it lives, others wait to change the map.
pub struct MapBuilder<'a> {
    path: PathBuf,
    options: BuildOptions,
    progress: ProgressFn<'a>,
    temp: TempFile,
    tables: Vec<String>,
    seed: u64,
    id: [u8; 16],
    spill: Spill,
    entries: u64,
    bytes: Arc<AtomicU64>,
    kept: Overlay,
    scratch: Vec<u8>,
    _lock: WriteLock,
}

impl<'a> MapBuilder<'a> {
    /// Starts a map that will replace the one at `path`.
    ///
    /// # Errors
    /// [`MapError::Io`]; [`MapError::ChangesPending`] as `options` say.
    pub fn new(path: &Path, options: BuildOptions) -> Result<Self, MapError> {
        let lock = WriteLock::wait(path)?;
        let kept = match options.pending_changes {
            PendingChanges::Discard => Overlay::default(),
            PendingChanges::Keep => read_overlay(path)?,
            PendingChanges::Refuse => {
                let pending = read_overlay(path)?;
                if !pending.is_empty() {
                    return Err(MapError::ChangesPending {
                        path: path.to_owned(),
                        changes: pending.len(),
                    });
                }
                pending
            }
        };
        let temp = TempFile::beside(path)?;
        let (seed, id) = options
            .chosen
            .unwrap_or_else(|| (files::random(), new_id()));
        let mut builder = Self {
            path: path.to_owned(),
            options,
            progress: Box::new(|_| true),
            temp,
            tables: Vec::new(),
            seed,
            id,
            spill: Spill::new(path, options.buffer_bytes),
            entries: 0,
            bytes: Arc::default(),
            kept: Overlay::default(),
            scratch: Vec::new(),
            _lock: lock,
        };
        builder.take_over(kept)?;
        Ok(builder)
    }

    /// Changes go in first, and later entries for the same key and table are passed over.
    fn take_over(&mut self, kept: Overlay) -> Result<(), MapError> {
        for (key, changed) in kept.keys() {
            for (number, value) in changed {
                if let (Some(table), Some(value)) = (kept.tables().get(*number), value) {
                    let table = self.table(table)?;
                    self.add(table, key, value)?;
                }
            }
        }
        self.kept = kept;
        Ok(())
    }

    /// Tells `progress` every 64 Ki entries.
    pub fn on_progress(mut self, progress: impl FnMut(BuildProgress) -> bool + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// The table called `name`, made if it is new.
    ///
    /// # Errors
    /// [`MapError::TooMany`], or [`MapError::Entry`] for an unfit name.
    pub fn table(&mut self, name: &str) -> Result<TableId, MapError> {
        if let Some(at) = self.tables.iter().position(|table| table == name) {
            return Ok(TableId(u32::try_from(at).unwrap_or(u32::MAX)));
        }
        check_entry(name, "key", "")?;
        if self.tables.len() >= TABLES_MAX {
            return Err(MapError::TooMany {
                what: "tables",
                limit: TABLES_MAX as u64,
            });
        }
        self.tables.push(name.to_owned());
        Ok(TableId(
            u32::try_from(self.tables.len() - 1).unwrap_or(u32::MAX),
        ))
    }

    /// Adds one entry. The key must be folded as lookups fold it.
    ///
    /// # Errors
    /// [`MapError::Entry`], [`MapError::Io`], [`MapError::Stopped`].
    pub fn add(&mut self, table: TableId, key: &str, value: &str) -> Result<(), MapError> {
        let name = usize::try_from(table.0)
            .ok()
            .and_then(|at| self.tables.get(at))
            .map_or("", String::as_str);
        let encoder = EntryEncoder {
            seed: self.seed,
            table,
            name,
        };
        let mut entry = std::mem::take(&mut self.scratch);
        entry.clear();
        let added = encoder
            .encode(key, value, &mut entry)
            .and_then(|()| self.add_encoded(&entry));
        self.scratch = entry;
        added
    }

    /// What encodes the entries of `table`, on whatever thread.
    pub(crate) fn encoder<'n>(&self, table: TableId, name: &'n str) -> EntryEncoder<'n> {
        EntryEncoder {
            seed: self.seed,
            table,
            name,
        }
    }

    /// Adds an entry that this builder's encoder made.
    ///
    /// # Errors
    /// As [`MapBuilder::add`].
    pub(crate) fn add_encoded(&mut self, entry: &[u8]) -> Result<(), MapError> {
        if !self.kept.is_empty() && self.is_kept(entry) {
            return Ok(());
        }
        let hash = entry.first_chunk().ok_or_else(damaged)?;
        self.spill.put(u64::from_le_bytes(*hash), entry)?;
        self.entries += 1;
        if self.entries.is_multiple_of(PROGRESS_ENTRIES) {
            self.tell(BuildProgress::Reading {
                entries: self.entries,
                // Relaxed: a number for people.
                bytes: self.bytes.load(Ordering::Relaxed),
            })?;
        }
        Ok(())
    }

    /// Counts the bytes of texts that were read, for the progress; shared with the reader.
    pub(crate) fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    /// A change that was kept stands for this entry's key and table.
    fn is_kept(&self, entry: &[u8]) -> bool {
        let found = decode_entry(&mut Cursor::new(entry)).and_then(|(_, entry)| {
            let name = self.tables.get(usize::try_from(entry.table).ok()?)?;
            self.kept.value(name, str::from_utf8(entry.key).ok()?)
        });
        found.is_some()
    }

    fn tell(&mut self, progress: BuildProgress) -> Result<(), MapError> {
        if (self.progress)(progress) {
            Ok(())
        } else {
            Err(MapError::Stopped)
        }
    }

    /// Sorts and writes all entries, makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`MapError::Io`], [`MapError::Stopped`]; [`MapError::Entry`] for a duplicate that was to
    /// be refused. The old map is untouched then.
    pub fn finish(self) -> Result<BuildReport, MapError> {
        let total = self.entries;
        let mut grouping = Grouping {
            writer: MapWriter::new(self.temp)?,
            tables: &self.tables,
            policy: self.options.duplicates,
            duplicates: 0,
            named: Vec::new(),
            payload: Vec::new(),
        };
        let (mut spill, mut progress, mut done) = (self.spill, self.progress, 0);
        std::thread::scope(|scope| {
            // One thread fetches and sorts parts while this one writes those before.
            let (sender, sorted) = mpsc::sync_channel(PARTS_AHEAD);
            scope.spawn(move || {
                for part in 0..PARTS {
                    let result = spill.take(part).and_then(SortedPart::new);
                    // An error here or there ends it; nobody listens any more then.
                    if sender.send(result).is_err() {
                        break;
                    }
                }
            });
            for part in sorted {
                done += grouping.write_part(&part?)?;
                if !progress(BuildProgress::Writing { done, total }) {
                    return Err(MapError::Stopped);
                }
            }
            Ok(())
        })?;
        let (duplicates, duplicates_named) = (grouping.duplicates, grouping.named);
        let (temp, header) = grouping.writer.finish(&self.tables, self.seed, self.id)?;
        temp.publish_for_lookups()?;
        // A log that a crash leaves here names the old map and is ignored.
        files::remove(&files::changes_path(&self.path))?;
        Ok(BuildReport {
            stats: MapStats::of(&header),
            duplicates,
            duplicates_named,
            changes_kept: self.kept.len(),
        })
    }
}

/// Makes of key and value what lies in a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryEncoder<'n> {
    seed: u64,
    table: TableId,
    name: &'n str,
}

impl EntryEncoder<'_> {
    /// Appends an entry to `out`. The key must be folded as lookups fold it.
    ///
    /// # Errors
    /// [`MapError::Entry`].
    pub(crate) fn encode(&self, key: &str, value: &str, out: &mut Vec<u8>) -> Result<(), MapError> {
        check_entry(self.name, key, value)?;
        let hash = format::hash(self.seed, key.as_bytes());
        out.extend_from_slice(&hash.to_le_bytes());
        put_varint(out, u64::from(self.table.0));
        put_varint(out, key.len() as u64);
        out.extend_from_slice(key.as_bytes());
        value::encode(KeyParts::new(key), value, out);
        Ok(())
    }
}

impl std::fmt::Debug for MapBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapBuilder")
            .field("path", &self.path)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// A name for a map that no other map has.
pub(super) fn new_id() -> [u8; 16] {
    let mut id = [0; 16];
    let bytes = files::random()
        .to_le_bytes()
        .into_iter()
        .chain(files::random().to_le_bytes());
    for (to, from) in id.iter_mut().zip(bytes) {
        *to = from;
    }
    id
}

/// One entry as it lies in a part.
#[derive(Clone, Copy)]
struct PartEntry<'a> {
    key: &'a [u8],
    table: u32,
    value: &'a [u8],
}

/// A part whose entries are in the order of their hashes, equal ones in the order they came in.
struct SortedPart {
    bytes: Vec<u8>,
    /// Hash and place of each entry.
    order: Vec<(u64, usize)>,
}

impl SortedPart {
    fn new(bytes: Vec<u8>) -> Result<Self, MapError> {
        let mut order = Vec::with_capacity(bytes.len() / 32);
        let mut cursor = Cursor::new(&bytes);
        while !cursor.is_empty() {
            let at = bytes.len() - cursor.rest().len();
            let (hash, _) = decode_entry(&mut cursor).ok_or_else(damaged)?;
            order.push((hash, at));
        }
        order.sort_unstable();
        Ok(Self { bytes, order })
    }
}

/// Brings together what the tables have for each key.
struct Grouping<'a> {
    writer: MapWriter,
    tables: &'a [String],
    policy: Duplicates,
    duplicates: u64,
    named: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl Grouping<'_> {
    /// Writes the entries of one part in hash order and returns their number.
    fn write_part(&mut self, part: &SortedPart) -> Result<u64, MapError> {
        let SortedPart { bytes, order } = part;
        let mut group: Vec<PartEntry<'_>> = Vec::new();
        for same in order.chunk_by(|a, b| a.0 == b.0) {
            group.clear();
            for (_, at) in same {
                let mut cursor = Cursor::new(bytes.get(*at..).unwrap_or_default());
                group.push(decode_entry(&mut cursor).ok_or_else(damaged)?.1);
            }
            let hash = same.first().map_or(0, |(hash, _)| *hash);
            if group.len() > 1 {
                // Two keys may share a hash; the sort keeps the order of equal ones.
                group.sort_by(|a, b| (a.key, a.table).cmp(&(b.key, b.table)));
            }
            for entries in group.chunk_by(|a, b| a.key == b.key) {
                self.write_key(hash, entries)?;
            }
        }
        Ok(order.len() as u64)
    }

    fn write_key(&mut self, hash: u64, entries: &[PartEntry<'_>]) -> Result<(), MapError> {
        let Some(key) = entries.first().map(|entry| entry.key) else {
            return Ok(());
        };
        self.payload.clear();
        let mut values = 0;
        for same in entries.chunk_by(|a, b| a.table == b.table) {
            let chosen = match self.policy {
                Duplicates::FirstWins | Duplicates::Refuse => same.first(),
                Duplicates::LastWins => same.last(),
            };
            let Some(entry) = chosen else { continue };
            if same.len() > 1 {
                self.duplicate(entry, same.len() - 1)?;
            }
            put_varint(&mut self.payload, u64::from(entry.table));
            self.payload.extend_from_slice(entry.value);
            values += 1;
        }
        self.writer.push(hash, key, &self.payload, values)
    }

    fn duplicate(&mut self, entry: &PartEntry<'_>, more: usize) -> Result<(), MapError> {
        let table = usize::try_from(entry.table)
            .ok()
            .and_then(|at| self.tables.get(at))
            .cloned()
            .unwrap_or_default();
        let name = String::from_utf8_lossy(entry.key);
        if self.policy == Duplicates::Refuse {
            return Err(MapError::Entry {
                table,
                key: name.chars().take(60).collect(),
                cause: "the key comes twice; remove one of its entries",
            });
        }
        self.duplicates += more as u64;
        if self.named.len() < DUPLICATES_NAMED_MAX {
            self.named.push((table, name.into_owned()));
        }
        Ok(())
    }
}

#[inline]
fn decode_entry<'a>(cursor: &mut Cursor<'a>) -> Option<(u64, PartEntry<'a>)> {
    let hash = cursor.u64()?;
    let table = u32::try_from(cursor.varint()?).ok()?;
    let len = cursor.length()?;
    let key = cursor.take(len)?;
    let before = cursor.rest();
    Form::decode(cursor)?;
    let value = before.get(..before.len() - cursor.rest().len())?;
    Some((hash, PartEntry { key, table, value }))
}

/// Our own temporary file came back changed.
fn damaged() -> MapError {
    MapError::header("the temporary file of the build was damaged")
}
