//! Delivery: from resolved recipients and a message to one outcome per recipient.
//!
//! Imports `route` (targets), `mailbox`, `message`, `envelope`, `io`, `sync`, `status`.

mod types;

pub use types::{Mail, Outcome};
