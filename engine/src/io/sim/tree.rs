//! Files and directories of the simulated disk, as they are and as far as they are durable.
//!
//! Names change in a list of changes; each is durable once one of its directories was flushed, or
//! by the whim of a crash.

use super::super::{FileKind, FileStat, LockKind};
use super::random::SimRandom;
use crate::clock;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A file or directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The file system it is on.
    pub(super) device: u64,
    pub(super) is_directory: bool,
    pub(super) names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pub(super) live: Vec<u8>,
    durable: Vec<u8>,
    unflushed: Vec<Write>,
    mode: u32,
    uid: u32,
    pub(super) gid: u32,
    changed: Duration,
    pub(super) locks: Vec<LockKind>,
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
enum Write {
    At(usize, Vec<u8>),
    Cut(usize),
}

/// Names that appear and vanish in one step.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    added: Option<(u64, String, u64)>,
    removed: Option<(u64, String)>,
}

#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<u64, Node>,
    next: u64,
    unflushed: Vec<NameChange>,
    /// What cannot be flushed, each with the error code.
    failing: Vec<(Extent, i32)>,
    /// Flushes of whole file systems make nothing durable.
    pub(super) forgets_flushes: bool,
}

/// The number of the root.
const ROOT: u64 = 1;
/// The file system of the root.
pub(super) const ROOT_DEVICE: u64 = 1;

/// What is flushed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// One file or directory.
    Node(u64),
    /// One file system.
    Device(u64),
}

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl NameChange {
    pub(super) fn add(dir: u64, name: &str, node: u64) -> Self {
        Self {
            added: Some((dir, name.to_owned(), node)),
            removed: None,
        }
    }

    pub(super) fn removal(dir: u64, name: &str) -> Self {
        Self {
            added: None,
            removed: Some((dir, name.to_owned())),
        }
    }

    pub(super) fn remove(&mut self, dir: u64, name: &str) {
        self.removed = Some((dir, name.to_owned()));
    }

    /// The names it changes, each with its directory.
    fn names(&self) -> impl Iterator<Item = (u64, String)> + use<> {
        let added = self
            .added
            .as_ref()
            .map(|(dir, name, _)| (*dir, name.clone()));
        added.into_iter().chain(self.removed.clone())
    }

    /// The directories it changes.
    fn directories(&self) -> impl Iterator<Item = u64> + use<> {
        let added = self.added.as_ref().map(|(dir, ..)| *dir);
        let removed = self.removed.as_ref().map(|(dir, _)| *dir);
        added.into_iter().chain(removed)
    }
}

impl Node {
    pub(super) fn directory(mode: u32) -> Self {
        Self {
            is_directory: true,
            mode,
            ..Self::default()
        }
    }

    pub(super) fn file(mode: u32) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    fn write(bytes: &mut Vec<u8>, write: &Write) {
        match write {
            Write::At(offset, new) => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                for (to, from) in bytes.iter_mut().skip(*offset).zip(new) {
                    *to = *from;
                }
            }
            Write::Cut(length) => bytes.truncate(*length),
        }
    }

    /// The bytes after a crash.
    fn survive(&self, random: &mut SimRandom) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for write in &self.unflushed {
            let fate = random.below(4);
            match write {
                _ if fate == 0 => Self::write(&mut bytes, write),
                Write::At(offset, new) if fate > 1 => {
                    // By sectors of the file, the first ones or any.
                    let whole = random.below((new.len() / SECTOR_BYTES + 2) as u64);
                    let mut from = 0;
                    let mut sector = 0;
                    while from < new.len() {
                        let room = SECTOR_BYTES - (offset + from) % SECTOR_BYTES;
                        let to = (from + room).min(new.len());
                        let keep = match fate {
                            2 => sector < whole,
                            _ => random.below(2) == 0,
                        };
                        if let (true, Some(part)) = (keep, new.get(from..to)) {
                            let part = Write::At(offset + from, part.to_vec());
                            Self::write(&mut bytes, &part);
                        }
                        from = to;
                        sector += 1;
                    }
                }
                Write::At(..) | Write::Cut(_) => {}
            }
        }
        bytes
    }
}

impl Tree {
    /// Bytes of all files that have a name.
    pub(super) fn used(&self) -> u64 {
        let named = self.nodes.values().flat_map(|node| node.names.values());
        let files: BTreeSet<&u64> = named.collect();
        let files = files.into_iter().filter_map(|file| self.nodes.get(file));
        files.map(|file| file.live.len() as u64).sum()
    }

