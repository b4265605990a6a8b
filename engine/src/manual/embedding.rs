//! How a program embeds the engine.
//!
//! The example on [the crate's first page](crate) is a complete program. A mail transfer agent does
//! these steps:
//!
//! 1. **Configure.** [`Configuration::load`](crate::Configuration::load) reads main.cf,
//!    mailstow.toml and settings of the program ([`Sources`](crate::Sources)), and returns every
//!    problem at once. A program without files fills in [`Settings`](crate::Settings).
//! 2. **Open.** [`Engine::open`](crate::Engine::open) opens the tables, recovers the delivery log
//!    and starts the threads that write mailboxes. One process at a time has a delivery log; with
//!    `durability = "direct"` any number of processes may use the mailboxes.
//! 3. **Answer RCPT.** [`Engine::snapshot`](crate::Engine::snapshot) returns a
//!    [`Router`](crate::Router), which answers from the same tables for the whole transaction.
//!    [`Router::mailbox`](crate::Router::mailbox) finds one mailbox;
//!    [`Engine::find_targets`](crate::Engine::find_targets) also expands aliases and chooses
//!    transports. An error has the reply in its `status()`.
//! 4. **Receive.** [`Engine::new_message`](crate::Engine::new_message) returns a builder, which
//!    takes the content in pieces, with lines that end with LF and without dot-stuffing
//!    ([`super::content`]). Long messages move to files in the state directory.
//! 5. **Deliver.** [`Engine::deliver`](crate::Engine::deliver) waits for the outcomes.
//!    [`Engine::submit`](crate::Engine::submit) returns at once and calls back, from other threads,
//!    with the [`Outcome`](crate::Outcome) of each recipient. A status of 2xx means that the
//!    message is durable.
//! 6. **Confirm.** Once the client has read the replies, call
//!    [`Receipt::confirm`](crate::Receipt::confirm). A dropped receipt leaves the deliveries in
//!    doubt, and the repetition by the client is recognised ([`super::durability`]).
//! 7. **Maintain.** [`Engine::reload`](crate::Engine::reload) takes new settings,
//!    [`Engine::health`](crate::Engine::health) reports failures,
//!    [`Engine::close`](crate::Engine::close) finishes the submitted deliveries.
//!
//! # Limits
//!
//! [`Engine::submit`](crate::Engine::submit) does not enforce `limits.queued_deliveries`: check
//! [`Engine::has_capacity`](crate::Engine::has_capacity) first, or await
//! [`Engine::poll_capacity`](crate::Engine::poll_capacity).
//!
//! # Transports
//!
//! [`Engine::register_transport`](crate::Engine::register_transport) adds a destination that is no
//! mailbox, under a name that `transport_maps` may use ([`crate::transport`]).
//!
//! # Only part of the engine
//!
//! [`Routing`](crate::Routing) answers for recipients without a store. A
//! [`MapView`](crate::MapView) looks keys up in a recipient map ([`super::map_format`]).
//! [`crate::delivery_log`] reads the files of a delivery log ([`super::log_format`]).
//!
//! # The process
//!
//! Ignore `SIGXFSZ`, so that a write beyond a file size limit fails instead of ending the process.
//! The threads of the engine block all signals. Run as root where mailboxes have several owners:
//! each mailbox is opened and written as its owner, on threads of the engine, and no other thread
//! changes its identity. Events are reported with the `tracing` crate.
