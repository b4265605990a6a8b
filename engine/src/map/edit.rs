//! Changing single keys of a map durably, and merging the changes into a new map.
//!
//! Invariants: a change is flushed before it is acknowledged; one writer at a time holds the map's
//! lock; a merge publishes the new map before it removes the log, and a log left behind by a crash
//! names the old map.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::builder::new_id;
use super::changes::{self, Change, MARK_AT, check_entry};
use super::cursor::put_varint;
use super::domains::DomainCells;
use super::error::MapError;
use super::files::{self, TempFile, WriteLock};
use super::format::{self, TABLES_MAX};
use super::overlay::{Changed, Overlay};
use super::reader::MapStats;
use super::record::Values;
use super::value::{self, KeyParts};
use super::view::{MapView, map_id, read_log};
use super::writer::MapWriter;
use crate::sync::Arc;

/// Changed values past which [`merge`] is worth its while: more cost memory and time in every
/// process that opens the map.
pub const CHANGES_MERGE_AT: usize = 10_000;
/// Most bytes of one call of [`change`].
const FRAME_BYTES_MAX: usize = 1 << 30;

/// Makes `changes` durable, all or none. Open views do not see them until they are opened again
/// (see [`super::MapHandle::refresh`]).
///
/// ```
/// use mailstow_engine::{MapView, map::Change, map::change};
/// # use mailstow_engine::{MapBuilder, map::BuildOptions};
///
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("recipients.map");
/// # MapBuilder::new(&path, BuildOptions::default())?.finish()?;
/// change(&path, &[Change::Set {
///     table: "virtual_mailbox_maps".into(),
///     key: "anna@example.com".into(),
///     value: "example.com/anna/".into(),
/// }])?;
/// let view = MapView::open(&path)?;
/// assert!(view.get("virtual_mailbox_maps", "anna@example.com")?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`MapError`]; the changes may then be in force or not, and can be made again.
pub fn change(path: &Path, changes: &[Change]) -> Result<(), MapError> {
    let mut bytes = 0;
    for change in changes {
        let (table, key, value) = change.parts();
        check_entry(table, key, value.unwrap_or(""))?;
        bytes += table.len() + key.len() + value.map_or(0, str::len) + 32;
    }
    if changes.is_empty() {
        return Ok(());
    }
    if bytes > FRAME_BYTES_MAX {
        return Err(MapError::TooMany {
            what: "bytes of changes at once",
            limit: FRAME_BYTES_MAX as u64,
        });
    }
    let _lock = WriteLock::wait(path)?;
    let id = map_id(path)?;
    let log_path = files::changes_path(path);
    match read_log(&log_path)?.filter(|log| log.map_id == id) {
        Some(log) => append(&log_path, id, log.end, changes),
        None => create(&log_path, id, changes),
    }
}

fn create(log_path: &Path, id: [u8; 16], changes: &[Change]) -> Result<(), MapError> {
    let mut bytes = changes::encode_head(id);
    let frame = changes::encode_frame(id, bytes.len(), changes);
    bytes.extend_from_slice(&frame);
    let mark = changes::encode_mark(id, bytes.len());
    for (to, from) in bytes.iter_mut().skip(64).zip(mark) {
        *to = from;
    }
    let temp = TempFile::beside(log_path)?;
    temp.file()
        .write_all(&bytes)
        .map_err(|source| temp.error("write", source))?;
    temp.publish()
}

/// Writes one frame at `end`, over what a crash may have left there.
fn append(log_path: &Path, id: [u8; 16], end: usize, changes: &[Change]) -> Result<(), MapError> {
    debug_assert!(end >= changes::FRAMES_AT, "the head stays");
    let failed = |action| move |source| MapError::io(log_path, action, source);
    let file = files::open_for_write(log_path)?;
    file.set_len(end as u64).map_err(failed("cut"))?;
    let frame = changes::encode_frame(id, end, changes);
    let written = file
        .write_all_at(&frame, end as u64)
        .map_err(failed("write"))
        .and_then(|()| file.sync_data().map_err(failed("flush")));
    if let Err(error) = written {
        // Not acknowledged: better gone than half there.
        let _ = file.set_len(end as u64);
        return Err(error);
    }
    // The mark only helps to tell damage from a torn end; it need not be flushed.
    let mark = changes::encode_mark(id, end + frame.len());
    file.write_all_at(&mark, MARK_AT).map_err(failed("mark"))
}

