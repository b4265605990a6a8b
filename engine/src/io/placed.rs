//! A file without a name in the mailbox, into which a long message goes while it arrives.
//!
//! Imports `credentials` (whose file it is). The mailbox's own lines stand in front of the content.
//! It is written with its owner's claim to the disk. Invariants: only one delivery takes the file;
//! once it may have a name, what is read of it counts only while nobody has changed it.

use super::with_user;
use rustix::fs::{Advice, fadvise};
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// How much is handed to the disk at a time.
const BEGIN_BYTES: u64 = 4 << 20;

/// For whom a file was made, and what stands in front of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The lines in front of the content.
    pub header: Vec<u8>,
    /// Device and inode of the directory.
    pub directory: (u64, u64),
    /// User and group it was made as.
    pub owner: (u32, u32),
}

/// See above. It disappears when it is dropped without a name.
#[derive(Debug)]
pub struct Placed {
    file: File,
    purpose: Purpose,
    content_bytes: u64,
    /// So many of them are on their way to the disk.
    begun_bytes: u64,
    /// Of the whole file: its size and when it was last written.
    whole: Option<Stamp>,
    is_taken: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Placed {
    /// Begins the message in a new, empty file. To be called as its owner.
    ///
    /// # Errors
    /// As write(2).
    pub fn begin(mut file: File, purpose: Purpose) -> io::Result<Self> {
        file.write_all(&purpose.header)?;
        Ok(Self {
            file,
            purpose,
            content_bytes: 0,
            begun_bytes: 0,
            whole: None,
            is_taken: AtomicBool::new(false),
        })
    }

    /// Appends to the content, all of it or what counts as nothing.
    ///
    /// # Errors
    /// As write(2); the file is to be given up then.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // As root one could fill what a file system keeps for root alone.
        with_user(self.purpose.owner.0, || self.file.write_all(bytes))?;
        self.content_bytes += bytes.len() as u64;
        if self.content_bytes - self.begun_bytes >= BEGIN_BYTES {
            self.begin_flush();
        }
        Ok(())
    }

    /// Lets the disk work while more arrives, so that the flush at the end is short. That is what
    /// saying that the pages are not needed does, whatever becomes of the pages; unlike a flush
    /// it leaves write errors to be reported by the flush.
    fn begin_flush(&mut self) {
        let offset = self.purpose.header.len() as u64 + self.begun_bytes;
        let length = NonZeroU64::new(self.content_bytes - self.begun_bytes);
        // Advice is not taken on every file system.
        let _ = fadvise(&self.file, offset, length, Advice::DontNeed);
        self.begun_bytes = self.content_bytes;
    }

    /// Bytes of content.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Nothing will be appended any more.
    ///
    /// # Errors
    /// As fstat(2).
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.whole = Some(Stamp::from(&self.file.metadata()?));
        Ok(())
    }

    /// Reads a part of the content.
    ///
    /// # Errors
    /// As pread(2), or the file is shorter.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = self.purpose.header.len() as u64 + offset;
        self.file.read_exact_at(buffer, offset)
    }

    /// Whoever has the mailbox may have changed the message once it was in there.
    ///
    /// # Errors
    /// What was read of it until now may not be the message.
    pub(crate) fn check_unchanged(&self) -> io::Result<()> {
        let is_taken = self.is_taken.load(Ordering::Acquire);
        if is_taken && self.whole != Some(Stamp::from(&self.file.metadata()?)) {
            return Err(io::Error::other("somebody changed it in the mailbox"));
        }
        Ok(())
    }

    /// The file, if it is whole and was made for this very purpose. Given to one caller only.
    pub(crate) fn take(&self, purpose: &Purpose) -> Option<File> {
        let size = self.purpose.header.len() as u64 + self.content_bytes;
        let metadata = self.file.metadata().ok()?;
        let is_good = *purpose == self.purpose
            && self.whole == Some(Stamp::from(&metadata))
            && (metadata.len(), metadata.nlink()) == (size, 0)
            && metadata.uid() == purpose.owner.0;
        if !is_good || self.is_taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.file.try_clone().ok()
    }
}
