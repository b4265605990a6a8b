//! Recovery: replays deliveries that the delivery log acknowledged but the mailboxes may have lost.
//!
//! It decides first: the survey reads the records of the log, and a plan decides the changes to an
//! mbox. Then it makes the changes, as the owner of each mailbox. Invariants: it runs before
//! anything else uses the log; it may be interrupted anywhere and run again, because it changes
//! only what the log has records of, and the log keeps these until a checkpoint; it never changes
//! bytes of other programs; a mailbox that cannot be repaired delays no other: its deliveries stay
//! in the log and are tried again. The states it can find are listed in
//! [`crate::manual::durability`].

mod aside;
mod compare;
mod extent;
mod foreign;
mod hold;
mod listings;
mod logged_mailbox;
mod maildir;
mod mbox;
mod mbox_plan;
mod mbox_work;
mod part;
mod recheck;
mod replay;
mod report;
mod retry;
mod rewrite;
mod search;
mod survey;
mod worker;

pub(super) use part::Part;
pub(super) use recheck::Recheck;
pub(super) use report::Recovered;
pub use report::RecoveryReport;
pub(super) use survey::{in_doubt, mailboxes};
pub(super) use worker::{PageCache, Recovery};
