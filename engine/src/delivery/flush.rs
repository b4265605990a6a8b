//! Makes what was written durable, with as few flushes as possible.
//!
//! Invariant: an item counts as durable only if its own `fsync` succeeded, or one `syncfs` of its
//! file system that began after the item was written and went through a handle opened before.
//! Nothing is flushed twice: after an error the kernel may have dropped the data and would report
//! success the next time.

use crate::clock;
use crate::config::FlushMethod;
use crate::io::Disk;
use crate::mailbox::Unflushed;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

/// From this number of items on one file system on, one `syncfs` measures faster than as many
/// `fsync`s.
const SYNCFS_ITEMS_MIN: usize = 4;
/// A `syncfs` slower than this also writes data of other programs (for example a copy of a disk
/// image); then each file is flushed separately for a while.
const SLOW: Duration = Duration::from_secs(2);
/// How long `syncfs` is avoided then.
const AVOID: Duration = Duration::from_secs(60);

/// The result of a flush, which several items may share.
pub(super) type FlushResult = Result<(), Arc<io::Error>>;

/// Something to flush.
#[derive(Debug)]
pub(super) struct Item<'a, H> {
    pub(super) handle: &'a H,
    pub(super) device: u64,
    /// Only a flush of the whole file system makes this item durable.
    pub(super) whole: bool,
    /// The item was written before the batch began: only its own handle reports every write error.
    pub(super) alone: bool,
}

impl<'a, H> Item<'a, H> {
    /// Returns the item of a directory that leads to a mailbox.
    pub(super) fn of_directory(above: &'a Unflushed<H>) -> Self {
        Self {
            handle: &above.handle,
            device: above.device,
            whole: above.whole,
            alone: false,
        }
    }

    /// Returns the item of something that the batch has changed.
    pub(super) fn of(handle: &'a H, device: u64) -> Self {
        Self {
            handle,
            device,
            whole: false,
            alone: false,
        }
    }
}

/// Takes the next `count` results, and returns the first error among them.
pub(super) fn take_results(
    results: &mut impl Iterator<Item = FlushResult>,
    count: usize,
) -> FlushResult {
    results.take(count).fold(Ok(()), Result::and)
}

/// Chooses between `fsync` and `syncfs`. All writers share it.
#[derive(Debug)]
pub(super) struct Flusher {
    method: FlushMethod,
    /// File systems on which `syncfs` can be relied on.
    syncfs_devices: Mutex<HashMap<u64, bool>>,
    /// Milliseconds after `start` until which `syncfs` is avoided.
    avoid_until_ms: AtomicU64,
    start: Instant,
}

impl Flusher {
    pub(super) fn new(method: FlushMethod) -> Self {
        Self {
            method,
            syncfs_devices: Mutex::default(),
            avoid_until_ms: AtomicU64::new(0),
            start: clock::now(),
        }
    }

    /// Flushes the items; returns one result for each, in order. For a file system, `sync_handle`
    /// returns a handle that was opened before this batch wrote anything there.
    pub(super) fn flush<'a, D: Disk>(
        &self,
        disk: &D,
        items: &[Item<'a, D::Handle>],
        sync_handle: impl Fn(u64) -> Option<&'a D::Handle>,
    ) -> Vec<FlushResult> {
        let mut devices: Vec<(u64, Option<FlushResult>)> = Vec::new();
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            if item.alone {
                results.push(disk.sync(item.handle).map_err(Arc::new));
                continue;
            }
            let at = match devices
                .iter()
                .position(|(device, _)| *device == item.device)
            {
                Some(at) => at,
                None => {
                    let handle = sync_handle(item.device).unwrap_or(item.handle);
                    let whole = self.wants_syncfs(disk, items, item.device, handle);
                    let flush = || self.sync_filesystem(disk, handle).map_err(Arc::new);
                    let answer = whole.then(flush);
                    devices.push((item.device, answer));
                    devices.len() - 1
                }
            };
            let whole = devices.get(at).and_then(|(_, answer)| answer.as_ref());
            results.push(match whole {
                Some(answer) => answer.clone(),
                None => disk.sync(item.handle).map_err(Arc::new),
            });
        }
        results
    }

    fn wants_syncfs<D: Disk>(
        &self,
        disk: &D,
        items: &[Item<'_, D::Handle>],
        device: u64,
        handle: &D::Handle,
    ) -> bool {
        let on_it = || items.iter().filter(|i| i.device == device && !i.alone);
        if on_it().any(|item| item.whole) {
            return true;
        }
        match self.method {
            FlushMethod::Fsync => false,
            FlushMethod::Syncfs => on_it().count() > 1,
            FlushMethod::Auto => {
                on_it().count() >= SYNCFS_ITEMS_MIN
                    && !self.is_avoided()
                    && *self
                        .syncfs_devices
                        .lock()
                        .entry(device)
                        .or_insert_with(|| disk.syncs_filesystems(handle))
            }
        }
    }

    fn sync_filesystem<D: Disk>(&self, disk: &D, handle: &D::Handle) -> io::Result<()> {
        let begun = clock::now();
        let answer = disk.sync_filesystem(handle);
        if begun.elapsed() > SLOW {
            tracing::debug!(
                took_ms = self.ms(begun.elapsed()),
                "syncfs is slow; flushing files one by one for a while"
            );
            let until = self.ms(self.start.elapsed() + AVOID);
            self.avoid_until_ms.store(until, Ordering::Relaxed);
        }
        answer
    }

    fn is_avoided(&self) -> bool {
        let until = self.avoid_until_ms.load(Ordering::Relaxed);
        until != 0 && self.ms(self.start.elapsed()) < until
    }

    fn ms(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    }
}
