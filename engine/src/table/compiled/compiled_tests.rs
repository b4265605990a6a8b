//! Tests of reading indexes: what is found, and that no bytes lead astray.

use super::*;

fn cdb(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut records = Vec::new();
    for (key, value) in pairs {
        for text in [key, value] {
            records.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        }
        records.extend(key.bytes().chain(value.bytes()));
    }
    let tables_at = u32::try_from(2048 + records.len()).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..256 {
        bytes.extend(tables_at.to_le_bytes());
        bytes.extend([0; 4]);
    }
    bytes.extend(records);
    bytes
}

fn entries(index: Index, bytes: &[u8]) -> Option<Entries> {
    Some(read(index, "t", bytes, false).ok()?.0)
}

#[test]
fn records_of_a_cdb_are_found_and_the_first_of_equal_keys_counts() {
    let bytes = cdb(&[("a", "1"), ("b\0", "2\0"), ("a", "3")]);
    let entries = entries(Index::Cdb, &bytes).unwrap();
    assert_eq!(entries.get("a"), Some("1"));
    assert_eq!(entries.get("b"), Some("2"));
    assert_eq!(entries.get("c"), None);
}

#[test]
fn a_key_that_ends_in_nul_is_asked_first_as_postfix_does() {
    let entries = entries(Index::Cdb, &cdb(&[("a", "1"), ("a\0", "2\0")])).unwrap();
    assert_eq!(entries.get("a"), Some("2"));
}

#[test]
fn entries_that_are_not_utf_8_are_skipped_with_a_complaint() {
    let mut bytes = cdb(&[("aX", "1"), ("b", "2")]);
    let at = bytes.iter().position(|byte| *byte == b'X').unwrap();
    bytes[at] = 0xff;
    let (entries, complaints) = read(Index::Cdb, "t", &bytes, false).unwrap();
    assert_eq!(entries.get("b"), Some("2"));
    assert_eq!(complaints.warnings.len(), 1);
    assert!(complaints.malformed.is_some());
}

#[test]
fn what_is_cut_short_is_an_error_at_any_place() {
    let bytes = cdb(&[("key", "value"), ("other", "more")]);
    for end in 0..bytes.len() {
        assert!(
            read(Index::Cdb, "t", &bytes[..end], false).is_err(),
            "{end}"
        );
    }
    assert!(read(Index::Lmdb, "t", &bytes, false).is_err());
}

/// An LMDB file of `pages` pages, whose root is page 2; as far as its first look goes.
fn lmdb(pages: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    const PAGE: usize = 4096;
    let mut bytes = vec![0; PAGE * pages];
    for meta in [0, PAGE] {
        bytes[meta + 16..meta + 20].copy_from_slice(&0xBEEF_C0DE_u32.to_le_bytes());
        bytes[meta + 20..meta + 24].copy_from_slice(&1_u32.to_le_bytes());
        bytes[meta + 40..meta + 44].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[meta + 128..meta + 136].copy_from_slice(&2_u64.to_le_bytes());
        let last = u64::try_from(pages - 1).unwrap();
        bytes[meta + 136..meta + 144].copy_from_slice(&last.to_le_bytes());
    }
    fill(&mut bytes[2 * PAGE..]);
    bytes
}

#[test]
fn pages_that_point_at_each_other_end() {
    // One branch page whose thousand nodes all name the page itself.
    let bytes = lmdb(3, |page| {
        page[10..12].copy_from_slice(&1_u16.to_le_bytes());
        page[12..14].copy_from_slice(&2016_u16.to_le_bytes());
        for index in 0..1000 {
            page[16 + index * 2..18 + index * 2].copy_from_slice(&4000_u16.to_le_bytes());
        }
        page[4000..4004].copy_from_slice(&2_u32.to_le_bytes());
    });
    assert!(read(Index::Lmdb, "t", &bytes, false).is_err());
}

#[test]
fn values_that_share_their_bytes_end() {
    // A leaf whose nodes all have the whole file as their value.
    let bytes = lmdb(4, |page| {
        page[10..12].copy_from_slice(&2_u16.to_le_bytes());
        page[12..14].copy_from_slice(&2016_u16.to_le_bytes());
        for index in 0..1000 {
            page[16 + index * 2..18 + index * 2].copy_from_slice(&4000_u16.to_le_bytes());
        }
        page[4000..4004].copy_from_slice(&4000_u32.to_le_bytes());
        page[4004..4006].copy_from_slice(&1_u16.to_le_bytes());
        page[4006..4008].copy_from_slice(&1_u16.to_le_bytes());
        page[4008] = b'k';
        page[4009..4017].copy_from_slice(&3_u64.to_le_bytes());
    });
    assert!(read(Index::Lmdb, "t", &bytes, false).is_err());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..4096),
    ) {
        let _ = read(Index::Cdb, "t", &bytes, false);
        let _ = read(Index::Lmdb, "t", &bytes, false);
        let whole = lmdb(3, |page| page[..bytes.len()].copy_from_slice(&bytes));
        let _ = read(Index::Lmdb, "t", &whole, false);
    }

    #[test]
    fn a_sound_file_with_flipped_bytes_is_read_without_a_panic(
        flips in proptest::collection::vec((0_usize..2100, proptest::num::u8::ANY), 1..4),
    ) {
        let mut bytes = cdb(&[("key", "value"), ("other", "more")]);
        for (at, byte) in flips {
            let at = at % bytes.len();
            bytes[at] ^= byte;
        }
        let _ = read(Index::Cdb, "t", &bytes, false);
    }
}
