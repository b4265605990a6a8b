//! The operations on files and directories that mailboxes are written with.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Too many files are open, or memory is short: trouble that passes, and says nothing about the
/// file or its disk.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
    ) || error.kind() == io::ErrorKind::OutOfMemory
}

/// What kind of file a handle or name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link (only ever seen by [`Disk::stat_at`]).
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// The attributes of a file that decide about delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// The file system.
    pub device: u64,
    /// The file within its file system.
    pub inode: u64,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names it has.
    pub links: u64,
    /// Bytes.
    pub size: u64,
    /// When its content changed last, since the UNIX epoch.
    pub modified: Duration,
    /// When its attributes or content changed last, since the UNIX epoch; cannot be set back.
    pub changed: Duration,
}

/// A file system as it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// A number that no other mount has had since the machine was started, if the kernel knows
    /// such (Linux 6.8).
    pub id: u64,
    /// The directory it is mounted on.
    pub point: PathBuf,
}

impl FileStat {
    /// True when both describe the same file.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }

    /// True for a directory in which every user may remove or replace the files of others.
    pub fn is_open_to_everyone(&self) -> bool {
        self.mode & 0o002 != 0 && self.mode & 0o1000 == 0
    }
}

/// What a name in a directory is, on the way to another directory.
#[derive(Debug)]
pub enum Step<H> {
    /// A directory, open for names in it.
    Directory(H),
    /// A symbolic link and where it leads.
    Link(FileStat, String),
}

/// The two advisory locks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// A record lock over the whole file. It belongs to the open file, so that it excludes other
    /// threads of this process as well as `fcntl(F_SETLK)` of other processes.
    Fcntl,
    /// `flock(2)`
    Flock,
}