/// Builds a new map from the one at `path` and its changes, in little memory, and publishes it.
/// Returns `None` if there is nothing to merge. `progress` gets the part done and the whole; false
/// stops the merge.
///
/// # Errors
/// [`MapError`]; the map and its changes are as they were then.
pub fn merge(
    path: &Path,
    mut progress: impl FnMut(u64, u64) -> bool,
) -> Result<Option<MapStats>, MapError> {
    let _lock = WriteLock::wait(path)?;
    let view = MapView::open(path)?;
    if view.overlay().is_empty() {
        return Ok(None);
    }
    let mut merger = Merger::new(&view)?;
    let stopped = Cell::new(false);
    view.reader().visit(
        &mut |done, total| stopped.set(!progress(done, total)),
        |visited| {
            if stopped.get() {
                return Err(MapError::Stopped);
            }
            merger.push_base(visited.hash, visited.key, visited.payload)
        },
    )?;
    merger.push_new_before(None)?;
    debug_assert_eq!(
        merger.next,
        merger.keys.len(),
        "every changed key was checked"
    );
    let seed = view.reader().header().seed;
    let (temp, header) = merger.writer.finish(&merger.tables, seed, new_id())?;
    temp.publish()?;
    files::remove(&files::changes_path(path))?;
    Ok(Some(MapStats::of(&header)))
}

/// Brings two sequences in hash order together: the map's records and the changed keys.
struct Merger<'a> {
    writer: MapWriter,
    overlay: &'a Overlay,
    tables: Vec<String>,
    /// The overlay's table numbers as numbers of the new map.
    numbers: Vec<u32>,
    /// Changed keys in hash order, and how many of them are done.
    keys: Vec<(u64, &'a str, &'a Changed)>,
    next: usize,
    /// Changed keys that the old map has.
    merged: HashSet<&'a str>,
    payload: Vec<u8>,
}

impl<'a> Merger<'a> {
    fn new(view: &'a MapView) -> Result<Self, MapError> {
        let overlay = view.overlay();
        let mut tables = view.reader().tables().to_vec();
        let mut numbers = Vec::new();
        for name in overlay.tables() {
            let at = tables.iter().position(|table| **table == **name);
            let at = at.unwrap_or_else(|| {
                tables.push(name.to_string());
                tables.len() - 1
            });
            numbers.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        if tables.len() > TABLES_MAX {
            return Err(MapError::TooMany {
                what: "tables",
                limit: TABLES_MAX as u64,
            });
        }
        let seed = view.reader().header().seed;
        let mut keys: Vec<_> = overlay
            .keys()
            .map(|(key, changed)| (format::hash(seed, key.as_bytes()), key, changed))
            .collect();
        keys.sort_unstable_by_key(|(hash, key, _)| (*hash, *key));
        let (reader, new) = (view.reader(), keys.len() as u64);
        // Domains that came with the changes get their cells with the next build.
        let domains = Arc::new(DomainCells::new(seed, reader.all_domains()?));
        let temp = TempFile::beside(view.path())?;
        Ok(Self {
            writer: MapWriter::new(temp, reader.header().keys + new, domains),
            overlay,
            tables,
            numbers,
            keys,
            next: 0,
            merged: HashSet::new(),
            payload: Vec::new(),
        })
    }

    fn push_base(&mut self, hash: u64, key: &str, payload: &[u8]) -> Result<(), MapError> {
        self.push_new_before(Some(hash))?;
        if let Some((key, changed)) = self.overlay.entry(key) {
            self.merged.insert(key);
            self.push_changed(hash, key, payload, changed)
        } else {
            let mut values = Values::new(payload);
            let mut count = 0;
            while values.next().map_err(|_| damaged())?.is_some() {
                count += 1;
            }
            let key = self.writer.stored(key);
            self.writer.push(hash, key, payload, count)
        }
    }

    /// Writes the changed keys that the old map lacks and whose hash is below `hash`. Those with
    /// an equal hash wait until all of the old map's keys with that hash were seen.
    fn push_new_before(&mut self, hash: Option<u64>) -> Result<(), MapError> {
        while let Some(&(own, key, changed)) = self.keys.get(self.next) {
            if hash.is_some_and(|hash| own >= hash) {
                break;
            }
            self.next += 1;
            if !self.merged.contains(key) {
                self.push_changed(own, key, &[], changed)?;
            }
        }
        Ok(())
    }

    fn push_changed(
        &mut self,
        hash: u64,
        key: &str,
        payload: &[u8],
        changed: &Changed,
    ) -> Result<(), MapError> {
        let mut entries: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut values = Values::new(payload);
        while let Some(stored) = values.next().map_err(|_| damaged())? {
            entries.push((stored.table, stored.bytes.to_vec()));
        }
        for (number, value) in changed {
            let Some(&table) = self.numbers.get(*number) else {
                continue;
            };
            entries.retain(|(old, _)| *old != table);
            if let Some(value) = value {
                let mut bytes = Vec::new();
                value::encode(KeyParts::new(key), value, &mut bytes);
                entries.push((table, bytes));
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        entries.sort_unstable();
        self.payload.clear();
        for (table, bytes) in &entries {
            put_varint(&mut self.payload, u64::from(*table));
            self.payload.extend_from_slice(bytes);
        }
        let key = self.writer.stored(key);
        self.writer
            .push(hash, key, &self.payload, entries.len() as u64)
    }
}

fn damaged() -> MapError {
    MapError::Corrupt {
        what: "values",
        offset: 0,
    }
}
