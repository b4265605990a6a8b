//! The types that C sees: opaque objects, and structs that begin with their size.
//!
//! A struct may only grow at its end; a program passes the size it was built with, and no more than
//! that is read or written.
#![allow(non_camel_case_types, reason = "the names of C")]

use std::ffi::c_char;

/// The library in one of its three modes. Any number of threads may use it at once.
#[derive(Debug)]
pub struct mailstow {
    _private: [u8; 0],
}

/// An error of one or more problems: text, file, line. Immutable; any thread may read it.
#[derive(Debug)]
pub struct mailstow_error {
    _private: [u8; 0],
}

/// The sources of settings. One thread at a time.
#[derive(Debug)]
pub struct mailstow_config {
    _private: [u8; 0],
}

/// The resolution of one address. Immutable; any thread may read it.
#[derive(Debug)]
pub struct mailstow_resolution {
    _private: [u8; 0],
}

/// A message under construction: envelope, then content. One thread at a time.
#[derive(Debug)]
pub struct mailstow_message {
    _private: [u8; 0],
}

/// The results of a message: one outcome for each recipient. Any thread may read it.
#[derive(Debug)]
pub struct mailstow_results {
    _private: [u8; 0],
}

/// An open recipient map. Any number of threads may use it at once.
#[derive(Debug)]
pub struct mailstow_map {
    _private: [u8; 0],
}

/// A recipient map under construction. One thread at a time.
#[derive(Debug)]
pub struct mailstow_map_builder {
    _private: [u8; 0],
}

/// A struct of C that begins with its size.
///
/// # Safety
/// It is `repr(C)`, its first member is the `u32` that holds its size, and every pattern of bits
/// is a value of it.
pub(crate) unsafe trait Sized32: Copy {
    /// The size of its first version, in bytes.
    const FIRST_BYTES: usize;
    /// Sets the first member.
    fn set_size(&mut self, bytes: u32);
}

macro_rules! sized {
    ($name:ident, up to $last:ident: $type:ty) => {
        // SAFETY: the struct is `repr(C)`, begins with `struct_size: u32`, and is made of
        // integers and raw pointers.
        unsafe impl Sized32 for $name {
            const FIRST_BYTES: usize = std::mem::offset_of!($name, $last) + size_of::<$type>();

            fn set_size(&mut self, bytes: u32) {
                self.struct_size = bytes;
            }
        }
    };
}

/// A reply for one recipient, as SMTP states it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mailstow_reply {
    /// Set to `sizeof(struct mailstow_reply)` before the call.
    pub struct_size: u32,
    /// Reply code, for example 250, 452 or 550.
    pub code: u32,
    /// The equivalent exit status for pipe(8) and others (sysexits.h).
    pub sysexits: i32,
    /// Enhanced status code, for example "5.1.1".
    pub enhanced: [c_char; 16],
    /// The text on one line, cut to what fits.
    pub text: [c_char; 512],
}
sized!(mailstow_reply, up to text: [c_char; 512]);

/// One final recipient of a resolution. The texts live as long as the resolution.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mailstow_route {
    /// Set to `sizeof(struct mailstow_route)` before the call.
    pub struct_size: u32,
    /// Address class of its domain: `MAILSTOW_CLASS_...`
    pub address_class: u32,
    /// The destination of its mail: `MAILSTOW_DESTINATION_...`
    pub destination: u32,
    /// Format of the mailbox: `MAILSTOW_FORMAT_...`
    pub format: u32,
    /// Owner of the mailbox or user of the command; 0 when there is none.
    pub uid: u32,
    /// Group of the mailbox or command; 0 when there is none.
    pub gid: u32,
    /// The final recipient, quoted where RFC 5322 requires it.
    pub recipient: *const c_char,
    /// The transport that Postfix would choose.
    pub transport: *const c_char,
    /// The nexthop that Postfix would choose.
    pub nexthop: *const c_char,
    /// The mailbox: `virtual_mailbox_base` joined with its path, which ends with `/` for a Maildir.
    /// NULL when the mail is not stored here.
    pub mailbox: *const c_char,
    /// The command that an alias names; NULL when it names none.
    pub command: *const c_char,
    /// The sender that replaces that of the message, for example for a mailing list; or NULL.
    pub sender: *const c_char,
}
sized!(mailstow_route, up to sender: *const c_char);

