//! What a simulated disk does wrong.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Nothing.
    None,
    /// The power goes while operation `at` is under way.
    Crash {
        /// Number of the operation, from 0.
        at: u64,
    },
    /// Operation `at` fails with this error code; the disk lives on.
    Error {
        /// Number of the operation, from 0.
        at: u64,
        /// `EIO`, `ENOSPC`, `EDQUOT` ...
        errno: i32,
    },
}
