//! What can go wrong with a recipient map.
//!
//! Invariant: every error means "no answer now" and defers; none can be taken for "no such
//! recipient".

use std::path::{Path, PathBuf};

use crate::io::{ForeignFile, PathError};
use crate::status::Status;

/// A map that cannot be opened, read, built or changed. The text says the object, the cause and
/// the remedy.
///
/// ```
/// use mailstow_engine::MapView;
///
/// let error = MapView::open("/nonexistent/recipients.map".as_ref()).expect_err("no such map");
/// assert!(error.to_string().contains("/nonexistent/recipients.map"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// A system call failed.
    #[error("recipient map {path}: cannot {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The directory is reached by another user's symbolic link.
    #[error("recipient map: {error}")]
    Path {
        /// Which.
        error: PathError,
    },
    /// A file beside the map may have been put there by another user.
    #[error(
        "recipient map: {} is {cause}, which mailstow did not make; find its origin, then move it \
         away",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        cause: ForeignFile,
    },
    /// The file is not a recipient map, or its first bytes are damaged.
    #[error("recipient map: {cause}; build it again with \"mailstow map build\"")]
    Header {
        /// What is wrong.
        cause: String,
    },
    /// Written by a newer mailstow, with something this one cannot read.
    #[error(
        "recipient map: format version {version} with features {features:#x} is newer than this \
         program; upgrade mailstow, or build the map again with this one"
    )]
    TooNew {
        /// Format version in the file.
        version: u32,
        /// Feature bits this program does not know.
        features: u32,
    },
    /// Bytes inside the file contradict their checksum or each other.
    #[error(
        "recipient map: damaged {what} at byte {offset}; check the disk, then build the map again \
         with \"mailstow map build\""
    )]
    Corrupt {
        /// Which part.
        what: &'static str,
        /// Where in the file, in bytes from its start.
        offset: u64,
    },
    /// Another program wrote into the file instead of replacing it.
    #[error(
        "recipient map {path}: the file was overwritten or cut while it was in use; build it \
         again with \"mailstow map build\", or put a new one in its place with mv"
    )]
    Overwritten {
        /// The map.
        path: PathBuf,
    },
    /// A change log damaged before its end: changes that were acknowledged cannot be read.
    #[error(
        "recipient map: change log {path} is damaged at byte {offset}; restore it from a backup, \
         or give up its changes with \"mailstow map build --discard-changes\""
    )]
    ChangesCorrupt {
        /// The change log.
        path: PathBuf,
        /// Where, in bytes from its start.
        offset: u64,
    },
    /// A build would lose changes made with `map set` and `map unset`.
    #[error(
        "recipient map {path}: {changes} changes made with \"mailstow map set\" are not in the \
         sources; use --keep-changes or --discard-changes"
    )]
    ChangesPending {
        /// The map.
        path: PathBuf,
        /// How many.
        changes: usize,
    },
    /// An entry that the format cannot hold.
    #[error("recipient map: entry \"{key}\" in table {table}: {cause}")]
    Entry {
        /// The table.
        table: String,
        /// The key, shortened.
        key: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// More than the format can number.
    #[error("recipient map: too many {what}; at most {limit} fit in one map")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many fit.
        limit: u64,
    },
    /// The caller's progress function asked to stop.
    #[error("recipient map: the build was stopped; the map that was there is untouched")]
    Stopped,
}

impl MapError {
    /// The reply while a map is in this state: always temporary.
    pub fn status(&self) -> Status {
        match self {
            Self::Io { .. } | Self::Stopped => Status::system("temporary lookup failure"),
            Self::Header { .. }
            | Self::TooNew { .. }
            | Self::Corrupt { .. }
            | Self::Overwritten { .. }
            | Self::ChangesCorrupt { .. }
            | Self::ChangesPending { .. }
            | Self::Path { .. }
            | Self::Foreign { .. }
            | Self::Entry { .. }
            | Self::TooMany { .. } => Status::configuration("mail system configuration error"),
        }
    }

    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match ForeignFile::of(&source) {
            Some(cause) => Self::Foreign { path, cause },
            None => Self::Io {
                path,
                action,
                source,
            },
        }
    }

    pub(super) fn header(cause: impl Into<String>) -> Self {
        Self::Header {
            cause: cause.into(),
        }
    }
}
