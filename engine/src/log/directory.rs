//! The log's directory on a real file system.
//!
//! Imports `medium`, `buffer`, `error`, `settings`, `io`, `clock`. Invariants: a directory
//! is written by one process, held by flock(2) on the file `lock`; segments are written with
//! direct I/O where the file system takes it, so that a failed write is seen by us and not by
//! the page cache later.

use super::backend::{Backend, Flusher};
use super::error::LogError;
use super::medium::{Access, Haste, LogFile, LogMedium};
use super::settings::BackendChoice;
use crate::clock;
use crate::io::is_shortage;
use crate::sync::{Arc, Mutex};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, Mode, OFlags, fadvise, fallocate};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const LOCK_NAME: &str = "lock";
/// Descriptors held in reserve: for the next segment, and for a spare.
const RESERVE: usize = 2;
/// Zeros written at once when a segment is made.
const ZERO_BYTES: usize = 512 << 10;

/// Longest rest between them, so that the log can be closed.
const REST_MAX: Duration = Duration::from_millis(50);

/// A directory of segments.
#[derive(Debug)]
pub struct DirectoryMedium {
    path: PathBuf,
    directory: File,
    /// Held for its lock, as the directory is; absent when only reading.
    _lock: Option<File>,
    choice: BackendChoice,
    backend: Mutex<Backend>,
    flusher: Arc<Mutex<Flusher>>,
    /// Open for nothing but their descriptors, which are given up for a segment when the process
    /// may open no more files.
    reserve: Mutex<Vec<File>>,
}

impl DirectoryMedium {
    /// Opens the directory for writing, making it (mode 0700) if it is missing.
    ///
    /// # Errors
    /// [`LogError::Locked`] when another process has it, else what the kernel said.
    pub fn open(path: &Path, choice: BackendChoice) -> Result<Self, LogError> {
        let name = path.display().to_string();
        create_durably(path).map_err(|error| LogError::io("create", &name, error))?;
        let mut medium = Self::with(path, None, choice)?;
        medium._lock = Some(lock(path, &medium.directory)?);
        Ok(medium)
    }

    /// Opens the directory for looking only; a running writer is not disturbed.
    ///
    /// # Errors
    /// It is missing or not readable.
    pub fn open_read_only(path: &Path) -> Result<Self, LogError> {
        Self::with(path, None, BackendChoice::Plain)
    }

    fn with(path: &Path, lock: Option<File>, choice: BackendChoice) -> Result<Self, LogError> {
        let directory = File::open(path)
            .map_err(|error| LogError::io("open", &path.display().to_string(), error))?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            _lock: lock,
            choice,
            backend: Mutex::new(Backend::default()),
            flusher: Arc::new(Mutex::new(Flusher::Plain)),
            reserve: Mutex::default(),
        })
    }

    fn open_for_write(&self, name: &str) -> io::Result<(File, bool)> {
        let path = self.path.join(name);
        self.with_reserve(|| open_direct(&path, OFlags::RDWR))
    }

    /// Opens a file, with a descriptor of the reserve if there is no other. The reserve is filled
    /// again by the next file that is opened without it: going on to the next segment closes one.
    fn with_reserve<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
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

/// Makes the directory and those above it. Their names are flushed even if they were there: a
/// process that died may have made them, and a log whose directory has no durable name is lost
/// as a whole.
fn create_durably(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let made = path.ancestors().take_while(|above| !above.exists()).count();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)?;
    for above in path.ancestors().skip(1).take(made.max(1)) {
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

/// Takes the directory's lock or tells who has it. Both the file and the directory itself are
/// locked: the file tells who it is, the directory holds although somebody takes the file away.
fn lock(path: &Path, directory: &File) -> Result<File, LogError> {
    let file_path = path.join(LOCK_NAME);
    let failed = |error| LogError::io("lock", &file_path.display().to_string(), error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // What it leads to would be overwritten.
        .custom_flags(libc::O_NOFOLLOW)
        .open(&file_path)
        .map_err(failed)?;
    let taken = FlockOperation::NonBlockingLockExclusive;
    match rustix::fs::flock(&file, taken) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(locked(path, &mut file)),
        Err(error) => return Err(failed(error.into())),
    }
    // Some network file systems lock no directories.
    if rustix::fs::flock(directory, taken) == Err(rustix::io::Errno::WOULDBLOCK) {
        return Err(locked(path, &mut file));
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

fn locked(path: &Path, file: &mut File) -> LogError {
    let mut holder = String::new();
    let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
    LogError::Locked {
        directory: path.to_owned(),
        holder: if known {
            format!("process {}", holder.trim())
        } else {
            "another process".to_owned()
        },
    }
}

/// Opens with direct I/O, or without where the file system refuses it.
fn open_direct(path: &Path, flags: OFlags) -> io::Result<(File, bool)> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(path, flags | OFlags::DIRECT, mode) {
        Ok(file) => Ok((file.into(), true)),
        Err(rustix::io::Errno::INVAL) => {
            // The refused attempt may have created the file.
            let flags = flags - OFlags::EXCL;
            Ok((rustix::fs::open(path, flags, mode)?.into(), false))
        }
        Err(error) => Err(error.into()),
    }
}

impl LogMedium for DirectoryMedium {
    type File = SegmentFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64, haste: &dyn Fn() -> Haste) -> io::Result<SegmentFile> {
        let path = self.path.join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let (file, _) = self.with_reserve(|| open_direct(&path, flags))?;
        if let Err(error) = fill_with_zeros(&file, bytes, haste) {
            // Best effort: a file of the wrong size is removed when the log is opened next.
            drop(fs::remove_file(&path));
            return Err(error);
        }
        Ok(SegmentFile {
            file,
            flusher: Arc::clone(&self.flusher),
        })
    }

    fn open(&self, name: &str, access: Access) -> io::Result<SegmentFile> {
        let (file, direct) = match access {
            Access::Read => {
                let file = OpenOptions::new()
                    .read(true)
                    // Something else by that name must not be waited for.
                    .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
                    .open(self.path.join(name))?;
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
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn tune(&self, scratch: &str) -> io::Result<()> {
        let (file, direct) = self.open_for_write(scratch)?;
        let (flusher, mut backend) = Flusher::choose(self.choice, &file)?;
        backend.direct = direct;
        *self.flusher.lock() = flusher;
        *self.backend.lock() = backend;
        Ok(())
    }

    fn describe(&self) -> String {
        self.backend.lock().to_string()
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
fn fill_with_zeros(file: &File, bytes: u64, haste: &dyn Fn() -> Haste) -> io::Result<()> {
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
        match haste() {
            // The batches of the log would wait behind all of them.
            Haste::Rest => thread::sleep(before.elapsed().min(REST_MAX)),
            Haste::Hurry => {}
            Haste::Stop => return Err(io::ErrorKind::Interrupted.into()),
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
