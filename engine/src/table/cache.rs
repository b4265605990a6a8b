//! Opened tables, shared by name, and how changed files get in.
//!
//! A file is taken whole or not at all: at start lines that Postfix would skip are skipped with a
//! warning, but a file that changes later and has such lines is not taken, the old contents go on
//! answering and the trouble is reported once. So it is with a file that seems to be in the middle
//! of being written, for a while; see `watch::guard`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::compiled::map_table::MapTable;
use super::compiled::maps::Maps;
use super::compound::compound_table::CompoundTable;
use super::compound::restricted::RestrictedTable;
use super::context::TableContext;
use super::kind::Kind;
use super::open::{Parsed, described_in_main_cf, parse, substitution, unfiled, unreadable};
use super::remote::places::Places;
use super::substitution::Substitution;
use super::watch::facts::{entry_facts, line_facts};
use super::watch::file::TableFile;
use super::watch::guard::Facts;
use super::watch::source;
use super::watch::source::Source;
use super::watch::text_files::TextFiles;
use super::watch::watched::{Hold, Look, Looked, Reading, Watched};
use super::{LookupTable, OpenError, TableList, TableName, TableSet};
use crate::map::{MapHandle, MapView};
use crate::sync::{Arc, Mutex};

/// Tables within tables within tables ...
const DEPTH_MAX: usize = 8;

/// Opens tables, one per name however often it is configured, and reads their files anew when
/// they change. May be used from any thread; lookups go through [`TableSet`] and never wait for
/// it.
#[derive(Debug)]
pub struct TableCache {
    context: TableContext,
    slots: Mutex<Slots>,
    texts: Arc<TextFiles>,
    places: Arc<Places>,
}

/// Open tables by their keys (see [`slot_key`]), and the maps that some of them are parts of.
#[derive(Debug, Default)]
struct Slots {
    tables: BTreeMap<String, Slot>,
    maps: Maps,
    /// Of what is opened now.
    generation: u64,
}

/// What [`TableCache::refresh`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refresh {
    /// Some table has new contents: sets opened before are out of date.
    pub changed: bool,
    /// Files that changed but could not be taken, one line each; the old contents are in use.
    pub problems: Vec<String>,
    /// Names of the tables with new contents.
    pub reloaded: Vec<String>,
    /// Complaints about lines of these that do not keep them from being used.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct Slot {
    name: TableName,
    /// When it was opened last.
    generation: u64,
    table: Arc<dyn LookupTable>,
    /// When not empty, only addresses in these domains are to be looked up.
    domain: String,
    /// Hashes of the file's lines, for a table whose entries cannot be listed.
    lines: Vec<u64>,
    file: Option<Watched>,
}

impl TableCache {
    /// An empty cache.
    pub fn new(context: TableContext) -> Self {
        Self {
            texts: Arc::new(TextFiles::new(context.hold_time)),
            places: Arc::default(),
            context,
            slots: Mutex::default(),
        }
    }

    /// A cache for another context. What is open here and means the same there is open there, too,
    /// so that a file in the middle of being written does not count there either.
    pub fn for_context(&self, context: TableContext) -> Self {
        let old = &self.context;
        let is_alias = |context: &TableContext, name| context.alias_tables.contains(name);
        let slots = self.slots.lock();
        let kept = slots.tables.iter().filter(|(name, slot)| {
            slot.file.is_some()
                && old.any_octets == context.any_octets
                && !matches!(slot.name.kind(), Kind::Database(_))
                && is_alias(old, name) == is_alias(&context, name)
                && slot_key(&slot.name, &context) == **name
                && substitution(&slot.name, old) == substitution(&slot.name, &context)
        });
        let kept = kept.map(|(name, slot)| (name.clone(), slot.clone()));
        self.texts.set_hold_time(context.hold_time);
        Self {
            slots: Mutex::new(Slots {
                tables: kept.collect(),
                maps: slots.maps.clone(),
                generation: slots.generation,
            }),
            texts: Arc::clone(&self.texts),
            places: Arc::clone(&self.places),
            context,
        }
    }

    /// The tables of `list` as they are now. Those that are open already are not read again:
    /// their contents change in [`TableCache::refresh`] alone.
    ///
    /// # Errors
    /// A file cannot be read, or the text of an inline table is wrong.
    pub fn open_all(&self, list: &TableList) -> Result<TableSet, OpenError> {
        let mut slots = self.slots.lock();
        let mut tables = Vec::with_capacity(list.names().len());
        let mut holds = Vec::new();
        for name in list.names() {
            tables.push(self.open(name, &mut slots, 0)?);
            slots.holds_of(name, &self.context, 0, &mut holds);
        }
        Ok(TableSet::new(tables).with_holds(holds))
    }

