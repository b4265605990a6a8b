//! Changing tables while mail arrives.
//!
//! A table that is read while it is written may lack recipients, and their mail would bounce.
//! Postfix's `postmap` locks the index that it writes; a text has no such lock. mailstow recognises
//! an unfinished file where it can; where it cannot, mail is deferred and not refused.
//!
//! # When a change takes effect
//!
//! Files are checked every 400 ms, and every 100 ms while one is being changed; two checks must
//! agree on a file before it is read. "Entries" are the keys of a text or index, or the lines of
//! any other file.
//!
//! | the changed file | takes effect |
//! |---|---|
//! | has all entries of the old contents | at once; open for writing, after 1.2 s without a change |
//! | lacks one or two, or a quarter at most | after 1.2 s without a change |
//! | the same, changed several times | after three times the longest pause between changes, 10 s at most |
//! | lacks more, is empty, or has no end of its last line | after `hold_time` |
//! | lacks any, and is open for writing or locked (flock(2), fcntl(2)) | when its writer is done, or after `hold_time` |
//! | was installed by `mailstow table publish` | at once |
//! | has lines that are no entries | never; correct it |
//! | is gone, or cannot be read | never; put it back |
//!
//! Until then the old contents are used. Keys that they lack are answered 451 4.3.0 instead of 550;
//! `mailstow deliver` exits with 75, the socketmap server answers TEMP. For a missing file this
//! also ends after `hold_time`. The log names the held file, the cause and the remedy, and
//! `mailstow health` the file and the cause. `hold_time` of `[tables]` is counted from the last
//! change, and is 60 s unless set; 0 holds nothing back.
//!
//! The kernel tells only the owner of a file and root whether it is open for writing.
//!
//! # At the start
//!
//! The earlier contents of a table are unknown. A file is read as it is, and held back (451 for
//! keys that it lacks) when it is open for writing or locked, keeps changing, or was emptied within
//! `hold_time`: a last line without an end is left out then. When it is changed again within 1.2 s,
//! it is held back until it stops changing. A file that was empty when it was made, and
//! `/dev/null`, are empty tables. `mailstow deliver`, which reads its tables for each message,
//! waits until a table that was changed within 1.2 s is known to be complete before it permanently
//! refuses a recipient.
//!
//! # Which files these rules cover
//!
//! Texts and indexes of tables, patterns, descriptions of databases (`*.cf`), files in lists of
//! domains, and `:include:` files; an `:include:` file that was never complete defers the alias.
//! `mailstow map build` and `table build` refuse a text that is open for writing, or was changed
//! while it was read, and one that was changed within `hold_time` and would make the map much
//! smaller (`--force`).
//!
//! # How to change a table
//!
//! Write a new file in the same directory and rename it over the old one, or use
//!
//! ```text
//! generate-users | mailstow table publish - hash:/etc/postfix/vmailbox
//! ```
//!
//! This refuses a text that looks incomplete (`--force`), keeps owner, permissions and attributes,
//! flushes file and directory, and marks the file (`user.mailstow.published`) with the digest of
//! its bytes, so that a server takes it at once, even if it is much smaller. After editing a table
//! in place, run `mailstow table publish hash:/etc/postfix/vmailbox`.
