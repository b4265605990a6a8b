//! The log's directory on a real file system.
//!
//! Invariants: a directory is written by one process, held by flock(2) on the file `lock`; only
//! root and the user of this process can replace what is in it, and every file is opened by the
//! descriptor of the directory; segments are written with direct I/O where the file system takes
//! it, so that a failed write is seen by us and not by the page cache later.

use super::backend::{Backend, Flusher};
use super::disk_space::DiskSpace;
use super::error::LogError;
use super::medium::{Access, LogFile, LogMedium, Pacing};
use super::settings::BackendChoice;
use crate::clock;
use crate::io::{SafeDirectory, is_shortage, open_own};
use crate::sync::{Arc, Mutex};
use rustix::fs::{
    Advice, AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags, fadvise, fallocate,
    unlinkat,
};
use rustix::io::Errno;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

const LOCK_NAME: &str = "lock";
/// How long a lock is waited for whose holder was killed, and the pause between two attempts.
const LEFT_WAIT: Duration = Duration::from_secs(10);
const LEFT_PAUSE: Duration = Duration::from_millis(20);
/// Attempts to open a file while descriptors are short, and the pause between two.
const ATTEMPTS: usize = 200;
const PAUSE: Duration = Duration::from_millis(5);
/// Descriptors held in reserve: for the next segment, and for a spare. There are more than two,
/// because another thread may take one in the moment in which it is given back to be used.
const RESERVE: usize = 8;
/// Zeros written at once when a segment is made.
const ZERO_BYTES: usize = 512 << 10;

/// Longest rest between them, so that the log can be closed.
const REST_MAX: Duration = Duration::from_millis(50);

/// A directory of segments.
#[derive(Debug)]
pub struct DirectoryMedium {
    directory: OwnedFd,
    /// Held for its lock, as the directory is; absent when only reading.
    lock: Option<File>,
    choice: BackendChoice,
    backend: Mutex<Backend>,
    flusher: Arc<Mutex<Flusher>>,
    /// Open for nothing but their descriptors, which are given up for a segment when the process
    /// may open no more files.
    reserve: Mutex<Vec<OwnedFd>>,
}

impl DirectoryMedium {
    /// Opens the directory for writing, making it (mode 0700) if it is missing.
    ///
    /// # Errors
    /// [`LogError::Locked`] when another process has it, else what the kernel said.
    pub fn open(path: &Path, choice: BackendChoice) -> Result<Self, LogError> {
        let name = path.display().to_string();
        let foreign = |source| LogError::Unsafe {
            source: Arc::new(source),
        };
        let safe = SafeDirectory::make_unlinked(path, 0o700).map_err(foreign)?;
        safe.check_private().map_err(foreign)?;
        // A process that died may have made them, and a log whose directory has no durable name
        // is lost as a whole.
        safe.flush_above()
            .map_err(|error| LogError::io("create", &name, error))?;
        let mut medium = Self::with(safe.readable().map_err(foreign)?, choice);
        medium.lock = Some(lock(path, &medium.directory)?);
        Ok(medium)
    }

    /// Opens the directory for looking only; a running writer is not disturbed.
    ///
    /// # Errors
    /// It is missing or not readable.
    pub fn open_read_only(path: &Path) -> Result<Self, LogError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| LogError::io("open", &path.display().to_string(), error.into()))?;
        Ok(Self::with(directory, BackendChoice::Plain))
    }

    fn with(directory: OwnedFd, choice: BackendChoice) -> Self {
        Self {
            directory,
            lock: None,
            choice,
            backend: Mutex::new(Backend::default()),
            flusher: Arc::new(Mutex::new(Flusher::Plain)),
            reserve: Mutex::default(),
        }
    }

    /// Opens what another user may own: looking at it does no harm.
    fn open_for_read(&self, name: &str) -> io::Result<File> {
        // Something else by that name must not be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        Ok(file.into())
    }

    fn open_for_write(&self, name: &str) -> io::Result<(File, bool)> {
        self.with_reserve(|| open_direct(&self.directory, name, OFlags::RDWR))
    }

    /// Opens a file, with a descriptor of the reserve if there is no other. The reserve is filled
    /// again by the next file that is opened without it: going on to the next segment closes one.
    ///
    /// Another thread may take the descriptor that is given back. It returns it soon, so this is
    /// tried again.
    fn with_reserve<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        for _ in 1..ATTEMPTS {
            match self.open_with_reserve(&open) {
                Err(error) if is_shortage(&error) => std::thread::sleep(PAUSE),
                opened => return opened,
            }
        }
        self.open_with_reserve(&open)
    }

    fn open_with_reserve<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut reserve = self.reserve.lock();
        let mut opened = open();
        while opened.as_ref().is_err_and(is_shortage) && reserve.pop().is_some() {
            opened = open();
        }
        while opened.is_ok() && reserve.len() < RESERVE {
            match self.directory.try_clone() {
                Ok(descriptor) => reserve.push(descriptor),
                Err(_) => break,
            }
        }
        opened
    }
}

