//! A disk that forgets and fails, in memory, repeatable from a seed.
//!
//! Rules: bytes of files and names in directories are kept apart from what is durable, and from one
//! another; a power failure keeps, loses or tears each change by itself, sector by sector, as the
//! seed says; a flushed file without a flushed name is gone. Operation N can fail (a failing write
//! leaves half of its bytes) or be the last before the power goes. A failed flush drops the bytes
//! it was to make durable, while reads still show them, and later flushes say success, but that a
//! flush of the whole disk tells each handle once of failures since it was opened (as Linux does);
//! names stay in the journal. Operations that change something are counted from 0; reading and
//! closing are not. What another thread would do meanwhile can be done just before one of them.

mod fault;
mod orders;
mod random;
mod tree;

use super::{Disk, FileStat, LockKind, Mount};
use crate::sync::{Arc, Mutex};
use fault::Need;
pub use fault::{DeviceFault, DiskFault};
pub use random::SimRandom;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use tree::{Extent, NameChange, Node, ROOT_DEVICE, Tree, errno};

#[derive(Debug)]
struct State {
    tree: Tree,
    fault: DiskFault,
    operations: u64,
    crashed: bool,
    /// Flushes that failed, for each file system.
    failures: BTreeMap<u64, u64>,
    /// Where each file system is mounted, and how often it was.
    mounts: BTreeMap<u64, (String, u64)>,
    /// A log on the same machine: the power goes for both.
    log: Option<Arc<dyn LogDisk>>,
    /// How often the machine was started.
    boot: u128,
    meanwhile: Option<Meanwhile>,
    /// What keeps failing, by file system.
    device_faults: BTreeMap<u64, DeviceFault>,
}

/// The disk of a delivery log, in the same machine and on the same file system.
pub trait LogDisk: fmt::Debug + Send + Sync + 'static {
    /// The power is gone.
    fn is_crashed(&self) -> bool;

    /// The power goes now.
    fn power_off(&self);

    /// Returns the free bytes of the file system, of which mailboxes take `used`.
    fn room_beside(&self, used: u64) -> u64;
}

/// Work to be done before an operation.
struct Meanwhile {
    before: Before,
    work: Box<dyn FnOnce() + Send>,
}

/// Before which operation something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Number(u64),
    /// The next one on a file system.
    NextOn(u64),
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meanwhile").field(&self.before).finish()
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

/// An open file or directory of it.
#[derive(Debug)]
pub struct SimHandle {
    disk: SimDisk,
    node: u64,
    locks: Mutex<Vec<LockKind>>,
    /// Failures of flushes that this handle reported, or that came before it.
    told: Mutex<u64>,
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        let locks = std::mem::take(&mut *self.locks.lock());
        if !locks.is_empty() {
            let mut state = self.disk.0.lock();
            if let Some(node) = state.tree.nodes.get_mut(&self.node) {
                node.locks.retain(|held| !locks.contains(held));
            }
        }
    }
}

