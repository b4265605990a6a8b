//! The state directory and its files without a name, for messages too large for memory.
//!
//! A scratch file disappears with its handle, and with the process. Invariant: only root and the
//! user of this process can replace what is in the directory. Source: open(2), `O_TMPFILE`.

use super::{PathError, SafeDirectory};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The directory in which mailstow keeps its own files.
#[derive(Debug)]
pub struct StateDirectory {
    handle: Mutex<Arc<OwnedFd>>,
    path: PathBuf,
    /// It may be one that all users share, as /tmp.
    may_be_shared: bool,
    sequence: AtomicU64,
}

/// A file without a name.
pub struct Scratch {
    file: File,
    when_full: Option<Arc<MakeRoom>>,
}

/// Makes room on a full disk; false when there is none to be made.
pub(crate) type MakeRoom = dyn Fn() -> bool + Send + Sync;

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl StateDirectory {
    /// Opens the directory, creating it and its parents for this user alone when missing.
    ///
    /// # Errors
    /// It can be neither opened nor created, or others can replace what is in it.
    pub fn open(path: &Path) -> Result<Self, PathError> {
        Self::new(path, false)
    }

    /// Opens a directory for scratch files alone: it may be one that all users share, as /tmp. For
    /// a store without a delivery log.
    ///
    /// # Errors
    /// As [`StateDirectory::open`]; others can replace files there.
    pub fn open_for_scratch(path: &Path) -> Result<Self, PathError> {
        Self::new(path, true)
    }

    fn new(path: &Path, may_be_shared: bool) -> Result<Self, PathError> {
        Ok(Self {
            handle: Mutex::new(open(path, may_be_shared)?),
            path: path.to_owned(),
            may_be_shared,
            sequence: AtomicU64::new(0),
        })
    }

    /// Returns a new empty scratch file. Makes the directory anew when it was removed.
    ///
    /// # Errors
    /// As openat(2).
    pub fn scratch(&self) -> io::Result<Scratch> {
        let mut handle = Arc::clone(&self.handle.lock());
        // What a file system says of a new file in a directory without a name differs.
        if rustix::fs::fstat(&handle)?.st_nlink == 0 {
            handle = open(&self.path, self.may_be_shared).map_err(io::Error::other)?;
            *self.handle.lock() = Arc::clone(&handle);
        }
        self.scratch_in(&handle)
    }

    fn scratch_in(&self, handle: &OwnedFd) -> io::Result<Scratch> {
        let mode = Mode::RUSR | Mode::WUSR;
        let access = OFlags::RDWR | OFlags::CLOEXEC;
        match openat(handle, ".", access | OFlags::TMPFILE, mode) {
            Ok(fd) => return Ok(File::from(fd).into()),
            Err(errno) if super::blocking::lacks_unnamed_files(errno) => {}
            Err(errno) => return Err(errno.into()),
        }
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let name = format!("message.{}.{sequence}", std::process::id());
        // A leftover of that name is from a dead process which had our number.
        let _ = unlinkat(handle, &name, AtFlags::empty());
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = openat(handle, &name, access | new, mode)?;
        unlinkat(handle, &name, AtFlags::empty())?;
        Ok(File::from(fd).into())
    }
}

/// Opens the state directory, making it when it is missing.
///
/// # Errors
/// It can be neither opened nor made, or others can replace what is in it.
pub(crate) fn open_state_directory(path: &Path) -> Result<SafeDirectory, PathError> {
    let directory = SafeDirectory::make(path, 0o700)?;
    directory.check_private()?;
    Ok(directory)
}

fn open(path: &Path, may_be_shared: bool) -> Result<Arc<OwnedFd>, PathError> {
    let directory = match may_be_shared {
        false => open_state_directory(path)?,
        true => {
            let directory = SafeDirectory::make(path, 0o700)?;
            directory.check_shared()?;
            directory
        }
    };
    Ok(Arc::new(directory.readable()?))
}

impl Scratch {
    /// The same file; when its disk is full, `make_room` is asked before it is given up.
    #[must_use]
    pub fn when_full(mut self, make_room: Arc<MakeRoom>) -> Self {
        self.when_full = Some(make_room);
        self
    }

    /// Appends.
    ///
    /// # Errors
    /// As write(2).
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        let mut was_asked = false;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull && !was_asked => {
                    was_asked = true;
                    if !self.when_full.as_ref().is_some_and(|make_room| make_room()) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads exactly as much as the buffer holds; any thread may do so at any time.
    ///
    /// # Errors
    /// As pread(2), or the file is shorter.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl From<File> for Scratch {
    /// Takes over a file that stands at its beginning.
    fn from(file: File) -> Self {
        Self {
            file,
            when_full: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_given_up_only_when_no_room_can_be_made() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        for makes_room in [false, true] {
            let count = Arc::clone(&asked);
            let make_room = move || {
                count.fetch_add(1, Ordering::Relaxed);
                makes_room
            };
            let mut scratch = Scratch::from(full()).when_full(Arc::new(make_room));
            let error = scratch.append(b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2, "once for each piece");
        assert!(Scratch::from(full()).append(b"x").is_err());
    }

    #[test]
    fn a_scratch_file_leaves_no_name_behind() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&dir.path().join("a/state")).unwrap();
        let mut scratch = state.scratch().unwrap();
        scratch.append(b"hello ").unwrap();
        scratch.append(b"world").unwrap();
        let mut read = [0; 5];
        scratch.read_exact_at(&mut read, 6).unwrap();
        assert_eq!(&read, b"world");
        assert_eq!(std::fs::read_dir(&state.path).unwrap().count(), 0);
        assert!(scratch.read_exact_at(&mut read, 7).is_err());
    }

    #[test]
    fn a_directory_that_all_users_share_serves_for_scratch_files_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let open = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(dir.path(), mode).unwrap();
            let private = StateDirectory::open(dir.path()).is_ok();
            (
                private,
                StateDirectory::open_for_scratch(dir.path()).is_ok(),
            )
        };
        assert_eq!(open(0o700), (true, true));
        assert_eq!(open(0o1777), (false, true));
        assert_eq!(open(0o777), (false, false));
    }

    #[test]
    fn a_directory_that_was_taken_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&dir.path().join("state")).unwrap();
        std::fs::remove_dir(&state.path).unwrap();
        state.scratch().unwrap().append(b"hello").unwrap();
        assert!(state.path.is_dir());
    }
}
