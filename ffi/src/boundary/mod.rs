//! The boundary to C: the only code of this library that dereferences C's pointers.
//!
//! All other code uses Rust references. The introduction of the header file has the rules for
//! pointers; this module checks them where it can.
#![allow(
    unsafe_code,
    reason = "pointers from C; every use says which rule of the header makes it sound"
)]

mod call;
mod callback;
mod cancel;
mod descriptor;
mod forever;
mod fork;
mod slot;
mod sockets;
mod structs;
#[cfg(test)]
mod tests;

pub(crate) use call::{Call, call, number};
pub(crate) use callback::{CompletionCallback, LogCallback, Userdata};
pub(crate) use descriptor::{borrow, write_line};
pub(crate) use forever::Forever;
pub(crate) use slot::{Kind, Pool, insert, take};
pub(crate) use sockets::PrivateSocket;
pub use structs::*;
