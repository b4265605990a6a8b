//! How segments that are needed no more become spares, or go.

use super::super::error::LogError;
use super::super::medium::LogMedium;
use super::super::record::Sequence;
use super::super::scan::ScanReport;
use super::super::segment::{live_name, spare_name};
use super::{Live, SPARES_MIN, Segments};

impl<M: LogMedium> Segments<M> {
    /// Frees segments without a record. Called once a newer segment, the first since the log was
    /// opened, says which record comes next. A segment that alone says that the log was opened
    /// there stays: the record that a crash left unfinished before it would look damaged.
    pub(crate) fn free_empty(&self, report: &ScanReport) -> Result<(), LogError> {
        let behind = report.segments.iter().skip(1);
        let after_open = behind.map(|next| next.header.after_open).chain([true]);
        for (segment, is_told_behind) in report.segments.iter().zip(after_open) {
            let is_needed = segment.header.after_open && !is_told_behind;
            if segment.frames == 0 && !is_needed && report.damage.is_empty() {
                let number = segment.header.number;
                self.table.lock().live.retain(|live| live.number != number);
                self.recycle(Live::of(segment))?;
            }
        }
        Ok(())
    }

    /// Whether [`Self::free_before`] would free any.
    pub(crate) fn frees_before(&self, sequence: Sequence) -> bool {
        self.table.lock().ends_before(sequence)
    }

    /// Frees the oldest segments as long as all their records come before `sequence`; tells how
    /// many and the room gained.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn free_before(&self, sequence: Sequence) -> Result<(u64, u64), LogError> {
        let (mut count, mut room) = (0, 0);
        loop {
            let oldest = {
                let mut table = self.table.lock();
                if !table.ends_before(sequence) {
                    break;
                }
                let Some(oldest) = table.live.pop_front() else {
                    break;
                };
                debug_assert!(!table.live.is_empty(), "the newest segment stays");
                oldest
            };
            count += 1;
            room += self.recycle(oldest)?;
        }
        Ok((count, room))
    }

    /// Makes a segment that is not in the table any more a spare; tells the room gained.
    fn recycle(&self, live: Live) -> Result<u64, LogError> {
        let (from, to) = (live_name(live.number), spare_name(live.number));
        debug_assert!(
            !self
                .table
                .lock()
                .live
                .iter()
                .any(|other| other.number == live.number),
            "nothing is written into a segment that is freed"
        );
        let keeps_spares = self.keeps_spares();
        let keep = {
            let mut table = self.table.lock();
            let may_stay = keeps_spares || table.unused() < SPARES_MIN;
            let keep = may_stay
                && live.segment_bytes == self.settings.segment_bytes
                && table.count() < self.limit();
            table.busy += 1;
            keep
        };
        let done = if keep {
            self.medium.rename(&from, &to)
        } else {
            self.medium.remove(&from)
        };
        let done = done.and_then(|()| self.medium.sync_directory());
        let mut table = self.table.lock();
        table.busy -= 1;
        done.map_err(|error| LogError::io("recycle", &from, error))?;
        if !keep {
            return Ok(0);
        }
        table.spare.push(to);
        Ok(self.settings.usable_bytes())
    }
}
