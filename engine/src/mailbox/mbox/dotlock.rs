//! The lock file beside an mbox.
//!
//! `MAILBOX.lock` is made by giving a finished file that name, which is atomic on NFS too. A lock
//! that was not touched for `stale_lock_time` is taken away by renaming it first, so that of two
//! who find it stale only one takes it away. Ours are known by their mode, and are locked by the
//! kernel as well while they are in use: a process that can take that lock knows that the holder is
//! gone, and need not wait; one that cannot never takes the file away. On file systems that other
//! machines may have as well, where the kernel's locks may be each machine's own, they also name
//! the host and its kernel, and only that host judges them so. Those of other programs are judged
//! by their age alone. Locks that are held at the same time may be names of one and the same file:
//! a name costs half of what a file costs, and the file is gone with its last name all the same.
//! Invariants: our file is locked by the kernel before it has its name, and loses the name before
//! that lock; the thread that takes or releases a lock has the mailbox owner's identity; a file
//! gets no more names when it is old enough for another program to consider one of them stale.
//! Source: Postfix `mailbox_delivery_lock`, procmail's lockfile(1), Dovecot's file-dotlock.

mod mark;
mod stale;

use crate::clock;
use crate::io::{Disk, FileStat, LockKind};
pub(super) use mark::StalePolicy;
use mark::helper_name;
use stale::break_stale;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Mode of a lock file. The sticky bit means nothing on a file: it marks ours, and unlike their
/// content it is never behind their name, not even after a power loss.
const LOCK_MODE: u32 = 0o1600;

/// How long a lock file gets further names.
const SHARED_FOR: Duration = Duration::from_secs(10);
/// How many names it has at most. Other programs that meet those that were left behind wait for one
/// after the other.
const NAMES_MAX: usize = 8;

/// A lock file of ours.
#[derive(Debug)]
pub(super) struct DotLock<H> {
    name: String,
    file: Arc<LockFile<H>>,
}

/// Kept open: as long as it is, it is locked by the kernel, and no other file can get its inode
/// number, so that number tells whether a lock is still ours.
#[derive(Debug)]
struct LockFile<H> {
    handle: H,
    /// When it was made.
    stat: FileStat,
}

/// The lock file that further locks of the same thread may be names of.
#[derive(Debug)]
pub(super) struct LockFiles<H> {
    newest: Option<Shareable<H>>,
}

/// A lock file of a mailbox owner, as long as one of its locks is held: without any name it can
/// get no other.
#[derive(Debug)]
struct Shareable<H> {
    file: Weak<LockFile<H>>,
    uid: u32,
    made: Instant,
}

impl<H> Default for LockFiles<H> {
    fn default() -> Self {
        Self { newest: None }
    }
}

impl<H> LockFiles<H> {
    /// The file of a lock that is held.
    fn held(&self, uid: u32, policy: StalePolicy<'_>) -> Option<Arc<LockFile<H>>> {
        let newest = self.newest.as_ref().filter(|newest| newest.uid == uid)?;
        let is_young =
            clock::now().duration_since(newest.made) < SHARED_FOR.min(policy.stale_age / 2);
        let has_room = newest.file.strong_count() < NAMES_MAX;
        newest.file.upgrade().filter(|_| is_young && has_room)
    }

    fn keep(&mut self, file: &Arc<LockFile<H>>, uid: u32, made: Instant) {
        let file = Arc::downgrade(file);
        self.newest = Some(Shareable { file, uid, made });
    }
}

