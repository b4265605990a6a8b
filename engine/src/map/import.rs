//! Building a map from the text tables it stands for.
//!
//! Imports `builder`, `table`, `error`. Invariant: an entry means what it means in its text
//! table: same lines, same quoting, same folding of keys.

use std::fs::File;
use std::path::Path;

use super::builder::MapBuilder;
use super::error::MapError;
use crate::table::{StreamError, read_entries};

impl MapBuilder<'_> {
    /// Adds all entries of the text at `path`, in the form of postmap(1), to the table called
    /// `table`. Returns complaints about lines that were skipped or look odd.
    ///
    /// # Errors
    /// As [`MapBuilder::add`]; [`MapError::Io`] if the text cannot be read.
    pub fn add_text(&mut self, table: &str, path: &Path) -> Result<Vec<String>, MapError> {
        let table = self.table(table)?;
        let file = File::open(path).map_err(|source| MapError::io(path, "open", source))?;
        let name = path.display().to_string();
        read_entries(&name, file, |key, value| self.add(table, key, value)).map_err(|error| {
            match error {
                StreamError::Read(source) => MapError::io(path, "read", source),
                StreamError::Taker(error) => error,
            }
        })
    }
}
