//! The table of domains that many keys end in: each is stored once.
//!
//! Invariants: a domain's number is its cell; a key whose domain has a number is stored with the
//! number, every other key whole. Who looks a key up finds its domain's number by itself, beside
//! fetching the record, and need not follow the record's.
//!
//! A cell is 32 bytes: length of the domain, 0 for an empty cell, then the domain and zeros. A
//! domain stands in the cell `hash * cells / 2^64` or, if that was taken, in the next free one
//! behind it; the first cell follows the last.

use std::collections::HashMap;
use std::hash::BuildHasher;

use super::copy::PrivateCopy;
use super::error::MapError;
use super::format::{self, CELL_BYTES, Section};
use super::processor::prefetch;
use super::shared::Ready;

/// Longest domain that gets a cell.
pub(super) const DOMAIN_BYTES_MAX: usize = CELL_BYTES - 1;
/// Most cells: references have three bytes.
pub(super) const CELLS_MAX: usize = 1 << 20;
/// Keys whose domains are fetched together.
const KEYS_AHEAD: usize = 16;
/// Cells for 1000 domains.
const CELLS_PER_1000: usize = 1700;

/// What precedes and what follows the last `@` of a key.
#[inline]
pub(super) fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (local, rest) = key.split_at_checked(memchr::memrchr(b'@', key)?)?;
    Some((local, rest.get(1..)?))
}

/// The domains of an opened map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Domains {
    section: Section,
    cells: u64,
    seed: u64,
}

impl Domains {
    pub(super) fn new(section: Section, seed: u64) -> Self {
        Self {
            section,
            cells: section.len / CELL_BYTES as u64,
            seed,
        }
    }

    /// Where in the file the search for `domain` begins.
    #[inline]
    pub(super) fn home(&self, domain: &[u8]) -> Option<u64> {
        if self.cells == 0 || domain.is_empty() || domain.len() > DOMAIN_BYTES_MAX {
            return None;
        }
        let cell = format::fraction(format::hash(self.seed, domain), self.cells);
        Some(self.section.offset.saturating_add(cell * CELL_BYTES as u64))
    }

    /// The number of `domain`.
    #[inline]
    pub(super) fn number(
        &self,
        copy: &PrivateCopy,
        domain: &[u8],
    ) -> Result<Option<u32>, MapError> {
        if self.cells == 0 || domain.is_empty() || domain.len() > DOMAIN_BYTES_MAX {
            return Ok(None);
        }
        let mut cell = format::fraction(format::hash(self.seed, domain), self.cells);
        for _ in 0..self.cells {
            let at = self.section.offset + cell * CELL_BYTES as u64;
            let bytes = copy.bytes(at, CELL_BYTES, "domain")?;
            match bytes.split_first() {
                Some((len, text)) if usize::from(*len) == domain.len() => {
                    if text.starts_with(domain) {
                        return Ok(u32::try_from(cell).ok());
                    }
                }
                Some((0, _)) | None => return Ok(None),
                Some(_) => {}
            }
            cell = if cell + 1 == self.cells { 0 } else { cell + 1 };
        }
        Ok(None)
    }

    /// The domain with this number.
    pub(super) fn text<'a>(
        &self,
        copy: &'a PrivateCopy,
        number: u32,
    ) -> Result<&'a [u8], MapError> {
        let at = self.section.offset + u64::from(number) * CELL_BYTES as u64;
        let corrupt = || MapError::Corrupt {
            what: "domain",
            offset: at,
        };
        if u64::from(number) >= self.cells {
            return Err(corrupt());
        }
        let bytes = copy.bytes(at, CELL_BYTES, "domain")?;
        let (len, text) = bytes.split_first().ok_or_else(corrupt)?;
        match text.get(..usize::from(*len)) {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(corrupt()),
        }
    }

    /// All domains, in no useful order.
    pub(super) fn all<'a>(&self, copy: &'a PrivateCopy) -> Result<Vec<&'a [u8]>, MapError> {
        let mut all = Vec::new();
        for cell in 0..u32::try_from(self.cells).unwrap_or(0) {
            let at = self.section.offset + u64::from(cell) * CELL_BYTES as u64;
            if copy.bytes(at, 1, "domain")? != [0] {
                all.push(self.text(copy, cell)?);
            }
        }
        Ok(all)
    }
}