/// Takes the directory's lock or tells who has it. Both the file and the directory itself are
/// locked: the file tells who it is, the lock of the directory holds even if the file is removed.
fn lock(path: &Path, directory: &OwnedFd) -> Result<File, LogError> {
    let file_path = path.join(LOCK_NAME);
    let failed = |error| LogError::io("lock", &file_path.display().to_string(), error);
    let flags = OFlags::RDWR | OFlags::CREATE;
    // Its content is overwritten: it must be ours.
    let file = open_own(directory, LOCK_NAME, flags, 0o600).map_err(failed)?;
    let taken = FlockOperation::NonBlockingLockExclusive;
    let try_both = || match rustix::fs::flock(&file, taken) {
        // Some network file systems lock no directories.
        Ok(()) => Ok(rustix::fs::flock(directory, taken) != Err(Errno::WOULDBLOCK)),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(failed(error.into())),
    };
    let end = clock::now() + LEFT_WAIT;
    while !try_both()? {
        let holder = holder(&file);
        let is_left = holder.is_some_and(is_gone);
        if !is_left || clock::now() >= end {
            return Err(locked(path, holder));
        }
        // The commands that a killed server was about to run have its files open until they run.
        thread::sleep(LEFT_PAUSE);
    }
    file.set_len(0).map_err(failed)?;
    writeln!(&file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// The process that the lock file names.
fn holder(file: &File) -> Option<i32> {
    let mut digits = [0; 12];
    let count = file.read_at(&mut digits, 0).ok()?;
    let text = std::str::from_utf8(digits.get(..count)?).ok()?;
    text.trim().parse().ok()
}

fn is_gone(process: i32) -> bool {
    // Signal 0 only asks.
    let ask = || nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), None);
    process > 0 && ask() == Err(nix::errno::Errno::ESRCH)
}

fn locked(path: &Path, holder: Option<i32>) -> LogError {
    LogError::Locked {
        directory: path.to_owned(),
        holder: holder.map_or_else(
            || "another process".to_owned(),
            |process| format!("process {process}"),
        ),
    }
}

/// Opens with direct I/O, or without where the file system refuses it.
fn open_direct(directory: &OwnedFd, name: &str, flags: OFlags) -> io::Result<(File, bool)> {
    match open_own(directory, name, flags | OFlags::DIRECT, 0o600) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            // The refused attempt may have created the file.
            let flags = flags - OFlags::EXCL;
            Ok((open_own(directory, name, flags, 0o600)?, false))
        }
        Err(error) => Err(error),
    }
}

