//! The delivery log: one flush acknowledges many deliveries.
//!
//! It knows no mailbox: what the records mean to one is `delivery`'s business. The order of the
//! files is the way of a record: `record` (what is remembered), `codec` (to bytes), `writer` and
//! `group_commit` (many callers, one flush), `committer` (a batch), `appender` (frames into
//! segments), `medium` and `directory` (the disk); and back: `walk` (frames of a segment), `scan`
//! (the whole log), `unreadable` (what is not understood). `preallocator` makes segments ready
//! beside it; in `workers`, threads do the work, in `stepwise`, the callers of the log. The format
//! is drawn byte by byte in `manual::log_format`.

mod appender;
mod backend;
mod buffer;
mod bytes;
mod codec;
mod committer;
mod directory;
mod disk_space;
mod ends;
mod error;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod group_commit;
#[cfg(test)]
#[cfg(loom)]
mod group_commit_loom;
mod listing;
mod live;
mod log_scan;
mod medium;
mod opening;
mod orders;
mod preallocator;
mod record;
mod scan;
mod segment;
mod segments;
mod settings;
mod shared;
#[cfg(any(test, fuzzing, feature = "sim"))]
pub mod sim;
#[cfg(any(test, fuzzing, feature = "sim"))]
mod stepwise;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod unreadable;
mod walk;
mod workers;
mod writer;

pub use bytes::DecodeError;
pub use codec::{AcceptedEncoder, EncodedRecord};
pub use directory::DirectoryMedium;
pub(crate) use disk_space::DiskSpace;
pub use error::LogError;
pub use frame::{FRAGMENT_BYTES_MAX, FRAME_HEADER_BYTES, RECORD_BYTES_LIMIT};
pub use group_commit::RecordTicket;
pub use log_scan::LogScan;
pub use medium::{Access, LogFile, LogMedium, Pacing};
pub use record::{
    Accepted, AcceptedRecipient, Checkpoint, Confirmed, CopyLocation, DeliveryId, Done,
    DoneOutcome, Extent, InDoubt, Record, RecordKind, Sequence,
};
pub use scan::{Damage, ScanReport, ScannedRecord, ScannedSegment, scan};
pub use segment::{BLOCK_BYTES, FORMAT_VERSION, SegmentHeader};
pub use settings::{BackendChoice, LogWriterSettings};
pub use shared::OnDurable;
#[cfg(any(test, fuzzing, feature = "sim"))]
pub use stepwise::StepwiseLog;
pub use unreadable::{SetAside, scan_records};
pub use workers::Workers;
pub use writer::{LogUsage, LogWriter};
