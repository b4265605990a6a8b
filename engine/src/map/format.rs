//! The header, the sections and the hash of a recipient map file.
//!
//! Invariants: every integer is little endian; a header is believed only after its checksum, its
//! version and every section's bounds were checked. The bytes are described in
//! [`crate::manual::map_format`].

use super::cursor::Cursor;
use super::error::MapError;

/// First bytes of a map; the high bit and the line ends show a transfer in text mode.
pub(super) const MAGIC: [u8; 8] = *b"\x89MSMAP\r\n";
/// The version this program writes.
pub(super) const VERSION: u32 = 1;
/// Features a reader must know to read the file. None is defined yet.
pub(super) const FEATURES_KNOWN: u32 = 0;
/// Bytes under one checksum; also the size of the header.
pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const BLOCK_BYTES_U64: u64 = 4096;
/// Bytes of a cell of the table of domains.
pub(super) const CELL_BYTES: usize = 32;
/// Where the header's own checksum stands.
const HEADER_CRC_AT: usize = BLOCK_BYTES - 4;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most tables in one map.
pub const TABLES_MAX: usize = 1024;

/// A part of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// From the start of the file, in bytes.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) len: u64,
}

impl Section {
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// What a map says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) file_bytes: u64,
    pub(super) seed: u64,
    pub(super) id: [u8; 16],
    pub(super) keys: u64,
    pub(super) values: u64,
    /// Buckets in the index.
    pub(super) buckets: u64,
    pub(super) records: Section,
    pub(super) long: Section,
    pub(super) payloads: Section,
    pub(super) domains: Section,
    pub(super) index: Section,
    pub(super) segments: Section,
    pub(super) tables: Section,
    pub(super) checksums: Section,
    /// CRC-32 of the checksum section.
    pub(super) checksums_crc: u32,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes()); // features a reader must know
        out.extend_from_slice(&0u32.to_le_bytes()); // features a reader may ignore
        out.extend_from_slice(&4096u32.to_le_bytes());
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&self.id);
        for number in [self.keys, self.values, self.buckets] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for section in self.sections() {
            out.extend_from_slice(&section.offset.to_le_bytes());
            out.extend_from_slice(&section.len.to_le_bytes());
        }
        out.extend_from_slice(&self.checksums_crc.to_le_bytes());
        debug_assert!(out.len() <= HEADER_CRC_AT, "the header fits its block");
        debug_assert!(
            self.check(self.file_bytes).is_ok(),
            "the header can be read again"
        );
        out.resize(HEADER_CRC_AT, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn sections(&self) -> [Section; 8] {
        [
            self.records,
            self.long,
            self.payloads,
            self.domains,
            self.index,
            self.segments,
            self.tables,
            self.checksums,
        ]
    }

    /// Reads and checks the header, the first bytes of a file of `file_bytes` bytes.
    pub(super) fn decode(bytes: &[u8], file_bytes: u64) -> Result<Self, MapError> {
        let mut cursor = Cursor::new(bytes);
        let short = || MapError::header("the file is too short");
        if cursor.array::<8>().ok_or_else(short)? != MAGIC {
            return Err(MapError::header("the file is not a recipient map"));
        }
        let block = bytes.get(..BLOCK_BYTES).ok_or_else(short)?;
        let (covered, crc) = block.split_last_chunk::<4>().ok_or_else(short)?;
        if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
            return Err(MapError::header("the header's checksum does not match"));
        }
        let version = cursor.u32().ok_or_else(short)?;
        let features = cursor.u32().ok_or_else(short)? & !FEATURES_KNOWN;
        if version != VERSION || features != 0 {
            return Err(MapError::TooNew { version, features });
        }
        let header = Self::decode_fields(&mut cursor).ok_or_else(short)?;
        header.check(file_bytes)?;
        Ok(header)
    }

    fn decode_fields(cursor: &mut Cursor<'_>) -> Option<Self> {
        let _ignorable_features = cursor.u32()?;
        let _block_bytes = cursor.u32()?;
        let mut header = Self {
            file_bytes: cursor.u64()?,
            seed: cursor.u64()?,
            id: cursor.array()?,
            keys: cursor.u64()?,
            values: cursor.u64()?,
            buckets: cursor.u64()?,
            ..Self::default()
        };
        for section in [
            &mut header.records,
            &mut header.long,
            &mut header.payloads,
            &mut header.domains,
            &mut header.index,
            &mut header.segments,
            &mut header.tables,
            &mut header.checksums,
        ] {
            section.offset = cursor.u64()?;
            section.len = cursor.u64()?;
        }
        header.checksums_crc = cursor.u32()?;
        Some(header)
    }

    fn check(&self, file_bytes: u64) -> Result<(), MapError> {
        if self.file_bytes != file_bytes {
            return Err(MapError::header(format!(
                "the file has {file_bytes} bytes and should have {}",
                self.file_bytes
            )));
        }
        let mut end = BLOCK_BYTES_U64;
        for section in self.sections() {
            if section.offset < end || section.offset.checked_add(section.len).is_none() {
                return Err(MapError::header("its sections overlap"));
            }
            end = section.end();
        }
        let blocks = self.checksums.offset / BLOCK_BYTES_U64 - 1;
        let sound = end == file_bytes
            && self.checksums.offset.is_multiple_of(BLOCK_BYTES_U64)
            && self.checksums.len == blocks * 4
            && self.domains.offset.is_multiple_of(64)
            && self.domains.len.is_multiple_of(CELL_BYTES as u64)
            && self.index.offset.is_multiple_of(64)
            && self.buckets.checked_mul(64) == Some(self.index.len);
        if sound {
            Ok(())
        } else {
            Err(MapError::header("its sections do not fit together"))
        }
    }
}