/// The cells of a map being written.
#[derive(Debug, Default)]
pub(super) struct DomainCells {
    cells: Vec<[u8; CELL_BYTES]>,
    seed: u64,
}

impl DomainCells {
    /// Cells for `domains`, which are all different.
    pub(super) fn new<'a>(seed: u64, domains: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let fits = |domain: &&[u8]| (1..=DOMAIN_BYTES_MAX).contains(&domain.len());
        let mut domains: Vec<_> = domains.into_iter().filter(fits).collect();
        // The same domains give the same cells.
        domains.sort_unstable();
        domains.truncate(CELLS_MAX * 1000 / CELLS_PER_1000);
        let count = (domains.len() * CELLS_PER_1000).div_ceil(1000);
        let mut table = Self {
            cells: vec![[0; CELL_BYTES]; count],
            seed,
        };
        for domain in domains {
            let at = table.search(domain, format::hash(seed, domain), 0);
            if let Some(cell) = at.and_then(|at| table.cells.get_mut(at)) {
                let bytes = domain.len().to_le_bytes().into_iter().take(1);
                for (to, from) in cell.iter_mut().zip(bytes.chain(domain.iter().copied())) {
                    *to = from;
                }
            }
        }
        table
    }

    /// The number of `domain`.
    pub(super) fn number(&self, domain: &[u8]) -> Option<u32> {
        self.number_hashed(domain, format::hash(self.seed, domain))
    }

    /// Puts the number of each key's domain into `numbers`. Cells are fetched for many keys before
    /// the first of them is read: they are too many for the processor's caches.
    pub(super) fn numbers<'k>(
        &self,
        keys: impl Iterator<Item = Result<&'k [u8], MapError>>,
        numbers: &mut Vec<Option<u32>>,
    ) -> Result<(), MapError> {
        let mut ahead = Vec::with_capacity(KEYS_AHEAD);
        for key in keys {
            let domain = split(key?).map_or(&[][..], |(_, domain)| domain);
            let hash = format::hash(self.seed, domain);
            let cell = format::fraction(hash, self.cells.len() as u64);
            let at = usize::try_from(cell).unwrap_or(0) * CELL_BYTES;
            prefetch(self.cells.as_flattened(), at);
            ahead.push((domain, hash));
            if ahead.len() == KEYS_AHEAD {
                let found = ahead.drain(..);
                numbers.extend(found.map(|(domain, hash)| self.number_hashed(domain, hash)));
            }
        }
        numbers.extend(
            ahead
                .drain(..)
                .map(|(domain, hash)| self.number_hashed(domain, hash)),
        );
        Ok(())
    }

    #[inline]
    fn number_hashed(&self, domain: &[u8], hash: u64) -> Option<u32> {
        if domain.is_empty() || domain.len() > DOMAIN_BYTES_MAX {
            return None;
        }
        u32::try_from(self.search(domain, hash, domain.len())?).ok()
    }

    /// The first cell from the domain's home on that has the length `len` and, unless that is 0,
    /// the domain.
    #[inline]
    fn search(&self, domain: &[u8], hash: u64, len: usize) -> Option<usize> {
        let count = self.cells.len();
        let mut at = usize::try_from(format::fraction(hash, count as u64)).ok()?;
        for _ in 0..count {
            let (found, text) = self.cells.get(at)?.split_first()?;
            let found = usize::from(*found);
            if found == len && (len == 0 || text.starts_with(domain)) {
                return Some(at);
            }
            if found == 0 {
                return None;
            }
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        None
    }

    pub(super) fn section(&self) -> Vec<u8> {
        self.cells.concat()
    }
}

/// Counts domains in a sample of a map's keys.
pub(super) struct DomainCount<'k> {
    seen: HashMap<&'k [u8], u32, Seeded>,
}

/// Hashes as the map does.
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = Ready;
    fn build_hasher(&self) -> Ready {
        Ready(self.0)
    }
}

