//! The writer pools of a store, one for each file system; finds the one of a mailbox without
//! accessing any file system.
//!
//! A mailbox belongs to the mount point that its path leads through, by the kernel's table of
//! mounts. If a symbolic link leads a mailbox to another file system, the writers of the first file
//! system write it.

use super::capacity::Capacity;
use super::writer_pool::{HungFileSystem, WriterPool};
use crate::config::Settings;
use crate::io::{Disk, MountWatch};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// Most file systems below the base that have separate writers. The writers of the base write the
/// mailboxes on all others.
const POOLS_MAX: usize = 64;

/// The writer pools of a store.
#[derive(Debug)]
pub(super) struct WriterPools {
    /// The base, without symbolic links.
    base_path: PathBuf,
    base: Arc<WriterPool>,
    /// The capacity for deliveries, and how many a writer takes at once.
    bounds: (Arc<Capacity>, usize),
    writers: usize,
    /// Something is mounted below the base.
    has_mounts: AtomicBool,
    below: Mutex<Below>,
    /// Locked while the table of mounts is read; submissions wait for the result.
    changes: Mutex<Changes>,
}

/// Changes of the table of mounts.
#[derive(Debug)]
struct Changes {
    /// `None` if the kernel does not report changes: then the mounts at the start count.
    watch: Option<MountWatch>,
    /// The table changed, and could not be read since.
    is_unread: bool,
}

/// The mounts at one time, whatever is mounted or unmounted later.
#[derive(Debug)]
pub(super) struct MountPoints {
    base: PathBuf,
    base_path: PathBuf,
    /// As in [`Below`].
    below: Vec<String>,
}

#[derive(Debug, Default)]
struct Below {
    /// Mount points below the base, relative to it, the longest first.
    mounts: Vec<String>,
    /// Mount points that were not mounted since the start.
    newer: BTreeSet<String>,
    pools: HashMap<String, Arc<WriterPool>>,
}

impl MountPoints {
    /// Returns where the file system of a mailbox is mounted.
    pub(super) fn of(&self, mailbox: &str) -> PathBuf {
        match mount_of(&self.below, mailbox) {
            Some(mount) => self.base_path.join(mount),
            None => self.base.clone(),
        }
    }

    /// Returns where the file systems of these mailboxes are mounted. Does not look at the
    /// mailboxes where all are on one file system.
    pub(super) fn of_all<E>(
        &self,
        mailboxes: impl FnOnce() -> Result<HashSet<String>, E>,
    ) -> Result<BTreeSet<PathBuf>, E> {
        if self.below.is_empty() {
            return Ok(BTreeSet::from([self.base.clone()]));
        }
        let mailboxes = mailboxes()?;
        Ok(mailboxes.iter().map(|mailbox| self.of(mailbox)).collect())
    }
}

impl WriterPools {
    pub(super) fn new<D: Disk>(
        disk: &D,
        settings: &Settings,
        bounds: (Arc<Capacity>, usize),
    ) -> Self {
        let base_path = disk.real_path(&settings.routing.virtual_mailbox_base);
        let writers = settings.store.writers.max(1);
        // Created before the table is read, so that no change is missed.
        let watch = MountWatch::new().ok();
        let points = disk.mount_points();
        let is_unread = points.is_err();
        let points = points.unwrap_or_default();
        let above = points.iter().filter(|point| base_path.starts_with(point));
        let mount_point = above.max_by_key(|point| point.as_os_str().len());
        let mount_point = mount_point.cloned().unwrap_or_else(|| PathBuf::from("/"));
        let pools = Self {
            base: Arc::new(WriterPool::new(mount_point, bounds.clone(), writers)),
            base_path,
            bounds,
            writers,
            has_mounts: AtomicBool::new(false),
            below: Mutex::default(),
            changes: Mutex::new(Changes { watch, is_unread }),
        };
        pools.are_mounted(&points);
        pools.below.lock().newer.clear();
        pools
    }

    /// Returns the file system of the base.
    pub(super) fn base(&self) -> &Arc<WriterPool> {
        &self.base
    }

