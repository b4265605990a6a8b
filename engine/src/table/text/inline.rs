//! `inline:{ key=value, { key = value with blanks } }`: a table in the configuration itself.
//!
//! Source: Postfix DATABASE_README, "inline".

use super::problems::Problems;
use super::text_table::{Entries, Rejected};
use crate::address::fold_case;
use crate::table::braces::{inside, name_value, words};
use crate::table::{KeyInValues, LookupTable, Matching, OpenError, TableError};

/// A table of whole keys given in its name.
pub(in crate::table) struct InlineTable {
    name: String,
    entries: Entries,
    warnings: Vec<String>,
}

impl InlineTable {
    /// Opens the table called `name`, whose text (`{...}`) is `text`.
    ///
    /// # Errors
    /// The braces do not match, an entry is not `key=value`, or there is none.
    pub(in crate::table) fn open(name: &str, text: &str) -> Result<Self, OpenError> {
        let bad = |cause: String| OpenError::Content {
            name: name.to_owned(),
            cause: format!("{cause}; write inline:{{key=value, {{key = a value}}}}"),
        };
        let list = inside(text).map_err(bad)?;
        let mut pairs = Vec::new();
        for word in words(list) {
            let pair = if word.starts_with('{') {
                inside(word).map_err(bad)?
            } else {
                word
            };
            let pair = name_value(pair).map_err(|cause| bad(format!("{cause} in \"{word}\"")))?;
            pairs.push(pair);
        }
        if pairs.is_empty() {
            return Err(bad("the table is empty".to_owned()));
        }
        let mut entries = Entries::default();
        let mut problems = Problems::new(name);
        // Here, unlike in a file, the last of two equal keys wins, as in Postfix.
        for (number, &(key, value)) in pairs.iter().enumerate().rev() {
            if let Err(Rejected::Duplicate { first }) =
                entries.insert(&fold_case(key), value, number + 1)
            {
                let text = format!("\"{key}\" is overridden by entry {first}");
                problems.notice(number + 1, &text);
            }
        }
        Ok(Self {
            name: name.to_owned(),
            entries,
            warnings: problems.finish().warnings,
        })
    }
}

impl LookupTable for InlineTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        Ok(self.entries.get(&fold_case(key)).map(str::to_owned))
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
        self.entries.for_each(visit);
        true
    }
}

impl std::fmt::Debug for InlineTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InlineTable")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<InlineTable, OpenError> {
        InlineTable::open(&format!("inline:{text}"), text)
    }

    #[test]
    fn both_forms_of_entries_are_found_by_folded_keys() {
        let t = open("{a=1, {B = x y, z} c=, {d=}}").unwrap();
        assert_eq!(t.lookup("A").unwrap().as_deref(), Some("1"));
        assert_eq!(t.lookup("b").unwrap().as_deref(), Some("x y, z"));
        assert_eq!(t.lookup("c").unwrap().as_deref(), Some(""));
        assert_eq!(t.lookup("e").unwrap(), None);
        assert!(t.warnings().is_empty());
    }

    #[test]
    fn the_last_of_two_equal_keys_wins_with_a_warning() {
        let t = open("{a=1, A=2}").unwrap();
        assert_eq!(t.lookup("a").unwrap().as_deref(), Some("2"));
        assert_eq!(t.warnings().len(), 1);
    }

    #[test]
    fn a_table_that_is_not_well_formed_does_not_open() {
        for text in [
            "a=b",
            "{a=b",
            "{a=b} c",
            "{}",
            "{ , }",
            "{a}",
            "{a = b}",
            "{{a b = c}}",
        ] {
            let error = open(text).unwrap_err();
            assert!(
                error.to_string().contains("write inline:"),
                "{text}: {error}"
            );
        }
    }
}
