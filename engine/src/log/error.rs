//! Errors of the log, and the replies for the client.
//!
//! Errors are cheap to clone: one failed flush is reported for every record of its batch.

use super::bytes::DecodeError;
use super::record::Sequence;
use crate::io::{ForeignFile, PathError, is_shortage};
use crate::status::Status;
use crate::sync::Arc;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Trouble with the delivery log.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process owns the directory.
    #[error(
        "delivery log {directory} is in use by {holder}: stop that process or give this one \
         another directory", directory = directory.display()
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// `process N`, or what is known of it.
        holder: String,
    },
    /// Others can replace what is in the directory.
    #[error("delivery log: {source}")]
    Unsafe {
        /// Why.
        source: Arc<PathError>,
    },
    /// A file of the log may have been put there by another user.
    #[error(
        "{file} of the delivery log is {cause}, which mailstow did not make; find its origin, \
         then move it away"
    )]
    Foreign {
        /// The file.
        file: String,
        /// What it is.
        cause: ForeignFile,
    },
    /// The file system failed.
    #[error("cannot {operation} {object}: {source}; see that the log directory's disk is well")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        object: String,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// Acknowledged records are damaged or missing.
    #[error(
        "{file}: damaged at byte {offset}: expected record {expected}, {found}; inspect it with \
         `mailstow log inspect`, and restore the file, or deliver the undamaged part with \
         `mailstow log recover --accept-damage`"
    )]
    Damaged {
        /// The segment.
        file: String,
        /// In the file, in bytes.
        offset: u64,
        /// The record that should stand there.
        expected: Sequence,
        /// What stands there instead.
        found: String,
    },
    /// A newer mailstow wrote the log.
    #[error(
        "{file} has log format {version}, this mailstow reads formats 1 to {known}: use the \
         mailstow that wrote it"
    )]
    Version {
        /// The segment.
        file: String,
        /// What it says.
        version: u32,
        /// The newest that we read.
        known: u32,
    },
    /// A record has a good checksum and does not make sense.
    #[error(
        "{file}: record {sequence} at byte {offset}: {source}; use the mailstow that wrote it, or \
         deliver the rest with `mailstow log recover --accept-damage`, which keeps a copy of the \
         record"
    )]
    Record {
        /// The segment.
        file: String,
        /// Of its first frame, in bytes.
        offset: u64,
        /// Which record.
        sequence: Sequence,
        /// What does not make sense.
        source: DecodeError,
    },
    /// The log is full: its mailboxes could not be made durable fast enough.
    #[error(
        "the delivery log holds its limit of {bytes_max} bytes: see why no checkpoint frees it, \
         or raise bytes_max in [delivery_log]"
    )]
    Full {
        /// The limit, in bytes.
        bytes_max: u64,
    },
    /// Too much waits to be flushed.
    #[error(
        "more than {bytes_max} bytes wait to be flushed to the delivery log: the disk is slower \
         than the mail; raise in_flight_bytes in [delivery_log] or slow the clients down"
    )]
    InFlight {
        /// The limit, in bytes.
        bytes_max: u64,
    },
    /// The record is longer than the log takes.
    #[error(
        "a record of {bytes} bytes is over the delivery log's limit of {bytes_max} bytes: raise \
         bytes_max in [delivery_log]"
    )]
    TooLong {
        /// Of the record.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// An earlier write or flush failed; what it promised is unknown.
    #[error("the delivery log failed and takes no more records: {cause}; reopen it to recover")]
    Poisoned {
        /// The failure.
        cause: Arc<LogError>,
    },
    /// A thread that works on the log or its mailboxes panicked.
    #[error("the thread {thread} panicked: see the panic in the log of the process and report it")]
    Panicked {
        /// Its name.
        thread: &'static str,
    },
    /// The log was closed.
    #[error("the delivery log is closed")]
    Closed,
    /// Settings that cannot work.
    #[error("{setting} is {value}: {remedy}")]
    Settings {
        /// Which.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// What to do.
        remedy: &'static str,
    },
}

impl LogError {
    /// With the whole path of the segment that it names.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Self {
        if let Self::Damaged { file, .. } | Self::Version { file, .. } | Self::Record { file, .. } =
            &mut self
        {
            *file = directory.join(&*file).display().to_string();
        }
        self
    }

    /// Too many files are open, or memory is short: tried again, the same may succeed.
    /// The file system of the log is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        let is_full = |source: &io::Error| {
            let kind = source.kind();
            kind == io::ErrorKind::StorageFull || kind == io::ErrorKind::QuotaExceeded
        };
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    pub(super) fn is_shortage(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_shortage(source))
    }

    pub(super) fn io(operation: &'static str, object: &str, source: io::Error) -> Self {
        if let Some(cause) = ForeignFile::of(&source) {
            let file = object.to_owned();
            return Self::Foreign { file, cause };
        }
        Self::Io {
            operation,
            object: object.to_owned(),
            source: Arc::new(source),
        }
    }

    /// How a delivery that met this error is answered: always a reason to try again later.
    pub fn status(&self) -> Status {
        match self {
            Self::Full { .. } | Self::InFlight { .. } => {
                Status::storage_full("Delivery log is full, try again later")
            }
            Self::TooLong { .. } => Status::configuration(
                "Message is too long for the delivery log, whose bytes_max must be raised",
            ),
            Self::Locked { .. }
            | Self::Unsafe { .. }
            | Self::Foreign { .. }
            | Self::Io { .. }
            | Self::Damaged { .. }
            | Self::Version { .. }
            | Self::Record { .. }
            | Self::Poisoned { .. }
            | Self::Panicked { .. }
            | Self::Closed
            | Self::Settings { .. } => {
                Status::system("Delivery log is not available, try again later")
            }
        }
    }
}
