//! Lookup tables: from a key to a value, one kind per file behind [`LookupTable`].
//!
//! Imports `address` (folding, extensions), `clock`, `limits`, `map`, `status`, `sync`. Tables are
//! named in a [`TableList`], opened and kept up to date by a [`TableCache`], and asked through
//! a [`TableSet`]. Sources: Postfix DATABASE_README, postmap(1), regexp_table(5),
//! pcre_table(5), tcp_table(5), socketmap_table(5), and those of `database`.
//!
//! # Tables that others answer for
//!
//! `pgsql: mysql: sqlite: ldap:` are described by Postfix's own `*.cf` files; a change of such a
//! file counts as that of any other table's file. `tcp:` and `socketmap:` ask a server. None of
//! them is connected to before it is asked, and whatever keeps it from answering is an error of
//! the lookup, which defers. [`LookupTable::may_block`] tells them from the others.
//!
//! # Lookups that take long
//!
//! Within an [`Attempt`], no lookup waits: what has to be waited for is a [`Question`], and the
//! lookup is done again with the answer. Each database table has a thread and connections of its
//! own, each `tcp:`, `socketmap:` and `unix:` table a few threads of its own; a server that hangs
//! holds up no recipient of another table. Patterns are searched at once with little effort
//! (PCRE2 counts its steps; a POSIX pattern is weighed). A search that needs more is done on a
//! few threads of its table, and the recipient is deferred after two seconds; the error and the
//! log name the table and the line. A `regexp:` pattern that refers back to a group (`\1`) cannot
//! be given up: it keeps its thread, and with all of them in use, recipients whose search comes to
//! such a pattern are deferred.
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
//! - Databases: those of `ldap:` are told in that file; `pgsql:` speaks UTF-8 as Postfix 3.8
//!   does, `mysql:` utf8mb4 as Postfix 3.9 does; `timeout` (seconds, 10 by default) holds for all
//!   of them, in Postfix for `ldap:` alone.
//! - `proxy:` is dropped: the table is read directly.
//! - Unicode case folding is that of the `caseless` crate, Postfix's that of its ICU; they
//!   differ in letters that only one of their Unicode versions knows.

mod aliases;
mod aside;
mod attempt;
mod braces;
mod cache;
mod compare;
mod compiled;
mod component;
mod compound;
mod constant;
mod database;
mod effort;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod guard;
mod import;
mod inline;
mod key;
mod lines;
mod list;
mod map_table;
mod maps;
mod open;
mod perl;
mod pieces;
mod pool;
mod posix;
mod posix_size;
mod problems;
mod published;
mod replacement;
mod restricted;
mod rule_parser;
mod rule_table;
mod rules;
mod set;
mod socketmap;
mod source;
mod stream;
mod substitution;
mod tcp;
mod template;
mod text;
mod text_files;
mod text_watch;
mod unix;
mod watched;
mod writers;

pub use attempt::{Answered, Attempt, Late, Question};
pub(crate) use braces::words;
pub use cache::{Refresh, TableCache, TableContext};
pub use compare::{Examination, examine, read_whole};
pub(crate) use component::steers;
pub use error::{OpenError, TableError};
pub use key::Key;
pub use list::{TableList, TableName};
pub use map_table::MapTable;
pub use published::publish;
pub use set::TableSet;
pub use substitution::MailboxValues;
pub(crate) use text_files::TextFiles;
pub use text_watch::TextWatch;
pub(crate) use watched::Hold;

use std::fmt;

/// Whether a table matches whole keys or patterns; decides which keys of a search it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Whole keys, folded to lower case: asked every key of a search, partial ones too.
    Fixed,
    /// Patterns or a program: asked the full address only, unfolded (Postfix
    /// `DICT_FLAG_FIXED` not set).
    Pattern,
}

/// Whether values of a table may have text of the key in them, which a sender chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyInValues {
    /// Every value is as the operator wrote it down, or has no more of the key than safe path
    /// components.
    Never,
    /// A program or a query makes the values.
    Perhaps,
    /// The table's description puts text of the key there.
    Always,
}

/// A lookup table. Implementations are immutable once opened and may be asked from any thread.
pub trait LookupTable: Send + Sync + fmt::Debug {
    /// The value for `key`, `None` when the table has none.
    ///
    /// # Errors
    /// The table cannot answer now; the caller must defer, never treat it as "not found".
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError>;

    /// As [`LookupTable::lookup`], for a key that other tables are asked for, too: appends the
    /// value to `value` and says whether there is one.
    ///
    /// # Errors
    /// As [`LookupTable::lookup`]; `value` may then have grown.
    fn lookup_into<'t>(
        &'t self,
        key: &Key<'_, 't>,
        value: &mut String,
    ) -> Result<bool, TableError> {
        let found = self.lookup(key.text())?;
        if let Some(found) = &found {
            value.push_str(found);
        }
        Ok(found.is_some())
    }

    /// The table is about to be asked for `key`, after another one: a hint, of which most tables
    /// make nothing.
    fn will_ask(&self, key: &Key<'_, '_>) {
        let _ = key;
    }

    /// Which keys this table is to be asked.
    fn nature(&self) -> Nature;

    /// `type:name`, as the configuration names it.
    fn name(&self) -> &str;

    /// Complaints found while the table was read, one line each, naming file and line.
    fn warnings(&self) -> &[String] {
        &[]
    }

    /// The line of the table's source that answers `key`, where the table has lines; for
    /// people.
    fn line_of(&self, key: &str) -> Option<u32> {
        let _ = key;
        None
    }

    /// Shows `visit` every key with its value and line, in the order of the source; `false`
    /// when this table cannot be listed (patterns, programs, databases).
    fn for_each(&self, visit: &mut dyn FnMut(&str, &str, u32)) -> bool {
        let _ = visit;
        false
    }

    /// Whether values may have text of the key in them.
    fn key_in_values(&self) -> KeyInValues {
        KeyInValues::Perhaps
    }

    /// A lookup may wait for somebody else, up to the timeouts of that kind of table: it is not
    /// to be done by a thread that has other things to do.
    fn may_block(&self) -> bool {
        false
    }
}
