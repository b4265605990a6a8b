//! When the log gives its spare segments back to the file system that others use, too.

use super::super::disk_space::DiskSpace;
use super::super::error::LogError;
use super::super::medium::LogMedium;
use super::Segments;
use crate::clock;
use std::time::Duration;

/// How long it keeps no more than these after the disk was found full, unless there is room for so
/// many again.
const GIVING_TIME: Duration = Duration::from_secs(60);
const GIVING_SEGMENTS: u64 = 4;

impl<M: LogMedium> Segments<M> {
    /// Less of the file system is free than the log should leave to others.
    pub(crate) fn is_low(&self) -> bool {
        self.volume().is_some_and(DiskSpace::is_low)
    }

    /// So many bytes more for the log would leave too little to others.
    pub(crate) fn lacks_room_for(&self, bytes: u64) -> bool {
        self.volume()
            .is_some_and(|volume| volume.lacks_room_for(bytes))
    }

    /// Whether the file system has room for so many bytes of records more.
    pub(crate) fn can_grow_by(&self, bytes: u64) -> bool {
        let more = 1 + bytes.div_ceil(self.settings.usable_bytes());
        let wanted = more.saturating_mul(self.settings.segment_bytes);
        self.volume()
            .is_none_or(|volume| volume.free_bytes >= wanted)
    }

    fn volume(&self) -> Option<DiskSpace> {
        // An unknown size prevents nothing.
        self.medium.volume().ok().flatten()
    }

    pub(super) fn is_giving(&self) -> bool {
        let until = *self.giving_until.lock();
        let is_due = until.is_some_and(|until| clock::now() < until);
        is_due && self.lacks_room_for(GIVING_SEGMENTS * self.settings.segment_bytes)
    }

    /// Whether a segment that is free may stay as a spare.
    pub(super) fn keeps_spares(&self) -> bool {
        !self.is_giving() && !self.is_low()
    }

    /// The file system was found full: for a while no spare is kept that the log can do without.
    /// False when there is much room on the one that the log is on.
    pub(crate) fn give(&self) -> bool {
        let is_ours = self.lacks_room_for(self.settings.segment_bytes);
        if is_ours {
            *self.giving_until.lock() = Some(clock::now() + GIVING_TIME);
        }
        is_ours
    }

    /// Removes a spare, if there are more than `kept` segments ready; answers the space gained.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn remove_spare(&self, kept: usize) -> Result<Option<u64>, LogError> {
        let name = {
            let mut table = self.table.lock();
            let name = match table.unused() > kept {
                true => table.spare.pop(),
                false => None,
            };
            let Some(name) = name else {
                return Ok(None);
            };
            table.busy += 1;
            name
        };
        let removed = self.medium.remove(&name);
        // Some file systems free the space only then.
        let removed = removed.and_then(|()| self.medium.sync_directory());
        self.table.lock().busy -= 1;
        removed.map_err(|error| LogError::io("remove", &name, error))?;
        Ok(Some(self.settings.segment_bytes))
    }
}
