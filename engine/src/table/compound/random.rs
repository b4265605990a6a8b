//! `randmap:`: one of a few answers by chance. Source: Postfix DATABASE_README.

use crate::table::braces::members;
use crate::table::chance::below;
use crate::table::{KeyInValues, LookupTable, Matching, OpenError, TableError};

/// `randmap:{value, ...}`: one of the values by chance, whatever the key.
#[derive(Debug)]
pub(in crate::table) struct RandomTable {
    name: String,
    values: Vec<String>,
}

impl RandomTable {
    /// Opens the table called `name`, whose text (`{...}`) is `text`.
    ///
    /// # Errors
    /// The braces do not match, or there is no value.
    pub(in crate::table) fn open(name: &str, text: &str) -> Result<Self, OpenError> {
        let values = members(name, text)?.into_iter().map(str::to_owned);
        Ok(Self {
            name: name.to_owned(),
            values: values.collect(),
        })
    }
}

impl LookupTable for RandomTable {
    fn lookup(&self, _key: &str) -> Result<Option<String>, TableError> {
        Ok(self.values.get(below(self.values.len())).cloned())
    }

    /// Asked the full address only: every key would find something.
    fn matching(&self) -> Matching {
        Matching::Pattern
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn key_in_values(&self) -> KeyInValues {
        KeyInValues::Never
    }
}
