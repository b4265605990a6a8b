//! `hash: btree: dbm: lmdb: cdb: texthash:`, read from their text source.
//!
//! One buffer holds all keys and values, an index of spans finds them: hundreds of thousands of
//! entries cost little more than their text. Source: postmap(1) "TABLE FORMAT" and "TABLE SEARCH
//! ORDER".

use std::borrow::Cow;
use std::fmt;

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use super::aliases;
use super::lines::{LogicalLine, before_nul, is_space, logical_lines, trim_text};
use super::problems::{Complaints, Problems, excerpt};
use crate::address::fold_case;
use crate::table::{KeyInValues, LookupTable, Matching, TableError};

/// What the lines of a text look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::table) enum LineForm {
    /// `key value`, for postmap(1).
    KeyValue,
    /// `name: value`, for postalias(1).
    Alias,
}

/// A table of whole keys read from text.
pub(in crate::table) struct TextTable {
    name: String,
    entries: Entries,
    warnings: Vec<String>,
}

impl TextTable {
    /// Reads `bytes`, the content of `source`. Lines that Postfix skips are skipped; the second
    /// part of the answer says whether there were any.
    pub(in crate::table) fn parse(
        name: &str,
        source: &str,
        form: LineForm,
        bytes: &[u8],
    ) -> (Self, Option<String>) {
        let (entries, complaints) = parse(source, form, bytes);
        let table = Self {
            name: name.to_owned(),
            entries,
            warnings: complaints.warnings,
        };
        (table, complaints.malformed)
    }
}

impl TextTable {
    /// A table of entries that were compiled elsewhere.
    pub(in crate::table) fn of(name: &str, entries: Entries, warnings: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            entries,
            warnings,
        }
    }
}

impl LookupTable for TextTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        Ok(self.entries.get(&fold_case(key)).map(str::to_owned))
    }

    fn matching(&self) -> Matching {
        Matching::Exact
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn key_in_values(&self) -> KeyInValues {
        KeyInValues::Never
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn line_of(&self, key: &str) -> Option<u32> {
        let line = self.entries.find(&fold_case(key))?.line;
        // What was compiled has no lines.
        (line > 0).then_some(line)
    }

    fn for_each(&self, visit: &mut dyn FnMut(&str, &str, u32)) -> bool {
        self.entries.for_each(visit);
        true
    }
}

impl fmt::Debug for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextTable")
            .field("name", &self.name)
            .field("entries", &self.entries.index.len())
            .finish_non_exhaustive()
    }
}

/// Where one entry stands in the buffer: key, then value.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    key_len: u32,
    value_len: u32,
    /// Line of the text source, for messages; saturates.
    line: u32,
}

/// Folded keys and their values.
#[derive(Default)]
pub(in crate::table) struct Entries {
    buffer: String,
    index: HashTable<Span>,
    hasher: DefaultHashBuilder,
}

impl Entries {
    /// The value of a key that was already folded.
    pub(in crate::table) fn get(&self, folded: &str) -> Option<&str> {
        self.value_of(self.find(folded)?)
    }

    fn find(&self, folded: &str) -> Option<&Span> {
        let hash = self.hasher.hash_one(folded);
        self.index
            .find(hash, |span| key_of(&self.buffer, span) == folded)
    }

    /// Shows every entry, in the order of their lines.
    pub(in crate::table) fn for_each(&self, visit: &mut dyn FnMut(&str, &str, u32)) {
        let mut spans: Vec<&Span> = self.index.iter().collect();
        spans.sort_unstable_by_key(|span| span.line);
        for span in spans {
            let key = key_of(&self.buffer, span);
            if let Some(value) = self.value_of(span) {
                visit(key, value, span.line);
            }
        }
    }

    fn value_of(&self, span: &Span) -> Option<&str> {
        let start = span.start.checked_add(to_usize(span.key_len))?;
        self.buffer
            .get(start..start.checked_add(to_usize(span.value_len))?)
    }

    /// Adds an entry; an entry of that key that is already there stays, and its line is the
    /// answer.
    pub(in crate::table) fn insert(
        &mut self,
        folded: &str,
        value: &str,
        line: usize,
    ) -> Result<(), Rejected> {
        if let Some(first) = self.find(folded) {
            return Err(Rejected::Duplicate { first: first.line });
        }
        let (Ok(key_len), Ok(value_len)) =
            (u32::try_from(folded.len()), u32::try_from(value.len()))
        else {
            return Err(Rejected::TooLong);
        };
        let span = Span {
            start: self.buffer.len(),
            key_len,
            value_len,
            line: u32::try_from(line).unwrap_or(u32::MAX),
        };
        self.buffer.push_str(folded);
        self.buffer.push_str(value);
        let Self {
            buffer,
            index,
            hasher,
        } = self;
        index.insert_unique(hasher.hash_one(folded), span, |span| {
            hasher.hash_one(key_of(buffer, span))
        });
        Ok(())
    }

