//! The map's own file operations: temporary file, atomic publication, lock.
//!
//! Invariants: a name in the directory always points at a complete, flushed file: write, fsync the
//! file, rename over the name, fsync the directory; a failed fsync is not tried again, the new file
//! is given up; all names are used by the descriptor of the directory, and none that another user
//! may have made a link is followed, because the directory may belong to one. Sources: rename(2),
//! fsync(2), flock(2).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::MapError;
use crate::io::{ForeignFile, PathError, SafeDirectory};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The directory of a file, and the file's name in it.
#[derive(Debug)]
struct Place {
    directory: SafeDirectory,
    name: OsString,
    path: PathBuf,
}

impl Place {
    fn of(path: &Path) -> Result<Self, MapError> {
        let (directory, name) = SafeDirectory::of(path).map_err(|error| match error {
            PathError::System { path, source } => MapError::io(&path, "open", source),
            error => MapError::Path { error },
        })?;
        Ok(Self {
            directory,
            name,
            path: path.to_owned(),
        })
    }

    fn handle(&self) -> &OwnedFd {
        self.directory.handle()
    }

    fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Creates a new file, and never opens one that exists.
    fn create(&self, name: &OsStr) -> Result<File, MapError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(self.handle(), name, flags, mode);
        let file = file.map_err(|e| MapError::io(&self.path_of(name), "create", e.into()))?;
        Ok(file.into())
    }

    fn remove(&self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::unlinkat(self.handle(), name, AtFlags::empty())
    }

    fn sync(&self) -> Result<(), MapError> {
        let synced = self
            .directory
            .readable()
            .map_err(|error| MapError::Path { error })?;
        rustix::fs::fsync(synced).map_err(|errno| {
            let parent = self.path.parent().unwrap_or(Path::new("."));
            MapError::io(parent, "flush the directory", errno.into())
        })
    }
}

/// The steps of a publication, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    SyncFile,
    Rename,
    SyncDirectory,
}

/// A file under a temporary name beside the one it is to become. Dropping it removes it.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    /// Empty once it has its own name.
    name: OsString,
    target: Place,
}

impl TempFile {
    /// Creates the file with the target's permissions and owner, or else mode 0644 as postmap(1)
    /// gives.
    pub(super) fn beside(target: &Path) -> Result<Self, MapError> {
        let target = Place::of(target)?;
        let name = sibling(&target.name, &format!("{:016x}.tmp", random()));
        let temp = Self {
            file: target.create(&name)?,
            name,
            target,
        };
        let old = fs::metadata(&temp.target.path).ok();
        let mode = old.as_ref().map_or(0o644, |old| old.mode()) & 0o777;
        temp.file
            .set_permissions(fs::Permissions::from_mode(mode))
            .map_err(|source| temp.error("set the permissions of", source))?;
        if let Some(old) = old {
            let given = std::os::unix::fs::fchown(&temp.file, Some(old.uid()), Some(old.gid()));
            // Only root gives files away; for others the file stays theirs.
            if rustix::process::geteuid().is_root() {
                given.map_err(|source| temp.error("keep the owner of", source))?;
            }
        }
        Ok(temp)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn error(&self, action: &'static str, source: io::Error) -> MapError {
        MapError::io(&self.target.path_of(&self.name), action, source)
    }

    /// A file without a name in the same directory, for what does not fit in memory.
    pub(super) fn unnamed_sibling(&self) -> Result<File, MapError> {
        unnamed_in(&self.target)
    }

    /// Makes the file durable and gives it its name. When this returns, the new contents stand
    /// under the name, and a crash leaves either the old or the new file.
    pub(super) fn publish(self) -> Result<(), MapError> {
        self.publish_watched(&mut |_| Ok(()))
    }

    /// As [`TempFile::publish`], asking `before` ahead of each step.
    pub(super) fn publish_watched(
        mut self,
        before: &mut dyn FnMut(Step) -> io::Result<()>,
    ) -> Result<(), MapError> {
        before(Step::SyncFile)
            .and_then(|()| self.file.sync_all())
            .map_err(|source| self.error("flush", source))?;
        before(Step::Rename)
            .and_then(|()| {
                let directory = self.target.handle();
                let (from, to) = (&self.name, &self.target.name);
                Ok(rustix::fs::renameat(directory, from, directory, to)?)
            })
            .map_err(|source| self.error("rename", source))?;
        self.name = OsString::new();
        before(Step::SyncDirectory)
            .map_err(|source| MapError::io(&self.target.path, "flush the directory of", source))?;
        self.target.sync()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            let _ = self.target.remove(&self.name);
        }
    }
}

/// A file without a name in the directory of `target`.
pub(super) fn unnamed(target: &Path) -> Result<File, MapError> {
    unnamed_in(&Place::of(target)?)
}

fn unnamed_in(target: &Place) -> Result<File, MapError> {
    let name = sibling(&target.name, &format!("{:016x}.part", random()));
    let file = target.create(&name)?;
    target
        .remove(&name)
        .map_err(|errno| MapError::io(&target.path_of(&name), "unlink", errno.into()))?;
    Ok(file)
}

/// Removes `path` durably; a file that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), MapError> {
    let place = Place::of(path)?;
    match place.remove(&place.name) {
        Ok(()) => place.sync(),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(MapError::io(path, "remove", errno.into())),
    }
}

/// Opens a file that is there for writing; not through a link, nor one that has another name.
pub(super) fn open_for_write(path: &Path) -> Result<File, MapError> {
    let place = Place::of(path)?;
    open_regular(&place, &place.name, OFlags::WRONLY, 1)
}

