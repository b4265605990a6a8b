//! Delivery: from resolved recipients and a message to one outcome per recipient.
//!
//! A [`Store`] has a queue and a few writer threads; each takes what waits as one batch and moves
//! it through all phases together, so that many deliveries share few flushes.

mod base;
mod batch;
mod bounds;
mod context;
mod copies;
mod delivery;
#[cfg(test)]
#[cfg(loom)]
mod delivery_loom;
mod digest;
mod domain;
mod domains;
mod doubt;
mod error;
mod file_systems;
mod floors;
mod flush;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod health;
mod in_hand;
mod in_place;
mod in_place_file;
mod jobs;
mod journal;
mod keeper;
mod late_ends;
mod logged_message;
mod patience;
mod queue;
mod queue_id;
mod receipt;
mod recovery;
mod refusals;
mod repetition;
mod reply;
mod room;
mod shared;
#[cfg(test)]
#[cfg(not(loom))]
mod sim_tests;
mod store;
mod stuck;
mod sums;
mod suspect_note;
mod types;
mod under_way;
mod watch;
mod writer;

pub use bounds::LogBounds;
pub use error::StoreError;
pub use health::{FileSystemFailure, Health, LogFailure, LogState};
pub use receipt::Receipt;
pub use recovery::RecoveryReport;
pub use reply::{OnOutcome, Ticket};
pub use store::Store;
pub use types::{Mail, Outcome};
