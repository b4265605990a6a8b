//! The only door to the kernel's files.
//!
//! Everything that writes a mailbox is generic over [`Disk`], so that a disk that fails
//! ([`Faulty`]) or forgets can take the place of the real one ([`Blocking`]). Invariants: every
//! path is relative to a directory handle and stays beneath it; nothing here follows a symbolic
//! link in the last component of a name.

mod blocking;
mod capabilities;
mod credentials;
mod disk;
#[cfg(any(test, feature = "sim"))]
mod faulty;
mod mounts;
mod safe_path;
mod scratch;
#[cfg(any(test, fuzzing, feature = "sim"))]
pub mod sim;
pub(crate) mod uring;

pub use blocking::Blocking;
pub use capabilities::keep_for_server;
pub(crate) use credentials::as_user;
pub use credentials::with_user;
pub(crate) use credentials::{CredentialError, Credentials};
pub(crate) use disk::is_shortage;
pub use disk::{Disk, FileKind, FileStat, LockKind};
pub(crate) use disk::{Mount, Step};
#[cfg(any(test, feature = "sim"))]
pub use faulty::{Fault, Faulty};
pub(crate) use mounts::{MountWatch, Mounts};
pub(crate) use safe_path::open_own;
pub use safe_path::{ForeignFile, PathError, SafeDirectory, identity, remove_if_same};
pub(crate) use scratch::{MakeRoom, open_state_directory};
pub use scratch::{Scratch, StateDirectory};
