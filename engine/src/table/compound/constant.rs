//! `static:VALUE`, the same answer for every key, and `fail:TEXT`, an error for every key.
//!
//! Source: Postfix DATABASE_README, "static" and "fail".

use crate::table::braces::inside;
use crate::table::{Key, KeyInValues, LookupTable, Matching, OpenError, TableError};

/// `static:VALUE`
#[derive(Debug)]
pub(in crate::table) struct StaticTable {
    name: String,
    value: String,
}

impl StaticTable {
    /// Opens the table called `name` that always answers `text`, braces around it removed.
    ///
    /// # Errors
    /// The braces do not match, or the value is empty and so could never be an answer.
    pub(in crate::table) fn open(name: &str, text: &str) -> Result<Self, OpenError> {
        let content = |cause: String| OpenError::Content {
            name: name.to_owned(),
            cause,
        };
        let value = if text.starts_with('{') {
            inside(text).map_err(content)?
        } else {
            text
        };
        if value.is_empty() {
            return Err(content("the value is empty; write static:VALUE".to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl LookupTable for StaticTable {
    fn lookup(&self, _key: &str) -> Result<Option<String>, TableError> {
        Ok(Some(self.value.clone()))
    }

    fn lookup_into<'t>(
        &'t self,
        _key: &Key<'_, 't>,
        value: &mut String,
    ) -> Result<bool, TableError> {
        value.push_str(&self.value);
        Ok(true)
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
}

/// `fail:TEXT`
#[derive(Debug)]
pub(in crate::table) struct FailTable {
    name: String,
}

impl FailTable {
    /// Opens the table called `name`.
    pub(in crate::table) fn open(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }
}

impl LookupTable for FailTable {
    fn lookup(&self, _key: &str) -> Result<Option<String>, TableError> {
        Err(TableError::Unavailable {
            name: self.name.clone(),
            cause: "a table of type \"fail\" always fails".to_owned(),
        })
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_table_answers_every_key() {
        let t = StaticTable::open("static:5000", "5000").unwrap();
        assert_eq!(t.lookup("").unwrap().as_deref(), Some("5000"));
        assert_eq!(t.lookup("@d").unwrap().as_deref(), Some("5000"));
        assert_eq!(t.matching(), Matching::Exact);
        let t = StaticTable::open("static:{ a b }", "{ a b }").unwrap();
        assert_eq!(t.lookup("x").unwrap().as_deref(), Some("a b"));
    }

    #[test]
    fn a_static_table_without_a_value_does_not_open() {
        assert!(StaticTable::open("static:{}", "{}").is_err());
        assert!(StaticTable::open("static:{a", "{a").is_err());
    }

    #[test]
    fn a_fail_table_always_fails() {
        assert!(FailTable::open("fail:x").lookup("k").is_err());
    }
}
