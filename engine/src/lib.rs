//! The mailstow engine: an embeddable mailbox store.
//!
//! It answers two questions for a mail transfer agent: *who is this recipient?*
//! ([`Engine::snapshot`], [`route`]) and *store this message for these recipients, durably*
//! ([`Engine::submit`], [`Engine::deliver`]). Routing parameters carry their Postfix names and
//! meaning; see [`config`].
//!
//! The engine has no async runtime and knows no wire protocol. Nothing is process-global:
//! several engines may live in one process.

pub mod address;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod engine;
pub mod envelope;
pub mod io;
pub mod limits;
pub mod log;
pub mod mailbox;
pub mod manual;
pub mod map;
pub mod message;
pub mod route;
pub mod status;
pub mod sync;
pub mod table;

pub use engine::Engine;
pub use envelope::{Envelope, Recipient, ReversePath};
pub use message::{Message, MessageBuilder};
pub use status::{EnhancedCode, Status};