impl<'k> DomainCount<'k> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seen: HashMap::with_hasher(Seeded(seed)),
        }
    }

    pub(super) fn key(&mut self, key: &'k [u8]) {
        if let Some((_, domain)) = split(key)
            && (1..=DOMAIN_BYTES_MAX).contains(&domain.len())
        {
            *self.seen.entry(domain).or_default() += 1;
        }
    }

    /// Those seen `at_least` times.
    pub(super) fn frequent(&self, at_least: u32) -> impl Iterator<Item = &'k [u8]> {
        let counts = self.seen.iter();
        counts.filter_map(move |(domain, count)| (*count >= at_least).then_some(*domain))
    }
}

#[cfg(test)]
mod tests {
    use super::super::copy::Source;
    use super::super::format::{BLOCK_BYTES, Header};
    use super::*;

    const DOMAINS: usize = if cfg!(miri) { 40 } else { 500 };

    #[test]
    fn every_domain_with_a_cell_is_found_by_writer_and_reader_and_no_other() {
        let names: Vec<String> = (0..DOMAINS).map(|i| format!("domain{i}.example")).collect();
        let cells = DomainCells::new(7, names.iter().map(String::as_bytes));
        let mut file = vec![0; BLOCK_BYTES];
        let section = Section {
            offset: BLOCK_BYTES as u64,
            len: cells.section().len() as u64,
        };
        file.extend(cells.section());
        file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
        let empty_at = |offset| Section { offset, len: 0 };
        let start = empty_at(BLOCK_BYTES as u64);
        let end = empty_at(section.end().next_multiple_of(64));
        let checksums: Vec<u8> = file[BLOCK_BYTES..]
            .chunks(BLOCK_BYTES)
            .flat_map(|block| crc32fast::hash(block).to_le_bytes())
            .collect();
        let header = Header {
            file_bytes: (file.len() + checksums.len()) as u64,
            records: start,
            long: start,
            payloads: start,
            domains: section,
            index: end,
            segments: end,
            tables: end,
            checksums: Section {
                offset: file.len() as u64,
                len: checksums.len() as u64,
            },
            checksums_crc: crc32fast::hash(&checksums),
            ..Header::default()
        };
        file.extend(checksums);
        file.splice(..BLOCK_BYTES, header.encode());
        let (copy, _) = PrivateCopy::open(Source::Bytes(file.into())).unwrap();
        let domains = Domains::new(section, 7);
        for name in &names {
            let number = cells.number(name.as_bytes());
            assert!(number.is_some());
            let read = domains.number(&copy, name.as_bytes()).unwrap();
            assert_eq!(read, number);
            let text = domains.text(&copy, number.unwrap()).unwrap();
            assert_eq!(text, name.as_bytes());
        }
        let long = "d".repeat(DOMAIN_BYTES_MAX + 1);
        let unknown = format!("domain{DOMAINS}.example");
        for other in ["", "domain", &unknown, &long] {
            assert_eq!(cells.number(other.as_bytes()), None);
            let read = domains.number(&copy, other.as_bytes()).unwrap();
            assert_eq!(read, None);
        }
        assert_eq!(domains.all(&copy).unwrap().len(), DOMAINS);
        assert!(domains.text(&copy, 100_000).is_err());
        let keys: Vec<String> = (0..DOMAINS + 100)
            .map(|i| format!("a{i}@domain{i}.example"))
            .collect();
        let keys = keys
            .iter()
            .map(String::as_bytes)
            .chain([&b"a"[..], b"@", b"a@"]);
        let mut numbers = Vec::new();
        cells.numbers(keys.clone().map(Ok), &mut numbers).unwrap();
        let each = keys.map(|key| cells.number(split(key).map_or(&[], |(_, domain)| domain)));
        assert_eq!(numbers, each.collect::<Vec<_>>());
        let none = DomainCells::new(7, []);
        assert_eq!(none.number(b"domain1.example"), None);
    }

    #[test]
    fn only_frequent_domains_of_usual_length_count() {
        let long = format!("a@{}", "d".repeat(DOMAIN_BYTES_MAX + 1));
        let keys = ["a@x", "b@x", "\"c@y\"@x", "a@y", "x", "@z", "@z", "a@"];
        let mut count = DomainCount::new(7);
        for key in keys.iter().copied().chain([&*long, &*long]) {
            count.key(key.as_bytes());
        }
        let mut frequent: Vec<_> = count.frequent(2).collect();
        frequent.sort_unstable();
        assert_eq!(frequent, [b"x", b"z"]);
    }
}
