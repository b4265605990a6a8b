//! A file system of one file, the disk, that keeps every write and flush in order.
//!
//! The loop driver writes to its backing file when its device is written to, and syncs it when the
//! device gets a flush (a forced write is a write and a flush), before it reports either as done.
//! The file is opened without the page cache, so that both arrive here at once; they are taken one
//! at a time, so that the record has one order.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};

use super::image::Image;

const DISK: INodeNo = INodeNo(2);
const NAME: &str = "disk";
/// How long the kernel may cache the attributes of the files: they never change.
const FOREVER: Duration = Duration::from_secs(86_400);
/// fallocate(2): make a hole, write zeros.
const ZEROING: i32 = 0x02 | 0x10;

/// The requests to the disk.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes for an offset.
    Write(usize, Arc<[u8]>),
    /// A range to be zeros: offset and length. A discarded range, too.
    Clear(usize, usize),
    /// Everything before is to be kept.
    Flush,
}

impl Event {
    /// Does it to a disk.
    pub fn apply(&self, disk: &mut Image) {
        match self {
            Self::Write(offset, data) => disk.write(*offset, data),
            Self::Clear(offset, length) => disk.clear(*offset, *length),
            Self::Flush => {}
        }
    }
}

/// All requests to the disk since [`Recorder::begin`].
#[derive(Clone)]
pub struct Record {
    /// What it held before.
    pub before: Image,
    /// In order.
    pub events: Vec<Event>,
}

struct State {
    now: Image,
    record: Record,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: Event) {
        let mut state = self.lock();
        event.apply(&mut state.now);
        state.record.events.push(event);
    }
}

/// The mounted file system; unmounted when dropped.
pub struct Recorder {
    shared: Shared,
    mount_point: PathBuf,
    session: Option<BackgroundSession>,
}

impl Recorder {
    /// Serves `disk` as a file in the directory `mount_point`.
    pub fn mount(disk: Image, mount_point: &Path) -> io::Result<Self> {
        let record = Record {
            before: disk.clone(),
            events: Vec::new(),
        };
        let shared = Shared(Arc::new(Mutex::new(State { now: disk, record })));
        let session = Session::new(Files(shared.clone()), mount_point, &Config::default())?;
        Ok(Self {
            shared,
            mount_point: mount_point.to_owned(),
            session: Some(session.spawn()?),
        })
    }

    /// The file.
    pub fn disk(&self) -> PathBuf {
        self.mount_point.join(NAME)
    }

    /// Forgets what was recorded: the record begins here.
    pub fn begin(&self) {
        let mut state = self.shared.lock();
        state.record = Record {
            before: state.now.clone(),
            events: Vec::new(),
        };
    }

    /// How many events there have been since [`Recorder::begin`].
    pub fn events(&self) -> usize {
        self.shared.lock().record.events.len()
    }

    /// The record so far.
    pub fn record(&self) -> Record {
        self.shared.lock().record.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Lazily: the loop device may close the file a moment after it was detached.
        let mut command = Command::new("umount");
        let status = command.arg("--lazy").arg(&self.mount_point).status();
        if !matches!(status, Ok(s) if s.success()) {
            eprintln!("{} stays mounted", self.mount_point.display());
        } else if let Some(session) = self.session.take() {
            let _ = session.join();
        }
    }
}

struct Files(Shared);

impl Files {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0),
            DISK => (FileType::RegularFile, self.0.lock().now.bytes() as u64),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

/// A range that must lie on the disk.
fn range(offset: u64, length: u64, bytes: usize) -> Option<(usize, usize)> {
    let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    let end = offset.checked_add(length)?;
    (end <= bytes).then_some((offset, length))
}

impl Filesystem for Files {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(DISK) {
            Some(found) if parent == INodeNo::ROOT && name == NAME => {
                reply.entry(&FOREVER, &found, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(found) => reply.attr(&FOREVER, &found),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match usize::try_from(offset) {
            Ok(offset) => reply.data(&self.0.lock().now.read(offset, size as usize)),
            Err(_) => reply.error(Errno::EINVAL),
        }
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let bytes = self.0.lock().now.bytes();
        let Some((offset, _)) = range(offset, data.len() as u64, bytes) else {
            return reply.error(Errno::ENOSPC);
        };
        self.0.note(Event::Write(offset, data.into()));
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let bytes = self.0.lock().now.bytes();
        match range(offset, length, bytes) {
            Some((offset, length)) if mode & ZEROING != 0 => {
                self.0.note(Event::Clear(offset, length));
                reply.ok();
            }
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // close(2); it promises nothing.
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.0.note(Event::Flush);
        reply.ok();
    }
}
