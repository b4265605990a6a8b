//! What the tests of the whole system share: private servers, clients and mailbox readers.
//!
//! Everything runs in scratch directories and on separate loopback addresses, so that tests run
//! side by side and beside the operator's servers; every process is ended by its id. Helpers panic
//! with a sentence that names object, cause and remedy: this is test code.

pub mod accounts;
pub mod c_interface;
pub mod c_library;
pub mod c_manual;
pub mod client;
pub mod content;
pub mod daemon;
pub mod databases;
pub mod deadline;
pub mod dialogue;
pub mod dovecot;
pub mod dovecot_store;
pub mod example;
pub mod generate;
pub mod hung;
pub mod imports;
pub mod journey;
pub mod load;
pub mod mailboxes;
pub mod mailstow;
pub mod oracle;
pub mod other_mta;
pub mod postfix;
pub mod postmap;
pub mod power;
pub mod prose;
pub mod python;
pub mod scratch;
pub mod site;
pub mod volume;

pub use client::{Address, Client, Reply};
pub use deadline::eventually;
pub use mailstow::Mailstow;
pub use postfix::Postfix;
pub use scratch::Scratch;
