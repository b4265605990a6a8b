//! Opened tables, shared by name, and how changed files get in.
//!
//! Imports `clock`, `map`, `sync`. A file is taken whole or not at all: at start lines that Postfix
//! would skip are skipped with a warning, but a file that changes later and has such lines is
//! not taken, the old contents go on answering and the trouble is reported once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::compound::CompoundTable;
use super::list::Kind;
use super::map_table::MapTable;
use super::maps::Maps;
use super::open::{
    Parsed, Surroundings, TableFile, described_in_main_cf, parse, substitution, unfiled, unreadable,
};
use super::restricted::RestrictedTable;
use super::source::{self, Source, Stamp};
use super::substitution::{MailboxValues, Substitution};
use super::{LookupTable, OpenError, TableList, TableName, TableSet};
use crate::clock;
use crate::map::{MapHandle, MapView};
use crate::sync::{Arc, Mutex};

/// Tables within tables within tables ...
const DEPTH_MAX: usize = 8;

/// What tables must know of the configuration.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TableContext {
    /// `recipient_delimiter`, for `template:` tables.
    pub recipient_delimiter: String,
    /// Tables may hold any octets (`smtputf8_enable = no`); else lines that are not UTF-8 are
    /// skipped.
    pub any_octets: bool,
    /// Names (`type:name`) of the tables in `alias_maps`: the text of those that Postfix has
    /// indexed is that of an alias file, whoever looks into them.
    pub alias_tables: Vec<String>,
    /// Where the parameters of database tables that have no file stand.
    pub main_cf: String,
    /// Name, value and line of these, and perhaps of others.
    pub parameters: Vec<(String, String, usize)>,
    /// What the results of `virtual_mailbox_maps` are used for, which decides what `$1` may stand
    /// for in them.
    pub mailbox_values: MailboxValues,
}

/// Says nothing of the values of parameters: there are passwords among them.
impl fmt::Debug for TableContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableContext")
            .field("recipient_delimiter", &self.recipient_delimiter)
            .field("alias_tables", &self.alias_tables)
            .field("mailbox_values", &self.mailbox_values)
            .finish_non_exhaustive()
    }
}

/// Opens tables, one per name however often it is configured, and reads their files anew when
/// they change. May be used from any thread; lookups go through [`TableSet`] and never wait for
/// it.
#[derive(Debug, Default)]
pub struct TableCache {
    surroundings: Surroundings,
    slots: Mutex<Slots>,
}

/// Open tables by their keys (see [`slot_key`]), and the maps that some of them are parts of.
#[derive(Debug, Default)]
struct Slots {
    tables: BTreeMap<String, Slot>,
    maps: Maps,
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

#[derive(Debug)]
struct Slot {
    name: TableName,
    table: Arc<dyn LookupTable>,
    /// When not empty, only addresses in these domains are to be looked up.
    domain: String,
    file: Option<Watched>,
}

/// What we know of the file behind a table.
#[derive(Debug)]
struct Watched {
    stamp: Stamp,
    digest: u64,
    look_again_at: Option<Duration>,
    /// What the last look saw, when that was not `stamp`.
    candidate: Option<Sight>,
    /// What could not be taken, and was reported.
    reported: Option<Sight>,
}

impl Watched {
    fn new(source: &Source) -> Self {
        Self {
            stamp: source.stamp,
            digest: source.digest,
            look_again_at: source.look_again_at,
            candidate: None,
            reported: None,
        }
    }
}

/// What a look at a path finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    File(Stamp),
    Nothing(std::io::ErrorKind),
}

impl Sight {
    fn of(path: &Path) -> Self {
        match Stamp::of(path) {
            Ok(stamp) => Self::File(stamp),
            Err(error) => Self::Nothing(error.kind()),
        }
    }
}

