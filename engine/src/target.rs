//! The target of a delivery: what routing answers, and what is logged and stored.
//!
//! A leaf: `route` makes targets, recovery makes them from the records of the delivery log, and all
//! that stores mail takes them. Invariant: a [`MailboxPath`] was checked when it was made, so that
//! no consumer checks it again.

mod choice;
mod format;
mod local;
mod mailbox_target;
pub(crate) mod place;
mod reserved;

pub use choice::Target;
pub use format::Format;

pub(crate) use local::LOCAL;
pub use local::{CommandTarget, LocalEnd, LocalTarget};
pub use mailbox_target::{MailboxPath, MailboxPathError, MailboxTarget, Owner, TransportTarget};
