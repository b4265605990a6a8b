//! `mailstow:`: one table of a recipient map.
//!
//! Invariant: whatever is wrong with a map, or with its expected identity, the lookup defers; "not
//! found" is said only by a map that is whole and has the table.

use crate::map::{MapError, MapView, TableId};
use crate::sync::Arc;
use crate::table::{Key, KeyInValues, LookupTable, Matching, TableError};

/// A map as tables see it.
#[derive(Clone, Debug)]
pub(in crate::table) enum MapState {
    /// It answers.
    Sound(Arc<MapView>),
    /// It could not be opened, for this reason.
    Damaged(Arc<str>),
}

/// One table of a recipient map, as it was at one moment.
#[derive(Debug)]
pub struct MapTable {
    name: String,
    /// Tables of the map, in search order, with their numbers in it.
    tables: Vec<(String, Option<TableId>)>,
    /// The map has one of them.
    is_known: bool,
    state: MapState,
    warnings: Vec<String>,
}

/// Postfix's defaults let some parameters share the tables of others; a map's tables are called
/// by their parameters, so these have a second place to look.
const DEFAULTS: [(&str, &str); 3] = [
    ("virtual_mailbox_domains", "virtual_mailbox_maps"),
    ("virtual_alias_domains", "virtual_alias_maps"),
    ("local_recipient_maps", "alias_maps"),
];

impl MapTable {
    /// `table` of `view`; `name` is what the configuration calls it. The tables
    /// `virtual_mailbox_domains`, `virtual_alias_domains` and `local_recipient_maps` are followed
    /// by the one that Postfix's default value of that parameter names.
    pub fn new(view: Arc<MapView>, table: &str, name: &str) -> Self {
        Self::with(MapState::Sound(view), table, name)
    }

    pub(in crate::table) fn with(state: MapState, table: &str, name: &str) -> Self {
        let default = DEFAULTS.iter().find(|(parameter, _)| *parameter == table);
        let names = std::iter::once(table).chain(default.map(|(_, default)| *default));
        let mut tables: Vec<(String, Option<TableId>)> =
            names.map(|name| (name.to_owned(), None)).collect();
        let mut warnings = Vec::new();
        let mut is_known = false;
        match &state {
            MapState::Sound(view) => {
                warnings.extend_from_slice(view.warnings());
                for (table, id) in &mut tables {
                    *id = view.reader().table(table);
                    is_known |= view.has_table(table);
                }
                if !is_known {
                    warnings.push(format!("table {name}: {}", missing(table, view)));
                }
            }
            MapState::Damaged(cause) => warnings.push(format!("table {name}: {cause}")),
        }
        Self {
            name: name.to_owned(),
            tables,
            is_known,
            state,
            warnings,
        }
    }

    #[cold]
    fn unavailable(&self, cause: impl ToString) -> TableError {
        TableError::Unavailable {
            name: self.name.clone(),
            cause: cause.to_string(),
        }
    }

    fn view(&self) -> Result<&MapView, TableError> {
        match &self.state {
            MapState::Sound(view) => {
                view.check_intact()
                    .map_err(|error| self.unavailable(error))?;
                Ok(view)
            }
            MapState::Damaged(cause) => Err(self.unavailable(cause)),
        }
    }
}

/// What is wrong with a map that lacks a table.
fn missing(table: &str, view: &MapView) -> String {
    let known: Vec<_> = view.tables().collect();
    format!(
        "the map has no table {table}, only: {}; build it with one",
        known.join(", ")
    )
}

