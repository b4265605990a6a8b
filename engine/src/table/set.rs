//! The tables of one list, opened: an immutable snapshot.
//!
//! Source: Postfix's multi-table search (one key in all tables, in order).

use super::watch::watched::Hold;
use super::{Key, LookupTable, Matching, TableError};
use crate::sync::Arc;

/// Opened tables in search order. Cheap to clone; what it answers never changes (tables that
/// were read anew are in a new set).
#[derive(Clone, Debug, Default)]
pub struct TableSet {
    tables: Arc<[Arc<dyn LookupTable>]>,
    /// Some of them are not asked for partial keys.
    has_patterns: bool,
    /// What holds back the tables' files.
    holds: Arc<[Arc<Hold>]>,
}

impl TableSet {
    /// A set of `tables` in search order.
    pub fn new(tables: Vec<Arc<dyn LookupTable>>) -> Self {
        Self {
            has_patterns: tables
                .iter()
                .any(|table| table.matching() != Matching::Exact),
            tables: tables.into(),
            holds: Arc::default(),
        }
    }

    /// The same set, of tables whose files these hold back.
    pub(super) fn with_holds(self, holds: Vec<Arc<Hold>>) -> Self {
        Self {
            holds: holds.into(),
            ..self
        }
    }

    /// What is not found may be found soon: the error to be given in place of "not found".
    pub(crate) fn unsettled(&self) -> Option<TableError> {
        TableError::unsettled(&self.holds)
    }

    /// The tables, in search order.
    pub fn tables(&self) -> impl ExactSizeIterator<Item = &dyn LookupTable> {
        self.tables.iter().map(AsRef::as_ref)
    }

    /// No table at all: every search finds nothing.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Returns true if a lookup in some table may wait, see [`LookupTable::may_block`].
    pub fn may_block(&self) -> bool {
        self.tables().any(LookupTable::may_block)
    }

    /// Asks every table for `key`, in order, until one has it; the answer names that table. A
    /// `partial` key (one that is not the whole address, such as `@domain`) is not asked of
    /// tables of patterns. An empty key is in no table.
    ///
    /// # Errors
    /// The first table that fails ends the search: what a later table would have said must not
    /// hide that this one might have known better. An empty value is an error too.
    pub fn lookup(
        &self,
        key: &str,
        partial: bool,
    ) -> Result<Option<(String, &dyn LookupTable)>, TableError> {
        self.lookup_key(&Key::new(key), partial)
    }

    /// As [`TableSet::lookup`], for a key that is asked of several sets.
    ///
    /// # Errors
    /// As [`TableSet::lookup`].
    pub fn lookup_key<'t>(
        &'t self,
        key: &Key<'_, 't>,
        partial: bool,
    ) -> Result<Option<(String, &'t dyn LookupTable)>, TableError> {
        let mut value = String::new();
        let found = self.lookup_into(key, partial, &mut value)?;
        Ok(found.map(|table| (value, table)))
    }

    /// As [`TableSet::lookup_key`], with a buffer: appends the value to `value` and returns the
    /// table that has it.
    ///
    /// # Errors
    /// As [`TableSet::lookup`]; `value` may then have grown.
    #[inline]
    pub fn lookup_into<'t>(
        &'t self,
        key: &Key<'_, 't>,
        partial: bool,
        value: &mut String,
    ) -> Result<Option<&'t dyn LookupTable>, TableError> {
        if key.text().is_empty() {
            return Ok(None);
        }
        let (start, skips) = (value.len(), partial && self.has_patterns);
        for table in self.tables() {
            if skips && table.matching() != Matching::Exact {
                continue;
            }
            if table.lookup_into(key, value)? {
                if value.len() == start {
                    return Err(TableError::EmptyValue {
                        name: table.name().to_owned(),
                        key: key.text().to_owned(),
                    });
                }
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    /// Tells all tables that they are about to be asked for `key`.
    pub(crate) fn will_ask(&self, key: &Key<'_, '_>) {
        self.tables().for_each(|table| table.will_ask(key));
    }

    /// Answers as `postmap -q` does: all tables are asked whatever the key, and an empty value
    /// is an answer (to be warned about).
    ///
    /// # Errors
    /// The first table that fails ends the search.
    pub fn query(&self, key: &str) -> Result<Option<(String, &dyn LookupTable)>, TableError> {
        for table in self.tables() {
            if let Some(value) = table.lookup(key)? {
                return Ok(Some((value, table)));
            }
        }
        Ok(None)
    }

    /// Complaints of all tables, found while they were read.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.tables()
            .flat_map(|table| table.warnings().iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TableCache, TableContext, TableError, TableList};
    use super::*;

    fn set(list: &str) -> TableSet {
        let list = TableList::parse(list, "hash").unwrap();
        TableCache::new(TableContext::default())
            .open_all(&list)
            .unwrap()
    }

    fn found(set: &TableSet, key: &str, partial: bool) -> Option<(String, String)> {
        let found = set.lookup(key, partial).unwrap();
        found.map(|(value, table)| (value, table.name().to_owned()))
    }

    #[test]
    fn tables_are_asked_in_order_and_the_answer_names_its_table() {
        let set = set("inline:{a=1} inline:{a=2,b=3} static:4");
        let pair = |v: &str, t: &str| Some((v.to_owned(), t.to_owned()));
        assert_eq!(found(&set, "a", false), pair("1", "inline:{a=1}"));
        assert_eq!(found(&set, "B", false), pair("3", "inline:{a=2,b=3}"));
        assert_eq!(found(&set, "c", false), pair("4", "static:4"));
        assert_eq!(found(&set, "", false), None);
    }

    #[test]
    fn partial_keys_skip_tables_of_patterns() {
        let set = set("pcre:{{/./ pattern}} static:fixed");
        assert_eq!(found(&set, "u@d", false).unwrap().0, "pattern");
        assert_eq!(found(&set, "@d", true).unwrap().0, "fixed");
    }

    #[test]
    fn an_error_ends_the_search_and_is_never_not_found() {
        let set = set("inline:{a=1} fail:x static:4");
        assert_eq!(found(&set, "a", false).unwrap().0, "1");
        assert!(matches!(
            set.lookup("b", false),
            Err(TableError::Unavailable { .. })
        ));
        assert!(matches!(
            set.lookup("@b", true),
            Err(TableError::Unavailable { .. })
        ));
    }

    #[test]
    fn an_empty_value_is_an_error_for_a_search_and_an_answer_for_a_query() {
        let set = set("inline:{a=} static:4");
        assert!(matches!(
            set.lookup("a", false),
            Err(TableError::EmptyValue { .. })
        ));
        assert_eq!(set.query("a").unwrap().unwrap().0, "");
        assert_eq!(set.query("").unwrap().unwrap().0, "4");
    }

    #[test]
    fn a_set_without_tables_finds_nothing() {
        assert!(set("").is_empty());
        assert_eq!(found(&set(""), "a", false), None);
    }
}
