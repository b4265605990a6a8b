//! io_uring for the delivery log: a write and the flush behind it as one submission.
//!
//! A ring has one owner and is never left with an operation in progress: every call returns only
//! after the kernel gave back what it was given. `unsafe` is needed because the kernel reads the
//! caller's buffer while the call waits.
#![allow(
    unsafe_code,
    reason = "io_uring takes addresses; the borrow checker cannot see the kernel read them"
)]

use io_uring::{IoUring, opcode, squeue, types};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Entries of the ring; two are used at a time.
const ENTRIES: u32 = 4;
const WRITE: u64 = 1;
const SYNC: u64 = 2;
/// Longest single write, so that the length fits its field with room to spare.
const WRITE_BYTES_MAX: usize = 1 << 30;

/// A small ring for one writer.
pub(crate) struct Ring {
    /// Absent after a failed submission, when its state is unknown.
    ring: Option<IoUring>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("usable", &self.ring.is_some())
            .finish()
    }
}

impl Ring {
    /// Sets a ring up and sees that the kernel knows the two operations.
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::new(ENTRIES)?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let known =
            probe.is_supported(opcode::Write::CODE) && probe.is_supported(opcode::Fsync::CODE);
        if !known {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { ring: Some(ring) })
    }

    /// Writes `bytes` at `offset` and flushes the file's data; answers the bytes written. If that
    /// is fewer than all, the flush did not take place. What the kernel gives back unbegun, because
    /// it gets no thread to do it with, is no failure of the disk: the flush is done by a plain
    /// call, and an unbegun write has written nothing.
    pub(crate) fn write_then_sync(
        &mut self,
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<usize> {
        let Some(mut ring) = self.ring.take() else {
            return Err(io::Error::other("the ring failed before"));
        };
        let fd = types::Fd(file.as_raw_fd());
        let length = u32::try_from(bytes.len().min(WRITE_BYTES_MAX)).unwrap_or(0);
        let write = opcode::Write::new(fd, bytes.as_ptr(), length)
            .offset(offset)
            .build()
            .flags(squeue::Flags::IO_LINK)
            .user_data(WRITE);
        let sync = opcode::Fsync::new(fd)
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(SYNC);
        // SAFETY: `bytes` and `file` are borrowed until this function returns, and it returns
        // only after both completions were seen, or after the ring was dropped with the entries
        // never submitted (a failed io_uring_enter takes none).
        unsafe { ring.submission().push_multiple(&[write, sync]) }
            .map_err(|_| io::Error::other("the submission queue is full"))?;
        let (mut submitted, mut chained) = (0, true);
        let (mut written, mut synced) = (None, None);
        while written.is_none() || synced.is_none() {
            match ring.submit_and_wait(1) {
                Ok(count) => {
                    // A chain ends where a submission ends: then the flush did not wait.
                    chained &= submitted + count != 1;
                    submitted += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if submitted == 0 => return Err(error),
                // Entries are with the kernel: they must come back before the buffer goes.
                Err(_) => std::thread::yield_now(),
            }
            for done in ring.completion() {
                match done.user_data() {
                    WRITE => written = Some(done.result()),
                    _ => synced = Some(done.result()),
                }
            }
        }
        self.ring = Some(ring);
        if is_unbegun(written) {
            return Ok(0);
        }
        let written = outcome(written)?;
        if written == bytes.len() {
            let is_unbegun = is_unbegun(synced);
            if !is_unbegun {
                outcome(synced)?;
            }
            if is_unbegun || !chained {
                file.sync_data()?;
            }
        }
        Ok(written)
    }
}

/// The kernel never began with it: it cancels only what it has not begun, and it is not asked to.
fn is_unbegun(result: Option<i32>) -> bool {
    result == Some(-libc::ECANCELED)
}

/// The result of a completion: a count, or an error number below zero.
fn outcome(result: Option<i32>) -> io::Result<usize> {
    let result = result.unwrap_or_default();
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn a_write_through_the_ring_is_in_the_file() {
        // Containers may forbid io_uring; then the log takes plain calls.
        let Ok(mut ring) = Ring::new() else { return };
        let file = tempfile::tempfile().unwrap();
        assert_eq!(ring.write_then_sync(&file, b"hello", 3).unwrap(), 5);
        let mut back = [0; 8];
        assert_eq!(file.read_at(&mut back, 0).unwrap(), 8);
        assert_eq!(&back, b"\0\0\0hello");
    }

    #[test]
    fn a_write_that_fails_says_so_and_the_ring_goes_on() {
        let Ok(mut ring) = Ring::new() else { return };
        let read_only = File::open("/dev/null").unwrap();
        assert!(ring.write_then_sync(&read_only, b"x", 0).is_err());
        let file = tempfile::tempfile().unwrap();
        assert_eq!(ring.write_then_sync(&file, b"y", 0).unwrap(), 1);
    }
}
