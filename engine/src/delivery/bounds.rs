//! How large the delivery log may grow on the file system that it is on.
//!
//! A log that fills a file system leaves no space for the mailboxes on it, nor for its checkpoints.

use crate::config::{DeliveryLogSettings, Settings};
use crate::log::DiskSpace;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The log may take one part in so many of a file system that also holds mailboxes.
const SHARED_PART: u64 = 4;
/// The log leaves one part in so many of a file system without mailboxes.
const LEFT_PART: u64 = 8;
/// Smallest log, in bytes: it takes the extent record of a message of 48 MB for an mbox.
pub(super) const LOG_BYTES_MIN: u64 = 1 << 20;

/// How large the log may grow, and which file system limits it.
///
/// ```
/// use mailstow_engine::Settings;
/// use mailstow_engine::delivery_log::LogBounds;
///
/// let settings = Settings::default();
/// let bounds = LogBounds::of(&settings);
/// assert!(bounds.bytes_max <= settings.delivery_log.bytes_max);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Bytes of the whole log: `bytes_max` of `[delivery_log]`, or what the file system allows.
    pub bytes_max: u64,
    /// Size of the file system, in bytes; 0 when it is unknown.
    pub volume_bytes: u64,
    /// Bytes of it that are free.
    pub volume_free_bytes: u64,
    /// `virtual_mailbox_base` is on it, too.
    pub has_mailboxes: bool,
}

impl LogBounds {
    /// The bounds of the log in the state directory.
    pub fn of(settings: &Settings) -> Self {
        Self::at(&log_directory(settings), settings)
    }

    /// The bounds of a log at `path`, which need not be there yet.
    pub(super) fn at(path: &Path, settings: &Settings) -> Self {
        let wanted = settings.delivery_log.bytes_max;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let there = path.ancestors().find_map(|above| {
            let metadata = std::fs::metadata(above).ok()?;
            Some((metadata.dev(), rustix::fs::statvfs(above).ok()?))
        });
        let Some((device, found)) = there else {
            return Self::on(None, false, wanted);
        };
        let base = std::fs::metadata(&settings.routing.virtual_mailbox_base);
        let volume = DiskSpace {
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        };
        let has_mailboxes = base.is_ok_and(|base| base.dev() == device);
        Self::on(Some(volume), has_mailboxes, wanted)
    }

    fn on(volume: Option<DiskSpace>, has_mailboxes: bool, wanted: u64) -> Self {
        let most = volume
            .filter(|volume| volume.bytes > 0)
            .map(|volume| match has_mailboxes {
                true => volume.bytes / SHARED_PART,
                false => volume.bytes - volume.bytes / LEFT_PART,
            });
        Self {
            bytes_max: wanted.min(most.unwrap_or(wanted)).max(LOG_BYTES_MIN),
            volume_bytes: volume.map_or(0, |volume| volume.bytes),
            volume_free_bytes: volume.map_or(0, |volume| volume.free_bytes),
            has_mailboxes,
        }
    }

    /// The settings of a log within these bounds.
    pub(super) fn apply(&self, settings: &DeliveryLogSettings) -> DeliveryLogSettings {
        DeliveryLogSettings {
            bytes_max: self.bytes_max,
            ..settings.clone()
        }
    }
}

/// Returns the directory of the delivery log.
pub(super) fn log_directory(settings: &Settings) -> PathBuf {
    settings.state_directory.join("delivery-log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_takes_a_quarter_of_a_volume_with_mailboxes_and_most_of_its_own() {
        let bytes_max = |bytes, has_mailboxes| {
            let volume = DiskSpace {
                bytes,
                free_bytes: 0,
            };
            LogBounds::on(Some(volume), has_mailboxes, 1 << 30).bytes_max
        };
        assert_eq!(bytes_max(704 << 20, true), 176 << 20);
        assert_eq!(bytes_max(704 << 20, false), 616 << 20);
        assert_eq!(bytes_max(1 << 40, true), 1 << 30);
        assert_eq!(bytes_max(1 << 20, true), LOG_BYTES_MIN);
        // A file system that does not say how large it is.
        assert_eq!(bytes_max(0, true), 1 << 30);
        assert_eq!(LogBounds::on(None, false, 1 << 30).bytes_max, 1 << 30);
    }

    #[test]
    fn a_log_that_is_not_there_yet_is_where_its_directory_will_be() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            state_directory: directory.path().join("a/b"),
            ..Settings::default()
        };
        settings.routing.virtual_mailbox_base = directory.path().to_owned();
        let bounds = LogBounds::of(&settings);
        assert!(bounds.volume_bytes > 0 && bounds.has_mailboxes);
    }
}
