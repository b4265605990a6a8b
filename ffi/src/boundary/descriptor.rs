//! File descriptors that belong to the host.
//!
//! This library reads from them or writes to them, and never closes them.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr;

/// Returns a descriptor that the host keeps open as the header requires; `None` for a negative
/// number.
pub(crate) fn borrow(number: i32) -> Option<BorrowedFd<'static>> {
    // SAFETY: the header requires that the host keeps it open. If the host closes it early, system
    // calls fail or reach another file; no memory depends on it.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Writes a line, in one piece if the descriptor takes it; the rest of the line is lost. Does not
/// wait for a full pipe or socket, which would block the host. Sends no signal for a pipe without a
/// reader: SIGPIPE would end the host.
pub(crate) fn write_line(number: i32, line: &[u8]) {
    let Some(descriptor) = borrow(number) else {
        return;
    };
    let mut polled = [PollFd::new(&descriptor, PollFlags::OUT)];
    if poll(&mut polled, Some(&Timespec::default())) == Ok(0) {
        return;
    }
    let broken_pipe = SigSet::from_iter([Signal::SIGPIPE]);
    let was_pending = is_broken_pipe_pending();
    let Ok(before) = broken_pipe.thread_swap_mask(SigmaskHow::SIG_BLOCK) else {
        return;
    };
    let written = rustix::io::write(descriptor, line);
    // A signal that was pending before belongs to the host.
    if written == Err(rustix::io::Errno::PIPE) && !was_pending {
        take_pending(&broken_pipe);
    }
    let _ = before.thread_set_mask();
}

/// Returns whether SIGPIPE is pending for this thread or the process.
fn is_broken_pipe_pending() -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is ours to write.
    let is_known = unsafe { libc::sigpending(pending.as_mut_ptr()) } == 0;
    // SAFETY: sigpending(2) has filled the set.
    is_known && unsafe { libc::sigismember(pending.as_ptr(), libc::SIGPIPE) } == 1
}

/// Takes a pending signal of `signals` without waiting, because an ignored one may be gone.
fn take_pending(signals: &SigSet) {
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        // SAFETY: the set and the time live until the call returns; the pointer for information
        // about the signal may be NULL.
        let taken =
            unsafe { libc::sigtimedwait(signals.as_ref(), ptr::null_mut(), &raw const now) };
        if taken >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}
