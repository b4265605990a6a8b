//! `lmdb:` and `cdb:` out of the index that postmap(1) made, for machines where the text it was
//! made of is not.
//!
//! The whole file is read, as the text would be, and its entries are kept in memory: both formats
//! are walked here in bytes that do not change meanwhile, which no library that maps the file could
//! promise. Invariants: every offset is checked; a file says no more than it has bytes, however its
//! pages point at each other. Sources: cr.yp.to/cdb/cdb.txt; the layout of LMDB's data version 1 as
//! 64-bit machines of this byte order write it.

use crate::octets;
use crate::table::kind::Index;
use crate::table::text::problems::{Complaints, Problems, excerpt};
use crate::table::text::text_table::Entries;

/// Pages of an LMDB tree from the root to a leaf; a tree of a terabyte has six.
const DEPTH_MAX: usize = 32;

/// Reads the entries of the index in `bytes`, the content of `source`.
///
/// Postfix ends keys and values in a NUL byte or not, as its build has it, and asks for the key
/// with NUL first; so do we. The first of two equal keys counts. Keys and values may hold
/// `any_octets`, or UTF-8 alone.
///
/// # Errors
/// The bytes are no such index.
pub(in crate::table) fn read(
    index: Index,
    source: &str,
    bytes: &[u8],
    any_octets: bool,
) -> Result<(Entries, Complaints), String> {
    let mut entries = Entries::default();
    let mut problems = Problems::new(source);
    let mut number = 0;
    for with_nul in [true, false] {
        walk(index, bytes, &mut |key, value| {
            if key.ends_with(b"\0") != with_nul {
                return;
            }
            number += 1;
            let [key, value] = [key, value].map(before_nul);
            let is_utf8 = str::from_utf8(key).is_ok() && str::from_utf8(value).is_ok();
            if !any_octets && !is_utf8 {
                let key = excerpt(key);
                problems.malformed(number, &format!("entry \"{key}\" is not UTF-8, skipped"));
                return;
            }
            // An equal key that came before, or with a NUL, is what Postfix finds.
            let _ = entries.insert(&octets::text(key), &octets::text(value), 0);
        })
        .map_err(|cause| format!("{source}: {cause}; run postmap again, or bring its text here"))?;
    }
    Ok((entries, problems.finish()))
}

/// What C makes of a text.
fn before_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

type Add<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

const CUT: &str = "it is cut short, damaged, or no index of this kind";

fn walk(index: Index, bytes: &[u8], add: Add<'_>) -> Result<(), &'static str> {
    let mut taken = 0;
    let mut bounded = |key: &[u8], value: &[u8]| {
        // Every entry of a sound file has its own bytes.
        taken += key.len() + value.len();
        if taken > bytes.len() {
            return Err(CUT);
        }
        add(key, value);
        Ok(())
    };
    match index {
        Index::Cdb => walk_cdb(bytes, &mut bounded),
        Index::Lmdb => Tree::open(bytes)?.walk(&mut bounded),
    }
}

type Take<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), &'static str>;

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], &'static str> {
    let rest = bytes.get(offset..).ok_or(CUT)?;
    rest.first_chunk().copied().ok_or(CUT)
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<usize, &'static str> {
    at(bytes, offset).map(u16::from_le_bytes).map(usize::from)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<usize, &'static str> {
    usize::try_from(u32::from_le_bytes(at(bytes, offset)?)).map_err(|_| CUT)
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, &'static str> {
    at(bytes, offset).map(u64::from_le_bytes)
}

fn slice(bytes: &[u8], start: usize, length: usize) -> Result<&[u8], &'static str> {
    let end = start.checked_add(length).ok_or(CUT)?;
    bytes.get(start..end).ok_or(CUT)
}

/// 256 pairs (where a hash table is, its slots), then the records up to the first hash table.
fn walk_cdb(bytes: &[u8], take: Take<'_>) -> Result<(), &'static str> {
    const HEADER: usize = 2048;
    let mut end = usize::MAX;
    let mut slots = 0_usize;
    for table in 0..256 {
        end = end.min(u32_at(bytes, table * 8)?);
        slots = slots.saturating_add(u32_at(bytes, table * 8 + 4)?);
    }
    // The hash tables fill the rest of the file.
    if slots.checked_mul(8).and_then(|len| len.checked_add(end)) != Some(bytes.len()) {
        return Err(CUT);
    }
    let mut offset = HEADER;
    while offset < end {
        let key_len = u32_at(bytes, offset)?;
        let value_len = u32_at(bytes, offset + 4)?;
        let key = slice(bytes, offset + 8, key_len)?;
        let value_at = offset + 8 + key_len;
        take(key, slice(bytes, value_at, value_len)?)?;
        offset = value_at + value_len;
    }
    if offset == end { Ok(()) } else { Err(CUT) }
}

/// Bytes of a page's header.
const PAGE_HEADER: usize = 16;
/// Bytes of a node's header.
const NODE_HEADER: usize = 8;

/// The tree of an LMDB file's main database.
struct Tree<'a> {
    bytes: &'a [u8],
    page_bytes: usize,
    root: Option<u64>,
    /// Pages that may still be visited: none of a sound tree is visited twice.
    pages_left: usize,
}