    /// The table called `name`. Tables of tables, and lists of domains in front of a table, are
    /// put together anew each time, from members that are shared.
    fn open(
        &self,
        name: &TableName,
        slots: &mut Slots,
        depth: usize,
    ) -> Result<Arc<dyn LookupTable>, OpenError> {
        if depth > DEPTH_MAX {
            return Err(OpenError::Content {
                name: name.full().to_owned(),
                cause: "tables are nested too deeply; check whether one contains itself".to_owned(),
            });
        }
        if let Kind::Compound(joint) = name.kind() {
            let mut members = Vec::new();
            for member in name.members()? {
                members.push(self.open(&member, slots, depth + 1)?);
            }
            return Ok(Arc::new(CompoundTable::new(name.full(), joint, members)));
        }
        let key = slot_key(name, &self.context);
        if !slots.tables.contains_key(key.as_ref()) {
            let slot = Slot::open(name, &self.context, &mut slots.maps)?;
            slots.tables.insert(key.clone().into_owned(), slot);
        }
        let generation = slots.generation;
        let Some(slot) = slots.tables.get_mut(key.as_ref()) else {
            return Err(OpenError::Content {
                name: name.full().to_owned(),
                cause: "it was closed while it was opened; try again".to_owned(),
            });
        };
        slot.generation = generation;
        let (table, domain) = (Arc::clone(&slot.table), slot.domain.clone());
        if domain.is_empty() {
            return Ok(table);
        }
        let restricted = RestrictedTable::new(table, &domain, &self.texts, |member| {
            let member = TableName::parse(member, "hash")?;
            self.open(&member, slots, depth + 1)
        })?;
        Ok(Arc::new(restricted))
    }

    /// The texts of lists, beside the tables.
    pub(crate) fn texts(&self) -> &Arc<TextFiles> {
        &self.texts
    }

    /// The places of files of accounts. Threads that hang there are counted whatever is reloaded.
    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Returns why what is not found in the tables of this generation may be found soon.
    pub(crate) fn holds(&self) -> Vec<Arc<Hold>> {
        let slots = self.slots.lock();
        self.holds_of(&slots, slots.in_use())
    }

