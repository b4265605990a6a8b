//! A disk that fails or stops on order, for tests: wraps another and counts its operations.
//!
//! Reading operations and closing are not counted, so that operation numbers stay the same when a
//! check is added.

use super::disk::{Disk, FileStat, LockKind, Mount, Step};
use crate::sync::{Condvar, Mutex, wait};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// One planned failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The name of the operation as the trait has it (`write_all`, `sync` ...); empty for any.
    pub operation: &'static str,
    /// How many operations of that name succeed before this fault.
    pub after: u64,
    /// The error code to fail with.
    pub errno: i32,
    /// For writes: how many bytes reach the file before it fails.
    pub bytes_written: usize,
    /// Whether the operation keeps failing from then on.
    pub persists: bool,
}

/// A disk which passes everything on to another one, until a planned fault is due.
#[derive(Debug)]
pub struct Faulty<D> {
    inner: D,
    plan: Mutex<Plan>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Plan {
    /// Each with the number of its operations seen since it was planned.
    faults: Vec<(Fault, u64)>,
    trace: Vec<&'static str>,
    held: Option<&'static str>,
    /// Only the first thread that comes there waits.
    holds_one: bool,
    /// So many pass before.
    passes: usize,
    is_reached: bool,
    panics_at: Option<&'static str>,
}

impl<D: Disk> Faulty<D> {
    /// A disk without faults so far.
    pub fn new(inner: D) -> Self {
        Self {
            inner,
            plan: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Plans a fault, counting from now; replaces those planned before.
    pub fn plan(&self, fault: Fault) {
        self.plan_all(&[fault]);
    }

    /// Plans several faults, counting from now; replaces those planned before.
    pub fn plan_all(&self, faults: &[Fault]) {
        self.plan.lock().faults = faults.iter().map(|fault| (*fault, 0)).collect();
    }

    /// The thread that comes to `operation` next panics there, without a message.
    pub fn panic_at(&self, operation: &'static str) {
        self.plan.lock().panics_at = Some(operation);
    }

    /// From now on every thread that comes to `operation` waits there until [`Faulty::release`].
    pub fn hold(&self, operation: &'static str) {
        let mut plan = self.plan.lock();
        plan.held = Some(operation);
        plan.holds_one = false;
        plan.passes = 0;
        plan.is_reached = false;
    }

    /// The next thread that comes to `operation` waits there until [`Faulty::release`], and no
    /// other does.
    pub fn hold_one(&self, operation: &'static str) {
        self.hold(operation);
        self.plan.lock().holds_one = true;
    }

    /// As [`Faulty::hold_one`], after so many went on.
    pub fn hold_one_after(&self, passes: usize, operation: &'static str) {
        self.hold_one(operation);
        self.plan.lock().passes = passes;
    }

    /// Waits until a thread has reached the held operation.
    pub fn wait_until_reached(&self) {
        let mut plan = self.plan.lock();
        while !plan.is_reached {
            plan = wait(&self.changed, plan);
        }
    }

    /// Lets those who wait at the held operation go on.
    pub fn release(&self) {
        self.plan.lock().held = None;
        self.changed.notify_all();
    }

    /// The counted operations so far, in order; forgets them.
    pub fn take_trace(&self) -> Vec<&'static str> {
        let mut plan = self.plan.lock();
        std::mem::take(&mut plan.trace)
    }

    /// Forgets the operations so far up to the first of this name. False if there is none.
    pub fn take_trace_up_to(&self, operation: &str) -> bool {
        let mut plan = self.plan.lock();
        let at = plan.trace.iter().position(|done| *done == operation);
        if let Some(at) = at {
            plan.trace.drain(..=at);
        }
        at.is_some()
    }

    /// Counts one operation; the fault if it is due.
    fn due(&self, operation: &'static str) -> Option<Fault> {
        let mut plan = self.plan.lock();
        plan.trace.push(operation);
        if plan.panics_at == Some(operation) {
            plan.panics_at = None;
            drop(plan);
            std::panic::resume_unwind(Box::new("planted"));
        }
        let passes = plan.held == Some(operation) && plan.passes > 0;
        plan.passes -= usize::from(passes);
        let goes_on = passes || plan.is_reached && plan.holds_one;
        while plan.held == Some(operation) && !goes_on {
            plan.is_reached = true;
            self.changed.notify_all();
            plan = wait(&self.changed, plan);
        }
        let mut due = None;
        for (fault, seen) in &mut plan.faults {
            if !fault.operation.is_empty() && fault.operation != operation {
                continue;
            }
            *seen += 1;
            if *seen == fault.after + 1 || (fault.persists && *seen > fault.after) {
                due = due.or(Some(*fault));
            }
        }
        due
    }

    fn check(&self, operation: &'static str) -> io::Result<()> {
        match self.due(operation) {
            Some(fault) => Err(io::Error::from_raw_os_error(fault.errno)),
            None => Ok(()),
        }
    }
}

impl<D: Disk> Disk for Faulty<D> {
    type Handle = D::Handle;