impl LookupTable for MapTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        let mut value = String::new();
        let found = self.lookup_into(&Key::new(key), &mut value)?;
        Ok(found.then_some(value))
    }

    fn lookup_into<'t>(
        &'t self,
        key: &Key<'_, 't>,
        value: &mut String,
    ) -> Result<bool, TableError> {
        if let MapState::Sound(view) = &self.state
            && self.is_known
            && key.map_session().is_absent_in(view)
        {
            return Ok(false);
        }
        let view = match &self.state {
            MapState::Sound(view) => view,
            MapState::Damaged(cause) => return Err(self.unavailable(cause)),
        };
        let session = key.map_session();
        let found = session.find(view, key.folded(), key.is_brief());
        let found = found.map_err(|error| self.unavailable(error))?;
        for (table, id) in &self.tables {
            let appended = found.append_in(table, *id, value);
            if appended.map_err(|error| self.unavailable(error))? {
                return Ok(true);
            }
        }
        if self.is_known {
            return Ok(false);
        }
        let table = self.tables.first().map_or("", |(table, _)| table.as_str());
        Err(self.unavailable(missing(table, view)))
    }

    fn will_ask(&self, key: &Key<'_, '_>) {
        if let MapState::Sound(view) = &self.state {
            key.map_session().prefetch(view, key.folded());
        }
    }

    fn matching(&self) -> Matching {
        Matching::Exact
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn key_in_values(&self) -> KeyInValues {
        KeyInValues::Never
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn for_each(&self, visit: &mut dyn FnMut(&str, &str, u32)) -> bool {
        let Ok(view) = self.view() else {
            return false;
        };
        let shown = view.for_each(|table, key, value| {
            if self.tables.iter().any(|(wanted, _)| wanted == table) {
                visit(key, value, 0);
            }
            Ok::<(), MapError>(())
        });
        shown.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{BuildOptions, Change, MapBuilder, change};
    use std::path::{Path, PathBuf};

    fn built(directory: &Path, entries: &[(&str, &str, &str)]) -> PathBuf {
        let path = directory.join("recipients.map");
        let mut builder = MapBuilder::new(&path, BuildOptions::default()).unwrap();
        for (table, key, value) in entries {
            let table = builder.table(table).unwrap();
            builder.add(table, key, value).unwrap();
        }
        builder.finish().unwrap();
        path
    }

    fn table(path: &Path, table: &str) -> MapTable {
        let view = Arc::new(MapView::open(path).unwrap());
        MapTable::new(view, table, &format!("mailstow:{}:{table}", path.display()))
    }

    #[test]
    fn keys_are_folded_and_a_view_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = built(directory.path(), &[("t", "anna@example.com", "x/")]);
        let old = table(&path, "t");
        let found = |table: &MapTable| table.lookup("Anna@Example.COM").unwrap();
        assert_eq!(found(&old).as_deref(), Some("x/"));
        let unset = Change::Unset {
            table: "t".into(),
            key: "anna@example.com".into(),
        };
        change(&path, &[unset]).unwrap();
        assert_eq!(found(&old).as_deref(), Some("x/"));
        assert_eq!(found(&table(&path, "t")), None);
    }

    #[test]
    fn an_empty_value_is_an_answer_that_searches_refuse() {
        let directory = tempfile::tempdir().unwrap();
        let path = built(directory.path(), &[("t", "empty", "")]);
        let table: Arc<dyn LookupTable> = Arc::new(table(&path, "t"));
        let set = crate::table::TableSet::new(vec![table]);
        let searched = set.lookup("empty", false);
        assert!(matches!(searched, Err(TableError::EmptyValue { .. })));
        assert_eq!(set.query("empty").unwrap().unwrap().0, "");
    }

    #[test]
    fn a_table_that_the_map_lacks_is_an_error_and_not_an_empty_table() {
        let directory = tempfile::tempdir().unwrap();
        let path = built(directory.path(), &[("t", "k", "v")]);
        let other = table(&path, "other");
        let error = other.lookup("k").unwrap_err().to_string();
        assert!(error.contains("no table other, only: t"), "{error}");
        assert_eq!(other.warnings().len(), 1);
    }

    #[test]
    fn lists_of_domains_also_find_what_postfixs_defaults_would() {
        let directory = tempfile::tempdir().unwrap();
        let entries = [
            ("virtual_mailbox_maps", "vm.example", "domain"),
            ("virtual_mailbox_maps", "u@vm.example", "u/"),
        ];
        let path = built(directory.path(), &entries);
        let domains = table(&path, "virtual_mailbox_domains");
        assert!(domains.lookup("VM.example").unwrap().is_some());
        assert_eq!(domains.lookup("other.example").unwrap(), None);
        assert!(domains.warnings().is_empty());
    }

    #[test]
    fn a_map_that_is_overwritten_while_in_use_defers() {
        let directory = tempfile::tempdir().unwrap();
        let path = built(directory.path(), &[("t", "k", "v")]);
        let table = table(&path, "t");
        assert_eq!(table.lookup("k").unwrap().as_deref(), Some("v"));
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(100).unwrap();
        // The file is looked at once in a tick of the kernel's clock.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let MapState::Sound(view) = &table.state else {
            panic!("it was opened");
        };
        while view.check_intact().is_ok() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(table.lookup("k").is_err() && table.lookup("x").is_err());
        assert!(!table.for_each(&mut |_, _, _| {}));
    }

    #[test]
    fn all_entries_of_the_table_are_listed_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let entries = [("t", "a", "1"), ("t", "b", "2"), ("other", "a", "3")];
        let path = built(directory.path(), &entries);
        let mut seen = Vec::new();
        assert!(
            table(&path, "t").for_each(&mut |key, value, _| seen.push(format!("{key}{value}")))
        );
        seen.sort_unstable();
        assert_eq!(seen, ["a1", "b2"]);
    }
}
