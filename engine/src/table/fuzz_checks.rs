//! What must hold for any bytes in a table's file.

use super::compiled::index;
use super::kind::Index;
use super::list::{TableList, TableName};
use super::patterns::{rule_parser, rule_table};
use super::text::{inline, text_table as text};
use super::{LookupTable as _, substitution};

/// Reads `bytes` as a text of keys and values and as an alias file, and as the name of a table.
///
/// # Panics
/// A key that was read is not found.
pub fn check_text_table(bytes: &[u8]) {
    for form in [text::LineForm::KeyValue, text::LineForm::Alias] {
        let (table, _) = text::TextTable::parse("hash:/t", "/t", form, bytes);
        table.for_each(&mut |key, value, line| {
            assert!(!key.is_empty() && line > 0, "{key:?} in line {line}");
            let found = table.lookup(key);
            assert_eq!(found.ok().flatten().as_deref(), Some(value), "{key:?}");
            assert_eq!(table.line_of(key), Some(line), "{key:?}");
        });
    }
    if let Ok(text) = str::from_utf8(bytes) {
        if let Ok(table) = inline::InlineTable::open("inline:x", text) {
            let _ = table.lookup("a");
        }
        let _ = TableList::parse(text, "hash");
        let _ = TableName::parse(text, "hash");
    }
}

/// Reads `bytes` as the rules of a `regexp:` and a `pcre:` table and looks up what they may match.
/// Each lookup ends: with a value, without one, or with an error.
pub fn check_pattern_table(bytes: &[u8]) {
    for flavor in [rule_parser::Flavor::Posix, rule_parser::Flavor::Perl] {
        let reading = rule_parser::Reading {
            flavor,
            substitution: substitution::Substitution::Text,
            parameter: None,
            any_octets: false,
        };
        let (table, _) = rule_table::RuleTable::parse("pcre:/t", "/t", reading, bytes);
        for key in [
            "",
            "a",
            "user+x@vm.example",
            "日本@example",
            "@",
            "aaaaaaaaaaaaaaaaaaaa!",
        ] {
            let _ = table.lookup(key);
        }
    }
}

/// Reads `bytes` as the index files that postmap(1) makes.
///
/// # Panics
/// The entries take more bytes than the file has, or a key that was read is not found.
pub fn check_compiled_table(bytes: &[u8]) {
    for index in [Index::Cdb, Index::Lmdb] {
        let Ok((entries, _)) = index::read(index, "/t", bytes, false) else {
            continue;
        };
        let mut taken = 0;
        entries.for_each(&mut |key, value, _| {
            taken += key.len() + value.len();
            assert!(entries.get(key).is_some(), "{key:?}");
        });
        assert!(taken <= bytes.len(), "{taken} bytes out of {}", bytes.len());
    }
}
