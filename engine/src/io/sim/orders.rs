//! What tests have a simulated disk do, and what others do with it.

use super::fault::DeviceFault;
use super::random::SimRandom;
use super::tree::{Extent, NameChange};
use super::{Before, Meanwhile, SimDisk};

impl SimDisk {
    /// Does `work` just before operation `at`, as another thread might. It may use the disk.
    pub fn meanwhile(&self, at: u64, work: impl FnOnce() + Send + 'static) {
        let work = Box::new(work);
        let before = Before::Number(at);
        self.0.lock().meanwhile = Some(Meanwhile { before, work });
    }

    /// Holds the next operation on a file system that changes something there until others have
    /// done `work`. It may use the disk.
    pub fn hold_on(&self, device: u64, work: impl FnOnce() + Send + 'static) {
        let work = Box::new(work);
        let before = Before::NextOn(device);
        self.0.lock().meanwhile = Some(Meanwhile { before, work });
    }

    /// Holds no operation any more. True if none was held.
    pub fn hold_nothing(&self) -> bool {
        self.0.lock().meanwhile.take().is_some()
    }

    /// Has operations on a file system fail from now on, until `None`.
    pub fn fail_on(&self, device: u64, fault: Option<DeviceFault>) {
        let faults = &mut self.0.lock().device_faults;
        match fault {
            Some(fault) => faults.insert(device, fault),
            None => faults.remove(&device),
        };
    }

    /// Makes a durable empty directory at `path` below the root, whose parent exists.
    pub fn make_directory_durably(&self, path: &str) {
        let mut state = self.0.lock();
        state.tree.make_durable_directory(path);
    }

    /// Mounts another file system, which is empty, on the directory at `path`.
    pub fn mount_on(&self, path: &str, device: u64) {
        let mut state = self.0.lock();
        state.tree.mount(path, device);
        state.mounts.insert(device, (format!("/{path}"), 1));
    }

    /// Has every flush of a file system fail from now on, until `None`.
    pub fn fail_flushes(&self, device: u64, errno: Option<i32>) {
        let mut state = self.0.lock();
        state.tree.fail_flushes(Extent::Device(device), errno);
    }

    /// The same of what is written to the file at `path` below the root.
    pub fn fail_flushes_of(&self, path: &str, errno: Option<i32>) {
        let mut state = self.0.lock();
        if let Some(node) = state.tree.find(path) {
            state.tree.fail_flushes(Extent::Node(node), errno);
        }
    }

    /// Has every flush of a whole file system say success and make nothing durable from now on.
    pub fn forget_flushes(&self) {
        self.0.lock().tree.forgets_flushes = true;
    }

    /// A file system is unmounted and mounted again: what was not durable is there, torn or lost as
    /// after a crash.
    pub fn remount(&self, device: u64, seed: u64) {
        let mut state = self.0.lock();
        state.tree.fail_flushes(Extent::Device(device), None);
        state.tree.survive_on(device, &mut SimRandom::new(seed));
        if let Some((_, count)) = state.mounts.get_mut(&device) {
            *count += 1;
        }
    }

    /// A file system is unmounted while it is in use: the table of mounts does not name it any
    /// more.
    pub fn unmount_lazily(&self, device: u64) {
        self.0.lock().mounts.remove(&device);
    }

    /// Says from now on that a file system was mounted again, although it was not.
    pub fn claim_remount(&self, device: u64) {
        let mut state = self.0.lock();
        if let Some((_, count)) = state.mounts.get_mut(&device) {
            *count += 1;
        }
    }

    /// A reader removes the file at `path` below the root.
    pub fn remove_by_reader(&self, path: &str) {
        let mut state = self.0.lock();
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(directory) = state.tree.find(directory) {
            state.tree.rename(NameChange::removal(directory, name));
        }
    }

    /// A reader gives the file at `from` below the root another name.
    pub fn rename_by_reader(&self, from: &str, to: &str) {
        let mut state = self.0.lock();
        let split = |path| str::rsplit_once(path, '/').unwrap_or(("", path));
        let ((from_directory, from_name), (to_directory, to_name)) = (split(from), split(to));
        let node = state.tree.find(from);
        let directories = state
            .tree
            .find(from_directory)
            .zip(state.tree.find(to_directory));
        if let (Some(node), Some((from_directory, to_directory))) = (node, directories) {
            let mut change = NameChange::add(to_directory, to_name, node);
            change.remove(from_directory, from_name);
            state.tree.rename(change);
        }
    }

    /// Returns true if some program holds a lock on the file at `path` below the root.
    pub fn is_locked(&self, path: &str) -> bool {
        let state = self.0.lock();
        let node = state.tree.find(path).and_then(|n| state.tree.nodes.get(&n));
        node.is_some_and(|node| !node.locks.is_empty())
    }
}
