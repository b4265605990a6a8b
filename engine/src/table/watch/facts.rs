//! What a new text of a table has, and lacks, beside the old one: entries or lines, counted.

use super::guard::Facts;
use crate::table::lookup_table::LookupTable;
use crate::table::text::lines::logical_lines;

/// Compares tables whose entries can be listed.
pub(in crate::table) fn entry_facts(old: &dyn LookupTable, new: &dyn LookupTable) -> Option<Facts> {
    let mut facts = Facts::default();
    let is_listed = old.for_each(&mut |key, _, _| {
        facts.had += 1;
        facts.lost += usize::from(!matches!(new.lookup(key), Ok(Some(_))));
    });
    (is_listed && new.for_each(&mut |_, _, _| facts.has += 1)).then_some(facts)
}

/// Hashes of the logical lines of a text, sorted.
pub(in crate::table) fn line_hashes(bytes: &[u8]) -> Vec<u64> {
    let lines = logical_lines(bytes);
    let mut hashes: Vec<u64> = lines
        .map(|line| xxhash_rust::xxh3::xxh3_64(&line.text))
        .collect();
    hashes.sort_unstable();
    hashes
}

/// Compares lines.
pub(in crate::table) fn line_facts(had: &[u64], has: &[u64]) -> Facts {
    let lost = had.iter().filter(|line| has.binary_search(line).is_err());
    Facts {
        had: had.len(),
        lost: lost.count(),
        has: has.len(),
        ..Facts::default()
    }
}
