//! The numbers of results, with their names and meanings.
//!
//! Invariant: a number never gets another meaning; `abi/results.txt` lists all that ever existed,
//! and a test compares.
#![allow(non_camel_case_types, reason = "the names of C")]

use std::ffi::CStr;

/// The result of a call: `MAILSTOW_OK`, or why it did nothing. Numbers are never reused.
pub type mailstow_result = u32;

/// The call succeeded.
pub const MAILSTOW_OK: mailstow_result = 0;
/// A pointer that must not be NULL is NULL.
pub const MAILSTOW_NULL: mailstow_result = 6501;
/// An argument is out of range, or malformed.
pub const MAILSTOW_INVALID: mailstow_result = 6502;
/// The first member of a struct, its size, was not set or is too small.
pub const MAILSTOW_BAD_STRUCT: mailstow_result = 6503;
/// The handle was closed or freed before.
pub const MAILSTOW_CLOSED: mailstow_result = 6504;
/// The pointer is no handle of this kind.
pub const MAILSTOW_WRONG_HANDLE: mailstow_result = 6505;
/// The call is not for a handle of this mode.
pub const MAILSTOW_WRONG_MODE: mailstow_result = 6506;
/// Another thread is using the handle, which one thread may use at a time, or which is being
/// closed.
pub const MAILSTOW_IN_USE: mailstow_result = 6507;
/// The handle was made before fork(2), in the parent process.
pub const MAILSTOW_FORKED: mailstow_result = 6508;
/// An earlier call on this handle ended in a panic; close it.
pub const MAILSTOW_POISONED: mailstow_result = 6509;
/// The library has a bug: the call ended in a panic. Only this handle is unusable now.
pub const MAILSTOW_PANIC: mailstow_result = 6510;
/// Too many deliveries are in progress: nothing was taken. Try again when some have finished.
pub const MAILSTOW_BUSY: mailstow_result = 6511;
/// The buffer is too small; the length that is needed was returned.
pub const MAILSTOW_TOO_SMALL: mailstow_result = 6512;
/// The table has no such key, or there is nothing with that index.
pub const MAILSTOW_NOT_FOUND: mailstow_result = 6513;
/// The recipient or the message is refused; the reply says why.
pub const MAILSTOW_REFUSED: mailstow_result = 6514;
/// The content has ended with a line of a single dot.
pub const MAILSTOW_END: mailstow_result = 6515;
/// The configuration cannot be used; the error has one entry for each mistake.
pub const MAILSTOW_CONFIG: mailstow_result = 6516;
/// A lookup table cannot be opened, or cannot answer now.
pub const MAILSTOW_TABLE: mailstow_result = 6517;
/// The mailboxes, the state directory or the delivery log cannot be used.
pub const MAILSTOW_STORE: mailstow_result = 6518;
/// A recipient map cannot be read or written.
pub const MAILSTOW_MAP: mailstow_result = 6519;
/// A system call failed.
pub const MAILSTOW_SYSTEM: mailstow_result = 6520;
/// The process changed its user since the handle was opened.
pub const MAILSTOW_USER_CHANGED: mailstow_result = 6521;
/// The handle has no tables to look recipients up in.
pub const MAILSTOW_NO_TABLES: mailstow_result = 6522;

/// Every result with its name and meaning.
pub(crate) const ALL: &[(mailstow_result, &CStr, &CStr)] = &[
    (MAILSTOW_OK, c"MAILSTOW_OK", c"the call succeeded"),
    (
        MAILSTOW_NULL,
        c"MAILSTOW_NULL",
        c"a pointer that must not be NULL is NULL",
    ),
    (
        MAILSTOW_INVALID,
        c"MAILSTOW_INVALID",
        c"an argument is out of range, or malformed",
    ),
    (
        MAILSTOW_BAD_STRUCT,
        c"MAILSTOW_BAD_STRUCT",
        c"struct_size was not set or is too small",
    ),
    (
        MAILSTOW_CLOSED,
        c"MAILSTOW_CLOSED",
        c"the handle was closed or freed before",
    ),
    (
        MAILSTOW_WRONG_HANDLE,
        c"MAILSTOW_WRONG_HANDLE",
        c"the pointer is no handle of this kind",
    ),
    (
        MAILSTOW_WRONG_MODE,
        c"MAILSTOW_WRONG_MODE",
        c"the call is not for a handle of this mode",
    ),
    (
        MAILSTOW_IN_USE,
        c"MAILSTOW_IN_USE",
        c"another thread is using the handle",
    ),
    (
        MAILSTOW_FORKED,
        c"MAILSTOW_FORKED",
        c"the handle belongs to the parent process; open a new one",
    ),
    (
        MAILSTOW_POISONED,
        c"MAILSTOW_POISONED",
        c"an earlier call on this handle ended in a panic; close it",
    ),
    (
        MAILSTOW_PANIC,
        c"MAILSTOW_PANIC",
        c"the library has a bug: the call ended in a panic; see the log",
    ),
    (
        MAILSTOW_BUSY,
        c"MAILSTOW_BUSY",
        c"too many deliveries are in progress; try again when some have finished",
    ),
    (
        MAILSTOW_TOO_SMALL,
        c"MAILSTOW_TOO_SMALL",
        c"the buffer is too small",
    ),
    (
        MAILSTOW_NOT_FOUND,
        c"MAILSTOW_NOT_FOUND",
        c"there is no such key or index",
    ),
    (
        MAILSTOW_REFUSED,
        c"MAILSTOW_REFUSED",
        c"the recipient or the message is refused; see the reply",
    ),
    (
        MAILSTOW_END,
        c"MAILSTOW_END",
        c"the content has ended with a line that is a single dot",
    ),
    (
        MAILSTOW_CONFIG,
        c"MAILSTOW_CONFIG",
        c"the configuration cannot be used; see the error",
    ),
    (
        MAILSTOW_TABLE,
        c"MAILSTOW_TABLE",
        c"a lookup table cannot be opened, or cannot answer now",
    ),
    (
        MAILSTOW_STORE,
        c"MAILSTOW_STORE",
        c"the mailboxes, the state directory or the delivery log cannot be used",
    ),
    (
        MAILSTOW_MAP,
        c"MAILSTOW_MAP",
        c"a recipient map cannot be read or written",
    ),
    (MAILSTOW_SYSTEM, c"MAILSTOW_SYSTEM", c"a system call failed"),
    (
        MAILSTOW_USER_CHANGED,
        c"MAILSTOW_USER_CHANGED",
        c"the process changed its user since the handle was opened",
    ),
    (
        MAILSTOW_NO_TABLES,
        c"MAILSTOW_NO_TABLES",
        c"the handle has no tables to look recipients up in",
    ),
];

/// Returns the name and the meaning of a result; `None` for an unknown number.
pub(crate) fn find(result: mailstow_result) -> Option<(&'static CStr, &'static CStr)> {
    let known = ALL.iter().find(|(number, ..)| *number == result);
    known.map(|(_, name, text)| (*name, *text))
}
