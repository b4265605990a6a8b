//! Opens the tables that a parameter lists.

use crate::config::{PathSubstitution, RoutingSettings};
use crate::sync::Arc;
use crate::table::{
    LookupTable, MailboxValues, Matching, OpenError, TableCache, TableContext, TableError,
    TableList, TableName, TableSet, words,
};
use std::os::unix::fs::MetadataExt;

/// What tables must know of the routing parameters.
pub fn table_context(settings: &RoutingSettings) -> TableContext {
    let alias_tables = words(&settings.alias_maps).filter_map(|word| {
        let name = TableName::parse(word, &settings.default_database_type).ok()?;
        Some(name.full().to_owned())
    });
    TableContext {
        recipient_delimiter: settings.recipient_delimiter.clone(),
        any_octets: !settings.smtputf8_enable,
        alias_tables: alias_tables.collect(),
        main_cf: settings.other_parameters.path.display().to_string(),
        parameters: settings.other_parameters.values.clone(),
        mailbox_values: match settings.mailbox_path_substitution {
            _ if !settings.mailbox_path.is_empty() => MailboxValues::Unused,
            PathSubstitution::Refuse => MailboxValues::Paths,
            PathSubstitution::Component => MailboxValues::PathsOfComponents,
        },
        hold_time: settings.table_hold_time,
    }
}

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

    /// The tables of `list`; when one of them cannot be opened, a table that fails every lookup.
    /// For parameters that most of the work goes on without: what needs them is deferred, the
    /// rest is not held up. Tables of type `nis:` are passed over, for they are in a default of
    /// Postfix on machines that have no NIS.
    pub(super) fn open_or_fail(&self, parameter: &str, list: &str) -> TableSet {
        let names: Vec<&str> = words(list)
            .filter(|name| !name.starts_with("nis:"))
            .collect();
        let opened = self.open(parameter, &names.join(" "));
        opened.unwrap_or_else(|error| TableSet::new(vec![Arc::new(Unopened::new(list, &error))]))
    }

    /// The names of the tables in `list` that have a file, each with the user id of its owner.
    pub(super) fn file_owners(&self, list: &str) -> Vec<(String, u32)> {
        let owner = |word: &str| {
            let name = TableName::parse(word, self.default_database_type).ok()?;
            let metadata = std::fs::metadata(name.path()?).ok()?;
            Some((name.full().to_owned(), metadata.uid()))
        };
        words(list).filter_map(owner).collect()
    }

    /// The tables of `list`, the value of `parameter`.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub(super) fn open(&self, parameter: &str, list: &str) -> Result<TableSet, OpenError> {
        let list = TableList::parse(list, self.default_database_type);
        let opened = list.and_then(|list| self.cache.open_all(&list.for_parameter(parameter)));
        opened.map_err(|error| error.in_parameter(parameter))
    }
}

/// Takes the place of tables that cannot be opened.
#[derive(Debug)]
struct Unopened {
    name: String,
    cause: String,
}

impl Unopened {
    fn new(list: &str, error: &OpenError) -> Self {
        Self {
            name: list.to_owned(),
            cause: error.to_string(),
        }
    }
}

impl LookupTable for Unopened {
    fn lookup(&self, _key: &str) -> Result<Option<String>, TableError> {
        Err(TableError::Unavailable {
            name: self.name.clone(),
            cause: self.cause.clone(),
        })
    }

    fn matching(&self) -> Matching {
        Matching::Exact
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn warnings(&self) -> &[String] {
        std::slice::from_ref(&self.cause)
    }
}
