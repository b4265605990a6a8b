//! Reads a log that is in use.
//!
//! Invariant: every record of the range is shown, or an error is returned. The caller keeps the
//! range from being freed meanwhile.

use super::error::LogError;
use super::medium::LogMedium;
use super::record::Sequence;
use super::scan::{ScannedRecord, scan};

/// Shows the records from `from` up to the durable record `to`, in order.
///
/// # Errors
/// The medium fails, or a record of the range is missing.
pub(super) fn read_back<M: LogMedium>(
    medium: &M,
    (from, to): (Sequence, Sequence),
    visit: &mut dyn FnMut(ScannedRecord<'_>),
) -> Result<(), LogError> {
    let mut next = from;
    let report = scan(medium, &mut |entry| {
        if entry.sequence == next && entry.sequence <= to {
            next = Sequence(next.0 + 1);
            visit(entry);
        }
    })?;
    match next > to {
        true => Ok(()),
        false => Err(report.damage_error().unwrap_or(LogError::Damaged {
            file: "the log directory".to_owned(),
            offset: 0,
            expected: next,
            found: "no such record in the log in use".to_owned(),
        })),
    }
}
