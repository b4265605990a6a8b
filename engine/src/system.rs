//! Acting with root's rights where other users own directories, for the server around an engine.
//!
//! The engine uses the same for its own files and for mailboxes.

pub use crate::io::{
    ForeignFile, PathError, SafeDirectory, identity, keep_for_server, remove_if_same, with_user,
};
pub use crate::mailbox::unsafe_mailbox;
