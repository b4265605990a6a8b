//! Keeps a thread of the host from being cancelled while it runs in the library: unwinding it
//! through Rust's frames would end the process.
//!
//! The thread is cancelled after the call. Source: pthread_setcancelstate(3).

#[cfg(not(miri))]
unsafe extern "C" {
    fn pthread_setcancelstate(state: std::ffi::c_int, old: *mut std::ffi::c_int)
    -> std::ffi::c_int;
}

/// `PTHREAD_CANCEL_DISABLE`
#[cfg(not(miri))]
const DISABLE: std::ffi::c_int = 1;

/// The thread cannot be cancelled until this is dropped.
#[derive(Debug)]
pub(super) struct Uncancelled {
    #[cfg(not(miri))]
    before: std::ffi::c_int,
}

impl Uncancelled {
    /// Of the running thread.
    #[cfg(not(miri))]
    pub(super) fn new() -> Self {
        let mut before = DISABLE;
        // SAFETY: both numbers are what the function says; it writes the old state.
        unsafe { pthread_setcancelstate(DISABLE, &raw mut before) };
        Self { before }
    }

    /// An interpreter cancels no threads.
    #[cfg(miri)]
    pub(super) fn new() -> Self {
        Self {}
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        #[cfg(not(miri))]
        // SAFETY: restores the earlier state of the thread; the pointer for the old state may be
        // NULL.
        unsafe {
            pthread_setcancelstate(self.before, std::ptr::null_mut())
        };
    }
}
