//! Building a map from entries in any order, in bounded memory.
//!
//! Invariants: entries are parted by the high bits of their keys' hashes, and what exceeds the
//! memory bound goes to a file without a name, so that each part is sorted in memory and the whole
//! comes out in hash order; the map appears under its name complete or not at all.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use super::changes::check_entry;
use super::cursor::Cursor;
use super::domains::{DomainCells, DomainCount};
use super::entry::{Entry, EntryEncoder, PartedEntries, Sorted, Sorter};
use super::error::MapError;
use super::files::{self, TempFile, WriteLock};
use super::format::TABLES_MAX;
use super::overlay::Overlay;
use super::reader::{MapStats, TableId};
use super::record::StoredKey;
use super::spill::{PARTS, Part, Spill, Spilled, part_of};
use super::view::read_overlay;
use super::writer::MapWriter;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Threads that sort parts while another writes those before.
const SORTERS: usize = 2;
/// Parts that each of them sorts ahead of the one being written.
const PARTS_AHEAD: usize = 2;
/// Of a map with fewer entries, all are counted to find its domains; else one in 16.
const SAMPLED_ENTRIES_MIN: u64 = 500_000;
/// How often progress is reported, in entries.
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
    /// Texts may hold any octets (`smtputf8_enable = no`); else lines that are not UTF-8 are
    /// skipped.
    pub any_octets: bool,
    /// Memory for entries before they go to disk, in bytes. The whole build takes about this, five
    /// bytes more for each key, and 200 MB for domains and shared texts at most.
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
            any_octets: false,
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
type ProgressFn<'a> = Box<dyn FnMut(BuildProgress) -> bool + Send + 'a>;

/// A map being built. Nothing is visible under its name before [`MapBuilder::finish`]; dropping
/// the builder leaves the old map as it was. While it lives, others wait to change the map.
///
/// ```
/// use mailstow_engine::MapBuilder;
/// use mailstow_engine::map::BuildOptions;
///
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("recipients.map");
/// let mut builder = MapBuilder::new(&path, BuildOptions::default())?;
/// let mailboxes = builder.table("virtual_mailbox_maps")?;
/// builder.add(mailboxes, "anna@example.com", "example.com/anna/")?;
/// let report = builder.finish()?;
/// assert_eq!(report.stats.keys, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    told: u64,
    kept: Arc<Overlay>,
    single: Vec<u8>,
    _lock: WriteLock,
}

impl<'a> MapBuilder<'a> {
    /// Whether texts may hold any octets.
    pub(crate) fn any_octets(&self) -> bool {
        self.options.any_octets
    }

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
            told: 0,
            kept: Arc::default(),
            single: Vec::new(),
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
        self.kept = Arc::new(kept);
        Ok(())
    }

    /// Tells `progress` every 64 Ki entries.
    pub fn on_progress(mut self, progress: impl FnMut(BuildProgress) -> bool + Send + 'a) -> Self {
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
        let encoder = self.encoder(table, name);
        let Some(hash) = encoder.hash(key, value)? else {
            return Ok(());
        };
        self.single.clear();
        encoder.append(hash, key, value, &mut self.single);
        self.spill.put(part_of(hash), &self.single);
        self.added(1)
    }

    /// What encodes the entries of `table`, on whatever thread.
    pub(crate) fn encoder<'n>(&self, table: TableId, name: &'n str) -> EntryEncoder<'n> {
        EntryEncoder::new(self.seed, table, name, Arc::clone(&self.kept))
    }

    /// Adds entries that this builder's encoder made.
    ///
    /// # Errors
    /// As [`MapBuilder::add`].
    pub(crate) fn add_encoded(&mut self, entries: &PartedEntries) -> Result<(), MapError> {
        for (at, part) in entries.parts().enumerate() {
            self.spill.put(at, part);
        }
        self.added(entries.len())
    }

    fn added(&mut self, entries: u64) -> Result<(), MapError> {
        self.spill.write_out_if_full()?;
        self.entries += entries;
        if self.entries - self.told >= PROGRESS_ENTRIES {
            self.told = self.entries;
            self.tell(BuildProgress::Reading {
                entries: self.entries,
                // Relaxed: a number for people.
                bytes: self.bytes.load(Ordering::Relaxed),
            })?;
        }
        Ok(())
    }

    /// Entries that were added so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Counts the bytes of texts that were read, for the progress; shared with the reader.
    pub(crate) fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
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
        let (parts, spilled) = self.spill.into_parts();
        let domains = Arc::new(frequent_domains(self.seed, total, &parts, &spilled)?);
        let mut grouping = Grouping {
            writer: MapWriter::new(self.temp, total, Arc::clone(&domains)),
            tables: &self.tables,
            policy: self.options.duplicates,
            duplicates: 0,
            named: Vec::new(),
            payload: Vec::new(),
        };
        let (mut progress, mut done) = (self.progress, 0);
        let mut queues: [Vec<_>; SORTERS] = Default::default();
        for (queue, part) in (0..SORTERS).cycle().zip(parts) {
            if let Some(queue) = queues.get_mut(queue) {
                queue.push(part);
            }
        }
        std::thread::scope(|scope| {
            let mut sorters = Vec::with_capacity(SORTERS);
            for queue in queues {
                let (sender, sorted) = mpsc::sync_channel(PARTS_AHEAD);
                let (spilled, domains) = (&spilled, &*domains);
                let sorter = move || {
                    let mut sorter = Sorter::default();
                    for part in queue {
                        let sorted = spilled.fetch(part).and_then(|part| sorter.sort(part));
                        let result = sorted.and_then(|part| Sorted::new(part, domains));
                        // After an error on either side, the receiver is gone.
                        if sender.send(result).is_err() {
                            break;
                        }
                    }
                };
                let thread = std::thread::Builder::new().name("mailstow-sort".into());
                thread
                    .spawn_scoped(scope, sorter)
                    .map_err(|source| MapError::io(&self.path, "start a thread for", source))?;
                sorters.push(sorted);
            }
            for sorted in sorters.iter().cycle().take(PARTS) {
                let part = sorted.recv().map_err(|_| MapError::Stopped)??;
                done += grouping.write_part(&part)?;
                if !progress(BuildProgress::Writing { done, total }) {
                    return Err(MapError::Stopped);
                }
            }
            Ok(())
        })?;
        debug_assert_eq!(done, total, "every entry was written or was a duplicate");
        let (duplicates, duplicates_named) = (grouping.duplicates, grouping.named);
        let (temp, header) = grouping.writer.finish(&self.tables, self.seed, self.id)?;
        temp.publish()?;
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