    /// Returns the file system of a mailbox, whose path is relative to the base. Calls `start` to
    /// start its writers when it is used for the first time.
    pub(super) fn of(
        &self,
        mailbox: &str,
        start: impl FnOnce(&Arc<WriterPool>) -> io::Result<()>,
    ) -> Arc<WriterPool> {
        if !self.has_mounts.load(Ordering::Acquire) {
            return Arc::clone(&self.base);
        }
        let mut below = self.below.lock();
        let Some(mount) = mount_of(&below.mounts, mailbox) else {
            return Arc::clone(&self.base);
        };
        if let Some(pool) = below.pools.get(mount) {
            return Arc::clone(pool);
        }
        let mount = mount.to_owned();
        if below.pools.len() >= POOLS_MAX {
            return Arc::clone(&self.base);
        }
        let mount_point = self.base_path.join(&mount);
        let pool = Arc::new(WriterPool::new(
            mount_point,
            self.bounds.clone(),
            self.writers,
        ));
        match start(&pool) {
            Ok(()) => {
                below.pools.insert(mount, Arc::clone(&pool));
                pool
            }
            Err(error) => {
                tracing::error!(
                    mount_point = %pool.mount_point().display(),
                    %error,
                    "cannot start writers for a file system; those of virtual_mailbox_base write \
                     its mail"
                );
                // Ends the writers that were started.
                pool.queue.close();
                Arc::clone(&self.base)
            }
        }
    }

    /// Returns where the file system of a mailbox is mounted.
    pub(super) fn mount_point_of(&self, mailbox: &str) -> PathBuf {
        let below = self.below.lock();
        match mount_of(&below.mounts, mailbox) {
            Some(mount) => self.base_path.join(mount),
            None => self.base.mount_point().to_owned(),
        }
    }

    /// Returns the current mounts.
    pub(super) fn mount_points(&self) -> MountPoints {
        MountPoints {
            base: self.base.mount_point().to_owned(),
            base_path: self.base_path.clone(),
            below: self.below.lock().mounts.clone(),
        }
    }

    /// Returns true if mail for a mailbox may have been written to the file system that is or was
    /// mounted there. The mounts may have changed since.
    pub(super) fn may_be_on(&self, mailbox: &str, mount_point: &Path) -> bool {
        let below = self.below.lock();
        let mount = mount_of(&below.mounts, mailbox);
        let now = match mount {
            Some(mount) => self.base_path.join(mount),
            None => self.base.mount_point().to_owned(),
        };
        if now == mount_point || !self.base_path.join(mailbox).starts_with(mount_point) {
            return now == mount_point;
        }
        match now.starts_with(mount_point) {
            // Another file system is mounted above it.
            true => mount.is_some_and(|mount| below.newer.contains(mount)),
            // It was unmounted.
            false => true,
        }
    }

    /// Returns all file systems that mail was submitted for.
    pub(super) fn all(&self) -> Vec<Arc<WriterPool>> {
        let below = self.below.lock();
        let others = below.pools.values().cloned();
        std::iter::once(Arc::clone(&self.base))
            .chain(others)
            .collect()
    }

    /// Returns true if something is mounted below the base.
    #[cfg(test)]
    fn has_mounts(&self) -> bool {
        self.has_mounts.load(Ordering::Acquire)
    }

    /// Returns the file systems that do not answer.
    pub(super) fn hung(&self) -> Vec<HungFileSystem> {
        self.all().iter().filter_map(|pool| pool.hung()).collect()
    }

    /// Reads the table of mounts if it was changed. Opens no file otherwise, because the log needs
    /// each descriptor when they are short.
    pub(super) fn note_changes<D: Disk>(&self, disk: &D) {
        self.note_changes_in(|| disk.mount_points());
    }

