//! The lock file beside an mbox.
//!
//! Imports `io`, `clock`, `sync`. `MAILBOX.lock` is made by giving a finished file that name,
//! which is atomic on NFS too. A lock that nobody touched for `stale_lock_time` is taken away by
//! renaming it first, so that of two who find it stale only one takes it away. Invariant: the
//! thread that takes or releases a lock has the mailbox owner's identity. Source: Postfix
//! `mailbox_delivery_lock`, procmail's lockfile(1).

use crate::clock;
use crate::io::{Disk, FileKind, FileStat};
// Not the seam: the model checker's atomics cannot be statics.
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Permission bits of a lock file.
const LOCK_MODE: u32 = 0o600;

/// What an mbox begins with.
const FROM: &[u8] = b"From ";

/// Tells the helper names of this process apart.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// A lock file of ours.
#[derive(Debug)]
pub(super) struct DotLock<H> {
    name: String,
    /// Kept open: as long as it is, no other file can get its inode number, so that number
    /// tells whether the lock is still ours.
    file: H,
}

impl<H> DotLock<H> {
    /// Takes the lock for the mailbox `mailbox` in the directory `parent`; `None` when another
    /// holds it.
    pub(super) fn try_take<D: Disk<Handle = H>>(
        disk: &D,
        parent: &H,
        mailbox: &str,
        stale_age: Duration,
    ) -> io::Result<Option<Self>> {
        let name = format!("{mailbox}.lock");
        // One more attempt after a stale lock was taken away.
        for _ in 0..2 {
            if let Some(file) = create(disk, parent, &name)? {
                return Ok(Some(Self { name, file }));
            }
            if !break_stale(disk, parent, &name, stale_age)? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Gives the lock back, unless somebody thought it stale and took it meanwhile.
    pub(super) fn release<D: Disk<Handle = H>>(self, disk: &D, parent: &H) {
        let is_ours = match (disk.stat(&self.file), disk.stat_at(parent, &self.name)) {
            (Ok(ours), Ok(there)) => ours.is_same_file(&there),
            _ => false,
        };
        if !is_ours {
            tracing::warn!(
                lock = self.name,
                "our lock file was taken away while in use"
            );
        } else if let Err(error) = disk.remove(parent, &self.name) {
            tracing::warn!(lock = self.name, %error, "cannot remove our lock file");
        }
    }
}

fn helper_name(lock: &str) -> String {
    // Relaxed: only the numbers must differ.
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let now = clock::since_epoch().as_micros();
    format!("{lock}.{now}.{}.{sequence}", std::process::id())
}

/// Makes a file with the lock's name; `None` if there is one.
fn create<D: Disk>(disk: &D, parent: &D::Handle, lock: &str) -> io::Result<Option<D::Handle>> {
    let exists = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    match disk.create_unnamed(parent, LOCK_MODE) {
        Ok(file) => {
            return match disk.name_unnamed(&file, parent, lock) {
                Ok(()) => Ok(Some(file)),
                Err(error) if exists(&error) => Ok(None),
                Err(error) => Err(error),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(error) => return Err(error),
    }
    let helper = helper_name(lock);
    let file = disk.create_new(parent, &helper, LOCK_MODE)?;
    let linked = disk.link((parent, &helper), (parent, lock));
    // Over NFS the answer may be lost although the link was made: the link count knows.
    let stat = disk.stat(&file);
    let removed = disk.remove(parent, &helper);
    match (stat, linked) {
        (Ok(stat), _) if stat.links == 2 => removed.map(|()| Some(file)),
        (_, Err(error)) if exists(&error) => Ok(None),
        (_, Err(error)) => Err(error),
        (Err(error), Ok(())) => Err(error),
        (Ok(_), Ok(())) => Ok(None),
    }
}

/// Takes a stale lock away; true when it is worth trying again.
fn break_stale<D: Disk>(
    disk: &D,
    parent: &D::Handle,
    lock: &str,
    stale_age: Duration,
) -> io::Result<bool> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let stale = match disk.stat_at(parent, lock) {
        Ok(stat) => stat,
        Err(error) if gone(&error) => return Ok(true),
        Err(error) => return Err(error),
    };
    let age = clock::since_epoch().saturating_sub(stale.changed.max(stale.modified));
    if age <= stale_age || is_mailbox(disk, parent, lock, &stale)? {
        return Ok(false);
    }
    let helper = helper_name(lock);
    match disk.rename_new((parent, lock), (parent, &helper)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            // No careful way on this file system.
            return disk.remove(parent, lock).map(|()| true);
        }
        Err(error) if gone(&error) => return Ok(true),
        Err(error) => return Err(error),
    }
    let renamed = disk.stat_at(parent, &helper)?;
    // A new lock may have got the inode number of the stale one, but not its time.
    if renamed.is_same_file(&stale) && renamed.modified == stale.modified {
        tracing::warn!(lock, age_s = age.as_secs(), "removed a stale lock file");
    } else {
        // Somebody else was quicker, and this is the new lock: back it goes.
        let _ = disk.link((parent, &helper), (parent, lock));
    }
    disk.remove(parent, &helper)?;
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
        // Somebody else's, and of mode 0 as Postfix makes them: no mailbox of this user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut first = [0; FROM.len()];
    let count = disk.read_at(&file, &mut first, 0)?;
    Ok(first.get(..count) == Some(FROM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Blocking, Fault, Faulty};

    const NEVER: Duration = Duration::from_secs(1_000_000);

    #[test]
    fn one_holder_at_a_time_with_and_without_unnamed_files() {
        for unsupported in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let disk = Faulty::new(Blocking::new());
            if unsupported {
                disk.plan(Fault {
                    operation: "create_unnamed",
                    after: 0,
                    errno: libc::EOPNOTSUPP,
                    bytes_written: 0,
                    persists: true,
                });
            }
            let parent = disk.open_root(dir.path()).unwrap();
            let lock = DotLock::try_take(&disk, &parent, "m", NEVER).unwrap();
            let lock = lock.expect("the first one gets it");
            assert!(dir.path().join("m.lock").exists());
            assert!(
                DotLock::try_take(&disk, &parent, "m", NEVER)
                    .unwrap()
                    .is_none()
            );
            lock.release(&disk, &parent);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_stale_lock_is_taken_over_and_its_late_holder_does_not_remove_ours() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Blocking::new();
        let parent = disk.open_root(dir.path()).unwrap();
        let late = DotLock::try_take(&disk, &parent, "m", NEVER)
            .unwrap()
            .unwrap();
        let deadline = clock::now() + Duration::from_secs(10);
        let ours = loop {
            let age = Duration::from_millis(5);
            if let Some(lock) = DotLock::try_take(&disk, &parent, "m", age).unwrap() {
                break lock;
            }
            assert!(clock::now() < deadline, "never became stale");
            std::thread::yield_now();
        };
        late.release(&disk, &parent);
        assert!(dir.path().join("m.lock").exists());
        ours.release(&disk, &parent);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_mailbox_with_the_name_of_a_lock_is_not_taken_for_a_stale_lock() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Blocking::new();
        let parent = disk.open_root(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("a.lock")).unwrap();
        std::fs::write(dir.path().join("b.lock"), "From me\n\n").unwrap();
        std::fs::write(dir.path().join("c.lock"), "4711:host").unwrap();
        let age = Duration::from_millis(5);
        let deadline = clock::now() + Duration::from_secs(10);
        while clock::since_epoch() - disk.stat_at(&parent, "c.lock").unwrap().changed <= age {
            assert!(clock::now() < deadline, "never became stale");
            std::thread::yield_now();
        }
        for mailbox in ["a", "b"] {
            let lock = DotLock::try_take(&disk, &parent, mailbox, age).unwrap();
            assert!(lock.is_none(), "{mailbox}");
        }
        assert!(
            DotLock::try_take(&disk, &parent, "c", age)
                .unwrap()
                .is_some()
        );
        assert!(dir.path().join("a.lock").is_dir());
        let text = std::fs::read_to_string(dir.path().join("b.lock")).unwrap();
        assert_eq!(text, "From me\n\n");
    }
}
