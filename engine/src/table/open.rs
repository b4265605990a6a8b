//! From a table's name, and the bytes of its file, to the table.
//!
//! Nothing is connected to, and no file is read here.

use std::borrow::Cow;
use std::path::Path;

use super::compiled::index;
use super::compound::constant::{FailTable, StaticTable};
use super::compound::random::RandomTable;
use super::compound::template::TemplateTable;
use super::database::{self, Described, Description};
use super::kind::Kind;
use super::patterns::rule_parser::{Flavor, Reading};
use super::patterns::rule_table::RuleTable;
use super::remote::aside::Aside;
use super::remote::socketmap::SocketmapTable;
use super::remote::tcp::TcpTable;
use super::remote::unix::UnixTable;
use super::substitution::Substitution;
use super::text::inline::InlineTable;
use super::text::text_table::{LineForm, TextTable};
use super::watch::facts::line_hashes;
use super::watch::file::TableFile;
use super::{LookupTable, OpenError, TableContext, TableName};
use crate::octets;
use crate::sync::Arc;

/// A table out of a file.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) table: Arc<dyn LookupTable>,
    /// The first line that was skipped or cut.
    pub(super) malformed: Option<String>,
    /// When not empty, only addresses in these domains are to be looked up.
    pub(super) domain: String,
}

/// Returns what replaces `$1` in the table called `name`.
pub(super) fn substitution(name: &TableName, context: &TableContext) -> Substitution {
    Substitution::of(name.parameter(), context.mailbox_values)
}

fn reading<'a>(name: &'a TableName, context: &TableContext) -> Reading<'a> {
    Reading {
        flavor: match name.kind() {
            Kind::Regexp => Flavor::Posix,
            _ => Flavor::Perl,
        },
        substitution: substitution(name, context),
        parameter: name.parameter(),
        any_octets: context.any_octets,
    }
}

impl Parsed {
    /// Hashes of the file's lines, if they are needed: the entries of the table cannot be listed.
    pub(super) fn lines(name: &TableName, bytes: &[u8]) -> Vec<u64> {
        match name.is_listed() {
            true => Vec::new(),
            false => line_hashes(bytes),
        }
    }
}

/// Opens a table that has no file.
pub(super) fn unfiled(
    name: &TableName,
    context: &TableContext,
) -> Result<Arc<dyn LookupTable>, OpenError> {
    let (full, text) = (name.full(), name.name());
    Ok(match name.kind() {
        Kind::Static => Arc::new(StaticTable::open(full, text)?),
        Kind::Inline => Arc::new(InlineTable::open(full, text)?),
        Kind::Fail => Arc::new(FailTable::open(full)),
        Kind::Template => {
            let delimiter = &context.recipient_delimiter;
            Arc::new(TemplateTable::open(full, text, delimiter)?)
        }
        Kind::Pcre | Kind::Regexp => {
            let reading = reading(name, context);
            Arc::new(RuleTable::open_inline(full, reading, text)?)
        }
        Kind::Unix => Arc::new(Aside::new(UnixTable::open(full, text)?)),
        Kind::Random => Arc::new(RandomTable::open(full, text)?),
        Kind::Tcp => Arc::new(Aside::new(TcpTable::open(full, text)?)),
        Kind::Socketmap => Arc::new(Aside::new(SocketmapTable::open(full, text)?)),
        // These always have a file, or members; should that change, an empty table is not the
        // answer.
        Kind::Text | Kind::Indexed(_) | Kind::Database(_) | Kind::Compound(_) | Kind::Map => {
            return Err(OpenError::Content {
                name: full.to_owned(),
                cause: "a table of this type needs a file; write type:/path".to_owned(),
            });
        }
    })
}

/// A database table whose parameters stand in `main.cf`, behind its name; `None` for any other.
pub(super) fn described_in_main_cf(
    name: &TableName,
    context: &TableContext,
) -> Result<Option<Described>, OpenError> {
    let Kind::Database(kind) = name.kind() else {
        return Ok(None);
    };
    if name.path().is_some() {
        return Ok(None);
    }
    let prefix = format!("{}_", name.name());
    let own = |(name, ..): &&(String, String, usize)| name.starts_with(&prefix);
    let values: Vec<_> = context.parameters.iter().filter(own).cloned().collect();
    if values.is_empty() {
        return Err(OpenError::Content {
            name: name.full().to_owned(),
            cause: format!(
                "no parameter in main.cf begins with \"{prefix}\"; name a file that describes the \
                 table, type:/path/to/file.cf, or write the parameters there"
            ),
        });
    }
    let description = Description::MainCf {
        path: &context.main_cf,
        prefix: &prefix,
        values: &values,
    };
    let described = database::open(kind, name, &description)?;
    Ok(Some(described))
}

/// Reads a table from the bytes of its file.
///
/// # Errors
/// The file describes no table at all.
pub(super) fn parse(
    name: &TableName,
    file: &TableFile<'_>,
    bytes: &[u8],
    context: &TableContext,
) -> Result<Parsed, OpenError> {
    let source = file.path.display().to_string();
    let parsed = |table: Arc<dyn LookupTable>, malformed| Parsed {
        table,
        malformed,
        domain: String::new(),
    };
    let any_octets = context.any_octets;
    if let Some(format) = file.index {
        let read = index::read(format, &source, bytes, any_octets);
        let (entries, complaints) = read.map_err(|cause| OpenError::Content {
            name: name.full().to_owned(),
            cause,
        })?;
        let table = TextTable::of(name.full(), entries, complaints.warnings);
        return Ok(parsed(Arc::new(table), complaints.malformed));
    }
    Ok(match name.kind() {
        Kind::Pcre | Kind::Regexp => {
            let reading = reading(name, context);
            let (table, malformed) = RuleTable::parse(name.full(), &source, reading, bytes);
            parsed(Arc::new(table), malformed)
        }
        Kind::Database(kind) => {
            let description = Description::File {
                path: &source,
                bytes,
            };
            let described = database::open(kind, name, &description)?;
            Parsed {
                table: described.table,
                malformed: None,
                domain: described.domain,
            }
        }
        Kind::Text
        | Kind::Indexed(_)
        | Kind::Static
        | Kind::Inline
        | Kind::Fail
        | Kind::Template
        | Kind::Unix
        | Kind::Compound(_)
        | Kind::Random
        | Kind::Tcp
        | Kind::Socketmap
        | Kind::Map => {
            let mut alias_tables = context.alias_tables.iter();
            let is_alias_file = name.is_indexed() && alias_tables.any(|n| n == name.full());
            let form = match is_alias_file {
                true => LineForm::Alias,
                false => LineForm::KeyValue,
            };
            let text = if any_octets {
                Cow::Owned(octets::text(bytes).into_owned().into_bytes())
            } else {
                Cow::Borrowed(bytes)
            };
            let (table, malformed) = TextTable::parse(name.full(), &source, form, &text);
            parsed(Arc::new(table), malformed)
        }
    })
}

/// The error of a file that cannot be read.
pub(super) fn unreadable(name: &TableName, path: &Path, error: std::io::Error) -> OpenError {
    let is_database = matches!(name.kind(), Kind::Database(_));
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound if is_database => "create it",
        std::io::ErrorKind::NotFound => {
            "create it (mailstow reads the text that postmap reads; of its indexes only .lmdb and .cdb)"
        }
        std::io::ErrorKind::PermissionDenied => "allow the user that runs mailstow to read it",
        _ => "name a readable text file",
    };
    OpenError::Read {
        name: name.full().to_owned(),
        path: path.display().to_string(),
        source: error,
        remedy,
    }
}
