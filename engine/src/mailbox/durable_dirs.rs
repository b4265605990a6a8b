//! Mailboxes that this process has used, whose directories are durable.
//!
//! A message in a durable directory is lost if the directory above lost the entry of that
//! directory. So the first use of a mailbox flushes the directories above it, even those that
//! another program made; later uses need not. A mailbox that was removed and made anew has another
//! inode, and counts as unused.

use super::owner_check::OwnerCheck;
use crate::clock;
use crate::io::FileStat;
use crate::limits::KNOWN_MAILBOXES_MAX;
use crate::sync::{Arc, Mutex};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

/// How often leftovers in a Maildir's `tmp/` are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(4 * 3600);

/// A path, by a hash of it, what it leads to, and for whom.
type DirKey = (u64, u64, u64, OwnerCheck);

/// Mailboxes whose directories are durable. Any thread may use it.
#[derive(Debug, Default)]
pub struct DurableDirs {
    mailboxes: Mutex<HashMap<String, Entry>>,
    torn: TornEnds,
    durable: Mutex<HashSet<DirKey>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Entry {
    device: u64,
    inode: u64,
    owner: OwnerCheck,
    durable: bool,
    swept: Instant,
}

/// When the directories above a mailbox must be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Before the message counts as stored.
    Now,
    /// With the next checkpoint of the delivery log.
    Later,
}

impl DirState {
    /// Returns true when the directories above need not be looked at.
    pub(super) fn is_enough(self, flush: Flush) -> bool {
        match flush {
            Flush::Now => self.durable,
            Flush::Later => self.seen,
        }
    }
}

/// The state of a mailbox's directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirState {
    /// The directories above it are durable.
    pub(super) durable: bool,
    /// It was used; a checkpoint of the delivery log makes the directories durable.
    pub(super) seen: bool,
    pub(super) sweep_due: bool,
}

/// An mbox of which an incomplete message could not be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TornEnd {
    device: u64,
    inode: u64,
    /// Bytes of whole messages.
    pub(super) end: u64,
    /// Bytes of the file; with another size, another program has changed it since.
    size: u64,
}

/// Incomplete messages by path. Clones share one table.
#[derive(Clone, Debug, Default)]
pub(super) struct TornEnds(Arc<Mutex<HashMap<String, TornEnd>>>);

impl TornEnds {
    /// Remembers one; `stat` is of now.
    pub(super) fn remember(&self, path: &str, stat: &FileStat, end: u64) {
        let torn = TornEnd {
            device: stat.device,
            inode: stat.inode,
            end,
            size: stat.size,
        };
        self.0.lock().insert(path.to_owned(), torn);
    }

    /// Forgets one that was cut off, or is not ours to cut off any more.
    pub(super) fn forget(&self, path: &str) {
        self.0.lock().remove(path);
    }

    /// Returns where to cut this mbox, if no program changed it since.
    pub(super) fn find(&self, path: &str, stat: &FileStat) -> Option<u64> {
        let torn = self.0.lock().get(path).copied()?;
        let now = TornEnd {
            device: stat.device,
            inode: stat.inode,
            end: torn.end,
            size: stat.size,
        };
        if torn == now {
            return Some(torn.end);
        }
        self.forget(path);
        None
    }
}

impl DurableDirs {
    /// What is known of the mailbox at `path` whose file or `new/` directory is `stat`.
    pub(super) fn look(&self, path: &str, stat: &FileStat, owner: OwnerCheck) -> DirState {
        let mailboxes = self.mailboxes.lock();
        let is_it = |entry: &&Entry| {
            (entry.device, entry.inode, entry.owner) == (stat.device, stat.inode, owner)
        };
        match mailboxes.get(path).filter(is_it) {
            Some(entry) => DirState {
                durable: entry.durable,
                seen: true,
                sweep_due: clock::now().duration_since(entry.swept) >= SWEEP_EVERY,
            },
            None => DirState {
                durable: false,
                seen: false,
                sweep_due: true,
            },
        }
    }

    /// The directories above were flushed.
    pub(super) fn remember(&self, path: &str, stat: &FileStat, owner: OwnerCheck) {
        self.put(path, (stat, owner), true);
    }

    /// It was looked at, and the directories above are flushed with the next checkpoint.
    pub(super) fn note(&self, path: &str, stat: &FileStat, owner: OwnerCheck) {
        let durable = self.look(path, stat, owner).durable;
        self.put(path, (stat, owner), durable);
    }

    /// True when the way to this directory was found safe for `owner`.
    pub(super) fn is_safe(&self, path: &str, stat: &FileStat, owner: OwnerCheck) -> bool {
        self.durable.lock().contains(&self.key(path, stat, owner))
    }

    /// The way to this directory is safe for `owner`.
    pub(super) fn found_safe(&self, path: &str, stat: &FileStat, owner: OwnerCheck) {
        let mut durable = self.durable.lock();
        if durable.len() >= KNOWN_MAILBOXES_MAX {
            durable.clear();
        }
        durable.insert(self.key(path, stat, owner));
    }

    fn key(&self, path: &str, stat: &FileStat, owner: OwnerCheck) -> DirKey {
        let path = self.hasher.hash_one(path);
        (path, stat.device, stat.inode, owner)
    }

    /// The mboxes with something incomplete at their end.
    pub(super) fn torn_ends(&self) -> &TornEnds {
        &self.torn
    }

    /// Forgets all: a flush failed, so nothing is known to be durable any more.
    pub(crate) fn clear(&self) {
        self.mailboxes.lock().clear();
    }

    /// Forgetting a mailbox only costs flushing its directories again, so a full table is simply
    /// emptied.
    fn put(&self, path: &str, (stat, owner): (&FileStat, OwnerCheck), durable: bool) {
        let mut mailboxes = self.mailboxes.lock();
        if mailboxes.len() >= KNOWN_MAILBOXES_MAX && !mailboxes.contains_key(path) {
            mailboxes.clear();
        }
        let entry = Entry {
            device: stat.device,
            inode: stat.inode,
            owner,
            durable,
            swept: clock::now(),
        };
        mailboxes.insert(path.to_owned(), entry);
    }
}
