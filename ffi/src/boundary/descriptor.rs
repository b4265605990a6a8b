//! File descriptors that belong to the host.
//!
//! Imports rustix. This library reads from them or writes to them, and never closes them.

use std::os::fd::BorrowedFd;

/// Returns a descriptor that the host keeps open for as long as the header says; `None` for a
/// number that is none.
pub(crate) fn borrow(number: i32) -> Option<BorrowedFd<'static>> {
    // SAFETY: the header says how long the host keeps it open. One that is closed all the same
    // makes system calls fail, or reach another file; no memory depends on it.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Writes a line, in one piece where the descriptor takes it; what it does not take is lost.
pub(crate) fn write_line(number: i32, line: &[u8]) {
    if let Some(descriptor) = borrow(number) {
        let _ = rustix::io::write(descriptor, line);
    }
}
