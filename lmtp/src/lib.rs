//! LMTP server (RFC 2033) over the mailstow engine, and the command `mailstow`.
//!
//! A [`listener`] opens the sockets, [`server::Server`] runs a session on every connection,
//! `socketmap` answers Postfix, [`lifecycle`] handles signals, [`systemd`] tells systemd, [`log`]
//! writes a line for every recipient. [`command`] and [`decode`] parse the wire protocol and do no
//! I/O.

mod accept;
mod admission;
mod autoreply;
mod buffers;
pub mod cli;
mod client_socket;
mod clock;
pub mod command;
pub mod decode;
mod dial;
mod drain;
mod envelope_memory;
#[cfg(any(test, fuzzing))]
pub mod fuzz_checks;
pub mod health;
mod ids;
mod in_place;
mod input;
pub mod lifecycle;
mod listen_error;
pub mod listener;
pub mod log;
mod notices;
mod peers;
mod relay;
pub mod reload_error;
pub mod reply;
pub mod server;
mod session;
mod shared;
mod socket_file;
mod socketmap;
pub mod started_with;
pub mod systemd;
mod tasks;
mod waiting;
