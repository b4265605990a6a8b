//! Examines a text before it takes the place of a table's.

use std::io;
use std::path::Path;

use super::facts::{entry_facts, line_facts, line_hashes};
use super::file::TableFile;
use super::guard;
use super::guard::Facts;
use super::source;
use super::writers::Writer;
use crate::table::open::{Parsed, parse};
use crate::table::{OpenError, TableContext, TableName};

/// What is to be known of a text before it takes the place of a table's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// Entries, or rules, of the table as it is.
    pub had: usize,
    /// Those of them that the text lacks.
    pub lost: usize,
    /// Entries, or rules, of the text.
    pub has: usize,
    /// Lines that would be skipped: the first of them, and how many follow.
    pub malformed: Option<String>,
    /// Complaints that keep no line from counting.
    pub warnings: Vec<String>,
    /// The last line has no end.
    pub is_cut: bool,
}

impl Examination {
    /// Why the text looks as if it were a part of what it should be, one line each.
    pub fn doubts(&self) -> Vec<String> {
        let Self { had, lost, has, .. } = self;
        let mut doubts = Vec::new();
        if *has == 0 && *had > 0 {
            doubts.push(format!("it is empty, and the table has {had} entries"));
        } else if guard::is_sudden(*lost, *had) {
            doubts.push(format!(
                "it lacks {lost} of the {had} entries that the table has"
            ));
        }
        if self.is_cut {
            doubts.push("its last line has no end".to_owned());
        }
        doubts
    }
}

/// Compares `bytes` with the text that the table called `name` has now, if it has one.
///
/// # Errors
/// The table has no text, it cannot be read, or the bytes describe no table.
pub fn examine(name: &TableName, bytes: &[u8]) -> Result<Examination, OpenError> {
    let file = TableFile::of(name, name.path().unwrap_or(Path::new("")));
    // Of no table, or of a recipient map, none can be made.
    let read = |bytes: &[u8]| {
        let of_addresses = TableContext {
            any_octets: true,
            ..TableContext::default()
        };
        let of_aliases = TableContext {
            alias_tables: vec![name.full().to_owned()],
            ..of_addresses.clone()
        };
        let contexts = [of_addresses, of_aliases];
        let mut parsed = None;
        // What is no table of postmap(1) may be one of postalias(1).
        for context in contexts {
            let other = parse(name, &file, bytes, &context)?;
            if parsed.is_none() || other.malformed.is_none() {
                let is_whole = other.malformed.is_none();
                parsed = Some(other);
                if is_whole {
                    break;
                }
            }
        }
        parsed.ok_or_else(|| OpenError::Content {
            name: name.full().to_owned(),
            cause: "it cannot be read".to_owned(),
        })
    };
    let new = read(bytes)?;
    let mut facts = Facts {
        has: count(name, &new, bytes),
        ..Facts::default()
    };
    if let Ok(old) = source::read(&file.path)
        && let Ok(parsed) = read(&old.bytes)
    {
        facts = match entry_facts(&*parsed.table, &*new.table) {
            Some(facts) => facts,
            None => line_facts(&line_hashes(&old.bytes), &line_hashes(bytes)),
        };
    }
    Ok(Examination {
        had: facts.had,
        lost: facts.lost,
        has: facts.has,
        is_cut: bytes.last().is_some_and(|last| *last != b'\n'),
        warnings: new.table.warnings().to_vec(),
        malformed: new.malformed,
    })
}

fn count(name: &TableName, parsed: &Parsed, bytes: &[u8]) -> usize {
    if !name.is_listed() {
        return line_hashes(bytes).len();
    }
    let mut count = 0;
    parsed.table.for_each(&mut |_, _, _| count += 1);
    count
}

/// Reads the file at `path`, unless another program is writing it.
///
/// # Errors
/// It cannot be read, or is being written.
pub fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let source = source::read(path)?;
    if source.is_moving || source.probe.writer == Writer::There {
        return Err(io::Error::other(
            "it is being written; try again when it is whole",
        ));
    }
    Ok(source.bytes)
}