/// A recipient of a message.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mailstow_recipient {
    /// Set to `sizeof(struct mailstow_recipient)`.
    pub struct_size: u32,
    /// Milliseconds that the delivery may take; 0: `lmtp.delivery_deadline`, two minutes. A
    /// delivery that is being written at its deadline, and cannot be given up, gets another minute
    /// until it is in doubt.
    pub deadline_ms: u32,
    /// The address, with or without angle brackets.
    pub address: *const c_char,
    /// Its length.
    pub address_length: usize,
    /// The recipient before aliases, which becomes X-Original-To; NULL when unknown.
    pub original: *const c_char,
    /// Its length.
    pub original_length: usize,
}
sized!(mailstow_recipient, up to original_length: usize);

/// The outcome of one recipient. The texts live as long as the results.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mailstow_outcome {
    /// Set to `sizeof(struct mailstow_outcome)` before the call.
    pub struct_size: u32,
    /// `MAILSTOW_DURABLE`, `MAILSTOW_NOT_STORED` or `MAILSTOW_IN_DOUBT`.
    pub state: u32,
    /// Reply code.
    pub code: u32,
    /// Exit status (sysexits.h).
    pub sysexits: i32,
    /// Enhanced status code.
    pub enhanced: *const c_char,
    /// The text of the reply, on one line.
    pub text: *const c_char,
    /// The recipient as the program passed it.
    pub recipient: *const c_char,
    /// The mailbox, or NULL when none was chosen, or the server did not report it.
    pub mailbox: *const c_char,
    /// Microseconds that the delivery waited for a writer.
    pub queued_us: u64,
    /// Microseconds that writing and flushing took.
    pub stored_us: u64,
}
sized!(mailstow_outcome, up to stored_us: u64);

/// A finished message.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mailstow_completion {
    /// Set to `sizeof(struct mailstow_completion)` in the first element of the array.
    pub struct_size: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// The token passed to `mailstow_submit`.
    pub token: u64,
    /// Its results; free them.
    pub results: *mut mailstow_results,
}
sized!(mailstow_completion, up to results: *mut mailstow_results);

/// The counters of a handle and its current state.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct mailstow_statistics {
    /// Set to `sizeof(struct mailstow_statistics)` before the call.
    pub struct_size: u32,
    /// State of the delivery log: `MAILSTOW_LOG_STATE_...`
    pub log_state: u32,
    /// Messages passed to the library for delivery.
    pub messages: u64,
    /// Deliveries that are durable.
    pub durable: u64,
    /// Deliveries that were refused permanently (5xx).
    pub refused: u64,
    /// Deliveries to be tried again (4xx).
    pub deferred: u64,
    /// Deliveries in doubt.
    pub in_doubt: u64,
    /// Deliveries whose results were not freed yet.
    pub in_flight: u64,
    /// Maximum of in-flight deliveries.
    pub in_flight_max: u64,
    /// Bytes of the delivery log in use.
    pub log_bytes: u64,
    /// Maximum size of the delivery log, in bytes.
    pub log_bytes_max: u64,
    /// Messages that recovery could not store yet.
    pub waiting: u64,
    /// Recipients looked up.
    pub lookups: u64,
    /// Calls that returned MAILSTOW_BUSY.
    pub busy: u64,
}
sized!(mailstow_statistics, up to busy: u64);

/// A change of a recipient map.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct mailstow_map_edit {
    /// Set to `sizeof(struct mailstow_map_edit)` in every element.
    pub struct_size: u32,
    /// Not used; set to 0.
    pub reserved: u32,
    /// The table, by the name of its parameter.
    pub table: *const c_char,
    /// The key.
    pub key: *const c_char,
    /// Its length.
    pub key_length: usize,
    /// The new value; NULL removes the key.
    pub value: *const c_char,
    /// Its length.
    pub value_length: usize,
}
sized!(mailstow_map_edit, up to value_length: usize);
