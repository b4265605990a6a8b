//! A map as it is asked: the copied file and the changes made since it was built.
//!
//! Invariants: a view never changes; it shows the map and the change log of one moment, never a map
//! without its changes.

use std::borrow::Cow;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::clock;
use crate::sync::atomic::{AtomicU64, Ordering};

use super::changes::ChangeLog;
use super::error::MapError;
use super::files::{self, ContentStamp, FileIdentity};
use super::overlay::{Changed, Overlay};
use super::reader::{MapReader, Record, TableId};

/// How often opening starts over because the map was replaced meanwhile.
const OPEN_TRIES_MAX: usize = 100;

/// A recipient map and its changes at one moment. Cheap to share; may be asked from any thread.
///
/// ```
/// use mailstow_engine::{MapBuilder, MapView};
/// # use mailstow_engine::map::BuildOptions;
///
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("recipients.map");
/// # let mut builder = MapBuilder::new(&path, BuildOptions::default())?;
/// # let mailboxes = builder.table("virtual_mailbox_maps")?;
/// # builder.add(mailboxes, "anna@example.com", "example.com/anna/")?;
/// # builder.finish()?;
/// let view = MapView::open(&path)?;
/// let found = view.get("virtual_mailbox_maps", "anna@example.com")?;
/// assert_eq!(found.as_deref(), Some("example.com/anna/"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MapView {
    path: PathBuf,
    reader: MapReader,
    overlay: Overlay,
    stamp: ContentStamp,
    /// The clock's tick of the last look at the file.
    looked: AtomicU64,
    identity: (FileIdentity, Option<FileIdentity>),
    warnings: Vec<String>,
}

impl MapView {
    /// Opens the map at `path` with its change log. Costs the same for any number of recipients.
    ///
    /// # Errors
    /// [`MapError`]; every lookup must be deferred then.
    pub fn open(path: &Path) -> Result<Self, MapError> {
        for _ in 0..OPEN_TRIES_MAX {
            let file = files::open_to_read(path)?;
            let identity = FileIdentity::of_file(&file, path)?;
            let stamp = ContentStamp::of(&file, path)?;
            let reader = MapReader::open(file, path)?;
            let log_path = files::changes_path(path);
            let log_identity = FileIdentity::of(&log_path)?;
            let log = read_log(&log_path);
            // A merge publishes the new map before it removes the log: if the map is still the
            // one we opened, the log was the one that belongs to it.
            if FileIdentity::of(path)? != Some(identity) {
                continue;
            }
            let mut warnings = Vec::new();
            let overlay = match log? {
                Some(log) if log.map_id == reader.stats().id => Overlay::new(&log.changes),
                Some(_) => {
                    warnings.push(format!(
                        "{}: these changes belong to another map and are ignored; remove the file",
                        log_path.display()
                    ));
                    Overlay::default()
                }
                None => Overlay::default(),
            };
            return Ok(Self {
                path: path.to_owned(),
                reader,
                overlay,
                stamp,
                looked: AtomicU64::new(0),
                identity: (identity, log_identity),
                warnings,
            });
        }
        Err(MapError::io(
            path,
            "open",
            io::ErrorKind::ResourceBusy.into(),
        ))
    }

    /// Fails if the map's file was written into or cut. What was copied of the old map is whole,
    /// but the rest of it is gone, and another map is about to take its place. Looks at the file
    /// once in a tick of the kernel's clock at most, so that it may be called before every lookup.
    ///
    /// # Errors
    /// [`MapError::Overwritten`]: nothing this view says counts; defer.
    #[inline]
    pub fn check_intact(&self) -> Result<(), MapError> {
        let tick = clock::tick();
        // Relaxed: nothing else depends on the number, and an extra look does no harm.
        if self.looked.load(Ordering::Relaxed) == tick {
            return Ok(());
        }
        self.look(tick)
    }

    /// As [`MapView::check_intact`], but looks at the file in any case.
    ///
    /// # Errors
    /// [`MapError::Overwritten`]: nothing this view says counts; defer.
    pub fn check_intact_now(&self) -> Result<(), MapError> {
        self.look(clock::tick())
    }

