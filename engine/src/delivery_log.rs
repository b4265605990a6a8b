//! Reading the files of a delivery log, for tools that look into one.
//!
//! Nothing here writes or takes a lock: the log of a running engine can be read, and its newest
//! records may be on their way then. The format is described in [`crate::manual::log_format`].

pub use crate::delivery::LogBounds;
pub use crate::log::{
    Accepted, AcceptedRecipient, Checkpoint, Confirmed, CopyLocation, Damage, DecodeError,
    DeliveryId, DirectoryMedium, Done, DoneOutcome, Extent, InDoubt, LogError, Record, RecordKind,
    ScanReport, ScannedRecord, ScannedSegment, SegmentHeader, Sequence, scan, scan_records,
};
