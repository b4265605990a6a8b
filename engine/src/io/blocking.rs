//! The real disk: plain system calls.
//!
//! Sources: openat2(2), open(2) (`O_TMPFILE`), syncfs(2), fcntl_locking(2). Needs Linux; openat2
//! (5.6), linkat by descriptor, `O_TMPFILE`, `RENAME_NOREPLACE` and reporting syncfs (5.8) are used
//! where they work.

use super::disk::{Disk, FileKind, FileStat, LockKind, Mount, Step};
use super::{mounts, safe_path};
use crate::octets::{path, text};
use crate::sync::atomic::{AtomicBool, Ordering};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{
    self as sys, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// File systems whose syncfs is known to write everything out and to report failures, and not to
/// cost more than the fsyncs it replaces: ext2/3/4, XFS.
const SYNCFS_MAGICS: [u64; 2] = [0xEF53, 0x5846_5342];

/// File systems whose syncfs writes everything out and reports failures, whatever it costs: those
/// above, btrfs, F2FS, and those in memory, where there is nothing to flush.
const CHECKPOINT_MAGICS: [u64; 6] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0x0102_1994,
    0x8584_58F6,
];

/// Plain system calls on the machine's file systems.
#[derive(Debug)]
pub struct Blocking {
    /// openat2 works (not in kernels before 5.6, nor under some container filters).
    resolves_beneath: bool,
    /// syncfs reports write errors (Linux 5.8).
    syncfs_reports: bool,
    /// linkat can name a descriptor directly, for the one who opened it (Linux 6.10).
    links_descriptors: AtomicBool,
    /// `/proc/self/fd` is there.
    has_proc: bool,
    boot: u128,
}

impl Default for Blocking {
    fn default() -> Self {
        Self::new()
    }
}

impl Blocking {
    /// Finds out what the kernel can do.
    pub fn new() -> Self {
        let probe = sys::openat2(
            CWD,
            ".",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        );
        Self {
            resolves_beneath: !matches!(probe, Err(Errno::NOSYS | Errno::PERM)),
            syncfs_reports: kernel_is_at_least(5, 8),
            links_descriptors: AtomicBool::new(kernel_is_at_least(6, 10)),
            has_proc: Path::new("/proc/self/fd").is_dir(),
            boot: boot(),
        }
    }
}

/// The id the kernel drew when it started; 0 without /proc.
fn boot() -> u128 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&id.trim().replace('-', ""), 16).unwrap_or(0)
}

/// True when this error of an `O_TMPFILE` open means that it does not exist here.
pub(super) fn lacks_unnamed_files(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL)
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    let running: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    running >= (major, minor)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn is_one_of(handle: &OwnedFd, magics: &[u64]) -> bool {
    let kind = sys::fstatfs(handle).map(|stat| stat.f_type);
    kind.is_ok_and(|kind| u64::try_from(kind).is_ok_and(|magic| magics.contains(&magic)))
}

/// Component by component, following no symbolic link at all.
fn walk_beneath(base: &OwnedFd, below: &str) -> io::Result<OwnedFd> {
    let mut at = sys::openat(base, ".", directory_flags(), Mode::empty())?;
    for component in below.split('/').filter(|c| !c.is_empty() && *c != ".") {
        if component == ".." {
            return Err(Errno::XDEV.into());
        }
        let flags = directory_flags() | OFlags::NOFOLLOW;
        at = sys::openat(&at, &*path(component), flags, Mode::empty()).map_err(
            |errno| match errno {
                // O_DIRECTORY with O_NOFOLLOW: a link may show as either.
                Errno::NOTDIR if is_symlink(&at, component) => Errno::LOOP,
                other => other,
            },
        )?;
    }
    Ok(at)
}

