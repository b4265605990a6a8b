//! Opens the tables that a parameter lists.
//!
//! Imports `table`.

use crate::table::{OpenError, TableCache, TableList, TableName, TableSet};

/// The cache together with the type of tables that are named by a path alone.
#[derive(Debug)]
pub(super) struct Opener<'a> {
    /// The open tables.
    pub(super) cache: &'a TableCache,
    /// `default_database_type`
    pub(super) default_database_type: &'a str,
}

impl Opener<'_> {
    /// A table that makes paths from addresses.
    ///
    /// # Errors
    /// The template is written wrongly.
    pub(super) fn template(&self, template: &str) -> Result<TableSet, OpenError> {
        let name = TableName::parse(&format!("template:{template}"), self.default_database_type)?;
        self.cache.open_all(&TableList::from_iter([name]))
    }

    /// The tables of `list`.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub(super) fn open(&self, list: &str) -> Result<TableSet, OpenError> {
        self.cache
            .open_all(&TableList::parse(list, self.default_database_type)?)
    }
}
