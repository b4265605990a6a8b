//! How much of what was sent has not arrived: the one system call without a safe wrapper.
//!
//! Source: tcp(7) and unix(7) `SIOCOUTQ`, which is the `TIOCOUTQ` of tty_ioctl(4).
#![allow(
    unsafe_code,
    reason = "no library wraps SIOCOUTQ, and only the caller of ioctl(2) knows what it writes"
)]

use nix::libc::{TIOCOUTQ, c_int};
use rustix::ioctl::{Getter, ioctl};
use std::os::fd::AsFd;

/// The request, as wide as rustix wants it.
#[allow(
    clippy::cast_possible_truncation,
    reason = "requests have 32 bits on every platform"
)]
const REQUEST: rustix::ioctl::Opcode = TIOCOUTQ as rustix::ioctl::Opcode;

/// Bytes of a TCP socket that the peer's system has not acknowledged, or memory of a UNIX-domain
/// socket that holds what the peer has not read. `None` when the system does not say.
pub(super) fn bytes(socket: &impl AsFd) -> Option<u64> {
    // SAFETY: this request writes one C integer and reads nothing.
    let request = unsafe { Getter::<REQUEST, c_int>::new() };
    // SAFETY: as above.
    let count = unsafe { ioctl(socket, request) }.ok()?;
    u64::try_from(count).ok()
}
