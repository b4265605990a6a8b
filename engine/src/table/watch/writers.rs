//! Whether a program is about to write a file: has it open for writing, or has a writer's lock.
//!
//! Invariant: a writer is held up for microseconds at most. Sources: fcntl(2) on leases and record
//! locks, flock(2).
#![allow(
    unsafe_code,
    reason = "no safe crate has leases, by which the kernel tells whether a file is open for writing"
)]

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::fcntl::FcntlArg;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Sets the signal about a lease; the same on all of Linux, see fcntl(2).
const F_SETSIG: libc::c_int = 10;

/// Whether a file has a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::table) enum Writer {
    /// Another program has it open for writing, or has locked it.
    There,
    /// No process has.
    None,
    /// No process has locked it; we may not ask whether it is open for writing.
    Unknown,
}

/// Looks whether `file`, which is open for reading, has a writer.
pub(in crate::table) fn writer_of(file: &File) -> Writer {
    if is_locked(file) {
        return Writer::There;
    }
    match is_open_for_writing(file) {
        Some(true) => Writer::There,
        Some(false) => Writer::None,
        None => Writer::Unknown,
    }
}

/// Asks for the locks that readers take, which a writer's lock excludes: of flock(2), as editors
/// and scripts take it, and of fcntl(2), as postmap(1) does.
fn is_locked(file: &File) -> bool {
    let unlocked = i16::try_from(libc::F_UNLCK).unwrap_or_default();
    let mut lock = libc::flock {
        l_type: i16::try_from(libc::F_RDLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let asked = nix::fcntl::fcntl(file, FcntlArg::F_GETLK(&mut lock));
    if asked.is_ok() && lock.l_type != unlocked {
        return true;
    }
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            // It is also given up when the file is closed.
            let _ = flock(file, FlockOperation::Unlock);
            false
        }
        Err(error) => error == Errno::WOULDBLOCK,
    }
}

/// Asks for a lease under which no process may write. The kernel refuses it while the file is open
/// for writing; a writer that comes while we have it waits until it is given back.
fn is_open_for_writing(file: &File) -> Option<bool> {
    // The signal about such a writer must not be SIGIO, which ends a process.
    if !fcntl(file, F_SETSIG, libc::SIGURG) {
        return None;
    }
    if fcntl(file, libc::F_SETLEASE, libc::F_RDLCK) {
        fcntl(file, libc::F_SETLEASE, libc::F_UNLCK);
        return Some(false);
    }
    // Any other error: the file is another user's, or on a file system without leases.
    let error = std::io::Error::last_os_error().raw_os_error();
    (error == Some(libc::EAGAIN)).then_some(true)
}

fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> bool {
    // SAFETY: the descriptor is open, and these commands take a number.
    unsafe { libc::fcntl(file.as_raw_fd(), command, argument) >= 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_file_open_for_writing_is_seen_until_it_is_closed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let reader = File::open(&path).unwrap();
        assert_eq!(
            writer_of(&reader),
            Writer::There,
            "the temporary file itself"
        );
        let path = file.into_temp_path();
        assert_eq!(writer_of(&reader), Writer::None);
        let _other_reader = File::open(&path).unwrap();
        assert_eq!(writer_of(&reader), Writer::None);
        let writer = File::options().append(true).open(&path).unwrap();
        assert_eq!(writer_of(&reader), Writer::There);
        drop(writer);
        assert_eq!(writer_of(&reader), Writer::None);
    }

    #[test]
    fn writers_locks_are_seen_and_readers_locks_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.into_temp_path();
        let (reader, other) = (File::open(&path).unwrap(), File::open(&path).unwrap());
        flock(&other, FlockOperation::LockShared).unwrap();
        assert!(!is_locked(&reader));
        flock(&other, FlockOperation::LockExclusive).unwrap();
        assert!(is_locked(&reader));
        flock(&other, FlockOperation::Unlock).unwrap();
        assert!(!is_locked(&reader));
    }
}