    fn holds_of<'s>(
        &self,
        slots: &'s Slots,
        tables: impl Iterator<Item = &'s Slot>,
    ) -> Vec<Arc<Hold>> {
        let files = tables.filter_map(|slot| slot.file.as_ref());
        let mut holds: Vec<_> = files.map(|file| Arc::clone(file.hold())).collect();
        holds.extend(slots.maps.holds().map(Arc::clone));
        holds.extend(self.texts.holds());
        holds
    }

    /// Files that are held back, and why, one line each.
    pub fn held_back(&self) -> Vec<String> {
        let slots = self.slots.lock();
        let holds = self.holds_of(&slots, slots.tables.values());
        Hold::causes(&holds)
    }

    /// Whether [`TableCache::refresh`] is to be called soon: a file is being changed.
    pub fn is_restless(&self) -> bool {
        let slots = self.slots.lock();
        let mut files = slots.tables.values().filter_map(|slot| slot.file.as_ref());
        files.any(Watched::is_restless) || self.texts.is_restless()
    }

    /// How long until files that were changed shortly before they were opened are known to be
    /// whole, if they are not changed again.
    pub fn settle_in(&self) -> Duration {
        let slots = self.slots.lock();
        let files = slots.tables.values().filter_map(|slot| slot.file.as_ref());
        let tables = files.map(Watched::settles_in).max();
        tables.unwrap_or_default().max(self.texts.settle_in())
    }

    /// Returns true if a lookup in a table of this generation may wait, see
    /// [`LookupTable::may_block`].
    pub fn may_block(&self) -> bool {
        let slots = self.slots.lock();
        slots.in_use().any(|slot| slot.table.may_block())
    }

    /// Complaints about the lines of all open tables: file, line, what is wrong.
    pub fn warnings(&self) -> Vec<String> {
        let slots = self.slots.lock();
        let complaints = slots.tables.values().flat_map(|slot| slot.table.warnings());
        // The tables of a map share its complaints.
        let mut all: BTreeSet<String> = complaints.cloned().collect();
        drop(slots);
        let held_back = self.held_back().into_iter();
        all.extend(held_back.map(|cause| format!("{cause}; what it does not have is deferred")));
        all.into_iter().collect()
    }

    /// Begins a new generation of openings; see [`TableCache::close_unused`].
    pub fn begin_generation(&self) {
        self.slots.lock().generation += 1;
    }

    /// Closes the tables that were not opened in this generation: the configuration names them no
    /// more. Sets that were opened before keep theirs.
    pub fn close_unused(&self) {
        let mut slots = self.slots.lock();
        let Slots {
            tables,
            maps,
            generation,
        } = &mut *slots;
        tables.retain(|_, slot| slot.generation == *generation);
        maps.retain(|path| tables.values().any(|slot| slot.is_of_map(path)));
    }

    /// Recipient maps that cannot answer any key: damaged, or without the table that is asked.
    pub fn defects(&self) -> Vec<String> {
        let slots = self.slots.lock();
        let maps = slots.tables.values().filter(|s| s.name.kind() == Kind::Map);
        let failed = maps.filter_map(|slot| slot.table.lookup("").err());
        failed.map(|error| error.to_string()).collect()
    }

    /// The recipient maps that answer, as open tables see them.
    pub(crate) fn map_views(&self) -> Vec<Arc<MapView>> {
        self.slots.lock().maps.views().cloned().collect()
    }

    /// Returns the recipient maps that answer, for merging their changes.
    pub fn maps(&self) -> Vec<Arc<MapHandle>> {
        self.slots.lock().maps.handles().cloned().collect()
    }

    /// Looks at every file and reads those that changed. To be called every few hundred
    /// milliseconds, and oftener while [`TableCache::is_restless`]: a change is taken when two
    /// looks agree on it and the file does not seem to be in the middle of being written.
    pub fn refresh(&self) -> Refresh {
        self.look(false)
    }

    /// As [`TableCache::refresh`], but takes changes that one look finds, and reports what is still
    /// wrong again: for an operator who asked for it.
    pub fn refresh_now(&self) -> Refresh {
        self.look(true)
    }

    fn look(&self, at_once: bool) -> Refresh {
        let mut report = Refresh::default();
        let mut slots = self.slots.lock();
        let Slots { tables, maps, .. } = &mut *slots;
        for slot in tables.values_mut() {
            slot.look(at_once, &self.context, &mut report);
        }
        self.texts.look(
            at_once,
            &mut |path| report.reloaded.push(path.display().to_string()),
            &mut |problem| report.problems.push(problem),
        );
        let look = maps.look(at_once);
        report.problems.extend(look.problems);
        report.warnings.extend(look.warnings);
        for path in look.changed.iter().chain(&look.renewed) {
            for slot in tables.values_mut().filter(|slot| slot.is_of_map(path)) {
                // A map that is open cannot fail to be.
                if let Ok(table) = open_map(&slot.name, path, maps) {
                    slot.table = table;
                }
            }
        }
        let changed = look.changed.iter();
        let names = changed.map(|path| format!("mailstow:{}", path.display()));
        report.reloaded.extend(names);
        report.changed = !report.reloaded.is_empty() || !look.renewed.is_empty();
        report
    }
}

impl Slots {
    /// Returns the tables that were opened in this generation.
    fn in_use(&self) -> impl Iterator<Item = &Slot> {
        let tables = self.tables.values();
        tables.filter(|slot| slot.generation == self.generation)
    }

    /// Adds what holds back the files of the table called `name`, which is open, and of its
    /// members.
    fn holds_of(
        &self,
        name: &TableName,
        context: &TableContext,
        depth: usize,
        holds: &mut Vec<Arc<Hold>>,
    ) {
        let slot = self.tables.get(&*slot_key(name, context));
        if let Some(file) = slot.and_then(|slot| slot.file.as_ref()) {
            holds.push(Arc::clone(file.hold()));
        }
        let path = slot.filter(|slot| slot.name.kind() == Kind::Map);
        if let Some(hold) = path.and_then(|slot| self.maps.hold(slot.name.path()?)) {
            holds.push(Arc::clone(hold));
        }
        if depth < DEPTH_MAX {
            for member in name.members().unwrap_or_default() {
                self.holds_of(&member, context, depth + 1, holds);
            }
        }
    }
}

impl Slot {
    fn open(name: &TableName, context: &TableContext, maps: &mut Maps) -> Result<Self, OpenError> {
        let slot = |table| Self {
            name: name.clone(),
            generation: 0,
            table,
            domain: String::new(),
            lines: Vec::new(),
            file: None,
        };
        if let Some(described) = described_in_main_cf(name, context)? {
            let domain = described.domain;
            return Ok(Self {
                domain,
                ..slot(described.table)
            });
        }
        let Some(path) = name.path() else {
            return Ok(slot(unfiled(name, context)?));
        };
        if name.kind() == Kind::Map {
            return Ok(slot(open_map(name, path, maps)?));
        }
        let file = TableFile::of(name, path);
        let mut source =
            source::read(&file.path).map_err(|error| unreadable(name, &file.path, error))?;
        let hold_time = context.hold_time;
        let watched = Watched::new(&name, &mut source, file.index.is_none(), hold_time);
        let parsed = parse(name, &file, &source.bytes, context)?;
        Ok(Self {
            lines: Parsed::lines(name, &source.bytes),
            name: name.clone(),
            generation: 0,
            table: parsed.table,
            domain: parsed.domain,
            file: Some(watched),
        })
    }

