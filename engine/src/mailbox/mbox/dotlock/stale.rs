//! Which lock files are stale, and taking them away.
//!
//! Invariant: a lock that another process took meanwhile keeps its name, or has it back at once.
//! Source: procmail's lockfile(1).

use super::mark::{OUR_MARK, StalePolicy, helper_name};
use crate::clock;
use crate::io::{Disk, FileKind, FileStat, LockKind};
use std::io;

/// Longest content of a lock file of ours, in bytes.
const CONTENT_BYTES_MAX: usize = 400;

/// What an mbox begins with.
const FROM: &[u8] = b"From ";

/// What is known of the holder of a lock file.
enum Holder<H> {
    /// Nothing: its age decides.
    Unknown,
    /// It is there.
    Alive,
    /// It is gone. As long as this handle is open, others take it to be alive.
    Gone(H),
}

/// Who holds the lock that has these attributes, if it is one of ours.
fn holder<D: Disk>(
    disk: &D,
    parent: &D::Handle,
    (lock, stat): (&str, &FileStat),
    host: &str,
) -> io::Result<Holder<D::Handle>> {
    if stat.kind != FileKind::Regular || stat.mode & OUR_MARK == 0 {
        return Ok(Holder::Unknown);
    }
    let Ok(file) = disk.open_append(parent, lock) else {
        return Ok(Holder::Unknown);
    };
    let mut bytes = [0; CONTENT_BYTES_MAX];
    let read = disk.read_at(&file, &mut bytes, 0)?;
    let text = bytes.get(..read).unwrap_or_default();
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut words = text.split_whitespace().skip(1);
    let boot = words
        .next()
        .and_then(|boot| u128::from_str_radix(boot, 16).ok());
    let is_of_this_kernel = boot == Some(disk.boot()) && disk.boot() != 0;
    let may_be_of_this_host = words.next().is_none_or(|named| named == host);
    // A lock that names no host, or this host at an earlier start, on a file system of this
    // machine alone, is this machine's.
    let is_of_this_machine = may_be_of_this_host && disk.is_local(parent);
    if !is_of_this_kernel && !is_of_this_machine {
        return Ok(Holder::Unknown);
    }
    if !disk.try_lock(&file, LockKind::Fcntl)? {
        return Ok(Holder::Alive);
    }
    // Given back just now, it may be another's name already.
    match disk.stat_at(parent, lock) {
        Ok(there) if there.is_same_file(&disk.stat(&file)?) => Ok(Holder::Gone(file)),
        Ok(_) => Ok(Holder::Alive),
        Err(error) => Err(error),
    }
}

/// Takes a stale lock away; true when it is worth trying again.
pub(super) fn break_stale<D: Disk>(
    disk: &D,
    parent: &D::Handle,
    lock: &str,
    policy: StalePolicy<'_>,
) -> io::Result<bool> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let stale = match disk.stat_at(parent, lock) {
        Ok(stat) => stat,
        Err(error) if gone(&error) => return Ok(true),
        Err(error) => return Err(error),
    };
    let age = clock::since_epoch().saturating_sub(stale.changed.max(stale.modified));
    // Held until the file has lost its name.
    let _kept = match holder(disk, parent, (lock, &stale), policy.host) {
        Ok(Holder::Gone(file)) => Some(file),
        Ok(Holder::Alive) => return Ok(false),
        Ok(Holder::Unknown) if age <= policy.stale_age => return Ok(false),
        Ok(Holder::Unknown) if is_mailbox(disk, parent, lock, &stale)? => return Ok(false),
        Ok(Holder::Unknown) => None,
        Err(error) if gone(&error) => return Ok(true),
        Err(error) => return Err(error),
    };
    match take_away(disk, parent, (lock, &stale)) {
        Ok(true) => {}
        Ok(false) => return Ok(true),
        Err(error) if gone(&error) => return Ok(true),
        Err(error) => return Err(error),
    }
    tracing::warn!(lock, age_s = age.as_secs(), "removed a stale lock file");
    if stale.mode & OUR_MARK != 0 && stale.links > 1 {
        let removed = take_family_away(disk, parent, &stale);
        tracing::info!(lock, removed, "removed other names of a stale lock file");
    }
    Ok(true)
}

/// True for a mailbox whose name looks like that of a lock: however old, it is never taken away.
fn is_mailbox<D: Disk>(
    disk: &D,
    parent: &D::Handle,
    lock: &str,
    stat: &FileStat,
) -> io::Result<bool> {
    if stat.kind == FileKind::Directory || stat.size == 0 {
        return Ok(stat.kind == FileKind::Directory);
    }
    let file = match disk.open_append(parent, lock) {
        Ok(file) => file,
        // Another program's, and of mode 0 as Postfix makes them: no mailbox of this user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut first = [0; FROM.len()];
    let count = disk.read_at(&file, &mut first, 0)?;
    Ok(first.get(..count) == Some(FROM))
}

/// Takes the stale file's name away; false when it is another's by now, who keeps it.
fn take_away<D: Disk>(
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
        // Another process was quicker, and this is the new lock: back it goes.
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
fn take_family_away<D: Disk>(disk: &D, parent: &D::Handle, stale: &FileStat) -> usize {
    let names = disk.list(parent, usize::MAX).unwrap_or_default();
    let names = names.iter().filter_map(|name| name.to_str());
    let locks = names.filter(|name| name.ends_with(".lock"));
    let is_stale = |name: &&str| {
        let there = disk.stat_at(parent, name);
        there.is_ok_and(|there| is_same(&there, stale))
    };
    let family = locks.filter(is_stale);
    // A name that cannot be removed is found stale by the next delivery that needs it.
    family
        .filter(|name| matches!(take_away(disk, parent, (name, stale)), Ok(true)))
        .count()
}
