//! What stood in the log when it was opened: the material of recovery.
//!
//! The segments shown are those closed by opening the log; they do not change until the log is
//! truncated.

use super::directory::DirectoryMedium;
use super::error::LogError;
use super::medium::LogMedium;
use super::record::Sequence;
use super::scan::{ScanReport, ScannedRecord, scan_segments};
use super::unreadable::{LeftOut, SetAside};
use crate::sync::Arc;

/// The records of a log as it was opened.
#[derive(Debug)]
pub struct LogScan<M: LogMedium = DirectoryMedium> {
    medium: Arc<M>,
    report: ScanReport,
    left_out: Arc<LeftOut>,
}

impl<M: LogMedium> LogScan<M> {
    pub(super) fn new(medium: Arc<M>, report: ScanReport, left_out: LeftOut) -> Self {
        Self {
            medium,
            report,
            left_out: Arc::new(left_out),
        }
    }

    /// Returns the records that were set aside, because they make no sense; see
    /// [`LogWriterSettings::accept_damage`](super::LogWriterSettings::accept_damage).
    pub fn set_aside(&self) -> &[SetAside] {
        self.left_out.records()
    }

    /// As [`set_aside`](Self::set_aside), for those who look for a record among them.
    pub(super) fn left_out(&self) -> &Arc<LeftOut> {
        &self.left_out
    }

    /// Segments, counts, torn tails, damage.
    pub fn report(&self) -> &ScanReport {
        &self.report
    }

    /// Shows every record from `from` on, in order, but for those set aside. It may be called
    /// several times, until the log is truncated.
    ///
    /// # Errors
    /// The medium fails.
    pub fn for_each(
        &self,
        from: Sequence,
        mut visit: impl FnMut(ScannedRecord<'_>),
    ) -> Result<(), LogError> {
        // Those without frames were freed when the log was opened, unless it is damaged.
        let is_damaged = !self.report.damage.is_empty();
        let segments = self.report.segments.iter();
        let filled = segments.filter(|segment| segment.frames > 0 || is_damaged);
        scan_segments(self.medium.as_ref(), filled, &mut |entry| {
            if entry.sequence >= from && !self.left_out.has(&entry) {
                visit(entry);
            }
        })
        .map(drop)
    }
}
