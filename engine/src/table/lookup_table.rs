//! What every lookup table answers.

use super::error::TableError;
use super::key::Key;
use std::fmt;

/// Whether a table matches whole keys or patterns; decides which keys of a search it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// Whole keys, folded to lower case: asked every key of a search, partial ones too.
    Exact,
    /// Patterns or a program: asked the full address only, unfolded (Postfix
    /// `DICT_FLAG_FIXED` not set).
    Pattern,
}

/// Whether values of a table may have text of the key in them, which a sender chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyInValues {
    /// Every value is as the operator wrote it down, or has no more of the key than safe path
    /// components.
    Never,
    /// A program or a query makes the values.
    Perhaps,
    /// The table's description puts text of the key there.
    Always,
}

/// A lookup table. Implementations are immutable once opened and may be asked from any thread.
pub trait LookupTable: Send + Sync + fmt::Debug {
    /// The value for `key`, `None` when the table has none.
    ///
    /// # Errors
    /// The table cannot answer now; the caller must defer, never treat it as "not found".
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError>;

    /// As [`LookupTable::lookup`], for a key that other tables are asked for, too: appends the
    /// value to `value` and says whether there is one.
    ///
    /// # Errors
    /// As [`LookupTable::lookup`]; `value` may then have grown.
    fn lookup_into<'t>(
        &'t self,
        key: &Key<'_, 't>,
        value: &mut String,
    ) -> Result<bool, TableError> {
        let found = self.lookup(key.text())?;
        if let Some(found) = &found {
            value.push_str(found);
        }
        Ok(found.is_some())
    }

    /// Hints that the table will be asked for `key` soon. Most tables ignore it.
    fn will_ask(&self, key: &Key<'_, '_>) {
        let _ = key;
    }

    /// Which keys this table is to be asked.
    fn matching(&self) -> Matching;

    /// `type:name`, as the configuration names it.
    fn name(&self) -> &str;

    /// Complaints found while the table was read, one line each, naming file and line.
    fn warnings(&self) -> &[String] {
        &[]
    }

    /// The line of the table's source that answers `key`, where the table has lines; for
    /// people.
    fn line_of(&self, key: &str) -> Option<u32> {
        let _ = key;
        None
    }

    /// Shows `visit` every key with its value and line, in the order of the source; `false`
    /// when this table cannot be listed (patterns, programs, databases).
    fn for_each(&self, visit: &mut dyn FnMut(&str, &str, u32)) -> bool {
        let _ = visit;
        false
    }

    /// Whether values may have text of the key in them.
    fn key_in_values(&self) -> KeyInValues {
        KeyInValues::Perhaps
    }

    /// A lookup may wait for another server, up to the timeouts of that kind of table: it is not to
    /// be done by a thread that has other things to do.
    fn may_block(&self) -> bool {
        false
    }
}