impl TableCache {
    /// An empty cache.
    pub fn new(context: TableContext) -> Self {
        Self {
            surroundings: Surroundings {
                context,
                ..Surroundings::default()
            },
            slots: Mutex::default(),
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
        for name in list.names() {
            tables.push(self.open(name, &mut slots, 0)?);
        }
        Ok(TableSet::new(tables))
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
                cause: "tables within tables go too deep; is one its own member?".to_owned(),
            });
        }
        if let Kind::Compound(joint) = name.kind() {
            let mut members = Vec::new();
            for member in name.members()? {
                members.push(self.open(&member, slots, depth + 1)?);
            }
            return Ok(Arc::new(CompoundTable::new(name.full(), joint, members)));
        }
        let key = slot_key(name, &self.surroundings.context);
        if !slots.tables.contains_key(key.as_ref()) {
            let slot = Slot::open(name, &self.surroundings, &mut slots.maps)?;
            slots.tables.insert(key.clone().into_owned(), slot);
        }
        let Some(slot) = slots.tables.get(key.as_ref()) else {
            return Err(OpenError::Content {
                name: name.full().to_owned(),
                cause: "it was closed while it was opened; try again".to_owned(),
            });
        };
        let (table, domain) = (Arc::clone(&slot.table), slot.domain.clone());
        if domain.is_empty() {
            return Ok(table);
        }
        let restricted = RestrictedTable::new(table, &domain, |member| {
            let member = TableName::parse(member, "hash")?;
            self.open(&member, slots, depth + 1)
        })?;
        Ok(Arc::new(restricted))
    }

    /// Some open table may keep whoever asks it waiting, see [`LookupTable::may_block`].
    pub fn may_block(&self) -> bool {
        let slots = self.slots.lock();
        slots.tables.values().any(|slot| slot.table.may_block())
    }

    /// Complaints about the lines of all open tables: file, line, what is wrong.
    pub fn warnings(&self) -> Vec<String> {
        let slots = self.slots.lock();
        let complaints = slots.tables.values().flat_map(|slot| slot.table.warnings());
        // The tables of a map share its complaints.
        complaints
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Forgets tables that none of `lists` names, after the configuration changed.
    pub fn retain(&self, lists: &[&TableList]) {
        let mut slots = self.slots.lock();
        let Slots { tables, maps } = &mut *slots;
        let context = &self.surroundings.context;
        tables.retain(|key, _| {
            let mut names = lists.iter().flat_map(|list| list.names());
            names.any(|name| is_or_has(name, key, context, 0))
        });
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

    /// The recipient maps that answer, for whoever merges their changes.
    pub fn maps(&self) -> Vec<Arc<MapHandle>> {
        self.slots.lock().maps.handles().cloned().collect()
    }

    /// Looks at every file and reads those that changed. To be called every few hundred
    /// milliseconds: a change is taken when two looks agree on it, so that a file in the middle
    /// of being written is left alone.
    pub fn refresh(&self) -> Refresh {
        self.look(false)
    }

    /// As [`TableCache::refresh`], but takes changes at once, and reports what is still wrong
    /// again: for an operator who asked for it.
    pub fn refresh_now(&self) -> Refresh {
        self.look(true)
    }

    fn look(&self, at_once: bool) -> Refresh {
        let mut report = Refresh::default();
        let mut slots = self.slots.lock();
        let Slots { tables, maps } = &mut *slots;
        for slot in tables.values_mut() {
            slot.look(at_once, &self.surroundings, &mut report);
        }
        let look = maps.look(at_once);
        report.problems.extend(look.problems);
        report.warnings.extend(look.warnings);
        for path in look.changed {
            for slot in tables.values_mut().filter(|slot| slot.is_of_map(&path)) {
                // A map that is open cannot fail to be.
                if let Ok(table) = open_map(&slot.name, &path, maps) {
                    slot.table = table;
                }
            }
            report.reloaded.push(format!("mailstow:{}", path.display()));
        }
        report.changed = !report.reloaded.is_empty();
        report
    }
}

impl Slot {
    fn open(
        name: &TableName,
        surroundings: &Surroundings,
        maps: &mut Maps,
    ) -> Result<Self, OpenError> {
        let slot = |table| Self {
            name: name.clone(),
            table,
            domain: String::new(),
            file: None,
        };
        if let Some(described) = described_in_main_cf(name, surroundings)? {
            let domain = described.domain;
            return Ok(Self {
                domain,
                ..slot(described.table)
            });
        }
        let Some(path) = name.path() else {
            return Ok(slot(unfiled(name, surroundings)?));
        };
        if name.kind() == Kind::Map {
            return Ok(slot(open_map(name, path, maps)?));
        }
        let file = TableFile::of(name, path);
        let source =
            source::read(&file.path).map_err(|error| unreadable(name, &file.path, error))?;
        let parsed = parse(name, &file, &source.bytes, surroundings)?;
        Ok(Self {
            name: name.clone(),
            table: parsed.table,
            domain: parsed.domain,
            file: Some(Watched::new(&source)),
        })
    }

    /// It is a table of the recipient map at `path`.
    fn is_of_map(&self, path: &Path) -> bool {
        self.name.kind() == Kind::Map && self.name.path() == Some(path)
    }

    fn look(&mut self, at_once: bool, surroundings: &Surroundings, report: &mut Refresh) {
        let (Some(watched), Some(path)) = (&mut self.file, self.name.path()) else {
            return;
        };
        let file = TableFile::of(&self.name, path);
        let sight = Sight::of(&file.path);
        if sight == Sight::File(watched.stamp) {
            watched.candidate = None;
            watched.reported = None;
            let due = |at: Duration| clock::since_epoch() >= at;
            if !watched.look_again_at.is_some_and(due) {
                return;
            }
        } else if watched.reported == Some(sight) && !at_once {
            return;
        } else if watched.candidate != Some(sight) && !at_once {
            watched.candidate = Some(sight);
            return;
        }
        match source::read(&file.path) {
            Ok(source) if watched.digest == source.digest => *watched = Watched::new(&source),
            Ok(source) => {
                let parsed = parse(&self.name, &file, &source.bytes, surroundings);
                self.take(&source, parsed, report);
            }
            Err(error) => {
                let error = unreadable(&self.name, &file.path, error);
                report
                    .problems
                    .push(format!("{error}; its old contents stay in use"));
                watched.reported = Some(sight);
            }
        }
    }

    /// Puts what was read in place of the old contents, unless that would lose lines.
    fn take(&mut self, source: &Source, parsed: Result<Parsed, OpenError>, report: &mut Refresh) {
        let Some(watched) = &mut self.file else {
            return;
        };
        let cause = match parsed {
            Ok(parsed) if parsed.malformed.is_none() => {
                report.warnings.extend_from_slice(parsed.table.warnings());
                report.reloaded.push(self.name.full().to_owned());
                self.table = parsed.table;
                self.domain = parsed.domain;
                *watched = Watched::new(source);
                return;
            }
            Ok(parsed) => parsed.malformed.unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        report.problems.push(format!(
            "table {}: the changed file is not taken, its old contents stay in use: {cause}; \
             correct the file",
            self.name
        ));
        watched.reported = Some(Sight::File(source.stamp));
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

/// Whether `name` is the table kept under `key`, or has it as a member.
fn is_or_has(name: &TableName, key: &str, context: &TableContext, depth: usize) -> bool {
    let members = || name.members().unwrap_or_default();
    slot_key(name, context) == key
        || (depth < DEPTH_MAX
            && members()
                .iter()
                .any(|member| is_or_has(member, key, context, depth + 1)))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