impl<H> DotLock<H> {
    /// Takes the lock for the mailbox `mailbox` of `uid` in the directory `parent`; `None` when
    /// another holds it.
    pub(super) fn try_take<D: Disk<Handle = H>>(
        disk: &D,
        parent: &H,
        (mailbox, uid): (&str, u32),
        policy: StalePolicy<'_>,
        files: &mut LockFiles<H>,
    ) -> io::Result<Option<Self>> {
        let name = format!("{mailbox}.lock");
        // One more attempt after a stale lock was taken away.
        for _ in 0..2 {
            if let Some(file) = take_file(disk, parent, (&name, uid), policy, files)? {
                return Ok(Some(Self { name, file }));
            }
            if !break_stale(disk, parent, &name, policy)? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Releases the lock, unless another program considered it stale and took it meanwhile.
    pub(super) fn release<D: Disk<Handle = H>>(self, disk: &D, parent: &H) {
        let there = disk.stat_at(parent, &self.name);
        let is_ours = there.is_ok_and(|there| there.is_same_file(&self.file.stat));
        if !is_ours {
            tracing::warn!(lock = self.name, "our lock file was removed while in use");
        } else if let Err(error) = disk.remove(parent, &self.name) {
            tracing::warn!(lock = self.name, %error, "cannot remove our lock file");
        }
    }
}

/// Gives the lock's name to the file of a lock that is held, or to a new one; `None` when another
/// has that name.
fn take_file<D: Disk>(
    disk: &D,
    parent: &D::Handle,
    (lock, uid): (&str, u32),
    policy: StalePolicy<'_>,
    files: &mut LockFiles<D::Handle>,
) -> io::Result<Option<Arc<LockFile<D::Handle>>>> {
    if let Some(file) = files.held(uid, policy) {
        match disk.name_unnamed(&file.handle, parent, lock) {
            Ok(()) => return Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            // On another file system, or its last name was taken away.
            Err(_) => {}
        }
    }
    let made = clock::now();
    let Some((handle, stat)) = create(disk, parent, lock, policy.host)? else {
        return Ok(None);
    };
    let file = Arc::new(LockFile { handle, stat });
    if disk.is_local(parent) {
        files.keep(&file, uid, made);
    }
    Ok(Some(file))
}

/// Locks a file that has not its name yet. On a file system that other machines may have as well
/// it says whose it is.
fn prepare<D: Disk>(disk: &D, parent: &D::Handle, file: &D::Handle, host: &str) {
    // Where the kernel has no locks, or there is no room, the lock file is one all the same, and
    // judged by its age.
    if let Ok(true) = disk.try_lock(file, LockKind::Fcntl)
        && !disk.is_local(parent)
    {
        let _ = disk.write_all(file, [content(disk, host).as_bytes(), &[]]);
    }
}

fn content<D: Disk>(disk: &D, host: &str) -> String {
    format!("mailstow {:032x} {host}\n", disk.boot())
}

/// Makes a file with the lock's name; `None` if there is one. The attributes are of before it had
/// that name.
fn create<D: Disk>(
    disk: &D,
    parent: &D::Handle,
    lock: &str,
    host: &str,
) -> io::Result<Option<(D::Handle, FileStat)>> {
    let exists = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    match disk.create_unnamed(parent, LOCK_MODE) {
        Ok(file) => {
            prepare(disk, parent, &file, host);
            let stat = disk.stat(&file)?;
            return match disk.name_unnamed(&file, parent, lock) {
                Ok(()) => Ok(Some((file, stat))),
                Err(error) if exists(&error) => Ok(None),
                Err(error) => Err(error),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(error) => return Err(error),
    }
    let helper = helper_name(lock);
    let file = disk.create_new(parent, &helper, LOCK_MODE)?;
    prepare(disk, parent, &file, host);
    let linked = disk.link((parent, &helper), (parent, lock));
    // Over NFS the answer may be lost although the link was made: the link count knows.
    let stat = disk.stat(&file);
    let removed = disk.remove(parent, &helper);
    match (stat, linked) {
        (Ok(stat), _) if stat.links == 2 => removed.map(|()| Some((file, stat))),
        (_, Err(error)) if exists(&error) => Ok(None),
        (_, Err(error)) => Err(error),
        (Err(error), Ok(())) => Err(error),
        (Ok(_), Ok(())) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Blocking, Fault, Faulty};
    use std::os::fd::OwnedFd;

    const NEVER: StalePolicy<'_> = StalePolicy {
        host: "host",
        stale_age: Duration::from_secs(1_000_000),
    };
    const AT_ONCE: StalePolicy<'_> = StalePolicy {
        host: "host",
        stale_age: Duration::from_millis(5),
    };

    /// An empty directory.
    fn place() -> (tempfile::TempDir, Blocking, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Blocking::new();
        let parent = disk.open_root(dir.path()).unwrap();
        (dir, disk, parent)
    }

    /// Takes a lock that is free, and may share its file with others taken with `files`.
    fn take_with(
        files: &mut LockFiles<OwnedFd>,
        (disk, parent): (&Blocking, &OwnedFd),
        lock: (&str, u32),
        policy: StalePolicy<'_>,
    ) -> DotLock<OwnedFd> {
        let taken = DotLock::try_take(disk, parent, lock, policy, files);
        taken.unwrap().expect("it is free")
    }

    /// Takes a lock that shares its file with no other.
    fn take_one<D: Disk>(
        disk: &D,
        parent: &D::Handle,
        mailbox: &str,
        policy: StalePolicy<'_>,
    ) -> io::Result<Option<DotLock<D::Handle>>> {
        let mut files = LockFiles::default();
        DotLock::try_take(disk, parent, (mailbox, 0), policy, &mut files)
    }

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
            let lock = take_one(&disk, &parent, "m", NEVER).unwrap();
            let lock = lock.expect("the first one gets it");
            assert!(dir.path().join("m.lock").exists());
            assert!(take_one(&disk, &parent, "m", NEVER).unwrap().is_none());
            lock.release(&disk, &parent);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn locks_held_together_are_names_of_one_file_and_each_is_its_own() {
        let (dir, disk, parent) = place();
        if !disk.is_local(&parent) {
            return;
        }
        let inode = |name: &str| disk.stat_at(&parent, name).unwrap().inode;
        let mut files = LockFiles::default();
        let mut take =
            |mailbox, uid| take_with(&mut files, (&disk, &parent), (mailbox, uid), NEVER);
        let [a, b] = ["a", "b"].map(|mailbox| take(mailbox, 1));
        assert_eq!(inode("a.lock"), inode("b.lock"));
        let others = take("c", 2);
        assert_ne!(inode("a.lock"), inode("c.lock"), "of another owner");
        for mailbox in ["a", "b", "c"] {
            let again = take_one(&disk, &parent, mailbox, AT_ONCE).unwrap();
            assert!(again.is_none(), "{mailbox} is held");
        }
        a.release(&disk, &parent);
        let a = take_one(&disk, &parent, "a", NEVER).unwrap();
        assert!(a.is_some(), "given back, whatever others hold");
        assert!(take_one(&disk, &parent, "b", AT_ONCE).unwrap().is_none());
        for lock in [a.unwrap(), b, others] {
            lock.release(&disk, &parent);
        }
        let after = take("a", 2);
        after.release(&disk, &parent);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_gets_eight_names_and_no_more() {
        let (_dir, disk, parent) = place();
        if !disk.is_local(&parent) {
            return;
        }
        let mut files = LockFiles::default();
        let mut take = |number: usize| {
            let mailbox = number.to_string();
            take_with(&mut files, (&disk, &parent), (&mailbox, 0), NEVER)
        };
        let _held: Vec<_> = (0..NAMES_MAX + 1).map(&mut take).collect();
        let links = |number: usize| {
            let stat = disk.stat_at(&parent, &format!("{number}.lock"));
            stat.unwrap().links
        };
        assert_eq!(links(0), NAMES_MAX as u64);
        assert_eq!(links(NAMES_MAX), 1);
    }

    #[test]
    fn a_file_gets_no_more_names_when_somebody_may_find_it_stale() {
        let (_dir, disk, parent) = place();
        let inode = |name: &str| disk.stat_at(&parent, name).unwrap().inode;
        let mut files = LockFiles::default();
        let mut take =
            |mailbox, policy| take_with(&mut files, (&disk, &parent), (mailbox, 0), policy);
        let _old = take("old", NEVER);
        let no_time = StalePolicy {
            stale_age: Duration::ZERO,
            ..NEVER
        };
        let _new = take("new", no_time);
        assert_ne!(inode("old.lock"), inode("new.lock"));
    }

    #[test]
    fn all_locks_of_a_process_that_died_are_free_though_they_are_one_file() {
        let (dir, disk, parent) = place();
        if !disk.is_local(&parent) {
            return;
        }
        let mut files = LockFiles::default();
        let held =
            ["a", "b"].map(|mailbox| take_with(&mut files, (&disk, &parent), (mailbox, 0), NEVER));
        // What the kernel does when a process dies.
        drop(held);
        for mailbox in ["a", "b"] {
            let lock = take_one(&disk, &parent, mailbox, NEVER).unwrap();
            lock.expect("its holder is gone").release(&disk, &parent);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn whoever_takes_a_name_of_a_dead_lock_away_takes_its_names_beside_it_away_too() {
        let (_dir, disk, parent) = place();
        if !disk.is_local(&parent) {
            return;
        }
        let mut files = LockFiles::default();
        let mut take = |mailbox| take_with(&mut files, (&disk, &parent), (mailbox, 0), NEVER);
        drop(["a", "b", "c"].map(&mut take));
        let others = take_one(&disk, &parent, "d", NEVER).unwrap().unwrap();
        let lock = take_one(&disk, &parent, "a", NEVER).unwrap().unwrap();
        let mut left = disk.list(&parent, usize::MAX).unwrap();
        left.sort();
        assert_eq!(left, ["a.lock", "d.lock"]);
        for lock in [lock, others] {
            lock.release(&disk, &parent);
        }
    }

    /// A lock file as another program, or an earlier process, left it.
    fn leave(disk: &Blocking, parent: &OwnedFd, mode: u32, content: &str) {
        let file = disk.create_new(parent, "m.lock", mode).unwrap();
        disk.write_all(&file, [content.as_bytes(), &[]]).unwrap();
    }

    #[test]
    fn a_lock_whose_holder_died_is_free_at_once_and_one_in_use_never_grows_stale() {
        let (dir, disk, parent) = place();
        let take = |policy| take_one(&disk, &parent, "m", policy).unwrap();
        let lock = take(NEVER).unwrap();
        let old = disk.stat_at(&parent, "m.lock").unwrap().changed;
        let deadline = clock::now() + Duration::from_secs(60);
        while clock::since_epoch() <= old + AT_ONCE.stale_age {
            assert!(clock::now() < deadline, "the clock stands");
            std::thread::yield_now();
        }
        assert!(take(AT_ONCE).is_none(), "the holder is alive");
        // What the kernel does when a process dies.
        drop(lock);
        assert!(dir.path().join("m.lock").exists());
        take(NEVER).unwrap().release(&disk, &parent);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_locks_of_ours_that_cannot_be_in_use_elsewhere_are_taken_before_their_time() {
        let (_dir, disk, parent) = place();
        if !disk.is_local(&parent) {
            return;
        }
        let other_boot = disk.boot() ^ 1;
        let here = format!("mailstow {:032x} host\n", disk.boot());
        for (mode, content, is_taken) in [
            (LOCK_MODE, here.clone(), true),
            (LOCK_MODE, here.replace(" host", " other"), true),
            (
                LOCK_MODE,
                format!("mailstow {other_boot:032x} host\n"),
                true,
            ),
            (LOCK_MODE, String::new(), true),
            (
                LOCK_MODE,
                format!("mailstow {other_boot:032x} other\n"),
                false,
            ),
            (0o600, here, false),
            (0o600, format!("{}:host", std::process::id()), false),
            (0o600, String::new(), false),
        ] {
            leave(&disk, &parent, mode, &content);
            let taken = take_one(&disk, &parent, "m", NEVER).unwrap();
            assert_eq!(taken.is_some(), is_taken, "{mode:o} {content:?}");
            disk.remove(&parent, "m.lock").unwrap();
        }
    }

    #[test]
    fn a_holder_whose_lock_was_taken_away_does_not_remove_that_of_another() {
        let (dir, disk, parent) = place();
        let take = || take_one(&disk, &parent, "m", NEVER).unwrap();
        let late = take().unwrap();
        disk.remove(&parent, "m.lock").unwrap();
        let ours = take().unwrap();
        late.release(&disk, &parent);
        assert!(dir.path().join("m.lock").exists());
        ours.release(&disk, &parent);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_mailbox_with_the_name_of_a_lock_is_not_taken_for_a_stale_lock() {
        let (dir, disk, parent) = place();
        std::fs::create_dir(dir.path().join("a.lock")).unwrap();
        std::fs::write(dir.path().join("b.lock"), "From me\n\n").unwrap();
        std::fs::write(dir.path().join("c.lock"), "4711:host").unwrap();
        let deadline = clock::now() + Duration::from_secs(60);
        let age = AT_ONCE.stale_age;
        while clock::since_epoch() - disk.stat_at(&parent, "c.lock").unwrap().changed <= age {
            assert!(clock::now() < deadline, "never became stale");
            std::thread::yield_now();
        }
        for mailbox in ["a", "b"] {
            let lock = take_one(&disk, &parent, mailbox, AT_ONCE).unwrap();
            assert!(lock.is_none(), "{mailbox}");
        }
        assert!(take_one(&disk, &parent, "c", AT_ONCE).unwrap().is_some());
        assert!(dir.path().join("a.lock").is_dir());
        let text = std::fs::read_to_string(dir.path().join("b.lock")).unwrap();
        assert_eq!(text, "From me\n\n");
    }
}
