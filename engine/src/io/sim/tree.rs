//! Files and directories of the simulated disk, as they are and as far as they are durable.
//!
//! Imports `io` (attributes), `log::sim` (random numbers). Names change in a list of changes;
//! each is durable once one of its directories was flushed, or by the whim of a crash.

use super::super::{FileKind, FileStat, LockKind};
use crate::clock;
use crate::log::sim::SimRandom;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A file or directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
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
}

/// The number of the root.
const ROOT: u64 = 1;

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

    fn touches(&self, dir: u64) -> bool {
        let added = self.added.as_ref().is_some_and(|(at, ..)| *at == dir);
        added || self.removed.as_ref().is_some_and(|(at, _)| *at == dir)
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
        let files: std::collections::BTreeSet<&u64> = named.collect();
        let files = files.into_iter().filter_map(|file| self.nodes.get(file));
        files.map(|file| file.live.len() as u64).sum()
    }

    pub(super) fn new(base: &str, uid: u32, gid: u32) -> Self {
        let mut tree = Self {
            nodes: BTreeMap::from([(ROOT, Node::directory(0o755))]),
            next: ROOT + 1,
            unflushed: Vec::new(),
        };
        if let Some(root) = tree.nodes.get_mut(&ROOT) {
            (root.uid, root.gid) = (uid, gid);
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
            self.flush(Some(parent));
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
        if let Some(node) = self.nodes.get_mut(&file) {
            let write = Write::At(node.live.len(), bytes.to_vec());
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
            device: 1,
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

    /// Makes one file or directory durable, or all.
    pub(super) fn flush(&mut self, only: Option<u64>) {
        for (number, node) in &mut self.nodes {
            if only.is_none_or(|only| only == *number) {
                for write in std::mem::take(&mut node.unflushed) {
                    Node::write(&mut node.durable, &write);
                }
            }
        }
        let is_due = |change: &NameChange| only.is_none_or(|dir| change.touches(dir));
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unflushed)
            .into_iter()
            .partition(is_due);
        for change in &due {
            self.apply(change, |node| &mut node.durable_names);
        }
        self.unflushed = later;
    }

    /// What a failed flush leaves: the bytes are seen, and will never be durable.
    pub(super) fn drop_unflushed(&mut self, only: Option<u64>) {
        for (number, node) in &mut self.nodes {
            if only.is_none_or(|only| only == *number) {
                node.unflushed.clear();
            }
        }
    }

    /// As found after a power failure.
    pub(super) fn survive(&self, random: &mut SimRandom) -> Self {
        let mut tree = self.clone();
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
        for node in tree.nodes.values_mut() {
            node.locks.clear();
        }
        tree
    }
}
