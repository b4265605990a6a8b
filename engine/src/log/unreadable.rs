//! Records whose checksums are right and that make no sense: a newer or a faulty mailstow wrote
//! them.
//!
//! What such a record says is not known, so its log is not opened. Where the operator accepts the
//! loss, the record is set aside: it is copied into a file beside the log, durably, before the log
//! is opened without it.

use super::bytes::DecodeError;
use super::error::LogError;
use super::medium::LogMedium;
use super::record::{Record, Sequence};
use super::scan::{ScanReport, ScannedRecord, scan};
use std::collections::HashSet;

/// A record that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Which.
    pub sequence: Sequence,
    /// Number of the segment its first frame is in.
    pub segment: u64,
    /// Of its first frame, in that file, in bytes.
    pub offset: u64,
    /// What does not make sense.
    pub cause: DecodeError,
    /// The file beside the log that has its bytes; its name tells the place and the kind.
    pub copy: String,
}

/// The records that were set aside, in order.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    records: Vec<SetAside>,
    /// Their segments and offsets. Damage may have one number stand in two places.
    places: HashSet<(u64, u64)>,
}

impl LeftOut {
    pub(super) fn records(&self) -> &[SetAside] {
        &self.records
    }

    /// Whether this is one of them.
    pub(super) fn has(&self, entry: &ScannedRecord<'_>) -> bool {
        self.places.contains(&(entry.segment, entry.offset))
    }

    fn push(&mut self, record: SetAside) {
        self.places.insert((record.segment, record.offset));
        self.records.push(record);
    }
}

/// As [`scan`], for those who only ask whether every record can be read.
///
/// # Errors
/// As there, and [`LogError::Record`]: a record does not make sense.
pub fn scan_records<M: LogMedium>(medium: &M) -> Result<ScanReport, LogError> {
    let mut unreadable = None;
    let report = scan(medium, &mut |entry| {
        if let Err(error) = entry.record() {
            unreadable.get_or_insert(error);
        }
    })?;
    unreadable.map_or(Ok(report), Err)
}

/// As [`scan`]; sets records that do not make sense aside.
///
/// # Errors
/// As there, and one cannot be copied.
pub(super) fn scan_setting_aside<M: LogMedium>(
    medium: &M,
) -> Result<(ScanReport, LeftOut), LogError> {
    // A log that cannot be read at all is left as it is.
    scan(medium, &mut |_| {})?;
    let mut all = LeftOut::default();
    let mut failed = None;
    let report = scan(medium, &mut |entry| {
        let Err(cause) = Record::decode(entry.kind, entry.payload) else {
            return;
        };
        if failed.is_none() {
            match set_aside(medium, &entry, cause) {
                Ok(record) => all.push(record),
                Err(error) => failed = Some(error),
            }
        }
    })?;
    failed.map_or(Ok((report, all)), Err)
}

fn set_aside<M: LogMedium>(
    medium: &M,
    entry: &ScannedRecord<'_>,
    cause: DecodeError,
) -> Result<SetAside, LogError> {
    let ScannedRecord {
        segment,
        offset,
        kind,
        ..
    } = entry;
    let copy = format!("unreadable-{segment:016x}-{offset}.kind-{kind}");
    medium
        .write_file(&copy, entry.payload)
        .map_err(|error| LogError::io("copy a record to", &copy, error))?;
    Ok(SetAside {
        sequence: entry.sequence,
        segment: *segment,
        offset: *offset,
        cause,
        copy,
    })
}