    #[cold]
    fn look(&self, tick: u64) -> Result<(), MapError> {
        let file = self.reader.copy().source().file();
        let now = file.map(|file| ContentStamp::of(file, &self.path));
        if now.transpose()? != Some(self.stamp) {
            // No tick is 0: the next lookup looks again.
            self.looked.store(0, Ordering::Relaxed);
            return Err(MapError::Overwritten {
                path: self.path.clone(),
            });
        }
        self.looked.store(tick, Ordering::Relaxed);
        Ok(())
    }

    /// What keeps a lookup from an answer: `error`, or that the file was overwritten, which
    /// explains it.
    #[cold]
    fn cause(&self, error: MapError) -> MapError {
        self.check_intact_now().err().unwrap_or(error)
    }

    /// Bytes of memory that the map takes, apart from its changes.
    pub(crate) fn copied_bytes(&self) -> usize {
        self.reader.copy().copied_bytes()
    }

    /// The map's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The map without its changes.
    pub fn reader(&self) -> &MapReader {
        &self.reader
    }

    /// Values changed since the map was built.
    pub fn changes(&self) -> usize {
        self.overlay.len()
    }

    /// Complaints found while opening, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether the map or a change has a table of this name.
    pub fn has_table(&self, table: &str) -> bool {
        self.tables().any(|known| known == table)
    }

    /// The names of all tables of the map and its changes.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        let known = self.reader.tables();
        let changed = self.overlay.tables().iter().map(|table| &**table);
        let new = changed.filter(move |table| known.iter().all(|known| known != table));
        known.iter().map(String::as_str).chain(new)
    }

    /// The value of `key`, folded, in the table called `table`.
    ///
    /// # Errors
    /// [`MapError::Corrupt`]: the answer is not known; defer.
    #[inline]
    pub fn get<'a>(&'a self, table: &str, key: &'a str) -> Result<Option<Cow<'a, str>>, MapError> {
        if !self.overlay.is_empty()
            && let Some(value) = self.overlay.value(table, key)
        {
            return Ok(value.map(Cow::Borrowed));
        }
        let Some(id) = self.reader.table(table) else {
            return Ok(None);
        };
        match self.reader.get(id, key)? {
            Some(value) => value.text().map(Some),
            None => Ok(None),
        }
    }

    /// All that is known of `key`, folded, with one search.
    ///
    /// # Errors
    /// [`MapError::Corrupt`]: the answer is not known; defer.
    #[inline]
    pub fn find<'a>(&'a self, key: &'a str) -> Result<Attributes<'a>, MapError> {
        Ok(self.locate(key)?.attributes(key))
    }

    /// Has the processor fetch what searches for these keys, folded, will read first: those that
    /// the map most likely has, and those that it most likely has not.
    #[inline]
    pub(crate) fn fetch<const N: usize>(&self, likely: [&str; N], unlikely: &[&str]) {
        for key in likely {
            self.reader.fetch_record(key);
        }
        for key in unlikely {
            self.reader.fetch(key);
        }
    }

    /// Where the answers for `key`, folded, stand.
    ///
    /// # Errors
    /// [`MapError::Corrupt`]: the answer is not known; defer.
    #[inline]
    pub(crate) fn locate(&self, key: &str) -> Result<Located<'_>, MapError> {
        let record = self.reader.locate(key);
        Ok(Located {
            view: self,
            record: record.map_err(|error| self.cause(error))?,
            changed: if self.overlay.is_empty() {
                None
            } else {
                self.overlay.changed(key)
            },
        })
    }

    /// Calls `each` with table, key and value of everything in the map, changes included, in no
    /// useful order.
    ///
    /// # Errors
    /// [`MapError::Corrupt`], or what `each` returned.
    pub fn for_each(
        &self,
        mut each: impl FnMut(&str, &str, &str) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        let tables = self.reader.tables();
        let mut text = String::new();
        self.reader.for_each(|key, record| {
            for value in record.values() {
                let (id, value) = value?;
                let table = usize::try_from(id.0).ok().and_then(|at| tables.get(at));
                let Some(table) = table else { continue };
                if self.overlay.value(table, key).is_none() {
                    text.clear();
                    value.append_to(&mut text)?;
                    each(table, key, &text)?;
                }
            }
            Ok(())
        })?;
        for (key, changed) in self.overlay.keys() {
            for (number, value) in changed {
                if let (Some(table), Some(value)) = (self.overlay.tables().get(*number), value) {
                    each(table, key, value)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Whether this view and `other` are of the same files, unchanged.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Whether the files under the map's name are still those of this view.
    pub(super) fn is_current(&self) -> Result<bool, MapError> {
        let map = FileIdentity::of(&self.path)?;
        let log = FileIdentity::of(&files::changes_path(&self.path))?;
        Ok((map, log) == (Some(self.identity.0), self.identity.1))
    }
}

/// Where a map has its values for one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located<'v> {
    view: &'v MapView,
    record: Option<(&'v [u8], u64)>,
    changed: Option<&'v Changed>,
}

impl<'v> Located<'v> {
    /// It was looked up in this very view.
    #[inline]
    pub(crate) fn is_in(&self, view: &MapView) -> bool {
        std::ptr::eq(self.view, view)
    }

    /// No table of the view has anything for the key.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.record.is_none() && self.changed.is_none()
    }

    /// The answers for `key`, which must be the one that was looked up.
    #[inline]
    pub(crate) fn attributes<'a>(self, key: &'a str) -> Attributes<'a>
    where
        'v: 'a,
    {
        let record = self.record;
        Attributes {
            view: self.view,
            record: record.map(|(payload, offset)| Record::new(key, payload, offset)),
            changed: self.changed,
        }
    }
}

/// What a map knows of one key.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    view: &'a MapView,
    record: Option<Record<'a>>,
    changed: Option<&'a Changed>,
}

