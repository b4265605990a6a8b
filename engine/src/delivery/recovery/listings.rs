//! The file names in the `cur/` directories of Maildirs, each directory listed once.

use crate::io::Disk;
use crate::limits::LISTED_NAMES_MAX;
use std::collections::HashMap;
use std::io;

/// Names in `cur/` directories, by the part before the flags.
#[derive(Debug, Default)]
pub(super) struct Listings {
    by_mailbox: HashMap<String, HashMap<String, String>>,
    names: usize,
}

impl Listings {
    /// Returns the full name of `name` in the `cur/` of a mailbox; calls `list` once for each
    /// mailbox.
    pub(super) fn find(
        &mut self,
        mailbox: &str,
        name: &str,
        list: impl FnOnce() -> io::Result<Vec<String>>,
    ) -> io::Result<Option<String>> {
        if !self.by_mailbox.contains_key(mailbox) {
            if self.names > LISTED_NAMES_MAX {
                *self = Self::default();
            }
            let names = list()?;
            self.names += names.len();
            let split = |full: String| {
                let unique = full
                    .split_once(":2,")
                    .map_or(full.as_str(), |(name, _)| name);
                (unique.to_owned(), full)
            };
            let names = names.into_iter().map(split).collect();
            self.by_mailbox.insert(mailbox.to_owned(), names);
        }
        let names = self.by_mailbox.get(mailbox);
        Ok(names.and_then(|names| names.get(name).cloned()))
    }

    /// Forgets the listing of a mailbox, so that it is listed again.
    pub(super) fn forget(&mut self, mailbox: &str) {
        if let Some(names) = self.by_mailbox.remove(mailbox) {
            debug_assert!(names.len() <= self.names, "all names are counted");
            self.names -= names.len();
        }
    }
}

/// Returns the names in a directory that are UTF-8.
pub(super) fn names_in<D: Disk>(disk: &D, directory: &D::Handle) -> io::Result<Vec<String>> {
    let names = disk.list(directory, usize::MAX)?;
    Ok(names
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .collect())
}
