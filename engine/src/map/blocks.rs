//! Checks each block of a map against its checksum the first time it is read.
//!
//! Imports `format`, `error`, `sync`. Invariant: no byte behind the header is believed before its
//! block's CRC-32 matched once in this process.

use crate::sync::atomic::{AtomicU64, Ordering};

use super::error::MapError;
use super::format::{BLOCK_BYTES, Section};

/// Which blocks were found sound.
#[derive(Debug)]
pub(super) struct Blocks {
    /// One bit a block, from the first block behind the header.
    sound: Box<[AtomicU64]>,
    checksums: Section,
}

impl Blocks {
    pub(super) fn new(checksums: Section) -> Self {
        let blocks = usize::try_from(checksums.len / 4).unwrap_or(usize::MAX);
        Self {
            sound: (0..blocks.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            checksums,
        }
    }

    /// Number of blocks behind the header.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.checksums.len / 4).unwrap_or(0)
    }

    /// The bytes `start..start + len` of `file`, checked; `what` names them in an error.
    #[inline]
    pub(super) fn bytes<'a>(
        &self,
        file: &'a [u8],
        start: u64,
        len: usize,
        what: &'static str,
    ) -> Result<&'a [u8], MapError> {
        let corrupt = || MapError::Corrupt {
            what,
            offset: start,
        };
        let from = usize::try_from(start).map_err(|_| corrupt())?;
        let to = from.checked_add(len).ok_or_else(corrupt)?;
        let bytes = file.get(from..to).ok_or_else(corrupt)?;
        if len == 0 {
            return Ok(bytes);
        }
        let first = (from / BLOCK_BYTES).checked_sub(1).ok_or_else(corrupt)?;
        let last = (to - 1) / BLOCK_BYTES - 1;
        for block in first..=last {
            // Relaxed is enough: the bit only says that bytes which never change were checked,
            // and nothing else is read because of it.
            let bit = 1u64 << (block % 64);
            let known = self
                .sound
                .get(block / 64)
                .is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0);
            if !known {
                self.check(file, block)?;
            }
        }
        Ok(bytes)
    }

    /// Compares one block with its checksum, whether it was checked before or not.
    #[cold]
    pub(super) fn check(&self, file: &[u8], block: usize) -> Result<(), MapError> {
        let from = (block + 1) * BLOCK_BYTES;
        let corrupt = || MapError::Corrupt {
            what: "block",
            offset: from as u64,
        };
        let data = file.get(from..from + BLOCK_BYTES).ok_or_else(corrupt)?;
        let crc = usize::try_from(self.checksums.offset)
            .ok()
            .filter(|_| block < self.count())
            .and_then(|table| file.get(table + block * 4..)?.first_chunk::<4>())
            .ok_or_else(corrupt)?;
        if crc32fast::hash(data) != u32::from_le_bytes(*crc) {
            return Err(corrupt());
        }
        if let Some(word) = self.sound.get(block / 64) {
            word.fetch_or(1u64 << (block % 64), Ordering::Relaxed);
        }
        Ok(())
    }
}
