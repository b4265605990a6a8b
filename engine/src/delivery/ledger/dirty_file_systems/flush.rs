//! Flushes each file system separately.

use super::{FileSystems, Stage, log_failure};
use crate::clock;
use crate::io::{Disk, is_shortage};
use crate::log::Sequence;
use crate::sync::Arc;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A flush that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct Flushed {
    /// The number of the flush.
    pub(in crate::delivery) number: u64,
    /// An earlier flush had failed.
    pub(in crate::delivery) was_suspect: bool,
}

/// A file system whose flush does not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct Unanswered {
    pub(in crate::delivery) device: u64,
    pub(in crate::delivery) mount_point: PathBuf,
    /// Since the UNIX epoch.
    pub(in crate::delivery) since: Duration,
    /// The number of the flush.
    pub(in crate::delivery) flush: u64,
    /// The paths of its mailboxes may not lead through its mount point.
    pub(in crate::delivery) has_strays: bool,
}

impl<H> FileSystems<H> {
    /// Begins to flush every file system that is not suspect, or whose attempt is ready for it, and
    /// that has no flush in progress. Each is to be flushed with [`FileSystems::flush`].
    pub(in crate::delivery) fn begin_flushes(&self, below: Sequence) -> Vec<u64> {
        self.log_begins_at(below);
        let mut begun = Vec::new();
        for (device, file_system) in self.known.lock().iter_mut() {
            let suspect = file_system.suspect.as_ref();
            let is_due = suspect.is_none_or(|suspect| suspect.stage == Stage::Rewritten);
            if file_system.whole && is_due && file_system.flushing_since.is_none() {
                file_system.flushing_since = Some(clock::since_epoch());
                file_system.flushes += 1;
                begun.push(*device);
            }
        }
        begun
    }

    /// Flushes a file system, after which the logged mail before `below` is durable there. `None`
    /// if that failed.
    pub(in crate::delivery) fn flush<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        device: u64,
        below: Sequence,
    ) -> Option<Flushed> {
        let ending = EndOfFlush {
            of: self,
            device,
            is_noted: false,
        };
        // Holds no lock: a file system may never answer.
        let flushed = match self.change_handle(disk, device) {
            Ok(Some(handle)) => disk.sync_filesystem(&handle),
            // A delivery or another flush made it suspect meanwhile.
            Ok(None) => return None,
            Err(error) => Err(error),
        };
        ending.note(flushed, below)
    }

    /// Opens the next handle, and returns the handle for this flush.
    fn change_handle<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        device: u64,
    ) -> io::Result<Option<Arc<H>>> {
        let known = self.known.lock();
        let handle = known
            .get(&device)
            .and_then(|known| known.sync_handle.clone());
        drop(known);
        let Some(handle) = handle else {
            return Ok(None);
        };
        match disk.open_directory(&handle, "") {
            Ok(next) => {
                let mut known = self.known.lock();
                let kept = known.get_mut(&device).map(|known| &mut known.sync_handle);
                match kept {
                    Some(Some(kept)) => *kept = Arc::new(next),
                    _ => return Ok(None),
                }
            }
            Err(error) if is_shortage(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(Some(handle))
    }

    /// Returns the file systems with a flush in progress. After a checkpoint waited for all
    /// flushes, these are the file systems that do not answer.
    pub(in crate::delivery) fn unanswered(&self) -> Vec<Unanswered> {
        let known = self.known.lock();
        let unanswered = known.iter().filter_map(|(device, known)| {
            Some(Unanswered {
                device: *device,
                mount_point: known.mount_point(),
                since: known.flushing_since?,
                flush: known.flushes,
                has_strays: known.has_strays,
            })
        });
        unanswered.collect()
    }

    /// Returns the number of the last flush that began.
    pub(in crate::delivery) fn flush_number(&self, device: u64) -> u64 {
        let known = self.known.lock();
        known.get(&device).map_or(0, |known| known.flushes)
    }
}

/// Ends a flush exactly once, even if it panics.
struct EndOfFlush<'a, H> {
    of: &'a FileSystems<H>,
    device: u64,
    is_noted: bool,
}

impl<H> EndOfFlush<'_, H> {
    fn note(mut self, flushed: io::Result<()>, below: Sequence) -> Option<Flushed> {
        self.is_noted = true;
        let mut known = self.of.known.lock();
        let file_system = known.get_mut(&self.device)?;
        debug_assert!(
            file_system.flushing_since.is_some(),
            "a flush that ends was begun"
        );
        file_system.flushing_since = None;
        let suspect = file_system.suspect.as_ref();
        match flushed {
            // Another flush failed meanwhile.
            Ok(()) if suspect.is_some_and(|suspect| suspect.stage != Stage::Rewritten) => None,
            Ok(()) => {
                file_system.flushed_below = below.max(file_system.flushed_below);
                Some(Flushed {
                    number: file_system.flushes,
                    was_suspect: file_system.suspect.take().is_some(),
                })
            }
            Err(error) => {
                let (mount_point, error) = (file_system.mount_point(), Arc::new(error));
                file_system.fails(&error);
                drop(known);
                log_failure(&mount_point, &error);
                None
            }
        }
    }
}

impl<H> Drop for EndOfFlush<'_, H> {
    fn drop(&mut self) {
        if self.is_noted {
            return;
        }
        if let Some(file_system) = self.of.known.lock().get_mut(&self.device) {
            file_system.flushing_since = None;
            if std::thread::panicking() {
                file_system.fails(&Arc::new(io::Error::other("the flush panicked")));
            }
        }
    }
}
