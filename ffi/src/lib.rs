//! libmailstow: mail delivery and recipient look-up in process.
//!
//! Any mail transfer agent, delivery agent, milter or fetcher written in C, or in a language that
//! calls C, can store mail with this library as the LMTP server of mailstow does: in Maildirs and
//! mboxes, found by Postfix's tables, durable before it is acknowledged, once although it is sent
//! twice.
//!
//! # Design
//!
//! There is one handle, `struct mailstow`, in one of three modes; the same calls work in all of
//! them. MAILSTOW_MODE_LOGGED owns a delivery log, so that one flush of the disk acknowledges many
//! messages: for daemons and event loops. MAILSTOW_MODE_DIRECT flushes each message in its mailbox:
//! for programs that deliver one message, in any number of processes. MAILSTOW_MODE_CLIENT hands
//! over to a running `mailstow serve`: for many processes, such as the children of a server that
//! forks for each delivery, which no log that one process owns could serve. A program that has to
//! do with recipients alone opens a handle in client mode, or a recipient map.
//!
//! Instead of one call that takes a message whole there is an object for it, because receivers get
//! a message piece by piece: the recipients first, each to be answered at once, then the content.
//! Results are an object as well, because they are two things: what to answer, and the receipt by
//! which the caller says, with mailstow_confirm(3), that the answer was passed on. Freed without
//! that, the message is in doubt: sent again, it is recognised by the delivery log and not stored
//! twice. MAILSTOW_MODE_DIRECT has no log and remembers nothing: there a message that is sent again
//! is stored again.
//!
//! # Rules
//!
//! Functions answer with a mailstow_result: MAILSTOW_OK, which is 0, or why nothing was done. What
//! is wrong with a configuration, a table or a directory comes as an object with text, file (NULL
//! when it is in none) and line, where the function has a parameter for that, which may be NULL.
//! The object is the caller's, to be freed with mailstow_error_free(3); with MAILSTOW_OK there is
//! none, and the parameter is not written: set it to NULL before. Outputs come last, and are
//! written only when the answer is MAILSTOW_OK, but for what is said otherwise.
//!
//! Text that programs make up (paths, names, values of settings) ends with a NUL. Text that comes
//! from others (addresses, keys, content) has a length, and may hold any octets. What the library
//! returns ends with a NUL.
//!
//! Structs begin with struct_size, to be set to the size of the struct: they may grow at their end,
//! and neither an older nor a newer program is read or written past what it knows. Members that a
//! program does not know are 0. Numbers are never given another meaning.
//!
//! A handle is NULL or came from a function of the library. NULL, a handle that was closed or
//! freed, and a handle of another kind are answered with an error, as far as C allows: not a
//! pointer that never was a handle, nor one that was closed long ago.
//!
//! # Threads, forks, users
//!
//! `struct mailstow` and `struct mailstow_map` may be used by any number of threads at once.
//! Configurations, messages and map builders are for one thread at a time: another one gets
//! MAILSTOW_IN_USE. Errors, resolutions and results never change. The library's own threads block
//! all signals; a program with a limit on the size of files (RLIMIT_FSIZE) ignores SIGXFSZ, which
//! else ends it in a call that writes. A thread that is cancelled with pthread_cancel(3) in a call
//! ends after the call. All its descriptors are closed by execve(2). It keeps no thread-local
//! state, calls no exit handlers, and stays loaded when dlclose(3) is called.
//!
//! After fork(2) the child's calls on handles of its parent answer MAILSTOW_FORKED, and change
//! nothing; handles, and maps, that it opens itself are as good as its parent's. A child that does
//! not call execve(2) keeps the lock of its parent's delivery log. It does not keep connections of
//! MAILSTOW_MODE_CLIENT, so that the server sees when its parent closes them or dies, unless it was
//! made without fork(2) of the C library, as by clone(2).
//!
//! Drop privileges before mailstow_open(3). When the process changes its user later, deliveries
//! end with errors, and no file is seen that belongs to a wrong user.
//!
//! A bug of the library that would stop it ends the call with MAILSTOW_PANIC, and that handle with
//! it: its further calls answer MAILSTOW_POISONED. All other handles go on.
//!
//! # Functions of the program
//!
//! Functions that the library calls run on its threads. They must not block for long, must not
//! unwind or longjmp(3), and must not call the library but for what is said of them.

#![allow(unreachable_pub, reason = "C sees what Rust cannot reach")]

// What the header names comes first, in its order.
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
