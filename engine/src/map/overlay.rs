//! The changes of a change log, in memory, ready to be asked before the map itself.
//!
//! Invariant: the last change of a key in a table counts.

use std::collections::HashMap;

use super::changes::Change;

/// What one key became in each table that was changed: `None` if it was removed.
pub(super) type Changed = Vec<(usize, Option<Box<str>>)>;

/// All changes since the map was built.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay {
    tables: Vec<Box<str>>,
    keys: HashMap<Box<str>, Changed>,
}

impl Overlay {
    pub(super) fn new(changes: &[Change]) -> Self {
        let mut overlay = Self::default();
        for change in changes {
            let (table, key, value) = change.parts();
            overlay.apply(table, key, value);
        }
        overlay
    }

    fn apply(&mut self, table: &str, key: &str, value: Option<&str>) {
        let number = self.table(table).unwrap_or_else(|| {
            self.tables.push(table.into());
            self.tables.len() - 1
        });
        let value = value.map(Box::from);
        let changed = self.keys.entry(key.into()).or_default();
        match changed.iter_mut().find(|(table, _)| *table == number) {
            Some(old) => old.1 = value,
            None => changed.push((number, value)),
        }
        debug_assert!(
            changed.len() <= self.tables.len(),
            "one change for each table"
        );
    }

    fn table(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|table| **table == *name)
    }

    /// Whether there is nothing to ask: the usual case, and cheap.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Number of changed values.
    pub(super) fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    pub(super) fn tables(&self) -> &[Box<str>] {
        &self.tables
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &Changed)> {
        self.keys.iter().map(|(key, changed)| (&**key, changed))
    }

    /// The changes of `key`, and the key as it is stored here.
    pub(super) fn entry(&self, key: &str) -> Option<(&str, &Changed)> {
        self.keys
            .get_key_value(key)
            .map(|(key, changed)| (&**key, changed))
    }

    pub(super) fn changed(&self, key: &str) -> Option<&Changed> {
        self.keys.get(key)
    }

    /// `None`: not changed. `Some(None)`: removed.
    pub(super) fn value(&self, table: &str, key: &str) -> Option<Option<&str>> {
        self.value_of(table, self.changed(key)?)
    }

    pub(super) fn value_of<'a>(
        &self,
        table: &str,
        changed: &'a Changed,
    ) -> Option<Option<&'a str>> {
        let number = self.table(table)?;
        changed
            .iter()
            .find(|(table, _)| *table == number)
            .map(|(_, value)| value.as_deref())
    }
}