/// Opens a regular file with at most so many names.
/// Opens the map or change log at `path` to read it. Links are followed: whose file it is, the
/// configuration says.
///
/// # Errors
/// As open(2), or it is no regular file.
pub(super) fn open_to_read(path: &Path) -> Result<File, MapError> {
    let failed = |source| MapError::io(path, "open", source);
    // Without O_NONBLOCK a FIFO would block until another process opens its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(|errno| failed(errno.into()))?);
    match file.metadata().map_err(failed)?.is_file() {
        true => Ok(file),
        false => Err(failed(ForeignFile::Kind.into())),
    }
}

fn open_regular(
    place: &Place,
    name: &OsStr,
    flags: OFlags,
    names_max: u64,
) -> Result<File, MapError> {
    let path = place.path_of(name);
    // Without O_NONBLOCK a FIFO would block until another process opens its other end.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(place.handle(), name, flags, Mode::from_raw_mode(0o644));
    let file: File = match opened {
        Err(Errno::LOOP) => return Err(MapError::io(&path, "open", ForeignFile::Link.into())),
        opened => opened.map_err(|errno| MapError::io(&path, "open", errno.into()))?,
    }
    .into();
    let stat = file
        .metadata()
        .map_err(|source| MapError::io(&path, "stat", source))?;
    let foreign = match FileType::from_raw_mode(stat.mode()) {
        FileType::RegularFile if stat.nlink() <= names_max => return Ok(file),
        FileType::RegularFile => ForeignFile::Names(stat.nlink()),
        _ => ForeignFile::Kind,
    };
    Err(MapError::io(&path, "open", foreign.into()))
}

/// The change log of the map at `path`.
pub(super) fn changes_path(path: &Path) -> PathBuf {
    with_suffix(path, ".changes")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn sibling(name: &OsStr, suffix: &str) -> OsString {
    let name = name.to_string_lossy();
    format!(".{name}.{suffix}").into()
}

/// The right to change the map at one path; given up when dropped or when the process ends.
#[derive(Debug)]
pub(super) struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Waits until no other process changes the map at `path`.
    pub(super) fn wait(path: &Path) -> Result<Self, MapError> {
        let place = Place::of(path)?;
        let lock_path = with_suffix(path, ".lock");
        let name = lock_path.file_name().unwrap_or_default();
        // It is locked and never written, so other names do no harm.
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = open_regular(&place, name, flags, u64::MAX)?;
        loop {
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive) {
                Ok(()) => {
                    sweep(&place);
                    return Ok(Self { _file: file });
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(MapError::io(&lock_path, "lock", error.into())),
            }
        }
    }
}

/// Removes what a killed writer left unfinished. Requires the lock: no other process has
/// temporary files then.
fn sweep(place: &Place) {
    let name = place.name.to_string_lossy();
    let Ok(directory) = place.directory.readable() else {
        return;
    };
    // What cannot be removed only takes up space.
    for entry in Dir::read_from(directory).into_iter().flatten().flatten() {
        if is_unfinished(&name, &entry.file_name().to_string_lossy()) {
            let _ = rustix::fs::unlinkat(place.handle(), entry.file_name(), AtFlags::empty());
        }
    }
}

/// Whether `file` is a temporary name of the map `name` or its change log.
fn is_unfinished(name: &str, file: &str) -> bool {
    let unfinished = || {
        let rest = file.strip_prefix('.')?.strip_prefix(name)?;
        let rest = rest
            .strip_prefix(".changes")
            .unwrap_or(rest)
            .strip_prefix('.')?;
        rest.strip_suffix(".tmp")
            .or_else(|| rest.strip_suffix(".part"))
    };
    unfinished().is_some_and(|random| {
        random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// What tells one state of a file from another: device, inode, size, time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl FileIdentity {
    /// `None` if there is no such file.
    pub(super) fn of(path: &Path) -> Result<Option<Self>, MapError> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::from_metadata(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(MapError::io(path, "stat", source)),
        }
    }

    pub(super) fn of_file(file: &File, path: &Path) -> Result<Self, MapError> {
        file.metadata()
            .map(|metadata| Self::from_metadata(&metadata))
            .map_err(|source| MapError::io(path, "stat", source))
    }

    fn from_metadata(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The attributes that change when a program writes into a file; a file that is replaced or renamed
/// keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentStamp {
    bytes: u64,
    modified: (i64, i64),
}

impl ContentStamp {
    pub(super) fn of(file: &File, path: &Path) -> Result<Self, MapError> {
        let metadata = file
            .metadata()
            .map_err(|source| MapError::io(path, "stat", source))?;
        Ok(Self {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Returns a number that cannot be guessed from outside.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u128(crate::clock::since_epoch().as_nanos());
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::is_unfinished;

    #[test]
    fn only_the_maps_own_temporary_names_are_swept() {
        for ours in ["tmp", "part"] {
            assert!(is_unfinished("m", &format!(".m.0123456789abcdef.{ours}")));
        }
        assert!(is_unfinished("m", ".m.changes.0123456789abcdef.tmp"));
        for other in [
            "m",
            "m.lock",
            "m.changes",
            ".m.tmp",
            ".m.0123456789abcdef",
            ".n.0123456789abcdef.tmp",
            ".m.0123456789abcdeg.tmp",
            ".m.other.0123456789abcdef.tmp",
        ] {
            assert!(!is_unfinished("m", other), "{other}");
        }
    }
}