impl std::fmt::Debug for MapBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapBuilder")
            .field("path", &self.path)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// The domains that many keys end in, as a sample of the parts tells: parts are made by hash.
fn frequent_domains(
    seed: u64,
    entries: u64,
    parts: &[Part],
    spilled: &Spilled,
) -> Result<DomainCells, MapError> {
    let all = entries < SAMPLED_ENTRIES_MIN;
    let (parts_sampled, at_least) = if all { (PARTS, 4) } else { (PARTS / 16, 2) };
    let mut sample = Vec::new();
    for part in parts.iter().take(parts_sampled) {
        sample.push(spilled.read(part)?);
    }
    let mut count = DomainCount::new(seed);
    for part in &sample {
        let mut cursor = Cursor::new(part);
        while let Some(entry) = Entry::next(&mut cursor)? {
            count.key(entry.key);
        }
    }
    Ok(DomainCells::new(seed, count.frequent(at_least)))
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
    /// Writes the entries of one part, which are in hash order, and returns their number.
    fn write_part(&mut self, sorted: &Sorted) -> Result<u64, MapError> {
        let mut entries = sorted.entries();
        let mut group: Vec<(u32, Entry<'_>)> = Vec::new();
        let mut next = entries.next().transpose()?;
        let mut written = 0;
        while let Some(first) = next {
            written += 1;
            next = entries.next().transpose()?;
            debug_assert!(
                next.is_none_or(|next| first.hash <= next.hash),
                "entries are in the order of their hashes"
            );
            let Some(mut other) = next.filter(|next| next.hash == first.hash) else {
                let key = StoredKey::new(first.key, first.domain);
                self.writer.push(first.hash, key, first.payload, 1)?;
                continue;
            };
            group.clear();
            group.push((first.table()?, first));
            loop {
                group.push((other.table()?, other));
                written += 1;
                next = entries.next().transpose()?;
                match next.filter(|next| next.hash == first.hash) {
                    Some(another) => other = another,
                    None => break,
                }
            }
            // Two keys may share a hash; the sort keeps the order of equal ones.
            group.sort_by(|a, b| (a.1.key, a.0).cmp(&(b.1.key, b.0)));
            for entries in group.chunk_by(|a, b| a.1.key == b.1.key) {
                self.write_key(entries)?;
            }
        }
        Ok(written)
    }

    /// Writes what the tables have for one key.
    fn write_key(&mut self, entries: &[(u32, Entry<'_>)]) -> Result<(), MapError> {
        let Some((_, first)) = entries.first() else {
            return Ok(());
        };
        self.payload.clear();
        let mut values = 0;
        for same in entries.chunk_by(|a, b| a.0 == b.0) {
            let chosen = match self.policy {
                Duplicates::FirstWins | Duplicates::Refuse => same.first(),
                Duplicates::LastWins => same.last(),
            };
            let Some((table, entry)) = chosen else {
                continue;
            };
            if same.len() > 1 {
                self.duplicate(*table, entry.key, same.len() - 1)?;
            }
            self.payload.extend_from_slice(entry.payload);
            values += 1;
        }
        let key = StoredKey::new(first.key, first.domain);
        self.writer.push(first.hash, key, &self.payload, values)
    }

    fn duplicate(&mut self, table: u32, key: &[u8], more: usize) -> Result<(), MapError> {
        let table = usize::try_from(table)
            .ok()
            .and_then(|at| self.tables.get(at))
            .cloned()
            .unwrap_or_default();
        let name = String::from_utf8_lossy(key);
        if self.policy == Duplicates::Refuse {
            return Err(MapError::Entry {
                table,
                key: name.chars().take(60).collect(),
                cause: "the key occurs twice; remove one of its entries",
            });
        }
        self.duplicates += more as u64;
        if self.named.len() < DUPLICATES_NAMED_MAX {
            self.named.push((table, name.into_owned()));
        }
        Ok(())
    }
}
