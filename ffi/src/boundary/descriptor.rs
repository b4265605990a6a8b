//! File descriptors that belong to the host.
//!
//! This library reads from them or writes to them, and never closes them.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr;

/// Returns a descriptor that the host keeps open for as long as the header says; `None` for a
/// number that is none.
pub(crate) fn borrow(number: i32) -> Option<BorrowedFd<'static>> {
    // SAFETY: the header says how long the host keeps it open. One that is closed all the same
    // makes system calls fail, or reach another file; no memory depends on it.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Writes a line, in one piece where the descriptor takes it; what it does not take is lost. A pipe
/// or socket that is full is not waited for: that would hold up the host. One that nobody reads
/// sends no signal: SIGPIPE would end the host.
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
    // One that waited before is the host's.
    if written == Err(rustix::io::Errno::PIPE) && !was_pending {
        take_pending(&broken_pipe);
    }
    let _ = before.thread_set_mask();
}

/// Whether SIGPIPE waits for this thread or the process.
fn is_broken_pipe_pending() -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is ours to write.
    let is_known = unsafe { libc::sigpending(pending.as_mut_ptr()) } == 0;
    // SAFETY: sigpending(2) has filled the set.
    is_known && unsafe { libc::sigismember(pending.as_ptr(), libc::SIGPIPE) } == 1
}

/// Takes a signal of `signals` that waits, and never waits itself: one that is ignored may be gone.
fn take_pending(signals: &SigSet) {
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        // SAFETY: the set and the time live until the call returns; what it would say of the signal
        // may be NULL.
        let taken =
            unsafe { libc::sigtimedwait(signals.as_ref(), ptr::null_mut(), &raw const now) };
        if taken >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}