impl<'a> Attributes<'a> {
    /// The value in the table called `table`.
    ///
    /// # Errors
    /// [`MapError::Corrupt`]: the answer is not known; defer.
    pub fn text(&self, table: &str) -> Result<Option<Cow<'a, str>>, MapError> {
        if let Some(value) = self.change(table) {
            return Ok(value.map(Cow::Borrowed));
        }
        match (self.record, self.view.reader.table(table)) {
            (Some(record), Some(id)) => match record.value(id)? {
                Some(value) => value.text().map(Some),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Appends the value in `table` to `out`, and returns whether there is one. `id` is the table's
    /// number in the view's map.
    ///
    /// # Errors
    /// [`MapError::Corrupt`]: the answer is not known; defer.
    #[inline]
    pub(crate) fn append_in(
        &self,
        table: &str,
        id: Option<TableId>,
        out: &mut String,
    ) -> Result<bool, MapError> {
        if let Some(value) = self.change(table) {
            out.push_str(value.unwrap_or_default());
            return Ok(value.is_some());
        }
        let (Some(record), Some(id)) = (self.record, id) else {
            return Ok(false);
        };
        match record.value(id)? {
            Some(value) => value.append_to(out).map(|()| true),
            None => Ok(false),
        }
    }

    /// The value in the table called `table` if it is a number in plain decimal form; `None`
    /// also if it is any other text.
    ///
    /// # Errors
    /// [`MapError::Corrupt`]: the answer is not known; defer.
    pub fn number(&self, table: &str) -> Result<Option<u64>, MapError> {
        if let Some(value) = self.change(table) {
            return Ok(value.and_then(|value| value.parse().ok()));
        }
        match (self.record, self.view.reader.table(table)) {
            (Some(record), Some(id)) => Ok(record.value(id)?.and_then(|value| value.number())),
            _ => Ok(None),
        }
    }

    fn change(&self, table: &str) -> Option<Option<&'a str>> {
        self.view.overlay.value_of(table, self.changed?)
    }
}

/// The change log at `path`, `None` if there is none.
pub(super) fn read_log(path: &Path) -> Result<Option<ChangeLog>, MapError> {
    let mut file = match files::open_to_read(path) {
        Ok(file) => file,
        Err(MapError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(|source| MapError::io(path, "read", source))?;
    ChangeLog::decode(&bytes, path).map(Some)
}

/// The changes that a new map at `path` would lose. If the old map cannot be read, the log is
/// taken to be its own.
pub(super) fn read_overlay(path: &Path) -> Result<Overlay, MapError> {
    let Some(log) = read_log(&files::changes_path(path))? else {
        return Ok(Overlay::default());
    };
    match map_id(path) {
        Ok(id) if id != log.map_id => Ok(Overlay::default()),
        _ => Ok(Overlay::new(&log.changes)),
    }
}

pub(super) fn map_id(path: &Path) -> Result<[u8; 16], MapError> {
    let file = files::open_to_read(path)?;
    Ok(MapReader::open(file, path)?.stats().id)
}