fn is_symlink(dir: &OwnedFd, name: &str) -> bool {
    sys::statat(dir, &*path(name), AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn since_epoch(seconds: i64, nanoseconds: u64) -> Duration {
    let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
    Duration::new(u64::try_from(seconds).unwrap_or(0), nanoseconds)
}

#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_cast,
    reason = "the fields of struct stat differ in type between architectures"
)]
fn convert(stat: &sys::Stat) -> FileStat {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    };
    FileStat {
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: stat.st_nlink as u64,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: since_epoch(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        changed: since_epoch(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
    }
}

impl Disk for Blocking {
    type Handle = OwnedFd;

    fn open_root(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(sys::open(path, directory_flags(), Mode::empty())?)
    }

    fn open_directory(&self, base: &OwnedFd, below: &str) -> io::Result<OwnedFd> {
        if !self.resolves_beneath {
            return walk_beneath(base, below);
        }
        let below = path(if below.is_empty() { "." } else { below });
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            match sys::openat2(base, &*below, directory_flags(), Mode::empty(), resolve) {
                // Another process renamed a directory on the way: the kernel cannot tell whether
                // the path stayed beneath, and asks to try again.
                Err(Errno::AGAIN) if attempts < 16 => attempts += 1,
                answer => return Ok(answer?),
            }
        }
    }

    fn step(&self, dir: &OwnedFd, name: &str) -> io::Result<Step<OwnedFd>> {
        Ok(match safe_path::step(dir, path(name).as_os_str())? {
            safe_path::Step::Directory(handle) => Step::Directory(handle),
            safe_path::Step::Link(link, stat) => {
                let target = sys::readlinkat(&link, "", Vec::new())?;
                Step::Link(convert(&stat), text(target.as_bytes()).into_owned())
            }
        })
    }

    fn make_directory(&self, dir: &OwnedFd, name: &str, mode: u32) -> io::Result<()> {
        Ok(sys::mkdirat(dir, &*path(name), Mode::from_raw_mode(mode))?)
    }

    fn create_unnamed(&self, dir: &OwnedFd, mode: u32) -> io::Result<OwnedFd> {
        if !self.has_proc {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        sys::openat(dir, ".", flags, Mode::from_raw_mode(mode)).map_err(|errno| {
            if lacks_unnamed_files(errno) {
                io::ErrorKind::Unsupported.into()
            } else {
                errno.into()
            }
        })
    }

    fn name_unnamed(&self, file: &OwnedFd, dir: &OwnedFd, name: &str) -> io::Result<()> {
        if self.links_descriptors.load(Ordering::Relaxed) {
            match sys::linkat(file, "", dir, &*path(name), AtFlags::EMPTY_PATH) {
                // Opened by another thread, or before this thread changed its identity.
                Err(Errno::NOENT) => {}
                // A filter of system calls forbids it.
                Err(Errno::PERM | Errno::INVAL) => {
                    self.links_descriptors.store(false, Ordering::Relaxed);
                }
                answer => return Ok(answer?),
            }
        }
        let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(sys::linkat(
            CWD,
            &by_number,
            dir,
            &*path(name),
            AtFlags::SYMLINK_FOLLOW,
        )?)
    }

    fn create_new(&self, dir: &OwnedFd, name: &str, mode: u32) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(sys::openat(
            dir,
            &*path(name),
            flags,
            Mode::from_raw_mode(mode),
        )?)
    }

    fn open_append(&self, dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW;
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(sys::openat(dir, &*path(name), flags, Mode::empty())?)
    }

    fn open_write(&self, dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW;
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(sys::openat(dir, &*path(name), flags, Mode::empty())?)
    }

    fn write_at(&self, file: &OwnedFd, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut rest, mut offset) = (bytes, offset);
        while !rest.is_empty() {
            match rustix::io::pwrite(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn mount_of(&self, handle: &OwnedFd) -> io::Result<Mount> {
        mounts::mount_of(handle)
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }

    fn mount_points(&self) -> io::Result<Vec<PathBuf>> {
        mounts::mount_points()
    }

    fn mounted_on(&self, point: &Path) -> io::Result<Option<u64>> {
        mounts::mounted_on(point)
    }

    fn link(&self, from: (&OwnedFd, &str), to: (&OwnedFd, &str)) -> io::Result<()> {
        Ok(sys::linkat(
            from.0,
            &*path(from.1),
            to.0,
            &*path(to.1),
            AtFlags::empty(),
        )?)
    }

    fn rename_new(&self, from: (&OwnedFd, &str), to: (&OwnedFd, &str)) -> io::Result<()> {
        let flags = RenameFlags::NOREPLACE;
        sys::renameat_with(from.0, &*path(from.1), to.0, &*path(to.1), flags).map_err(|errno| {
            match errno {
                Errno::NOSYS | Errno::INVAL => io::ErrorKind::InvalidInput.into(),
                other => other.into(),
            }
        })
    }

    fn remove(&self, dir: &OwnedFd, name: &str) -> io::Result<()> {
        Ok(sys::unlinkat(dir, &*path(name), AtFlags::empty())?)
    }

    fn stat(&self, handle: &OwnedFd) -> io::Result<FileStat> {
        Ok(convert(&sys::fstat(handle)?))
    }

    fn stat_at(&self, dir: &OwnedFd, name: &str) -> io::Result<FileStat> {
        Ok(convert(&sys::statat(
            dir,
            &*path(name),
            AtFlags::SYMLINK_NOFOLLOW,
        )?))
    }

    fn list(&self, dir: &OwnedFd, most: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in sys::Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
            if names.len() >= most {
                break;
            }
        }
        Ok(names)
    }

    fn write_all(&self, file: &OwnedFd, pieces: [&[u8]; 2]) -> io::Result<()> {
        let mut slices = pieces.map(IoSlice::new);
        let mut rest = &mut slices[..];
        // Drops empty pieces, which would look like a write of nothing.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match rustix::io::writev(file, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn read_at(&self, file: &OwnedFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match rustix::io::pread(file, &mut *buffer, offset) {
                Err(Errno::INTR) => {}
                answer => return Ok(answer?),
            }
        }
    }

    fn truncate(&self, file: &OwnedFd, length: u64) -> io::Result<()> {
        Ok(sys::ftruncate(file, length)?)
    }

    fn change_group(&self, handle: &OwnedFd, gid: u32) -> io::Result<()> {
        let group = sys::Gid::from_raw(gid);
        Ok(sys::fchown(handle, None, Some(group))?)
    }

    fn sync(&self, handle: &OwnedFd) -> io::Result<()> {
        Ok(sys::fsync(handle)?)
    }

    fn sync_filesystem(&self, handle: &OwnedFd) -> io::Result<()> {
        Ok(sys::syncfs(handle)?)
    }

    fn syncs_filesystems(&self, handle: &OwnedFd) -> bool {
        self.syncfs_reports && is_one_of(handle, &SYNCFS_MAGICS)
    }

    fn can_checkpoint(&self, handle: &OwnedFd) -> bool {
        self.syncfs_reports && is_one_of(handle, &CHECKPOINT_MAGICS)
    }

    fn is_local(&self, handle: &OwnedFd) -> bool {
        is_one_of(handle, &CHECKPOINT_MAGICS)
    }

    fn boot(&self) -> u128 {
        self.boot
    }

    fn try_lock(&self, file: &OwnedFd, kind: LockKind) -> io::Result<bool> {
        match kind {
            LockKind::Flock => match sys::flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(true),
                Err(Errno::AGAIN) => Ok(false),
                Err(errno) => Err(errno.into()),
            },
            LockKind::Fcntl => try_record_lock(file),
        }
    }

    fn unlock(&self, file: &OwnedFd) {
        // What cannot be unlocked is when all who have the file open have closed it.
        let _ = set_record_lock(file, libc::F_UNLCK);
        let _ = sys::flock(file, FlockOperation::Unlock);
    }
}

