//! The file that a table is read from: its text, or the index beside it.
//!
//! Which of the two there is, the file system is asked.

use crate::table::kind::{Index, Kind};
use crate::table::list::TableName;
use std::borrow::Cow;
use std::path::Path;

/// The file that a table is read from.
#[derive(Debug)]
pub(in crate::table) struct TableFile<'a> {
    pub(in crate::table) path: Cow<'a, Path>,
    /// Set when it is no text.
    pub(in crate::table) index: Option<Index>,
}

impl<'a> TableFile<'a> {
    /// The file called `path` in the name of a table; of its text and its index the text, unless
    /// only the index is there.
    pub(in crate::table) fn of(name: &TableName, path: &'a Path) -> Self {
        if let Some((index_path, index)) = name.index()
            && matches!(path.try_exists(), Ok(false))
            && index_path.exists()
        {
            return Self {
                path: Cow::Owned(index_path),
                index: Some(index),
            };
        }
        Self {
            path: Cow::Borrowed(path),
            index: None,
        }
    }
}

/// Returns the text that the table called `name` is read from, if it is.
pub fn text_path(name: &TableName) -> Option<&Path> {
    let is_text = matches!(name.kind(), Kind::Text | Kind::Indexed(_));
    published_path(name).filter(|_| is_text)
}

/// Returns the text file that defines the table called `name`, if there is one: entries, patterns,
/// or the description of a database.
pub fn published_path(name: &TableName) -> Option<&Path> {
    let path = name.path()?;
    let is_text = TableFile::of(name, path).index.is_none();
    (is_text && name.kind() != Kind::Map).then_some(path)
}
