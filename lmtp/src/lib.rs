//! LMTP server (RFC 2033) over the mailstow engine, and the command `mailstow`.

pub mod command;
pub mod decode;
pub mod listener;
pub mod reply;