    /// As [`WriterPools::note_changes`]; `table` reads the table of mounts.
    fn note_changes_in(&self, table: impl FnOnce() -> io::Result<Vec<PathBuf>>) {
        let mut changes = self.changes.lock();
        // The kernel reports a change only once.
        changes.is_unread |= changes.watch.as_ref().is_some_and(MountWatch::is_changed);
        if changes.is_unread
            && let Ok(points) = table()
        {
            self.are_mounted(&points);
            changes.is_unread = false;
        }
    }

    /// Stores the current mounts.
    pub(super) fn are_mounted(&self, points: &[PathBuf]) {
        let below_base = |point: &PathBuf| {
            let relative = point.strip_prefix(&self.base_path).ok()?;
            let relative = relative.to_str()?.to_owned();
            (!relative.is_empty()).then_some(relative)
        };
        let mut mounts: Vec<String> = points.iter().filter_map(below_base).collect();
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.len()));
        mounts.dedup();
        self.has_mounts.store(!mounts.is_empty(), Ordering::Release);
        let mut below = self.below.lock();
        let old = std::mem::replace(&mut below.mounts, mounts);
        let new = below.mounts.iter().filter(|mount| !old.contains(mount));
        let new: Vec<String> = new.cloned().collect();
        below.newer.extend(new);
    }
}

/// Returns the mount point that a path leads through.
fn mount_of<'m>(mounts: &'m [String], mailbox: &str) -> Option<&'m str> {
    let leads_through = |mount: &&String| {
        let rest = mailbox.strip_prefix(mount.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mounts.iter().find(leads_through).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Blocking;
    use std::sync::mpsc::channel;

    fn pools() -> WriterPools {
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_base = PathBuf::from("/");
        let pools = WriterPools::new(&Blocking::new(), &settings, (Arc::new(Capacity::new(1)), 1));
        pools.are_mounted(&[]);
        pools.changes.lock().is_unread = true;
        pools
    }

    #[test]
    fn a_mount_is_known_to_all_who_come_after_the_kernel_told_one_of_it() {
        let pools = &pools();
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                pools.note_changes_in(|| {
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    Ok(vec![PathBuf::from("/far")])
                });
            });
            has_begun.recv().unwrap();
            let other = scope.spawn(|| {
                pools.note_changes_in(|| Ok(vec![PathBuf::from("/far")]));
                pools.has_mounts()
            });
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            go_on.send(()).unwrap();
            assert!(other.join().unwrap());
        });
    }

    #[test]
    fn mail_may_be_where_something_was_or_is_mounted() {
        let pools = pools();
        let points = |points: &[&str]| points.iter().map(PathBuf::from).collect::<Vec<_>>();
        pools.are_mounted(&points(&["/far", "/old"]));
        pools.below.lock().newer.clear();
        pools.are_mounted(&points(&["/old", "/old/new"]));
        for (mailbox, mount_point, may_be) in [
            ("far/ann/", "/far", true),
            ("far/ann/", "/", true),
            ("far/ann/", "/old", false),
            ("farther/ann/", "/far", false),
            ("old/ann/", "/old", true),
            ("old/ann/", "/", false),
            ("old/new/ann/", "/old/new", true),
            ("old/new/ann/", "/old", true),
            ("near/ann/", "/", true),
        ] {
            let found = pools.may_be_on(mailbox, Path::new(mount_point));
            assert_eq!(found, may_be, "{mailbox} on {mount_point}");
        }
    }

    #[test]
    fn where_mailboxes_are_does_not_change_for_those_who_asked_before() {
        let pools = pools();
        let before = pools.mount_points();
        pools.are_mounted(&[PathBuf::from("/far")]);
        assert_eq!(before.of("far/ann/"), pools.base().mount_point());
        assert_eq!(pools.mount_point_of("far/ann/"), Path::new("/far"));
    }

    #[test]
    fn a_table_of_mounts_that_cannot_be_read_is_read_again() {
        let pools = pools();
        pools.note_changes_in(|| Err(io::Error::other("no descriptor is free")));
        assert!(!pools.has_mounts());
        pools.note_changes_in(|| Ok(vec![PathBuf::from("/far")]));
        assert!(pools.has_mounts());
    }
}
