//! The boundary to C: the only code of this library that touches what C's pointers lead to.
//!
//! Everything else works on Rust's references. What a pointer must be is said in the introduction
//! of the header file; what can be checked is checked here.
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
