//! Mailboxes this process has used: their directories are known to be durable.
//!
//! Imports `sync`, `clock`, `io` (attributes), `limits`. A message in a durable directory is lost
//! all the same when the directory above lost the directory's own entry. So the first use of a
//! mailbox flushes the directories above it, whoever made them; later uses need not. A mailbox
//! that was removed and made anew has another inode, and counts as unknown again.

use crate::clock;
use crate::io::FileStat;
use crate::limits::KNOWN_MAILBOXES_MAX;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often leftovers in a Maildir's `tmp/` are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(4 * 3600);

/// Mailboxes whose directories are durable. Any thread may use it.
#[derive(Debug, Default)]
pub struct Known {
    mailboxes: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    device: u64,
    inode: u64,
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

impl Familiarity {
    /// The directories above need no look.
    pub(super) fn is_enough(self, flush: Flush) -> bool {
        match flush {
            Flush::Now => self.durable,
            Flush::Later => self.seen,
        }
    }
}

/// What is known of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Familiarity {
    /// The directories above it are durable.
    pub(super) durable: bool,
    /// It was used; a checkpoint of the delivery log makes the directories durable.
    pub(super) seen: bool,
    pub(super) sweep_due: bool,
}

impl Known {
    /// What is known of the mailbox at `path` whose file or `new/` directory is `stat`.
    pub(super) fn look(&self, path: &str, stat: &FileStat) -> Familiarity {
        let mailboxes = self.mailboxes.lock();
        match mailboxes.get(path) {
            Some(entry) if entry.device == stat.device && entry.inode == stat.inode => {
                Familiarity {
                    durable: entry.durable,
                    seen: true,
                    sweep_due: clock::now().duration_since(entry.swept) >= SWEEP_EVERY,
                }
            }
            _ => Familiarity {
                durable: false,
                seen: false,
                sweep_due: true,
            },
        }
    }

    /// The directories above were flushed.
    pub(super) fn remember(&self, path: &str, stat: &FileStat) {
        self.put(path, stat, true);
    }

    /// It was looked at, and the directories above are flushed with the next checkpoint.
    pub(super) fn note(&self, path: &str, stat: &FileStat) {
        let durable = self.look(path, stat).durable;
        self.put(path, stat, durable);
    }

    /// Forgets all: a flush failed, so nothing is known to be durable any more.
    pub(crate) fn clear(&self) {
        self.mailboxes.lock().clear();
    }

    /// Forgetting a mailbox only costs flushing its directories again, so a full table is simply
    /// emptied.
    fn put(&self, path: &str, stat: &FileStat, durable: bool) {
        let mut mailboxes = self.mailboxes.lock();
        if mailboxes.len() >= KNOWN_MAILBOXES_MAX && !mailboxes.contains_key(path) {
            mailboxes.clear();
        }
        let entry = Entry {
            device: stat.device,
            inode: stat.inode,
            durable,
            swept: clock::now(),
        };
        mailboxes.insert(path.to_owned(), entry);
    }
}