impl LogMedium for DirectoryMedium {
    type File = SegmentFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    fn create(
        &self,
        name: &str,
        bytes: u64,
        pacing: &dyn Fn() -> Pacing,
    ) -> io::Result<SegmentFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let (file, _) = self.with_reserve(|| open_direct(&self.directory, name, flags))?;
        if let Err(error) = fill_with_zeros(&file, bytes, pacing) {
            // Best effort: a file of the wrong size is removed when the log is opened next.
            drop(self.remove(name));
            return Err(error);
        }
        Ok(SegmentFile {
            file,
            flusher: Arc::clone(&self.flusher),
        })
    }

    fn write_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let mut file = self.with_reserve(|| open_own(&self.directory, name, flags, 0o600))?;
        // Not as it is opened: whether it is our own is known only now.
        file.set_len(0)?;
        file.write_all(content)?;
        file.sync_all()?;
        self.sync_directory()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<SegmentFile> {
        let (file, direct) = match access {
            Access::Read => {
                let file = self.open_for_read(name)?;
                // Advice only: without it a failed write could be read back from the cache.
                let _ = fadvise(&file, 0, None, Advice::DontNeed);
                let _ = fadvise(&file, 0, None, Advice::Sequential);
                (file, false)
            }
            Access::Write => self.open_for_write(name)?,
        };
        self.backend.lock().direct = direct;
        Ok(SegmentFile {
            file,
            flusher: Arc::clone(&self.flusher),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.directory, from, &self.directory, to, flags) {
            // Names are never given twice; a file system without the flag only loses the check.
            Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::renameat(
                &self.directory,
                from,
                &self.directory,
                to,
            )?),
            done => Ok(done?),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    fn tune(&self, scratch: &str) -> io::Result<()> {
        let (file, direct) = self.open_for_write(scratch)?;
        let (flusher, mut backend) = Flusher::choose(self.choice, &file)?;
        backend.direct = direct;
        *self.flusher.lock() = flusher;
        *self.backend.lock() = backend;
        Ok(())
    }

    fn volume(&self) -> io::Result<Option<DiskSpace>> {
        let found = rustix::fs::fstatvfs(&self.directory)?;
        Ok(Some(DiskSpace {
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        }))
    }

    fn describe(&self) -> String {
        self.backend.lock().to_string()
    }

    fn unlock(&self) {
        // What cannot be unlocked is once both are closed.
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
        if let Some(lock) = &self.lock {
            let _ = rustix::fs::flock(lock, FlockOperation::Unlock);
        }
    }

    fn fresh_identity(&self) -> u64 {
        // The standard library's per-process random keys, with time and process mixed in.
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_u128(crate::clock::since_epoch().as_nanos());
        hasher.write_u32(std::process::id());
        hasher.finish()
    }
}

/// Reserves the space, then writes it: blocks that were written once are overwritten later
/// without a change of metadata, so that a flush needs no journal commit.
fn fill_with_zeros(file: &File, bytes: u64, pacing: &dyn Fn() -> Pacing) -> io::Result<()> {
    // Interrupted has another meaning for who asked for the file.
    match rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let mut zeros = super::buffer::AlignedBuffer::new(ZERO_BYTES);
    zeros.put(&vec![0; ZERO_BYTES]);
    let mut offset = 0;
    while offset < bytes {
        let left = usize::try_from(bytes - offset).unwrap_or(ZERO_BYTES);
        let part = zeros
            .bytes()
            .get(..left.min(ZERO_BYTES))
            .unwrap_or_default();
        let before = clock::now();
        file.write_all_at(part, offset)?;
        offset += part.len() as u64;
        match pacing() {
            // The batches of the log would wait behind all of them.
            Pacing::Rest => thread::sleep(before.elapsed().min(REST_MAX)),
            Pacing::Hurry => {}
            Pacing::Stop => return Err(io::ErrorKind::Interrupted.into()),
        }
    }
    Ok(())
}

/// An open segment.
#[derive(Debug)]
pub struct SegmentFile {
    file: File,
    flusher: Arc<Mutex<Flusher>>,
}

impl LogFile for SegmentFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_and_flush(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.flusher
            .lock()
            .write_and_flush(&self.file, bytes, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_killed_process_left_to_its_children_is_waited_for_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let open = || DirectoryMedium::open(directory.path(), BackendChoice::Auto);
        let held = open().unwrap();
        let refused = open().map(drop);
        let own = std::process::id();
        assert!(
            matches!(&refused, Err(LogError::Locked { holder, .. }) if *holder == format!("process {own}")),
            "{refused:?}"
        );
        // No process has so high a number.
        std::fs::write(directory.path().join(LOCK_NAME), i32::MAX.to_string()).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(open);
            // Long enough for it to find the lock taken; it gets the lock either way.
            thread::sleep(5 * LEFT_PAUSE);
            drop(held);
            waits.join().unwrap().unwrap();
        });
    }
}