/// POSIX-like operations on directory and file handles. Every call blocks until it is done, and
/// may be made from any thread; the file-system identity is that of the calling thread
/// (`Credentials`).
///
/// Names are single components without `/`. A path given to [`Disk::open_directory`] may have
/// several components and is resolved beneath the directory: symbolic links that lead out of it
/// are refused with `EXDEV`, magic links with `ELOOP`.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An open directory or file; closed (and unlocked) on drop.
    type Handle: fmt::Debug + Send + Sync + 'static;

    /// Opens a directory by its absolute path: the base of all that follows.
    ///
    /// # Errors
    /// As openat(2).
    fn open_root(&self, path: &Path) -> io::Result<Self::Handle>;

    /// Opens a directory beneath `base`; an empty path is `base` itself.
    ///
    /// # Errors
    /// As openat2(2) with `RESOLVE_BENEATH`.
    fn open_directory(&self, base: &Self::Handle, path: &str) -> io::Result<Self::Handle>;

    /// Opens a directory by its name for searching only, or tells where a symbolic link leads.
    ///
    /// # Errors
    /// As openat(2) with `O_PATH` and `O_NOFOLLOW`.
    fn step(&self, dir: &Self::Handle, name: &str) -> io::Result<Step<Self::Handle>> {
        self.open_directory(dir, name).map(Step::Directory)
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// As mkdirat(2).
    fn make_directory(&self, dir: &Self::Handle, name: &str, mode: u32) -> io::Result<()>;

    /// Creates a file without a name, to be given one by [`Disk::name_unnamed`].
    ///
    /// # Errors
    /// `Unsupported` when the file system or the machine cannot do this; the caller then uses
    /// [`Disk::create_new`]. Else as openat(2).
    fn create_unnamed(&self, dir: &Self::Handle, mode: u32) -> io::Result<Self::Handle>;

    /// Gives a file made by [`Disk::create_unnamed`] a name, never replacing a file.
    ///
    /// # Errors
    /// `AlreadyExists`, else as linkat(2).
    fn name_unnamed(&self, file: &Self::Handle, dir: &Self::Handle, name: &str) -> io::Result<()>;

    /// Creates a file, open for writing, never opening one that exists.
    ///
    /// # Errors
    /// `AlreadyExists`, else as openat(2).
    fn create_new(&self, dir: &Self::Handle, name: &str, mode: u32) -> io::Result<Self::Handle>;

    /// Opens a file that exists for reading and appending, without waiting for the other end
    /// of a pipe.
    ///
    /// # Errors
    /// `ELOOP` for a symbolic link, else as openat(2).
    fn open_append(&self, dir: &Self::Handle, name: &str) -> io::Result<Self::Handle>;

    /// Opens a file to change what stands in it, as [`Disk::open_append`] does otherwise.
    ///
    /// # Errors
    /// It is missing, or cannot be opened.
    fn open_write(&self, dir: &Self::Handle, name: &str) -> io::Result<Self::Handle>;

    /// Writes all of `bytes` at `offset` of a file opened with [`Disk::open_write`].
    ///
    /// # Errors
    /// The disk failed; any part may have been written.
    fn write_at(&self, file: &Self::Handle, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns the mount that a file is on. Asks the kernel only, and so answers even if the file
    /// system does not.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn mount_of(&self, handle: &Self::Handle) -> io::Result<Mount>;

    /// Returns the path of a directory without symbolic links; the path itself if that is unknown.
    fn real_path(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    /// Returns every directory that something is mounted on. Asks the kernel only.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn mount_points(&self) -> io::Result<Vec<PathBuf>>;

    /// Returns what is mounted on a directory; `None` when nothing is. Asks the kernel only.
    ///
    /// # Errors
    /// The directory is not there.
    fn mounted_on(&self, point: &Path) -> io::Result<Option<u64>>;

    /// Gives a file a second name, never replacing a file.
    ///
    /// # Errors
    /// `AlreadyExists`, else as linkat(2).
    fn link(&self, from: (&Self::Handle, &str), to: (&Self::Handle, &str)) -> io::Result<()>;

    /// Renames a file, never replacing one where the file system can promise that.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidInput` where the file system cannot promise it; else as
    /// renameat2(2) with `RENAME_NOREPLACE`.
    fn rename_new(&self, from: (&Self::Handle, &str), to: (&Self::Handle, &str)) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// As unlinkat(2).
    fn remove(&self, dir: &Self::Handle, name: &str) -> io::Result<()>;

    /// The attributes of an open file.
    ///
    /// # Errors
    /// As fstat(2).
    fn stat(&self, handle: &Self::Handle) -> io::Result<FileStat>;

    /// The attributes of a named file; of the link itself where it is a symbolic link.
    ///
    /// # Errors
    /// As fstatat(2).
    fn stat_at(&self, dir: &Self::Handle, name: &str) -> io::Result<FileStat>;

    /// The names in a directory, without `.` and `..`, at most `most` of them.
    ///
    /// # Errors
    /// As getdents(2).
    fn list(&self, dir: &Self::Handle, most: usize) -> io::Result<Vec<OsString>>;

    /// Writes the pieces one after the other, all of them.
    ///
    /// # Errors
    /// As writev(2); an unknown part of the pieces may have been written.
    fn write_all(&self, file: &Self::Handle, pieces: [&[u8]; 2]) -> io::Result<()>;

    /// Reads at an offset; returns the number of bytes read, 0 at the end of the file.
    ///
    /// # Errors
    /// As pread(2).
    fn read_at(&self, file: &Self::Handle, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Cuts a file to a length.
    ///
    /// # Errors
    /// As ftruncate(2).
    fn truncate(&self, file: &Self::Handle, length: u64) -> io::Result<()>;

    /// Changes the group of a file or directory.
    ///
    /// # Errors
    /// As fchown(2).
    fn change_group(&self, handle: &Self::Handle, gid: u32) -> io::Result<()>;

    /// Flushes a file, or the entries of a directory, to stable storage.
    ///
    /// # Errors
    /// As fsync(2). What was written is then in an unknown state; the call must not be repeated
    /// as if it had not happened.
    fn sync(&self, handle: &Self::Handle) -> io::Result<()>;

    /// Flushes the whole file system of a handle. Errors of writes made since the handle was
    /// opened are reported.
    ///
    /// # Errors
    /// As syncfs(2).
    fn sync_filesystem(&self, handle: &Self::Handle) -> io::Result<()>;

    /// True when [`Disk::sync_filesystem`] is known to flush and to report errors as
    /// [`Disk::sync`] does on the file system of this handle.
    fn syncs_filesystems(&self, handle: &Self::Handle) -> bool;

    /// True when one [`Disk::sync_filesystem`] may replace the flushes of everything written on the
    /// file system of this handle, at whatever cost: a checkpoint of the delivery log can rely
    /// on it.
    fn can_checkpoint(&self, handle: &Self::Handle) -> bool {
        self.syncs_filesystems(handle)
    }

    /// True when only this machine's kernel has the file system of this handle, so that nothing
    /// on it can be in use since before the machine was started.
    fn is_local(&self, handle: &Self::Handle) -> bool {
        self.can_checkpoint(handle)
    }

    /// Tells this run of the machine's kernel from every other; 0 when that is not known. Locks
    /// of the kernel are seen by those who share it.
    fn boot(&self) -> u128;

    /// Takes a lock if it is free; it is held until the handle is dropped.
    ///
    /// # Errors
    /// As fcntl(2) or flock(2); a lock held by another is `Ok(false)`.
    fn try_lock(&self, file: &Self::Handle, kind: LockKind) -> io::Result<bool>;

    /// Gives the locks of a handle back that is about to be dropped. Without this, the children of
    /// an embedder's fork(2) would keep them until they run another program or end.
    fn unlock(&self, _file: &Self::Handle) {}
}
