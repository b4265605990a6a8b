//! What the log asks of a disk, so that a faulty one can take the place of the real one.
//!
//! Contract: bytes written are durable after a flush of their file, names after a sync of the
//! directory, and neither before. A failed write or flush says nothing about what is durable;
//! it is never retried.

use super::disk_space::DiskSpace;
use std::io;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Scanning; what this machine caches of the file is dropped first, so that the disk answers.
    Read,
    /// Appending batches.
    Write,
}

/// How a new file is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pacing {
    /// No caller waits for it: half of the disk's time is left to others.
    Rest,
    /// As fast as can be.
    Hurry,
    /// Not at all: it is needed no more.
    Stop,
}

/// One directory of segment files.
pub trait LogMedium: Send + Sync + 'static {
    /// An open file of it.
    type File: LogFile;

    /// All names.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` zeros, written, so that writing it again once it was flushed
    /// changes no metadata. `pacing` is asked now and again.
    ///
    /// # Errors
    /// `Interrupted` when stopped; the name exists, or the disk is full; then no file is left
    /// behind if that can be helped.
    fn create(&self, name: &str, bytes: u64, pacing: &dyn Fn() -> Pacing)
    -> io::Result<Self::File>;

    /// Makes a file that is no segment, or replaces it. It and its name are durable then.
    ///
    /// # Errors
    /// It cannot be written, or the disk failed: it may be there in part.
    fn write_file(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Opens an existing file.
    ///
    /// # Errors
    /// It is missing or cannot be opened.
    fn open(&self, name: &str, access: Access) -> io::Result<Self::File>;

    /// Gives a file another name, replacing none.
    ///
    /// # Errors
    /// The file is missing or the directory cannot be written.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The file is missing or the directory cannot be written.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all changes of names durable.
    ///
    /// # Errors
    /// The disk failed; what is durable is unknown.
    fn sync_directory(&self) -> io::Result<()>;

    /// Chooses the fastest way to write and flush, trying on the spare file `scratch`.
    ///
    /// # Errors
    /// No way works.
    fn tune(&self, scratch: &str) -> io::Result<()>;

    /// The file system it is on; `None` when there is nothing to say of its size.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn volume(&self) -> io::Result<Option<DiskSpace>> {
        Ok(None)
    }

    /// The way chosen, for the log.
    fn describe(&self) -> String;

    /// A number no other log has.
    fn fresh_identity(&self) -> u64;

    /// Gives the directory's lock back, if it has one: nothing is written there any more.
    fn unlock(&self) {}
}

/// One segment file.
pub trait LogFile: Send {
    /// Its size in bytes.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn size(&self) -> io::Result<u64>;

    /// Reads at `offset`; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    /// The disk cannot be read.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes`: a multiple of the block size, aligned, to a multiple of it.
    ///
    /// # Errors
    /// The disk failed or is full; any part may have been written.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written to the file durable.
    ///
    /// # Errors
    /// The disk failed; what is durable is unknown.
    fn flush(&mut self) -> io::Result<()>;

    /// Both at once, which a disk may do better than one after the other.
    ///
    /// # Errors
    /// As for the two.
    fn write_and_flush(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(bytes, offset)?;
        self.flush()
    }
}
