//! Power loss on a real file system, under load, every acknowledged message accounted for.
//!
//! The disk is a file that a FUSE file system of this process serves ([`recorder`]): it keeps
//! every write and every flush in the order they came. A loop device on it holds a real file
//! system ([`rig`]) with mailboxes, tables and state of a real server, which real LMTP clients
//! load ([`load`]); each reply they read is noted with the number of the last event before it.
//! What the disk holds when the power goes at any of these events ([`loss`]): every write before
//! the last flush, and of the later ones any. That disk is mounted, the server recovers what is
//! there, and the mailboxes are compared with the replies ([`account`]).

pub mod account;
pub mod image;
pub mod kill;
pub mod load;
pub mod loss;
pub mod recorder;
pub mod rig;
pub mod trial;

pub use account::Account;
pub use trial::{Plan, run};
