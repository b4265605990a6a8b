//! File systems with mail that only the delivery log keeps safe.
//!
//! Imports `io`, `mailbox` (directories), `sync`. Invariants: a file system is entered before
//! anything is written there; its witness was opened before everything that the next flush is to
//! cover, so that a flush through it reports every error; the next witness is opened before that
//! flush begins, so that there is no time without one. Where no file can be opened now, the flush
//! goes through the witness that is there, which stays: it reports every error too, but only to one
//! flush. So flushes come one after the other, and after one that failed all others fail until
//! recovery begins.

use crate::io::{Disk, is_shortage};
use crate::mailbox::Unflushed;
use crate::sync::{Arc, Mutex};
use std::collections::HashMap;
use std::io;

/// The file systems that mail was written to. None is forgotten: a delivery that entered one
/// before a checkpoint may write there after it.
#[derive(Debug)]
pub(super) struct Dirty<H> {
    devices: Mutex<HashMap<u64, Device<H>>>,
    /// Held by whoever flushes; true after a flush failed.
    has_failed: Mutex<bool>,
}

#[derive(Debug)]
struct Device<H> {
    witness: Arc<H>,
    /// A flush of the whole file system can be relied on.
    whole: bool,
}

impl<H> Default for Dirty<H> {
    fn default() -> Self {
        Self {
            devices: Mutex::default(),
            has_failed: Mutex::new(false),
        }
    }
}

impl<H> Dirty<H> {
    /// Something will be written on the file system of the directory `near`. False: the next
    /// checkpoint cannot flush it, so that must be done at once.
    pub(super) fn enter<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        device: u64,
        near: &H,
    ) -> io::Result<bool> {
        let mut devices = self.devices.lock();
        if let Some(known) = devices.get(&device) {
            return Ok(known.whole);
        }
        let whole = disk.can_checkpoint(near);
        let device_entry = Device {
            witness: Arc::new(disk.open_directory(near, "")?),
            whole,
        };
        devices.insert(device, device_entry);
        Ok(whole)
    }

    /// The same for directories; those on file systems that a checkpoint cannot flush are flushed
    /// now.
    pub(super) fn enter_all<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        directories: &[Unflushed<H>],
    ) -> io::Result<()> {
        for directory in directories {
            if !self.enter(disk, directory.device, &directory.handle)? {
                disk.sync(&directory.handle)?;
            }
        }
        Ok(())
    }

    /// Makes everything written before this call durable.
    pub(super) fn flush<D: Disk<Handle = H>>(&self, disk: &D) -> io::Result<()> {
        let mut has_failed = self.has_failed.lock();
        if *has_failed {
            return Err(io::Error::other("an earlier flush of the mailboxes failed"));
        }
        let result = self.flush_all(disk);
        *has_failed = result.is_err();
        result
    }

    /// True while mailboxes are flushed.
    #[cfg(test)]
    pub(super) fn is_flushing(&self) -> bool {
        self.has_failed.is_held()
    }

    /// Recovery begins, and reads everything again that a failed flush may have lost.
    pub(super) fn recovers(&self) {
        *self.has_failed.lock() = false;
    }

    fn flush_all<D: Disk<Handle = H>>(&self, disk: &D) -> io::Result<()> {
        let mut due = Vec::new();
        let mut devices = self.devices.lock();
        for device in devices.values_mut().filter(|d| d.whole) {
            match disk.open_directory(&device.witness, "") {
                Ok(next) => {
                    let witness = std::mem::replace(&mut device.witness, Arc::new(next));
                    due.push(witness);
                }
                Err(error) if is_shortage(&error) => due.push(Arc::clone(&device.witness)),
                Err(error) => return Err(error),
            }
        }
        drop(devices);
        for witness in due {
            disk.sync_filesystem(&witness)?;
        }
        Ok(())
    }
}