/// The hash of a key: XXH3, 64 bits, with the map's own random seed, so that keys that collide
/// cannot be chosen from outside.
#[inline]
pub(super) fn hash(seed: u64, key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, seed)
}

/// The part of `whole` that lies before `hash`, as hashes are spread evenly: grows with the hash
/// and is less than `whole`, or 0.
#[inline]
pub(super) fn fraction(hash: u64, whole: u64) -> u64 {
    // The high half of a 64 x 64 bit product is less than 2^64.
    ((u128::from(hash) * u128::from(whole)) >> 64) as u64
}

/// The twelve bits of a key's hash that its bucket remembers.
#[inline]
pub(super) fn fingerprint(hash: u64) -> u16 {
    let [low, high, ..] = hash.to_le_bytes();
    u16::from_le_bytes([low, high & 0x0f])
}

/// Computes all checksums of a map's bytes anew, so that a test or a fuzzer can reach the code
/// behind them with damaged contents. Returns false if the bytes have no plausible header.
#[doc(hidden)]
pub fn reseal(bytes: &mut [u8]) -> bool {
    let Some(checksums) = bytes.get(192..208).map(|field| {
        let mut cursor = Cursor::new(field);
        (cursor.u64().unwrap_or(0), cursor.u64().unwrap_or(0))
    }) else {
        return false;
    };
    let (Ok(offset), Ok(len)) = (usize::try_from(checksums.0), usize::try_from(checksums.1)) else {
        return false;
    };
    if offset < BLOCK_BYTES || offset.checked_add(len) != Some(bytes.len()) {
        return false;
    }
    let (data, table) = bytes.split_at_mut(offset);
    let (header, blocks) = data.split_at_mut(BLOCK_BYTES);
    for (block, crc) in blocks.chunks(BLOCK_BYTES).zip(table.chunks_exact_mut(4)) {
        crc.copy_from_slice(&crc32fast::hash(block).to_le_bytes());
    }
    let crc = crc32fast::hash(table).to_le_bytes();
    if let Some(field) = header.get_mut(208..212) {
        field.copy_from_slice(&crc);
    }
    if let Some((covered, crc)) = header.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(covered).to_le_bytes();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash is part of the format: these numbers come from the XXH3 specification's
    /// reference implementation and may never change.
    #[test]
    fn the_hash_is_xxh3() {
        assert_eq!(hash(0, b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(hash(0, b"a"), 0xe6c6_32b6_1e96_4e1f);
        assert_ne!(hash(1, b"a"), hash(2, b"a"));
    }

    #[test]
    fn a_fraction_is_less_than_the_whole() {
        assert_eq!(fraction(u64::MAX, 7), 6);
        assert_eq!(fraction(0, 7), 0);
        assert_eq!(fraction(u64::MAX, 1), 0);
        assert_eq!(fraction(u64::MAX, u64::MAX), u64::MAX - 1);
    }
}