    fn open_root(&self, path: &Path) -> io::Result<Self::Handle> {
        self.inner.open_root(path)
    }

    fn open_directory(&self, base: &Self::Handle, path: &str) -> io::Result<Self::Handle> {
        self.inner.open_directory(base, path)
    }

    fn step(&self, dir: &Self::Handle, name: &str) -> io::Result<Step<Self::Handle>> {
        self.inner.step(dir, name)
    }

    fn make_directory(&self, dir: &Self::Handle, name: &str, mode: u32) -> io::Result<()> {
        self.check("make_directory")?;
        self.inner.make_directory(dir, name, mode)
    }

    fn create_unnamed(&self, dir: &Self::Handle, mode: u32) -> io::Result<Self::Handle> {
        self.check("create_unnamed")?;
        self.inner.create_unnamed(dir, mode)
    }

    /// What is written to it is not counted.
    fn name_unnamed(&self, file: &Self::Handle, dir: &Self::Handle, name: &str) -> io::Result<()> {
        self.check("name_unnamed")?;
        self.inner.name_unnamed(file, dir, name)
    }

    fn create_new(&self, dir: &Self::Handle, name: &str, mode: u32) -> io::Result<Self::Handle> {
        self.check("create_new")?;
        self.inner.create_new(dir, name, mode)
    }

    fn open_append(&self, dir: &Self::Handle, name: &str) -> io::Result<Self::Handle> {
        self.inner.open_append(dir, name)
    }

    fn open_write(&self, dir: &Self::Handle, name: &str) -> io::Result<Self::Handle> {
        self.inner.open_write(dir, name)
    }

    fn write_at(&self, file: &Self::Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check("write_at")?;
        self.inner.write_at(file, bytes, offset)
    }

    fn mount_of(&self, handle: &Self::Handle) -> io::Result<Mount> {
        self.inner.mount_of(handle)
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        self.inner.real_path(path)
    }

    fn mount_points(&self) -> io::Result<Vec<PathBuf>> {
        self.inner.mount_points()
    }

    fn mounted_on(&self, point: &Path) -> io::Result<Option<u64>> {
        self.inner.mounted_on(point)
    }

    fn link(&self, from: (&Self::Handle, &str), to: (&Self::Handle, &str)) -> io::Result<()> {
        self.check("link")?;
        self.inner.link(from, to)
    }

    fn rename_new(&self, from: (&Self::Handle, &str), to: (&Self::Handle, &str)) -> io::Result<()> {
        self.check("rename_new")?;
        self.inner.rename_new(from, to)
    }

    fn remove(&self, dir: &Self::Handle, name: &str) -> io::Result<()> {
        self.check("remove")?;
        self.inner.remove(dir, name)
    }

    fn stat(&self, handle: &Self::Handle) -> io::Result<FileStat> {
        self.inner.stat(handle)
    }

    fn stat_at(&self, dir: &Self::Handle, name: &str) -> io::Result<FileStat> {
        self.inner.stat_at(dir, name)
    }

    fn list(&self, dir: &Self::Handle, most: usize) -> io::Result<Vec<OsString>> {
        self.inner.list(dir, most)
    }

    fn write_all(&self, file: &Self::Handle, pieces: [&[u8]; 2]) -> io::Result<()> {
        let Some(fault) = self.due("write_all") else {
            return self.inner.write_all(file, pieces);
        };
        let mut left = fault.bytes_written;
        for piece in pieces {
            let part = piece.get(..left).unwrap_or(piece);
            left -= part.len();
            self.inner.write_all(file, [part, &[]])?;
        }
        Err(io::Error::from_raw_os_error(fault.errno))
    }

    fn read_at(&self, file: &Self::Handle, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(file, buffer, offset)
    }

    fn truncate(&self, file: &Self::Handle, length: u64) -> io::Result<()> {
        self.check("truncate")?;
        self.inner.truncate(file, length)
    }

    fn change_group(&self, handle: &Self::Handle, gid: u32) -> io::Result<()> {
        self.check("change_group")?;
        self.inner.change_group(handle, gid)
    }

    fn sync(&self, handle: &Self::Handle) -> io::Result<()> {
        self.check("sync")?;
        self.inner.sync(handle)
    }

    fn sync_filesystem(&self, handle: &Self::Handle) -> io::Result<()> {
        self.check("sync_filesystem")?;
        self.inner.sync_filesystem(handle)
    }

    fn syncs_filesystems(&self, handle: &Self::Handle) -> bool {
        self.inner.syncs_filesystems(handle)
    }

    fn can_checkpoint(&self, handle: &Self::Handle) -> bool {
        self.inner.can_checkpoint(handle)
    }

    /// So that operation numbers are the same wherever the test runs.
    fn is_local(&self, _handle: &Self::Handle) -> bool {
        true
    }

    fn boot(&self) -> u128 {
        self.inner.boot()
    }

    fn try_lock(&self, file: &Self::Handle, kind: LockKind) -> io::Result<bool> {
        self.inner.try_lock(file, kind)
    }

    fn unlock(&self, file: &Self::Handle) {
        self.inner.unlock(file);
    }
}
