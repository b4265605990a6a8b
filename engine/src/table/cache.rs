//! Opened tables, shared by name, and how changed files get in.
//!
//! Imports `clock`, `sync`. A file is taken whole or not at all: at start lines that Postfix
//! would skip are skipped with a warning, but a file that changes later and has such lines is
//! not taken, the old contents go on answering and the trouble is reported once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::constant::{FailTable, StaticTable};
use super::inline::InlineTable;
use super::list::Kind;
use super::rule_parser::Flavor;
use super::rules::RuleTable;
use super::source::{self, Source, Stamp};
use super::template::TemplateTable;
use super::text::{LineForm, TextTable};
use super::unix::UnixTable;
use super::{LookupTable, OpenError, TableList, TableName, TableSet};
use crate::clock;
use crate::sync::{Arc, Mutex};

/// What tables must know of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableContext {
    /// `recipient_delimiter`, for `template:` tables.
    pub recipient_delimiter: String,
    /// Names (`type:name`) of the tables in `alias_maps`: the text of those that Postfix has
    /// indexed is that of an alias file, whoever looks into them.
    pub alias_tables: Vec<String>,
}

/// Opens tables, one per name however often it is configured, and reads their files anew when
/// they change. May be used from any thread; lookups go through [`TableSet`] and never wait for
/// it.
#[derive(Debug, Default)]
pub struct TableCache {
    context: TableContext,
    slots: Mutex<BTreeMap<String, Slot>>,
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
            context,
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
            let table = match slots.get(name.full()) {
                Some(slot) => Arc::clone(&slot.table),
                None => {
                    let slot = Slot::open(name, &self.context)?;
                    let table = Arc::clone(&slot.table);
                    slots.insert(name.full().to_owned(), slot);
                    table
                }
            };
            tables.push(table);
        }
        Ok(TableSet::new(tables))
    }

    /// Complaints about the lines of all open tables: file, line, what is wrong.
    pub fn warnings(&self) -> Vec<String> {
        let slots = self.slots.lock();
        let complaints = slots.values().flat_map(|slot| slot.table.warnings());
        complaints.cloned().collect()
    }

    /// Forgets tables that none of `lists` names, after the configuration changed.
    pub fn retain(&self, lists: &[&TableList]) {
        let mut slots = self.slots.lock();
        slots.retain(|full, _| {
            let mut names = lists.iter().flat_map(|list| list.names());
            names.any(|name| name.full() == full)
        });
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
        for slot in self.slots.lock().values_mut() {
            slot.look(at_once, &self.context, &mut report);
        }
        report.changed = !report.reloaded.is_empty();
        report
    }
}

impl Slot {
    fn open(name: &TableName, context: &TableContext) -> Result<Self, OpenError> {
        let Some(path) = name.path() else {
            return Ok(Self {
                name: name.clone(),
                table: open_unfiled(name, context)?,
                file: None,
            });
        };
        let source = source::read(path).map_err(|error| unreadable(name, path, error))?;
        let (table, _malformed) = parse(name, path, context, &source.bytes);
        Ok(Self {
            name: name.clone(),
            table,
            file: Some(Watched::new(&source)),
        })
    }

    fn look(&mut self, at_once: bool, context: &TableContext, report: &mut Refresh) {
        let (Some(watched), Some(path)) = (&mut self.file, self.name.path()) else {
            return;
        };
        let sight = Sight::of(path);
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
        match source::read(path) {
            Ok(source) => self.take(&source, context, report),
            Err(error) => {
                let error = unreadable(&self.name, path, error);
                report
                    .problems
                    .push(format!("{error}; its old contents stay in use"));
                watched.reported = Some(sight);
            }
        }
    }

    /// Puts what was read in place of the old contents, unless that would lose lines.
    fn take(&mut self, source: &Source, context: &TableContext, report: &mut Refresh) {
        let (Some(watched), Some(path)) = (&mut self.file, self.name.path()) else {
            return;
        };
        if watched.digest == source.digest {
            *watched = Watched::new(source);
            return;
        }
        let (table, malformed) = parse(&self.name, path, context, &source.bytes);
        if let Some(cause) = malformed {
            report.problems.push(format!(
                "table {}: the changed file is not taken, its old contents stay in use: {cause}; \
                 correct the file",
                self.name
            ));
            watched.reported = Some(Sight::File(source.stamp));
            return;
        }
        report.warnings.extend_from_slice(table.warnings());
        report.reloaded.push(self.name.full().to_owned());
        self.table = table;
        *watched = Watched::new(source);
    }
}

/// Opens a table that has no file.
fn open_unfiled(
    name: &TableName,
    context: &TableContext,
) -> Result<Arc<dyn LookupTable>, OpenError> {
    let (full, text) = (name.full(), name.name());
    Ok(match name.kind() {
        Kind::Static => Arc::new(StaticTable::open(full, text)?),
        Kind::Inline => Arc::new(InlineTable::open(full, text)?),
        Kind::Fail => Arc::new(FailTable::open(full)),
        Kind::Unix => Arc::new(UnixTable::open(full, text)?),
        Kind::Template => {
            let delimiter = &context.recipient_delimiter;
            Arc::new(TemplateTable::open(full, text, delimiter)?)
        }
        Kind::Pcre => Arc::new(RuleTable::open_inline(full, Flavor::Perl, text)?),
        Kind::Regexp => Arc::new(RuleTable::open_inline(full, Flavor::Posix, text)?),
        // Text tables always have a file; should that change, an empty table is not the answer.
        Kind::Text => {
            return Err(OpenError::Content {
                name: full.to_owned(),
                cause: "a table of this type needs a file; write type:/path".to_owned(),
            });
        }
    })
}

/// Reads a table from the bytes of its file; says what is malformed.
fn parse(
    name: &TableName,
    path: &Path,
    context: &TableContext,
    bytes: &[u8],
) -> (Arc<dyn LookupTable>, Option<String>) {
    let source = path.display().to_string();
    let is_alias_file = context.alias_tables.iter().any(|n| n == name.full()) && name.is_indexed();
    let form = if is_alias_file {
        LineForm::Alias
    } else {
        LineForm::KeyValue
    };
    let rules = |flavor| {
        let (table, malformed) = RuleTable::parse(name.full(), &source, flavor, bytes);
        (Arc::new(table) as Arc<dyn LookupTable>, malformed)
    };
    match name.kind() {
        Kind::Pcre => rules(Flavor::Perl),
        Kind::Regexp => rules(Flavor::Posix),
        Kind::Text | Kind::Static | Kind::Inline | Kind::Fail | Kind::Template | Kind::Unix => {
            let (table, malformed) = TextTable::parse(name.full(), &source, form, bytes);
            (Arc::new(table), malformed)
        }
    }
}

fn unreadable(name: &TableName, path: &Path, error: std::io::Error) -> OpenError {
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound => {
            "create it (mailstow reads the text that postmap reads, not its index)"
        }
        std::io::ErrorKind::PermissionDenied => "let the user mailstow runs as read it",
        _ => "name a readable text file",
    };
    OpenError::Read {
        name: name.full().to_owned(),
        path: path.display().to_string(),
        source: error,
        remedy,
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
