//! Changing tables while mail comes in.
//!
//! A table that is read while it is written lacks recipients, and mail for them would bounce.
//! Postfix's `postmap` locks the index that it writes; a text has no such lock. What can be told is
//! told from the file, and where it cannot be told, mail is deferred and not refused.
//!
//! # When a change counts
//!
//! Files are looked at every 400 ms, and every 100 ms while one is being changed; two looks must
//! agree on a file before it is read. "Entries" are the keys of a text or index, and else the
//! lines.
//!
//! | the changed file | counts |
//! |---|---|
//! | has all entries of the old contents | at once; open for writing, after 1.2 s without a change |
//! | lacks one or two, or a quarter at most | after 1.2 s without a change |
//! | and has been changed several times | after three times the longest pause between changes, 10 s at most |
//! | lacks more, is empty, or has no end of its last line | after `hold_time` |
//! | lacks any, and is open for writing or locked (flock(2), fcntl(2)) | when its writer is done, or after `hold_time` |
//! | was put in place by `mailstow table publish` | at once |
//! | has lines that are no entries | never; correct it |
//! | is gone, or cannot be read | never; put it back |
//!
//! Until then the old contents answer. What they do not have is answered 451 4.3.0 and not 550;
//! `mailstow deliver` exits with 75, the socketmap server says TEMP. For a file that is gone this
//! ends after `hold_time`, too. The log says what is held back, why, and what to do. `hold_time` of
//! `[tables]` is counted from the last change, and is 60 s unless set; 0 holds nothing back.
//!
//! Whether a file is open for writing the kernel tells only the file's owner and root.
//!
//! # At the start
//!
//! Nothing is known of what a table was. A file is read as it is, and held back (451 for what it
//! does not have) when it is open for writing or locked, keeps changing, or was emptied within
//! `hold_time`: a last line without an end is left out then. When it is changed again within 1.2 s,
//! it is held back until it rests. A file that was empty when it was made, and `/dev/null`, are
//! empty tables. `mailstow deliver`, which reads its tables for each message, waits until a table
//! that was changed within 1.2 s is known to be whole before it refuses a recipient for good.
//!
//! # What falls under these rules
//!
//! Texts and indexes of tables, patterns, descriptions of databases (`*.cf`), files in lists of
//! domains, and `:include:` files, of which one that was never seen whole defers the alias.
//! `mailstow map build` and `table build` refuse a text that somebody is writing, or that was
//! written while it was read, and one that was changed within `hold_time` and would make the map
//! suddenly smaller (`--force`).
//!
//! # How to change a table
//!
//! Write a new file beside it and rename it over the old one, or let
//!
//! ```text
//! generate-users | mailstow table publish - hash:/etc/postfix/vmailbox
//! ```
//!
//! do that: it refuses what looks like a part of a table (`--force`), keeps owner, permissions and
//! attributes, flushes file and directory, and marks the file (`user.mailstow.published`) with the
//! digest of its bytes, so that a server takes it at once however much smaller it is. Who edits a
//! table in place says `mailstow table publish hash:/etc/postfix/vmailbox` when he is done.
