//! Lookup tables: from a key to a value, one kind per file behind [`LookupTable`].
//!
//! Tables are named in a [`TableList`], opened and kept up to date by a [`TableCache`], and asked
//! through a [`TableSet`]. Sources: Postfix DATABASE_README, postmap(1), regexp_table(5),
//! pcre_table(5), tcp_table(5), socketmap_table(5), and those of `database`.
//!
//! # Tables on other servers
//!
//! `pgsql: mysql: sqlite: ldap:` are described by Postfix's own `*.cf` files; a change of such a
//! file counts as that of any other table's file. `tcp:` and `socketmap:` ask a server. No
//! connection is made before the first lookup, and every failure to answer is an error of the
//! lookup, which defers. [`LookupTable::may_block`] tells them from the others.
//!
//! # Lookups that take long
//!
//! Within an [`Attempt`], what has to be waited for is a [`Question`], and the lookup is done again
//! with the answer; one with many questions waits for some answers for a moment. Each database
//! table has its own thread and connections, each `tcp:`, `socketmap:` and `unix:` table its own
//! few threads; a server that hangs delays no recipient of another table. Patterns are searched at
//! once with little effort (PCRE2 counts its steps; a POSIX pattern is weighed). A search that
//! needs more is done on a few threads of its table, and the recipient is deferred after two
//! seconds; the error and the log name the table and the line. A `regexp:` pattern that refers back
//! to a group (`\1`) cannot be given up: it keeps its thread, and with all of them in use,
//! recipients whose search comes to such a pattern are deferred.
//!
//! # Recipient maps
//!
//! `mailstow:PATH` is a compiled map, which has one table for each parameter, called by the
//! parameter's name: `virtual_mailbox_maps = mailstow:/etc/mailstow/recipients.map` asks the table
//! `virtual_mailbox_maps`. Another table is named behind a colon, as in
//! `mailstow:/etc/mailstow/recipients.map:virtual_mailbox_maps`, and so it is where no parameter
//! says which. All tables of one map are taken from the same moment, and a new map or a changed
//! key is in force for the next transaction.
//!
//! # Where we differ from Postfix
//!
//! Every answer is that of `postmap -q`, but for these:
//!
//! - `hash: btree: dbm: lmdb: cdb:` are read from their text source, not from the index that
//!   `postmap` makes of it. An edit therefore counts without `postmap`, and limits of the index
//!   formats (keys of 511 bytes in LMDB) do not exist. Only where there is no text, `lmdb:` and
//!   `cdb:` are read from `NAME.lmdb` and `NAME.cdb`; for the others, write the text.
//! - A file is watched: Postfix's daemons look for changes of indexed files only, and between
//!   requests. A changed file with lines that would be skipped is not taken at all; Postfix
//!   would serve what is left of it. One that seems to be in the middle of being written is held
//!   back for a while, see [`crate::manual::changing_tables`].
//! - A duplicate key in `texthash:` is a warning and the first one counts, as `postmap -q` has
//!   it; Postfix's daemons fail every lookup in such a table.
//! - A pattern that cannot be searched (it backtracks too much, takes too long, or memory is
//!   short) makes the lookup fail, which defers; Postfix goes on as if it had not matched, which
//!   may bounce.
//! - A `regexp:` pattern that takes all memory or stack to compile (repetitions of repetitions,
//!   thousands of parentheses) is a bad pattern; Postfix's daemons die of it.
//! - `static:` without a value does not open; Postfix answers every key with an error.
//! - `unionmap: pipemap:` answer what their members answer, and these differ as said here.
//! - Databases: `ldap.rs` lists those of `ldap:`; `pgsql:` speaks UTF-8 as Postfix 3.8 does,
//!   `mysql:` utf8mb4 as Postfix 3.9 does; `timeout` (seconds, 10 by default) holds for all of
//!   them, in Postfix for `ldap:` alone.
//! - `proxy:` is dropped: the table is read directly.
//! - Unicode case folding is that of the `caseless` crate, Postfix's that of its ICU; they
//!   differ in letters that only one of their Unicode versions knows.

mod attempt;
mod awaited;
mod braces;
mod cache;
mod chance;
mod compiled;
mod component;
mod compound;
mod context;
mod database;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod key;
mod kind;
mod list;
mod lookup_table;
mod open;
mod patterns;
mod remote;
mod reply;
mod set;
mod substitution;
mod text;
mod watch;

pub use attempt::{Answered, Attempt, Late, Question};
pub use braces::words;
pub use cache::{Refresh, TableCache};
pub use compiled::map_table::MapTable;
pub(crate) use component::steers;
pub use context::TableContext;
pub use error::{OpenError, TableError};
pub use key::Key;
pub use list::{TableList, TableName};
pub use lookup_table::{KeyInValues, LookupTable, Matching};
pub(crate) use remote::aside::Aside;
pub(crate) use remote::places::{FileAsker, Places};
pub use set::TableSet;
pub use substitution::MailboxValues;
pub use watch::examine::{Examination, examine, read_whole};
pub use watch::file::{published_path, text_path};
pub use watch::published::publish;
pub(crate) use watch::text_files::TextFiles;
pub use watch::text_watch::TextWatch;
pub(crate) use watch::watched::Hold;
