//! When an acknowledged message is durable, and what a crash leaves behind.
//!
//! A recipient is answered with success only after the message *and the directory entry that
//! leads to it* are on stable storage. Postfix virtual(8) and most delivery agents flush the
//! file but not the directory: after a power loss an acknowledged message may be a file without
//! a name.
//!
//! # The order (`store.durability = "direct"`)
//!
//! A writer takes what waits in the queue (up to `store.batch` deliveries, no timer) and does,
//! for all of them together:
//!
//! 1. **Write.** Each message for a Maildir goes to a file that no reader sees: one without a
//!    name (`O_TMPFILE`) in `new/`, or, where the file system has no such files, one in `tmp/`.
//! 2. **Flush** these files. When a Maildir is used for the first time by this process, or was
//!    made just now, also every directory from `virtual_mailbox_base` down to it: whoever made
//!    them may not have done so.
//! 3. **Publish.** Each file gets a unique name in `new/`, by a link or rename that never
//!    replaces a file. From here on a delivery can no longer be abandoned. Messages for an mbox
//!    are appended now, all that wait for the same one in one append under all its locks.
//! 4. **Flush** the directories `new/` and the mbox files; for an mbox that is new, or used for
//!    the first time by this process, the directories above it too.
//! 5. Give mbox locks back, and **answer**.
//!
//! # How a flush is done (`store.flush`)
//!
//! `fsync` flushes each file and directory alone. `syncfs` flushes the file system as a whole
//! whenever more than one file waits, whether or not the kernel can be trusted to report errors.
//! `auto`, the default: four or more files on one file system are flushed by one `syncfs`, fewer
//! by one `fsync` each. `syncfs` is used on ext2/3/4 and XFS only, with Linux 5.8 or newer (older
//! kernels do not report its errors), and through a handle that was opened before the batch
//! wrote anything on that file system, so that every error of these writes is seen. When
//! somebody else is writing a lot on the same file system and a `syncfs` takes more than two
//! seconds, files are flushed one by one for a minute.
//!
//! # When something fails
//!
//! - Writing a Maildir file: nothing is left but, at worst, a file in `tmp/`. The answer goes by
//!   the cause: 452 4.3.1 disk full, 552 5.2.2 quota, 451 4.3.0 any other.
//! - Flushing files (step 2): the files are dropped unseen; 451 4.3.0 for all of that flush.
//! - Publishing: nothing is left; answered by the cause.
//! - Appending to an mbox: the file is cut to its old length, then each message is tried alone,
//!   so that it fails only for its own sake; answered by the cause.
//! - Flushing `new/` (step 4): the names are removed again, as well as can be; 451 4.3.0.
//! - Flushing an mbox (step 4): the file is cut to its old length, as well as can be; 451 4.3.0.
//!
//! A flush that failed is never repeated: the kernel may have dropped the data, and would answer
//! the second one with success.
//!
//! # What a crash or power loss leaves behind
//!
//! - A file without a name: no reader sees it; the file system removes it when it is mounted.
//! - A file in `tmp/`, whole or not: no reader looks there; it is removed when it is older than
//!   `store.tmp_age_max` (36 h) and the Maildir is used again.
//! - A file in `new/` that was not acknowledged: it is whole, because it was flushed before it
//!   got its name; the client sends the message again, and it is there twice.
//! - A file in `new/` that was acknowledged: it is whole, and nothing is to be mended.
//! - An mbox with an incomplete last message, not acknowledged: readers see a short message; the
//!   next delivery completes its last line and blank line, so that all others stay whole.
//! - A lock file `MAILBOX.lock`: the mailbox looks locked until `stale_lock_time` is over, then
//!   it is taken away.
//! - A Maildir without some of `tmp/`, `new/`, `cur/`: an empty one to readers; it is completed
//!   when it is next used.
//!
//! # Locks of an mbox
//!
//! `virtual_mailbox_lock` names them; the lock file always comes first, then the file is opened,
//! then the kernel's locks are taken in the order named. None is waited for: a delivery that
//! finds its mailbox locked goes back to the queue and is tried again, after 10 ms at first, then
//! more rarely, until `deliver_lock_attempts` times `deliver_lock_delay` are over. The fcntl lock
//! belongs to the open file (`F_OFD_SETLK`), so it excludes the other threads of this process as
//! well as every other program that uses `fcntl`.
//!
//! # What a program that embeds the store must do
//!
//! Ignore `SIGXFSZ`: with a file size limit (`ulimit -f`) the kernel sends it to a process whose
//! write exceeds the limit; ignored, the write fails and the recipient is answered 552 5.2.2.
