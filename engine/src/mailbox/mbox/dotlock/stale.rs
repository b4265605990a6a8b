//! Taking stale lock files away.
//!
//! Imports `io` and its parent. Invariant: a lock that somebody took meanwhile keeps its name, or
//! has it back at once. Source: procmail's lockfile(1).

use super::helper_name;
use crate::io::{Disk, FileStat};
use std::io;

/// Takes the stale file's name away; false when it is another's by now, who keeps it.
pub(super) fn take_away<D: Disk>(
    disk: &D,
    parent: &D::Handle,
    (lock, stale): (&str, &FileStat),
) -> io::Result<bool> {
    let helper = helper_name(lock);
    match disk.rename_new((parent, lock), (parent, &helper)) {
        // No careful way on this file system.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return disk.remove(parent, lock).map(|()| true);
        }
        answer => answer?,
    }
    let renamed = disk.stat_at(parent, &helper)?;
    let is_stale = is_same(&renamed, stale);
    if !is_stale {
        // Somebody else was quicker, and this is the new lock: back it goes.
        let _ = disk.link((parent, &helper), (parent, lock));
    }
    disk.remove(parent, &helper).map(|()| is_stale)
}

/// A new lock may have got the inode number of the stale one, but not its time.
fn is_same(there: &FileStat, stale: &FileStat) -> bool {
    there.is_same_file(stale) && there.modified == stale.modified
}

/// Takes away the names that a stale lock file of ours has in this directory beside the one that
/// was found. They are as stale as that one, but do not look so to other programs any more: to
/// them a file that lost a name was changed just now.
pub(super) fn take_family_away<D: Disk>(disk: &D, parent: &D::Handle, stale: &FileStat) -> usize {
    let names = disk.list(parent, usize::MAX).unwrap_or_default();
    let names = names.iter().filter_map(|name| name.to_str());
    let locks = names.filter(|name| name.ends_with(".lock"));
    let is_stale = |name: &&str| {
        let there = disk.stat_at(parent, name);
        there.is_ok_and(|there| is_same(&there, stale))
    };
    let family = locks.filter(is_stale);
    // What cannot be removed is found stale when it is in somebody's way.
    family
        .filter(|name| matches!(take_away(disk, parent, (name, stale)), Ok(true)))
        .count()
}
