//! Bounds of the log, with their units in their names.

use super::error::LogError;
use super::frame::RECORD_BYTES_LIMIT;
use super::segment::BLOCK;
use std::time::Duration;

/// How the log reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BackendChoice {
    /// Measured when the log is opened; the fastest is taken.
    #[default]
    Auto,
    /// io_uring, write and fdatasync linked.
    Uring,
    /// pwrite(2), then fdatasync(2).
    Plain,
    /// pwritev2(2) with `RWF_DSYNC`: one call, and on devices that know it one forced write.
    PlainDsync,
}

/// How a log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWriterSettings {
    /// Size of one segment file, in bytes; a multiple of 4096, at least 16 KiB.
    pub segment_bytes: u64,
    /// All segments together, in bytes; at least four of them. It bounds the disk space and the
    /// time recovery takes. Every reopening that is not followed by a checkpoint may add one
    /// segment to it.
    pub log_bytes_max: u64,
    /// Records that wait for their flush, in bytes.
    pub in_flight_bytes_max: usize,
    /// Longest record, in bytes; longer messages are delivered without the log.
    pub record_bytes_max: usize,
    /// How long an append waits for room before it is refused.
    pub full_wait_max: Duration,
    /// How the log reaches the disk.
    pub backend: BackendChoice,
    /// Open a log of which acknowledged records are lost or make no sense: what is whole is
    /// recovered, what makes no sense is copied beside the log. For the operator who has read the
    /// damage report.
    pub accept_damage: bool,
}

impl Default for LogWriterSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            log_bytes_max: 1 << 30,
            in_flight_bytes_max: 64 << 20,
            record_bytes_max: 32 << 20,
            full_wait_max: Duration::from_secs(10),
            backend: BackendChoice::Auto,
            accept_damage: false,
        }
    }
}

impl LogWriterSettings {
    /// Fewest segments: one in use, one ready, one for bookkeeping when the log is full, one
    /// waiting for its checkpoint.
    pub(super) const SEGMENTS_MIN: u64 = 4;

    /// Most segments.
    pub(super) fn segments_max(&self) -> u64 {
        self.log_bytes_max / self.segment_bytes.max(1)
    }

    /// Bytes for frames in one segment.
    pub(super) fn usable_bytes(&self) -> u64 {
        self.segment_bytes - BLOCK
    }

    /// # Errors
    /// [`LogError::Settings`] names the setting.
    pub fn validate(&self) -> Result<(), LogError> {
        let wrong = |setting, value, remedy| {
            Err(LogError::Settings {
                setting,
                value,
                remedy,
            })
        };
        if !self.segment_bytes.is_multiple_of(BLOCK) || self.segment_bytes < 4 * BLOCK {
            let remedy = "use a multiple of 4096 of at least 16384";
            return wrong("segment_bytes", self.segment_bytes, remedy);
        }
        if self.segments_max() < Self::SEGMENTS_MIN {
            let remedy = "use at least four times segment_bytes";
            return wrong("log_bytes_max", self.log_bytes_max, remedy);
        }
        let record = self.record_bytes_max as u64;
        let room = (self.segments_max() - 2) * (self.usable_bytes() / 2);
        if record == 0 || self.record_bytes_max > RECORD_BYTES_LIMIT || record > room {
            let remedy = "use at most 1 GiB and at most half of log_bytes_max";
            return wrong("record_bytes_max", record, remedy);
        }
        if self.in_flight_bytes_max == 0 {
            return wrong(
                "in_flight_bytes_max",
                0,
                "use at least the size of a message",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_settings_are_valid() {
        LogWriterSettings::default().validate().unwrap();
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let refused = |change: fn(&mut LogWriterSettings)| {
            let mut settings = LogWriterSettings::default();
            change(&mut settings);
            settings.validate().unwrap_err().to_string()
        };
        assert!(refused(|s| s.segment_bytes = 5000).contains("segment_bytes"));
        assert!(refused(|s| s.log_bytes_max = s.segment_bytes * 3).contains("log_bytes_max"));
        assert!(refused(|s| s.record_bytes_max = 900 << 20).contains("record_bytes_max"));
        assert!(refused(|s| s.in_flight_bytes_max = 0).contains("in_flight_bytes_max"));
    }
}