impl SimDisk {
    /// A disk with the durable directory `base` (one component below the root), owned by `uid`
    /// and `gid`.
    pub fn new(base: &str, uid: u32, gid: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            tree: Tree::new(base, uid, gid),
            fault: DiskFault::None,
            operations: 0,
            crashed: false,
            failures: BTreeMap::new(),
            mounts: BTreeMap::from([(ROOT_DEVICE, ("/".to_owned(), 1))]),
            log: None,
            boot: 1,
            meanwhile: None,
            device_faults: BTreeMap::new(),
        })))
    }

    /// The log is in the same machine, and on the same file system.
    pub fn share_power_with(&self, log: impl LogDisk) {
        self.0.lock().log = Some(Arc::new(log));
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// What is to go wrong from now on.
    pub fn set_fault(&self, fault: DiskFault) {
        self.0.lock().fault = fault;
    }

    /// Another thread may do something before an operation on a file or directory.
    fn others_go_first(&self, node: u64) {
        let mut state = self.0.lock();
        let next = Before::Number(state.operations);
        let next_on = state.tree.device(node).map(Before::NextOn);
        let is_due = |meanwhile: &mut Meanwhile| {
            meanwhile.before == next || Some(meanwhile.before) == next_on
        };
        let due = state.meanwhile.take_if(is_due);
        drop(state);
        if let Some(Meanwhile { work, .. }) = due {
            work();
        }
    }

    /// Whether the power is gone.
    pub fn is_crashed(&self) -> bool {
        self.0.lock().is_dead()
    }

    /// The disk as it is found after the power went now.
    #[must_use]
    pub fn after_crash(&self, seed: u64) -> Self {
        let mut random = SimRandom::new(seed);
        let state = self.0.lock();
        let tree = state.tree.survive(&mut random);
        Self::renewed(tree, state.boot + 1, state.mounts.clone())
    }

    /// The disk as the next process finds it after this one was killed.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let state = self.0.lock();
        Self::renewed(state.tree.unlocked(), state.boot, state.mounts.clone())
    }

    fn renewed(tree: Tree, boot: u128, mounts: BTreeMap<u64, (String, u64)>) -> Self {
        Self(Arc::new(Mutex::new(State {
            tree,
            fault: DiskFault::None,
            operations: 0,
            crashed: false,
            failures: BTreeMap::new(),
            mounts,
            log: None,
            boot,
            meanwhile: None,
            device_faults: BTreeMap::new(),
        })))
    }

    /// Names in the directory at `path` below the root, in order.
    pub fn names(&self, path: &str) -> Vec<String> {
        let state = self.0.lock();
        let node = state.tree.find(path).and_then(|n| state.tree.nodes.get(&n));
        node.map_or_else(Vec::new, |node| node.names.keys().cloned().collect())
    }

    /// The content of the file at `path` below the root.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let node = state.tree.find(path)?;
        state.tree.nodes.get(&node).map(|node| node.live.clone())
    }

    fn handle(&self, node: u64) -> SimHandle {
        let state = self.0.lock();
        let told = Mutex::new(state.failures_on(node));
        drop(state);
        SimHandle {
            told,
            disk: self.clone(),
            node,
            locks: Mutex::default(),
        }
    }

    /// An operation that changes something on the file system of a file or directory; its effect
    /// may or may not survive the crash it meets.
    fn change<R>(
        &self,
        (node, need): (u64, Need),
        effect: impl FnOnce(&mut Tree) -> io::Result<R>,
    ) -> io::Result<R> {
        self.others_go_first(node);
        let mut state = self.0.lock();
        let goes = state.operate(node, need)?;
        let result = effect(&mut state.tree)?;
        if goes {
            return Err(io::Error::other("the power went"));
        }
        Ok(result)
    }

    /// An operation that changes nothing.
    fn look<R>(&self, look: impl FnOnce(&Tree) -> io::Result<R>) -> io::Result<R> {
        let state = self.0.lock();
        state.check_alive()?;
        look(&state.tree)
    }

    fn flush(&self, node: u64, extent: Extent) -> io::Result<()> {
        self.others_go_first(node);
        let mut state = self.0.lock();
        let device = state.tree.device(node).unwrap_or(ROOT_DEVICE);
        let goes = match (
            state.operate(node, Need::Nothing),
            state.tree.failure(extent),
        ) {
            (Ok(_), Some(code)) => Err(errno(code)),
            (answer, _) => answer,
        };
        match goes {
            // Each change by itself may have become durable before the power went.
            Ok(true) => Err(io::Error::other("the power went")),
            Ok(false) => {
                state.tree.flush(extent);
                Ok(())
            }
            Err(error) => {
                if !state.is_dead() {
                    *state.failures.entry(device).or_default() += 1;
                    state.tree.drop_unflushed(extent);
                }
                Err(error)
            }
        }
    }
}

impl State {
    /// Failed flushes of the file system of a file or directory.
    fn failures_on(&self, node: u64) -> u64 {
        let device = self.tree.device(node);
        let failures = device.and_then(|device| self.failures.get(&device));
        failures.copied().unwrap_or(0)
    }

    /// Returns true if nothing can be written on the file system of a file or directory.
    fn is_lost(&self, node: u64) -> bool {
        let device = self.tree.device(node);
        let fault = device.and_then(|device| self.device_faults.get(&device));
        fault == Some(&DeviceFault::Dead)
    }

    fn is_dead(&self) -> bool {
        self.crashed || self.log.as_ref().is_some_and(|log| log.is_crashed())
    }

