//! The types of tables, as configurations name them.

use crate::suggest::suggest;

/// What a table type is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Read from its text source, whatever index Postfix makes of it.
    Text,
    /// As `Text`; from the index when there is no text.
    Indexed(Index),
    Regexp,
    Pcre,
    Static,
    Inline,
    Fail,
    Template,
    Unix,
    Compound(Joint),
    Random,
    Tcp,
    Socketmap,
    Database(DatabaseKind),
    Map,
}

/// An index format that we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Index {
    Lmdb,
    Cdb,
}

pub(super) const KINDS: [(&str, Kind); 23] = [
    ("hash", Kind::Text),
    ("btree", Kind::Text),
    ("lmdb", Kind::Indexed(Index::Lmdb)),
    ("cdb", Kind::Indexed(Index::Cdb)),
    ("dbm", Kind::Text),
    ("texthash", Kind::Text),
    ("regexp", Kind::Regexp),
    ("pcre", Kind::Pcre),
    ("static", Kind::Static),
    ("inline", Kind::Inline),
    ("fail", Kind::Fail),
    ("template", Kind::Template),
    ("unix", Kind::Unix),
    ("unionmap", Kind::Compound(Joint::Union)),
    ("pipemap", Kind::Compound(Joint::Pipe)),
    ("randmap", Kind::Random),
    ("tcp", Kind::Tcp),
    ("socketmap", Kind::Socketmap),
    ("pgsql", Kind::Database(DatabaseKind::Pgsql)),
    ("mysql", Kind::Database(DatabaseKind::Mysql)),
    ("sqlite", Kind::Database(DatabaseKind::Sqlite)),
    ("ldap", Kind::Database(DatabaseKind::Ldap)),
    ("mailstow", Kind::Map),
];

/// Types of Postfix that mailstow does not have.
const NOT_YET: [&str; 9] = [
    "cidr", "environ", "internal", "memcache", "mongodb", "netinfo", "nis", "nisplus", "sdbm",
];

/// What to write instead of a type we do not have.
pub(super) fn hint(kind: &str) -> String {
    let known = KINDS.map(|(name, _)| name).join(", ");
    if NOT_YET.contains(&kind) {
        return format!(
            " to mailstow, though Postfix has it; export it to a text table, or use one of: \
             {known}"
        );
    }
    match suggest(kind, KINDS.map(|(name, _)| name), 2) {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => format!("; known are: {known}"),
    }
}

/// What a table of tables does with their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    /// All answers, in order, separated by commas.
    Union,
    /// The answer of one table is the key for the next.
    Pipe,
}

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DatabaseKind {
    Pgsql,
    Mysql,
    Sqlite,
    Ldap,
}
