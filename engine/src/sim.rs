//! Private rooms, opened for crash tests of embedders and for benches: with the feature `sim`.
//!
//! Adds API and changes no behaviour. What is here may change with every release. See
//! [`crate::manual::crash_tests`].

/// The store below the engine, which runs on any disk.
pub use crate::delivery::{Store, Ticket};
/// The disk, and disks that fail.
pub use crate::io::{
    Blocking, Disk, Fault, Faulty, FileKind, FileStat, LockKind, Scratch, StateDirectory,
    sim as disk,
};
/// The delivery log by itself.
pub use crate::log::{
    Accepted, AcceptedEncoder, AcceptedRecipient, Access, BLOCK_BYTES, BackendChoice, Checkpoint,
    Confirmed, CopyLocation, Damage, DecodeError, DeliveryId, DirectoryMedium, Done, DoneOutcome,
    EncodedRecord, Extent, FORMAT_VERSION, FRAGMENT_BYTES_MAX, FRAME_HEADER_BYTES, InDoubt,
    LogError, LogFile, LogMedium, LogScan, LogUsage, LogWriter, LogWriterSettings, OnDurable,
    Pacing, RECORD_BYTES_LIMIT, Record, RecordKind, RecordTicket, ScanReport, ScannedRecord,
    ScannedSegment, SegmentHeader, Sequence, SetAside, StepwiseLog, Workers as LogWorkers, scan,
    scan_records, sim as log_disk,
};
/// The mailbox formats.
pub use crate::mailbox::{MailboxError, maildir, mbox};