    /// The log is on the same file system, if that has a size.
    fn has_room(&self, bytes: usize) -> io::Result<()> {
        let used = || self.tree.used();
        let room = self.log.as_ref().map(|log| log.room_beside(used()));
        match room.is_some_and(|room| room < bytes as u64) {
            true => Err(errno(libc::ENOSPC)),
            false => Ok(()),
        }
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.is_dead() {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(())
    }

    /// Counts an operation on the file system of a file or directory. `Ok(true)`: it takes place
    /// and then the power goes.
    fn operate(&mut self, node: u64, need: Need) -> io::Result<bool> {
        self.check_alive()?;
        let device = self.tree.device(node);
        let fault = device.and_then(|device| self.device_faults.get(&device));
        let code = fault.and_then(|fault| fault.code(need));
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            DiskFault::Crash { at } if at == number => {
                self.crashed = true;
                if let Some(log) = &self.log {
                    log.power_off();
                }
                Ok(true)
            }
            DiskFault::Error { at, errno: code } if at == number => Err(errno(code)),
            DiskFault::None | DiskFault::Crash { .. } | DiskFault::Error { .. } => {
                code.map_or(Ok(false), |code| Err(errno(code)))
            }
        }
    }
}

impl Disk for SimDisk {
    type Handle = SimHandle;

    fn open_root(&self, path: &Path) -> io::Result<SimHandle> {
        let path = path.to_string_lossy().into_owned();
        let node = self.look(|tree| tree.find(&path).ok_or_else(|| errno(libc::ENOENT)))?;
        Ok(self.handle(node))
    }

    fn open_directory(&self, base: &SimHandle, path: &str) -> io::Result<SimHandle> {
        let node = self.look(|tree| tree.directory_below(base.node, path))?;
        Ok(self.handle(node))
    }

    fn make_directory(&self, dir: &SimHandle, name: &str, mode: u32) -> io::Result<()> {
        self.change((dir.node, Need::Space), |tree| {
            tree.must_be_free(dir.node, name)?;
            let node = tree.add(Node::directory(mode), dir.node);
            tree.rename(NameChange::add(dir.node, name, node));
            Ok(())
        })
    }

    fn create_unnamed(&self, dir: &SimHandle, mode: u32) -> io::Result<SimHandle> {
        let node = self.change((dir.node, Need::Space), |tree| {
            Ok(tree.add(Node::file(mode), dir.node))
        })?;
        Ok(self.handle(node))
    }

    fn name_unnamed(&self, file: &SimHandle, dir: &SimHandle, name: &str) -> io::Result<()> {
        self.change((dir.node, Need::Nothing), |tree| {
            tree.must_be_free(dir.node, name)?;
            tree.rename(NameChange::add(dir.node, name, file.node));
            Ok(())
        })
    }

    fn create_new(&self, dir: &SimHandle, name: &str, mode: u32) -> io::Result<SimHandle> {
        let node = self.change((dir.node, Need::Space), |tree| {
            tree.must_be_free(dir.node, name)?;
            let node = tree.add(Node::file(mode), dir.node);
            tree.rename(NameChange::add(dir.node, name, node));
            Ok(node)
        })?;
        Ok(self.handle(node))
    }

    fn open_append(&self, dir: &SimHandle, name: &str) -> io::Result<SimHandle> {
        let node = self.look(|tree| {
            let node = tree.child(dir.node, name)?;
            match tree.nodes.get(&node) {
                Some(found) if found.is_directory => Err(errno(libc::EISDIR)),
                _ => Ok(node),
            }
        })?;
        Ok(self.handle(node))
    }

    fn open_write(&self, dir: &SimHandle, name: &str) -> io::Result<SimHandle> {
        self.open_append(dir, name)
    }

    fn write_at(&self, file: &SimHandle, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change((file.node, Need::Nothing), |tree| {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            tree.write_at(file.node, offset, bytes);
            Ok(())
        })
    }

    fn mount_of(&self, handle: &SimHandle) -> io::Result<Mount> {
        let device = self.look(|tree| Ok(tree.device(handle.node)))?;
        let device = device.unwrap_or(ROOT_DEVICE);
        let state = self.0.lock();
        let mount = state.mounts.get(&device).map(|(point, count)| Mount {
            id: (device << 32) | count,
            point: point.into(),
        });
        mount.ok_or_else(|| errno(libc::ENOENT))
    }

    fn mount_points(&self) -> io::Result<Vec<PathBuf>> {
        let state = self.0.lock();
        let points = state.mounts.values().map(|(point, _)| point.into());
        Ok(points.collect())
    }

    fn mounted_on(&self, point: &Path) -> io::Result<Option<u64>> {
        let state = self.0.lock();
        state.check_alive()?;
        let mut mounts = state.mounts.iter();
        let found = mounts.find(|(_, (mounted, _))| Path::new(mounted) == point);
        Ok(found.map(|(device, (_, count))| (device << 32) | count))
    }

