//! Functions of C that this library calls.
//!
//! Threads of the library call them; a panic cannot reach them, and they must not unwind.

use std::ffi::{c_char, c_void};

/// The pointer that C registered with a function, passed back with each call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Userdata(pub(crate) *mut c_void);

// SAFETY: it is a number for this library, which never dereferences it; the header file requires
// that the function may use it on any thread.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

/// A function that takes log lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogCallback {
    pub(crate) function: extern "C" fn(*mut c_void, u32, *const c_char, usize),
    pub(crate) userdata: Userdata,
}

impl LogCallback {
    /// Hands over one line; `line` ends with a NUL, which does not count.
    pub(crate) fn call(&self, level: u32, line: &std::ffi::CStr) {
        (self.function)(self.userdata.0, level, line.as_ptr(), line.count_bytes());
    }
}

/// A function that takes finished messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompletionCallback {
    pub(crate) function: extern "C" fn(*mut c_void, u64, *mut super::mailstow_results),
    pub(crate) userdata: Userdata,
}

impl CompletionCallback {
    /// Hands over the results of one message.
    pub(crate) fn call(&self, token: u64, results: *mut super::mailstow_results) {
        (self.function)(self.userdata.0, token, results);
    }
}
