//! Delivery: from resolved recipients and a message to one outcome per recipient.
//!
//! Imports `route` (targets), `mailbox`, `message`, `envelope`, `io`, `sync`, `status`,
//! `config`. A [`Store`] has a queue and a few writer threads; each takes what waits as one
//! batch and moves it through all phases together, so that many deliveries share few flushes.

mod ahead;
mod base;
mod bounds;
mod copies;
#[cfg(test)]
#[cfg(loom)]
mod delivery_loom;
mod digest;
mod dirty;
mod doubt;
mod extent;
mod floors;
mod flush;
mod health;
mod identity;
mod job;
mod journal;
mod keeper;
mod logged;
mod promise;
mod queue;
mod queue_id;
mod receipt;
mod recovery;
mod repetition;
mod round;
#[cfg(test)]
#[cfg(not(loom))]
mod sim_tests;
mod store;
mod stuck;
mod types;
mod writer;

pub use bounds::LogBounds;
pub use health::{Health, LogFailure, LogState};
pub use job::{OnOutcome, Ticket};
pub use receipt::Receipt;
pub use recovery::RecoveryReport;
pub use store::{Store, StoreError};
pub use types::{Mail, Outcome};