    fn link(&self, from: (&SimHandle, &str), to: (&SimHandle, &str)) -> io::Result<()> {
        self.change((to.0.node, Need::Nothing), |tree| {
            let node = tree.child(from.0.node, from.1)?;
            tree.must_be_free(to.0.node, to.1)?;
            tree.rename(NameChange::add(to.0.node, to.1, node));
            Ok(())
        })
    }

    fn rename_new(&self, from: (&SimHandle, &str), to: (&SimHandle, &str)) -> io::Result<()> {
        self.change((to.0.node, Need::Nothing), |tree| {
            let node = tree.child(from.0.node, from.1)?;
            tree.must_be_free(to.0.node, to.1)?;
            let mut change = NameChange::add(to.0.node, to.1, node);
            change.remove(from.0.node, from.1);
            tree.rename(change);
            Ok(())
        })
    }

    fn remove(&self, dir: &SimHandle, name: &str) -> io::Result<()> {
        self.change((dir.node, Need::Nothing), |tree| {
            tree.child(dir.node, name)?;
            tree.rename(NameChange::removal(dir.node, name));
            Ok(())
        })
    }

    fn stat(&self, handle: &SimHandle) -> io::Result<FileStat> {
        self.look(|tree| tree.stat(handle.node))
    }

    fn stat_at(&self, dir: &SimHandle, name: &str) -> io::Result<FileStat> {
        self.look(|tree| tree.stat(tree.child(dir.node, name)?))
    }

    fn list(&self, dir: &SimHandle, most: usize) -> io::Result<Vec<OsString>> {
        self.look(|tree| {
            let node = tree.nodes.get(&dir.node);
            let names = node.into_iter().flat_map(|node| node.names.keys());
            Ok(names.take(most).map(OsString::from).collect())
        })
    }

    fn write_all(&self, file: &SimHandle, pieces: [&[u8]; 2]) -> io::Result<()> {
        let bytes = pieces.concat();
        self.others_go_first(file.node);
        let mut state = self.0.lock();
        match state
            .operate(file.node, Need::Space)
            .and_then(|goes| state.has_room(bytes.len()).map(|()| goes))
        {
            Ok(goes) => {
                state.tree.append(file.node, &bytes);
                match goes {
                    true => Err(io::Error::other("the power went")),
                    false => Ok(()),
                }
            }
            Err(error) => {
                if !state.is_dead() && !state.is_lost(file.node) {
                    let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
                    state.tree.append(file.node, half);
                }
                Err(error)
            }
        }
    }

    fn read_at(&self, file: &SimHandle, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.look(|tree| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let live = tree.nodes.get(&file.node).map(|node| node.live.as_slice());
            let rest = live.and_then(|live| live.get(from..)).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(rest) {
                *to = *from;
            }
            Ok(length)
        })
    }

    fn truncate(&self, file: &SimHandle, length: u64) -> io::Result<()> {
        self.change((file.node, Need::Nothing), |tree| {
            tree.truncate(file.node, usize::try_from(length).unwrap_or(usize::MAX));
            Ok(())
        })
    }

    fn change_group(&self, handle: &SimHandle, gid: u32) -> io::Result<()> {
        self.change((handle.node, Need::Nothing), |tree| {
            if let Some(node) = tree.nodes.get_mut(&handle.node) {
                node.gid = gid;
            }
            Ok(())
        })
    }

    fn sync(&self, handle: &SimHandle) -> io::Result<()> {
        self.flush(handle.node, Extent::Node(handle.node))
    }

    fn sync_filesystem(&self, handle: &SimHandle) -> io::Result<()> {
        let device = self.look(|tree| Ok(tree.device(handle.node)))?;
        let device = Extent::Device(device.unwrap_or(ROOT_DEVICE));
        self.flush(handle.node, device)?;
        let failures = self.0.lock().failures_on(handle.node);
        match std::mem::replace(&mut *handle.told.lock(), failures) {
            told if told < failures => Err(errno(libc::EIO)),
            _ => Ok(()),
        }
    }

    fn syncs_filesystems(&self, _handle: &SimHandle) -> bool {
        true
    }

    fn boot(&self) -> u128 {
        self.0.lock().boot
    }

    fn try_lock(&self, file: &SimHandle, kind: LockKind) -> io::Result<bool> {
        let mut state = self.0.lock();
        state.check_alive()?;
        let Some(node) = state.tree.nodes.get_mut(&file.node) else {
            return Err(errno(libc::EBADF));
        };
        let mut own = file.locks.lock();
        if own.contains(&kind) {
            return Ok(true);
        }
        if node.locks.contains(&kind) {
            return Ok(false);
        }
        node.locks.push(kind);
        own.push(kind);
        Ok(true)
    }
}
