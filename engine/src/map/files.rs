//! The map's own file operations: temporary file, atomic publication, lock.
//!
//! Imports `error`. Invariants: a name in the directory always points at a complete,
//! flushed file: write, fsync the file, rename over the name, fsync the directory. A failed fsync
//! is not tried again; the new file is given up. Sources: rename(2), fsync(2), flock(2).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::MapError;

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
    path: PathBuf,
    target: PathBuf,
}

impl TempFile {
    /// Creates the file with the target's permissions and owner, or else mode 0644 as postmap(1)
    /// gives.
    pub(super) fn beside(target: &Path) -> Result<Self, MapError> {
        let path = sibling(target, &format!("{:016x}.tmp", random()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| MapError::io(&path, "create", source))?;
        let temp = Self {
            file,
            path,
            target: target.to_owned(),
        };
        let old = fs::metadata(target).ok();
        let mode = old.as_ref().map_or(0o644, |old| old.mode()) & 0o777;
        if let Some(old) = &old {
            // Only root may give files away; for others the file stays theirs.
            let _ = std::os::unix::fs::fchown(&temp.file, Some(old.uid()), Some(old.gid()));
        }
        temp.file
            .set_permissions(fs::Permissions::from_mode(mode))
            .map_err(|source| temp.error("set the permissions of", source))?;
        Ok(temp)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn error(&self, action: &'static str, source: io::Error) -> MapError {
        MapError::io(&self.path, action, source)
    }

    /// A file without a name in the same directory, for what does not fit in memory.
    pub(super) fn unnamed_sibling(&self) -> Result<File, MapError> {
        unnamed(&self.target)
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
            .and_then(|()| fs::rename(&self.path, &self.target))
            .map_err(|source| self.error("rename", source))?;
        self.path = PathBuf::new();
        before(Step::SyncDirectory)
            .map_err(|source| MapError::io(&self.target, "flush the directory of", source))?;
        sync_directory(&self.target)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file without a name in the directory of `target`.
pub(super) fn unnamed(target: &Path) -> Result<File, MapError> {
    let path = sibling(target, &format!("{:016x}.part", random()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| MapError::io(&path, "create", source))?;
    fs::remove_file(&path).map_err(|source| MapError::io(&path, "unlink", source))?;
    Ok(file)
}

/// Flushes the directory that holds `path`.
pub(super) fn sync_directory(path: &Path) -> Result<(), MapError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| MapError::io(parent, "flush the directory", source))
}

/// Removes `path` durably; a file that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), MapError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(MapError::io(path, "remove", source)),
    }
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

fn sibling(target: &Path, suffix: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{suffix}"))
}

/// The right to change the map at one path; given up when dropped or when the process ends.
#[derive(Debug)]
pub(super) struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Waits until nobody else changes the map at `path`.
    pub(super) fn wait(path: &Path) -> Result<Self, MapError> {
        let lock_path = with_suffix(path, ".lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&lock_path)
            .map_err(|source| MapError::io(&lock_path, "open", source))?;
        loop {
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive) {
                Ok(()) => {
                    sweep(path);
                    return Ok(Self { _file: file });
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(MapError::io(&lock_path, "lock", error.into())),
            }
        }
    }
}

/// Removes what a killed writer left unfinished. Only for who holds the lock: nobody else has
/// temporary files then.
fn sweep(path: &Path) {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name().map(std::ffi::OsStr::to_string_lossy) else {
        return;
    };
    // What cannot be removed only takes up space.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if is_unfinished(&name, &entry.file_name().to_string_lossy()) {
            let _ = fs::remove_file(entry.path());
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

/// What changes when somebody writes into a file; a file that is replaced or renamed keeps it.
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

/// A number nobody outside can guess.
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
