//! The functions that C calls, as the header file documents them.
//!
//! A function converts its arguments to Rust types through `boundary`, does one thing, and returns
//! a number. The header and the manual pages are made from the comments here.
#![allow(non_camel_case_types, reason = "the names of C")]

// In the order of the header file.
pub(crate) mod library;

pub(crate) mod config;

pub(crate) mod handle;

pub(crate) mod resolve;

pub(crate) mod message;

pub(crate) mod deliver;

pub(crate) mod map;

use crate::boundary::{Call, Kind, Pool, call, insert, mailstow_error, number, take};
use crate::failure::{Failure, Problem};
use crate::result::mailstow_result;

/// An error behind a handle.
#[derive(Debug)]
pub(crate) struct ErrorObject {
    result: mailstow_result,
    problems: Vec<Problem>,
}

impl Kind for ErrorObject {
    type Handle = mailstow_error;
    const NUMBER: u64 = 8;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<ErrorObject> = Pool::new();
        &POOL
    }
}

/// Runs a function that returns only a number.
fn run(body: impl FnOnce(&Call) -> Result<(), Failure>) -> mailstow_result {
    number(call(body))
}

/// Runs a function that also returns an error, if the caller asks for it.
fn run_explained(
    error: *mut *mut mailstow_error,
    body: impl FnOnce(&Call) -> Result<(), Failure>,
) -> mailstow_result {
    let Err(failure) = call(body) else {
        return number(Ok(()));
    };
    let result = failure.result;
    run(|call| {
        if let Some(error) = call.optional_out(error) {
            let problems = failure.into_problems();
            error.set(insert(ErrorObject { result, problems }));
        }
        Ok(())
    });
    result
}

/// Runs a function that only reads; returns `otherwise` when it fails.
fn look<T>(otherwise: T, body: impl FnOnce(&Call) -> Result<T, Failure>) -> T {
    let mut found = None;
    let _ = call(|call| {
        found = Some(body(call)?);
        Ok(())
    });
    found.unwrap_or(otherwise)
}

/// Frees the object behind a handle. Does nothing for NULL, for an object that was freed before,
/// and in a child process.
fn free<T: Kind>(handle: *mut T::Handle) {
    let _ = call(|_| {
        drop(take::<T>(handle)?);
        Ok(())
    });
}