/// A lock of the open file description; where the file system knows only those of processes (old
/// NFS), one of those, which excludes other processes but not threads: the queue excludes those.
fn try_record_lock(file: &OwnedFd) -> io::Result<bool> {
    match set_record_lock(file, libc::F_WRLCK) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn set_record_lock(file: &OwnedFd, what: libc::c_int) -> nix::Result<libc::c_int> {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the kernel's own small constants"
    )]
    let whole_file = libc::flock {
        l_type: what as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let mut answer = fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file));
    if matches!(answer, Err(nix::Error::EINVAL | nix::Error::ENOTSUP)) {
        answer = fcntl(file, FcntlArg::F_SETLK(&whole_file));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Credentials;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_lock_that_is_given_back_is_free_although_a_child_has_the_file_open() {
        let disk = Blocking::new();
        let directory = tempfile::tempdir().unwrap();
        let root = disk.open_root(directory.path()).unwrap();
        let file = disk.create_new(&root, "box", 0o600).unwrap();
        let other = disk.open_append(&root, "box").unwrap();
        for kind in [LockKind::Fcntl, LockKind::Flock] {
            assert!(disk.try_lock(&file, kind).unwrap());
        }
        // As fork(2) makes another name for the same open file.
        let of_child = file.try_clone().unwrap();
        disk.unlock(&file);
        drop(file);
        for kind in [LockKind::Fcntl, LockKind::Flock] {
            assert!(disk.try_lock(&other, kind).unwrap(), "{kind:?}");
        }
        drop(of_child);
    }

    /// A disk on a kernel without openat2 and without links by descriptor.
    fn old_kernel() -> Blocking {
        Blocking {
            resolves_beneath: false,
            links_descriptors: AtomicBool::new(false),
            ..Blocking::new()
        }
    }

    #[test]
    fn without_openat2_no_symbolic_link_is_followed_and_dotdot_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("base/a/b")).unwrap();
        symlink("a", dir.path().join("base/link")).unwrap();
        symlink("..", dir.path().join("base/up")).unwrap();
        for (disk, link_errors) in [
            (Blocking::new(), [0, libc::EXDEV]),
            (old_kernel(), { [libc::ELOOP, libc::ELOOP] }),
        ] {
            let base = disk.open_root(&dir.path().join("base")).unwrap();
            let open = |path| match disk.open_directory(&base, path) {
                Ok(_) => 0,
                Err(error) => error.raw_os_error().unwrap(),
            };
            assert_eq!(["", "a", "a/b", "./a"].map(open), [0; 4]);
            assert_eq!(open("a/../.."), libc::EXDEV);
            assert_eq!(open("a/missing"), libc::ENOENT);
            assert_eq!(["link/b", "up/base"].map(open), link_errors);
        }
    }

    #[test]
    fn unnamed_files_get_names_by_descriptor_and_by_proc_but_never_replace_a_file() {
        let dir = tempfile::tempdir().unwrap();
        for (disk, name) in [(Blocking::new(), "new"), (old_kernel(), "old")] {
            let base = disk.open_root(dir.path()).unwrap();
            let file = match disk.create_unnamed(&base, 0o600) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
                answer => answer.unwrap(),
            };
            disk.write_all(&file, [b"he", b"llo"]).unwrap();
            disk.write_all(&file, [b"", b"!"]).unwrap();
            disk.write_all(&file, [b"", b""]).unwrap();
            disk.name_unnamed(&file, &base, name).unwrap();
            assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"hello!");
            let again = disk.name_unnamed(&file, &base, name).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        }
    }

    #[test]
    fn a_file_opened_as_somebody_else_before_is_named_by_proc_and_later_ones_by_descriptor() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = dir.path().to_owned();
        std::thread::spawn(move || {
            let disk = Blocking::new();
            let base = disk.open_root(&path).unwrap();
            let mut credentials = Credentials::of_this_thread();
            let before = disk.links_descriptors.load(Ordering::Relaxed);
            for name in ["one", "two"] {
                credentials.become_user(5000, 5000).unwrap();
                let file = match disk.create_unnamed(&base, 0o600) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
                    answer => answer.unwrap(),
                };
                // To the kernel the same user has changed.
                credentials.as_self(|| ());
                credentials.become_user(5000, 5000).unwrap();
                disk.name_unnamed(&file, &base, name).unwrap();
                assert!(path.join(name).is_file());
            }
            assert_eq!(disk.links_descriptors.load(Ordering::Relaxed), before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn both_locks_exclude_other_openings_of_the_same_thread() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Blocking::new();
        let base = disk.open_root(dir.path()).unwrap();
        let one = disk.create_new(&base, "m", 0o600).unwrap();
        let two = disk.open_append(&base, "m").unwrap();
        for kind in [LockKind::Fcntl, LockKind::Flock] {
            assert!(disk.try_lock(&one, kind).unwrap());
            assert!(!disk.try_lock(&two, kind).unwrap());
        }
        drop(one);
        for kind in [LockKind::Fcntl, LockKind::Flock] {
            assert!(disk.try_lock(&two, kind).unwrap());
        }
    }
}
