//! libmailstow: mail delivery and recipient look-up in process.
//!
//! Any mail transfer agent, delivery agent, milter or fetcher written in C, or in a language that
//! calls C, can store mail with this library as the LMTP server of mailstow does: in Maildirs and
//! mboxes, found by Postfix's tables, durable before it is acknowledged, and stored once even if it
//! is sent twice.
//!
//! # Design
//!
//! There is one handle, `struct mailstow`, in one of three modes; the same calls work in all of
//! them. MAILSTOW_MODE_LOGGED owns a delivery log, so that one flush of the disk acknowledges many
//! messages: for daemons and event loops. MAILSTOW_MODE_DIRECT flushes each message in its mailbox:
//! for programs that deliver one message, in any number of processes. MAILSTOW_MODE_CLIENT passes
//! messages to a running `mailstow serve`: for many processes, such as the children of a server
//! that forks for each delivery, which cannot share a log that one process owns. A program that
//! only looks recipients up opens a handle in client mode, or a recipient map.
//!
//! A message is an object instead of the argument of one call, because receivers get a message
//! piece by piece: first the recipients, each of which is answered at once, then the content.
//! Results are an object because they have two purposes: they hold the answers, and they are the
//! receipt by which the caller confirms, with mailstow_confirm(3), that the answers were passed on.
//! If they are freed without that, the message is in doubt: when it is sent again, the delivery log
//! recognises it and it is not stored twice. MAILSTOW_MODE_DIRECT has no log and remembers nothing:
//! there a repeated message is stored again.
//!
//! # Rules
//!
//! Functions return a mailstow_result: MAILSTOW_OK, which is 0, or why nothing was done. Functions
//! that read a configuration, a table or a directory also have a parameter for an error object,
//! which may be NULL. The object holds the problems, each with text, file (NULL when it is in none)
//! and line. The caller frees it with mailstow_error_free(3). With MAILSTOW_OK there is none, and
//! the parameter is not written: set it to NULL before. Output parameters come last, and are
//! written only when the result is MAILSTOW_OK, unless documented otherwise.
//!
//! Text that the program chooses (paths, names, values of settings) ends with a NUL. Text from
//! outside (addresses, keys, content) has a length, and may contain any octets. Text that the
//! library returns ends with a NUL.
//!
//! Structs begin with struct_size, which the program sets to the size of the struct. Structs may
//! grow at their end; the library never reads or writes more bytes than the program knows. Members
//! that a program does not know are 0. Numbers never change their meaning.
//!
//! A handle is NULL or came from a function of the library. For NULL, for a handle that was closed
//! or freed, and for a handle of another kind, functions return an error. C does not allow that for
//! a pointer that never was a handle, or for a handle that was closed long ago.
//!
//! # Threads, forks, users
//!
//! `struct mailstow` and `struct mailstow_map` may be used by any number of threads at once.
//! Configurations, messages and map builders are for one thread at a time: another thread gets
//! MAILSTOW_IN_USE. Errors, resolutions and results are immutable. The library's own threads block
//! all signals; a program with a limit on the size of files (RLIMIT_FSIZE) must ignore SIGXFSZ,
//! which otherwise ends it in a call that writes. A thread that is cancelled with pthread_cancel(3)
//! in a call ends after the call. execve(2) closes all descriptors of the library. It keeps no
//! thread-local state, calls no exit handlers, and stays loaded when dlclose(3) is called.
//!
//! After fork(2) the child's calls on handles of its parent return MAILSTOW_FORKED, and change
//! nothing; handles and maps that it opens itself work as usual. A child that does not call
//! execve(2) keeps the lock of its parent's delivery log. It does not keep connections of
//! MAILSTOW_MODE_CLIENT, so that the server notices when its parent closes them or dies, unless it
//! was created without fork(2) of the C library, for example by clone(2).
//!
//! Drop privileges before mailstow_open(3). When the process changes its user later, deliveries
//! fail, and no file of a wrong user becomes visible.
//!
//! A bug in the library ends the call with MAILSTOW_PANIC instead of ending the program. The handle
//! is then unusable: further calls on it return MAILSTOW_POISONED. All other handles continue to
//! work.
//!
//! # Functions of the program
//!
//! Functions that the library calls run on its threads. They must not block for long, must not
//! unwind or longjmp(3), and must not call the library except as documented for them.

#![allow(unreachable_pub, reason = "C sees what Rust cannot reach")]

// The types of the header come first, in its order.
mod result;

mod mode;

mod outcome;

mod resolution;

mod handle;

mod log;

mod boundary;
mod check;
mod client;
mod completions;
mod config;
mod content;
mod counters;
mod dots;
mod failure;
mod flight;
mod map;
mod message;
mod metrics;
mod results;
mod source;
mod thread;

#[allow(unsafe_code, reason = "the names of functions that C finds")]
mod api;

#[cfg(any(test, fuzzing))]
pub mod fuzz_checks;
