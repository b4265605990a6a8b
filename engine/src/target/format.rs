//! The formats of mailboxes.

use std::fmt;

/// Mailbox formats.
///
/// ```
/// use mailstow_engine::Format;
///
/// assert_eq!(Format::Maildir.to_string(), "maildir");
/// assert_eq!(Format::Mbox.to_string(), "mbox");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One file per message; the table's value ends in `/`.
    Maildir,
    /// All messages in one file.
    Mbox,
}

impl Format {
    /// Returns the format that a path in a table has: a Maildir ends in `/`.
    pub fn of(path: &str) -> Self {
        if path.ends_with('/') {
            Self::Maildir
        } else {
            Self::Mbox
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maildir => "maildir",
            Self::Mbox => "mbox",
        })
    }
}