    pub(super) fn new(base: &str, uid: u32, gid: u32) -> Self {
        let mut tree = Self {
            nodes: BTreeMap::from([(ROOT, Node::directory(0o755))]),
            next: ROOT + 1,
            unflushed: Vec::new(),
            failing: Vec::new(),
            forgets_flushes: false,
        };
        if let Some(root) = tree.nodes.get_mut(&ROOT) {
            (root.uid, root.gid) = (uid, gid);
            root.device = ROOT_DEVICE;
        }
        tree.make_durable_directory(base);
        tree
    }

    pub(super) fn make_durable_directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(parent) = self.find(parent) {
            let node = self.add(Node::directory(0o700), parent);
            self.rename(NameChange::add(parent, name, node));
            self.flush(Extent::Node(parent));
        }
    }

    /// Makes a directory the root of another file system, which is empty.
    pub(super) fn mount(&mut self, path: &str, device: u64) {
        if let Some(node) = self.find(path).and_then(|node| self.nodes.get_mut(&node)) {
            node.device = device;
        }
    }

    /// The node at a path below the root.
    pub(super) fn find(&self, path: &str) -> Option<u64> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = *self.nodes.get(&at)?.names.get(name)?;
        }
        Some(at)
    }

    pub(super) fn directory_below(&self, base: u64, path: &str) -> io::Result<u64> {
        let mut at = base;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.child(at, name)?;
            if !self.nodes.get(&at).is_some_and(|node| node.is_directory) {
                return Err(errno(libc::ENOTDIR));
            }
        }
        Ok(at)
    }

    pub(super) fn child(&self, dir: u64, name: &str) -> io::Result<u64> {
        let node = self.nodes.get(&dir);
        let child = node.and_then(|node| node.names.get(name));
        child.copied().ok_or_else(|| errno(libc::ENOENT))
    }

    pub(super) fn must_be_free(&self, dir: u64, name: &str) -> io::Result<()> {
        match self.child(dir, name) {
            Ok(_) => Err(errno(libc::EEXIST)),
            Err(_) => Ok(()),
        }
    }

    /// A new node, owned as its directory is.
    pub(super) fn add(&mut self, mut node: Node, dir: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(dir) = self.nodes.get(&dir) {
            (node.uid, node.gid) = (dir.uid, dir.gid);
            node.device = dir.device;
        }
        node.changed = clock::since_epoch();
        self.nodes.insert(number, node);
        number
    }

    pub(super) fn rename(&mut self, change: NameChange) {
        self.apply(&change, |node| &mut node.names);
        self.unflushed.push(change);
    }

    fn apply(
        &mut self,
        change: &NameChange,
        names: impl Fn(&mut Node) -> &mut BTreeMap<String, u64>,
    ) {
        if let Some((dir, name)) = &change.removed
            && let Some(dir) = self.nodes.get_mut(dir)
        {
            names(dir).remove(name);
        }
        if let Some((dir, name, node)) = &change.added
            && let Some(dir) = self.nodes.get_mut(dir)
        {
            names(dir).insert(name.clone(), *node);
        }
    }

    pub(super) fn append(&mut self, file: u64, bytes: &[u8]) {
        if let Some(node) = self.nodes.get(&file) {
            let end = node.live.len();
            self.write_at(file, end, bytes);
        }
    }

    pub(super) fn write_at(&mut self, file: u64, offset: usize, bytes: &[u8]) {
        if let Some(node) = self.nodes.get_mut(&file) {
            let write = Write::At(offset, bytes.to_vec());
            Node::write(&mut node.live, &write);
            node.unflushed.push(write);
        }
    }

    pub(super) fn truncate(&mut self, file: u64, length: usize) {
        if let Some(node) = self.nodes.get_mut(&file) {
            node.live.truncate(length);
            node.unflushed.push(Write::Cut(length));
        }
    }

    pub(super) fn stat(&self, number: u64) -> io::Result<FileStat> {
        let node = self.nodes.get(&number).ok_or_else(|| errno(libc::ENOENT))?;
        let names = self.nodes.values().flat_map(|node| node.names.values());
        Ok(FileStat {
            device: node.device,
            inode: number,
            kind: match node.is_directory {
                true => FileKind::Directory,
                false => FileKind::Regular,
            },
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            links: names.filter(|named| **named == number).count() as u64,
            size: node.live.len() as u64,
            modified: node.changed,
            changed: node.changed,
        })
    }

    fn contains(&self, extent: Extent, number: u64) -> bool {
        match extent {
            Extent::Node(node) => node == number,
            Extent::Device(device) => self.device(number) == Some(device),
        }
    }

    /// The file system of a file or directory.
    pub(super) fn device(&self, number: u64) -> Option<u64> {
        self.nodes.get(&number).map(|node| node.device)
    }

    fn numbers(&self, extent: Extent) -> Vec<u64> {
        let all = self.nodes.keys().copied();
        all.filter(|number| self.contains(extent, *number))
            .collect()
    }

    /// Makes a file, a directory or a file system durable.
    pub(super) fn flush(&mut self, extent: Extent) {
        if self.forgets_flushes && matches!(extent, Extent::Device(_)) {
            return;
        }
        for number in self.numbers(extent) {
            if let Some(node) = self.nodes.get_mut(&number) {
                for write in std::mem::take(&mut node.unflushed) {
                    Node::write(&mut node.durable, &write);
                }
            }
        }
        // With a change of a name, those of the same name before it are durable too.
        let mut names = BTreeSet::new();
        let (mut due, mut later) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.unflushed).into_iter().rev() {
            let is_there = change.directories().any(|dir| self.contains(extent, dir));
            if is_there || change.names().any(|name| names.contains(&name)) {
                names.extend(change.names());
                due.push(change);
            } else {
                later.push(change);
            }
        }
        due.reverse();
        later.reverse();
        for change in &due {
            self.apply(change, |node| &mut node.durable_names);
        }
        self.unflushed = later;
    }

    /// Has flushes of this fail with an error code, until `None`.
    pub(super) fn fail_flushes(&mut self, extent: Extent, errno: Option<i32>) {
        self.failing.retain(|(failing, _)| *failing != extent);
        self.failing.extend(errno.map(|errno| (extent, errno)));
    }

    /// The error code with which a flush fails: of a file only while something was written to it.
    pub(super) fn failure(&self, extent: Extent) -> Option<i32> {
        let fails = |failing: Extent| match (failing, extent) {
            (Extent::Device(device), Extent::Node(node)) => self.device(node) == Some(device),
            (Extent::Device(_), Extent::Device(_)) => failing == extent,
            (Extent::Node(node), _) => {
                let unflushed = self.nodes.get(&node).map(|node| !node.unflushed.is_empty());
                unflushed == Some(true) && self.contains(extent, node)
            }
        };
        let mut failing = self.failing.iter();
        failing
            .find(|(failing, _)| fails(*failing))
            .map(|(_, errno)| *errno)
    }

    /// What a failed flush leaves: the bytes are seen, and will never be durable.
    pub(super) fn drop_unflushed(&mut self, extent: Extent) {
        for number in self.numbers(extent) {
            if let Some(node) = self.nodes.get_mut(&number) {
                node.unflushed.clear();
            }
        }
    }

    /// One file system as found when it is mounted again, after it took no more writes.
    pub(super) fn survive_on(&mut self, device: u64, random: &mut SimRandom) {
        for number in self.numbers(Extent::Device(device)) {
            if let Some(node) = self.nodes.get_mut(&number) {
                node.names = node.durable_names.clone();
                node.locks.clear();
                node.live = node.survive(random);
                node.durable = node.live.clone();
                node.unflushed.clear();
            }
        }
        let changes = std::mem::take(&mut self.unflushed);
        let (there, elsewhere): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| {
            let mut directories = change.directories();
            directories.any(|dir| self.device(dir) == Some(device))
        });
        for change in there {
            if random.below(2) == 0 {
                self.apply(&change, |node| &mut node.names);
                self.apply(&change, |node| &mut node.durable_names);
            }
        }
        self.unflushed = elsewhere;
    }

    /// As found after a power failure.
    pub(super) fn survive(&self, random: &mut SimRandom) -> Self {
        let mut tree = self.clone();
        tree.failing.clear();
        for node in tree.nodes.values_mut() {
            node.names = node.durable_names.clone();
            node.locks.clear();
            node.live = node.survive(random);
            node.durable = node.live.clone();
            node.unflushed.clear();
        }
        for change in std::mem::take(&mut tree.unflushed) {
            if random.below(2) == 0 {
                tree.apply(&change, |node| &mut node.names);
            }
        }
        for node in tree.nodes.values_mut() {
            node.durable_names = node.names.clone();
        }
        tree
    }

    /// As found after the process was killed.
    pub(super) fn unlocked(&self) -> Self {
        let mut tree = self.clone();
        tree.failing.clear();
        for node in tree.nodes.values_mut() {
            node.locks.clear();
        }
        tree
    }
}
