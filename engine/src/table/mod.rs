//! Lookup tables: from a key to a value, one kind per file behind [`LookupTable`].
//!
//! Imports `status`, `io`, `sync`. Source: Postfix DATABASE_README, postmap(1).

mod error;

pub use error::{OpenError, TableError};

use std::fmt;

/// Whether a table matches whole keys or patterns; decides which keys of a search it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Whole keys, folded to lower case: asked every key of a search, partial ones too.
    Fixed,
    /// Patterns or a program: asked the full address only, unfolded (Postfix
    /// `DICT_FLAG_FIXED` not set).
    Pattern,
}

/// A lookup table. Implementations are immutable once opened and may be asked from any thread.
pub trait LookupTable: Send + Sync + fmt::Debug {
    /// The value for `key`, `None` when the table has none.
    ///
    /// # Errors
    /// The table cannot answer now; the caller must defer, never treat it as "not found".
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError>;

    /// Which keys this table is to be asked.
    fn nature(&self) -> Nature;

    /// `type:name`, as the configuration names it.
    fn name(&self) -> &str;

    /// Complaints found while the table was read, one line each, naming file and line.
    fn warnings(&self) -> &[String] {
        &[]
    }
}