impl<'a> Tree<'a> {
    /// Two meta pages, of which the one with the higher transaction counts; it has the root.
    fn open(bytes: &'a [u8]) -> Result<Self, &'static str> {
        const MAGIC: usize = 0xBEEF_C0DE;
        // The header of a meta page, then magic, version, address and size of the map; then two
        // databases of 48 bytes, that of free pages and ours; then last page and transaction.
        const META: usize = PAGE_HEADER;
        const FREE_DB: usize = META + 24;
        const MAIN_DB: usize = FREE_DB + 48;
        const LAST_PAGE: usize = MAIN_DB + 48;
        const TRANSACTION: usize = LAST_PAGE + 8;
        let page_bytes = u32_at(bytes, FREE_DB)?;
        if !page_bytes.is_power_of_two() || !(256..=65536).contains(&page_bytes) {
            return Err(CUT);
        }
        let mut newest = None;
        for meta in [0, page_bytes] {
            if u32_at(bytes, meta + META)? != MAGIC || u32_at(bytes, meta + META + 4)? != 1 {
                return Err("it is no LMDB file of version 1");
            }
            let transaction = u64_at(bytes, meta + TRANSACTION)?;
            let root = u64_at(bytes, meta + MAIN_DB + 40)?;
            let last = u64_at(bytes, meta + LAST_PAGE)?;
            newest = newest.max(Some((transaction, root, last)));
        }
        let (_, root, last) = newest.ok_or(CUT)?;
        let pages = bytes.len() / page_bytes;
        if usize::try_from(last).map_err(|_| CUT)? >= pages {
            return Err(CUT);
        }
        Ok(Self {
            bytes,
            page_bytes,
            // No root: the table is empty.
            root: (root != u64::MAX).then_some(root),
            pages_left: pages,
        })
    }

    fn walk(mut self, take: Take<'_>) -> Result<(), &'static str> {
        match self.root {
            Some(root) => self.walk_page(root, 0, take),
            None => Ok(()),
        }
    }

    fn walk_page(&mut self, number: u64, depth: usize, take: Take<'_>) -> Result<(), &'static str> {
        const BRANCH: usize = 0x01;
        const LEAF: usize = 0x02;
        const BIG: usize = 0x01;
        self.pages_left = self.pages_left.checked_sub(1).ok_or(CUT)?;
        if depth > DEPTH_MAX {
            return Err(CUT);
        }
        let page = slice(self.bytes, self.page_start(number)?, self.page_bytes)?;
        let flags = u16_at(page, 10)?;
        let nodes = u16_at(page, 12)?.checked_sub(PAGE_HEADER).ok_or(CUT)? / 2;
        for index in 0..nodes {
            let node = u16_at(page, PAGE_HEADER + index * 2)?;
            let low = u32_at(page, node)?;
            let node_flags = u16_at(page, node + 4)?;
            let key_len = u16_at(page, node + 6)?;
            let key = slice(page, node + NODE_HEADER, key_len)?;
            let value_at = node + NODE_HEADER + key_len;
            if flags & BRANCH != 0 {
                let high = u64::try_from(node_flags).map_err(|_| CUT)?;
                let child = u64::try_from(low).map_err(|_| CUT)? | high << 32;
                self.walk_page(child, depth + 1, take)?;
            } else if flags & LEAF == 0 {
                return Err(CUT);
            } else if node_flags & BIG != 0 {
                let start = self.page_start(u64_at(page, value_at)?)?;
                take(key, slice(self.bytes, start + PAGE_HEADER, low)?)?;
            } else if node_flags == 0 {
                take(key, slice(page, value_at, low)?)?;
            } else {
                return Err("it has tables or duplicates within, which postmap never makes");
            }
        }
        Ok(())
    }

    fn page_start(&self, number: u64) -> Result<usize, &'static str> {
        let number = usize::try_from(number).map_err(|_| CUT)?;
        // Room for a header behind it, so that adding one cannot overflow.
        let start = number.checked_mul(self.page_bytes).ok_or(CUT)?;
        start.checked_add(PAGE_HEADER).map(|_| start).ok_or(CUT)
    }
}

#[cfg(test)]
#[path = "compiled_tests.rs"]
mod tests;