    fn shrink(&mut self) {
        let Self {
            buffer,
            index,
            hasher,
        } = self;
        buffer.shrink_to_fit();
        index.shrink_to_fit(|span| hasher.hash_one(key_of(buffer, span)));
    }
}

/// Why an entry was not added.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::table) enum Rejected {
    /// The key is there already, since line `first`.
    Duplicate { first: u32 },
    /// More than 4 GiB.
    TooLong,
}

/// Where entries of a text go.
pub(in crate::table) trait TakeEntry {
    /// Takes an entry; its key is folded.
    fn take(&mut self, folded: &str, value: &str, line: usize) -> Result<(), Rejected>;
}

impl TakeEntry for Entries {
    fn take(&mut self, folded: &str, value: &str, line: usize) -> Result<(), Rejected> {
        self.insert(folded, value, line)
    }
}

fn key_of<'a>(buffer: &'a str, span: &Span) -> &'a str {
    let end = span.start.saturating_add(to_usize(span.key_len));
    buffer.get(span.start..end).unwrap_or_default()
}

fn to_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Parses the text of a table, first entry of a key winning as `postmap` has it.
fn parse(source: &str, form: LineForm, bytes: &[u8]) -> (Entries, Complaints) {
    let mut entries = Entries::default();
    let mut problems = Problems::new(source);
    for line in logical_lines(bytes) {
        add_line(&line, form, &mut entries, &mut problems);
    }
    entries.shrink();
    (entries, problems.finish())
}

pub(in crate::table) fn add_line(
    line: &LogicalLine<'_>,
    form: LineForm,
    entries: &mut impl TakeEntry,
    problems: &mut Problems,
) {
    if line.is_stray() {
        let text = excerpt(&line.text);
        problems.malformed(
            line.number,
            &format!("line starts with white space but continues nothing, skipped: \"{text}\""),
        );
        return;
    }
    let text = before_nul(&line.text);
    // Postfix judges the whole line once the part it can see is not plain ASCII.
    let judged = if text.is_ascii() { text } else { &line.text };
    let (Ok(_), Ok(text)) = (str::from_utf8(judged), str::from_utf8(text)) else {
        let text = excerpt(&line.text);
        problems.malformed(
            line.number,
            &format!("line is not UTF-8, skipped: \"{text}\""),
        );
        return;
    };
    if text.len() < line.text.len() {
        problems.malformed(
            line.number,
            "NUL character, the rest of the line is ignored",
        );
    }
    let pair = match form {
        LineForm::KeyValue => {
            split(text).map(|(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value)))
        }
        LineForm::Alias => {
            aliases::split(text).map(|(key, value)| (Cow::Owned(key), Cow::Owned(value)))
        }
    };
    match pair {
        Ok((key, value)) => add_entry(line.number, &key, &value, entries, problems),
        Err(cause) => {
            let text = excerpt(text.as_bytes());
            problems.malformed(line.number, &format!("{cause}, skipped: \"{text}\""));
        }
    }
}

fn add_entry(
    number: usize,
    key: &str,
    value: &str,
    entries: &mut impl TakeEntry,
    problems: &mut Problems,
) {
    if key.ends_with(':') {
        problems.notice(
            number,
            &format!("key \"{key}\" ends in \":\"; is this an alias file? It is kept as it is"),
        );
    }
    match entries.take(&fold_case(key), value, number) {
        Ok(()) => {}
        Err(Rejected::Duplicate { first }) => problems.notice(
            number,
            &format!(
                "duplicate entry \"{key}\" ignored, the first is in line {first}; remove one of \
                 them"
            ),
        ),
        Err(Rejected::TooLong) => problems.malformed(number, "line is too long, skipped"),
    }
}

/// Splits a line into key and value. The key ends at the first white space outside quotes;
/// quotes and backslashes stay in it, since it is an address in external form.
fn split(line: &str) -> Result<(&str, &str), &'static str> {
    let mut in_quotes = false;
    let mut end = line.len();
    let mut bytes = line.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'"' => in_quotes = !in_quotes,
            byte if is_space(byte) && !in_quotes => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    if in_quotes {
        return Err("unbalanced '\"'");
    }
    let (key, value) = line.split_at_checked(end).unwrap_or((line, ""));
    let value = trim_text(value);
    if key.is_empty() || value.is_empty() {
        return Err("no value; write: key, white space, value");
    }
    Ok((key, value))
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
