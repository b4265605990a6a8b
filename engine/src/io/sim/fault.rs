//! What a simulated disk does wrong.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Nothing.
    None,
    /// The power is lost while operation `at` is in progress.
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

/// What keeps failing on one file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFault {
    /// Whatever changes something there.
    Dead,
    /// Whatever needs space.
    Full,
}

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    Space,
}

impl DeviceFault {
    /// Returns the error code of an operation, if it fails.
    pub(super) fn code(self, need: Need) -> Option<i32> {
        match (self, need) {
            (Self::Dead, _) => Some(libc::EIO),
            (Self::Full, Need::Space) => Some(libc::ENOSPC),
            (Self::Full, Need::Nothing) => None,
        }
    }
}
