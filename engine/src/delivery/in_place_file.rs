//! An unnamed file in a mailbox, which takes a long message while it arrives.
//!
//! The header lines of the mailbox precede the content. Each write counts against the owner's
//! quota. Invariants: only one delivery takes the file; from then on the file may have a name, so
//! what is read of it counts only if no other program has changed it.

use crate::io::with_user;
use crate::message::MessageSink;
use crate::target::Owner;
use rustix::fs::{Advice, fadvise};
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// How many bytes are handed to the disk at once.
const BEGIN_BYTES: u64 = 4 << 20;

/// The delivery that a file was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Purpose {
    /// The lines before the content.
    pub(super) header: Vec<u8>,
    /// Device and inode of the directory.
    pub(super) directory: (u64, u64),
    /// The user and group that the file was made as.
    pub(super) owner: Owner,
}

/// The file. The kernel removes it when it is dropped without a name.
#[derive(Debug)]
pub(super) struct InPlaceFile {
    file: File,
    purpose: Purpose,
    content_bytes: u64,
    /// How many of its bytes were handed to the disk.
    begun_bytes: u64,
    /// Size and time of the last write of the whole file, once it has ended.
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

impl InPlaceFile {
    /// Begins the message in a new, empty file. Must be called as its owner.
    ///
    /// # Errors
    /// As write(2).
    pub(super) fn begin(mut file: File, purpose: Purpose) -> io::Result<Self> {
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

    /// Starts to write pages to the disk while more of the message arrives, so that the final flush
    /// is short. Advises the kernel that the pages are not needed: unlike a flush, that leaves
    /// write errors for the final flush to report.
    fn begin_flush(&mut self) {
        let offset = self.purpose.header.len() as u64 + self.begun_bytes;
        let length = NonZeroU64::new(self.content_bytes - self.begun_bytes);
        // Some file systems ignore the advice.
        let _ = fadvise(&self.file, offset, length, Advice::DontNeed);
        self.begun_bytes = self.content_bytes;
    }

    /// Returns an error if another program may have changed the message in the mailbox: then the
    /// bytes read so far may not be those of the message.
    fn check_unchanged(&self) -> io::Result<()> {
        let is_taken = self.is_taken.load(Ordering::Acquire);
        if is_taken && self.whole != Some(Stamp::from(&self.file.metadata()?)) {
            return Err(io::Error::other(
                "another program changed it in the mailbox",
            ));
        }
        Ok(())
    }

    /// Returns the file, if it is complete and was made for this purpose; to one caller only.
    pub(super) fn take(&self, purpose: &Purpose) -> Option<File> {
        let size = self.purpose.header.len() as u64 + self.content_bytes;
        let metadata = self.file.metadata().ok()?;
        let is_good = *purpose == self.purpose
            && self.whole == Some(Stamp::from(&metadata))
            && (metadata.len(), metadata.nlink()) == (size, 0)
            && metadata.uid() == purpose.owner.uid;
        if !is_good || self.is_taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.file.try_clone().ok()
    }
}

impl MessageSink for InPlaceFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Root could use the blocks that a file system reserves for root.
        with_user(self.purpose.owner.uid, || self.file.write_all(bytes))?;
        self.content_bytes += bytes.len() as u64;
        if self.content_bytes - self.begun_bytes >= BEGIN_BYTES {
            self.begin_flush();
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.whole = Some(Stamp::from(&self.file.metadata()?));
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = self.purpose.header.len() as u64 + offset;
        self.file.read_exact_at(buffer, offset)?;
        self.check_unchanged()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::io::StateDirectory;
    use crate::message::{Message, Spool};
    use crate::sync::Arc;

    fn read(message: &Message) -> Vec<u8> {
        let mut content = Vec::new();
        message.copy_to(&mut content).unwrap();
        content
    }

    #[test]
    fn a_message_that_finds_no_room_in_its_mailbox_comes_back_whole() {
        use rustix::fs::{MemfdFlags, SealFlags};
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
        let limits = Limits {
            message_memory_bytes: 20_000,
            memory_bytes: 1_000_000,
            ..Limits::default()
        };
        for room in [0, 7, 60_000, 70_000, 1_000_000, 1_999_990] {
            for piece in [1000, 5000, 9000] {
                let state = Arc::new(StateDirectory::open(dir.path()).unwrap());
                let spool = Spool::new(state, &limits, Arc::new(|| false));
                let mut builder = spool.message().binary();
                builder.write(b"\n").unwrap();
                let (first, rest) = content.split_at(50_000);
                builder.write(first).unwrap();
                let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
                let file = File::from(rustix::fs::memfd_create("m", flags).unwrap());
                file.set_len(room).unwrap();
                rustix::fs::fcntl_add_seals(&file, SealFlags::GROW).unwrap();
                let purpose = Purpose {
                    header: Vec::new(),
                    directory: (0, 0),
                    owner: Owner { uid: 0, gid: 0 },
                };
                let file = InPlaceFile::begin(file, purpose).unwrap();
                builder.go_on_in(Box::new(file));
                assert_eq!(builder.is_in_scratch(), room < 50_001);
                for part in rest.chunks(piece) {
                    builder.write(part).unwrap();
                }
                let message = builder.finish().unwrap();
                assert!(message.sink::<InPlaceFile>().is_none());
                assert_eq!(message.size(), 2_000_001);
                assert!(read(&message) == [b"\n", &content[..]].concat());
            }
        }
    }
}