    /// It is a table of the recipient map at `path`.
    fn is_of_map(&self, path: &Path) -> bool {
        self.name.kind() == Kind::Map && self.name.path() == Some(path)
    }

    fn look(&mut self, at_once: bool, context: &TableContext, report: &mut Refresh) {
        let (Some(watched), Some(path)) = (&mut self.file, self.name.path()) else {
            return;
        };
        let file = TableFile::of(&self.name, path);
        let mut reread = Reread {
            name: &self.name,
            file: &file,
            context,
            table: &*self.table,
            lines: &self.lines,
            read: None,
        };
        let look = Look {
            name: &self.name,
            path: &file.path,
            is_text: file.index.is_none(),
            at_once,
            hold_time: context.hold_time,
        };
        match watched.look(look, &mut reread) {
            Looked::Nothing => {}
            Looked::Report(problem) => report.problems.push(problem),
            Looked::Unreadable(error) => {
                let error = unreadable(&self.name, &file.path, error);
                report
                    .problems
                    .push(format!("{error}; its old contents stay in use"));
            }
            Looked::Take(boldly) => {
                let Some((parsed, lines)) = reread.read else {
                    return;
                };
                report.problems.extend(boldly);
                report.warnings.extend_from_slice(parsed.table.warnings());
                report.reloaded.push(self.name.full().to_owned());
                self.table = parsed.table;
                self.domain = parsed.domain;
                self.lines = lines;
            }
        }
    }
}

/// A table as its file is read anew.
struct Reread<'a> {
    name: &'a TableName,
    file: &'a TableFile<'a>,
    context: &'a TableContext,
    /// The contents in use.
    table: &'a dyn LookupTable,
    lines: &'a [u64],
    read: Option<(Parsed, Vec<u64>)>,
}

impl Reading for Reread<'_> {
    fn read(&mut self, source: &Source) -> (Facts, Option<String>) {
        let is_text = self.file.index.is_none();
        let of_file = Facts {
            is_cut: is_text && source.is_cut(),
            is_published: source.is_published,
            ..Facts::default()
        };
        let refused = |cause: &str| {
            Some(format!(
                "table {}: the changed file is not taken, its old contents stay in use: {cause}; \
                 correct the file",
                self.name
            ))
        };
        let parsed = match parse(self.name, self.file, &source.bytes, self.context) {
            Ok(parsed) => parsed,
            Err(error) => {
                let is_empty = source.bytes.is_empty();
                let facts = Facts {
                    had: usize::from(is_empty),
                    lost: usize::from(is_empty),
                    ..of_file
                };
                return (facts, refused(&error.to_string()));
            }
        };
        let trouble = parsed.malformed.as_deref().and_then(refused);
        let lines = Parsed::lines(self.name, &source.bytes);
        let facts = match entry_facts(self.table, &*parsed.table) {
            Some(facts) => Facts {
                is_cut: of_file.is_cut,
                is_published: of_file.is_published,
                ..facts
            },
            None => Facts {
                is_cut: of_file.is_cut,
                is_published: of_file.is_published,
                ..line_facts(self.lines, &lines)
            },
        };
        self.read = Some((parsed, lines));
        (facts, trouble)
    }
}

/// The table of a recipient map that `name` names.
fn open_map(
    name: &TableName,
    path: &Path,
    maps: &mut Maps,
) -> Result<Arc<dyn LookupTable>, OpenError> {
    let Some(table) = name.map_parts().1 else {
        return Err(OpenError::Content {
            name: name.full().to_owned(),
            cause: format!(
                "a recipient map has a table for each parameter; write {name}:TABLE, as in \
                 {name}:virtual_mailbox_maps"
            ),
        });
    };
    let state = maps.state(name, path)?;
    Ok(Arc::new(MapTable::with(state, table, name.full())))
}

/// What a table is kept under: its name, and with it the parameter that names it where that
/// changes how the table is read.
fn slot_key<'a>(name: &'a TableName, context: &TableContext) -> Cow<'a, str> {
    let is_pattern = matches!(name.kind(), Kind::Regexp | Kind::Pcre);
    match name.parameter() {
        Some(parameter) if is_pattern && substitution(name, context) != Substitution::Text => {
            Cow::Owned(format!("{name} in {parameter}"))
        }
        _ => Cow::Borrowed(name.full()),
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "hold_tests.rs"]
mod hold_tests;
