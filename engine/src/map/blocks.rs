//! Checks each block of a map against its checksum the first time it is read.
//!
//! Imports `format`, `error`, `sync`. Invariant: no byte behind the header is believed before its
//! block's CRC-32 matched once in this process.

use std::ops::Range;

use crate::sync::atomic::{AtomicU64, Ordering};

use super::error::MapError;
use super::format::{BLOCK_BYTES, Section};

/// Which blocks were found sound.
#[derive(Debug)]
pub(super) struct Blocks {
    /// One bit a block, the header's included, which nobody asks for.
    sound: Box<[AtomicU64]>,
    checksums: Section,
}

impl Blocks {
    pub(super) fn new(checksums: Section) -> Self {
        let blocks = usize::try_from(checksums.len / 4).unwrap_or(usize::MAX);
        Self {
            sound: (0..=blocks / 64 + 1).map(|_| AtomicU64::new(0)).collect(),
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
        let span = usize::try_from(start)
            .ok()
            .and_then(|from| Some(from..from.checked_add(len)?))
            .and_then(|range| Some((file.get(range.clone())?, range)));
        let Some((bytes, range)) = span else {
            return Err(outside(what, start));
        };
        let first = range.start / BLOCK_BYTES;
        let last = range.end.saturating_sub(1) / BLOCK_BYTES;
        // Most reads lie within one block that was checked long ago.
        if !(self.is_sound(first) && (first == last || self.is_sound(last))) {
            self.check_range(file, range, what)?;
        }
        Ok(bytes)
    }

    /// The cache line at `start`, a multiple of 64, checked: as [`Blocks::bytes`] with fewer steps,
    /// so that the processor gets further ahead while it waits for one.
    #[inline]
    pub(super) fn line<'a>(
        &self,
        file: &'a [u8],
        start: u64,
        what: &'static str,
    ) -> Result<&'a [u8; 64], MapError> {
        let line = usize::try_from(start)
            .ok()
            .and_then(|at| Some((at, file.get(at..)?.first_chunk::<64>()?)));
        let Some((at, line)) = line else {
            return Err(outside(what, start));
        };
        // Blocks begin at multiples of 64, too: the line is all in one of them.
        if !self.is_sound(at / BLOCK_BYTES) {
            self.check_range(file, at..at + 64, what)?;
        }
        Ok(line)
    }

    /// Whether block `at`, counted from the start of the file, was checked before.
    #[inline]
    fn is_sound(&self, at: usize) -> bool {
        // Relaxed is enough: the bit only says that bytes which never change were checked, and
        // nothing else is read because of it.
        self.sound
            .get(at / 64)
            .is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (at % 64)) != 0)
    }

    #[cold]
    fn check_range(
        &self,
        file: &[u8],
        range: Range<usize>,
        what: &'static str,
    ) -> Result<(), MapError> {
        if range.is_empty() {
            return Ok(());
        }
        let last = (range.end - 1) / BLOCK_BYTES;
        for at in range.start / BLOCK_BYTES..=last {
            if !self.is_sound(at) {
                let block = at.checked_sub(1);
                self.check(file, block.ok_or_else(|| outside(what, 0))?)?;
            }
        }
        Ok(())
    }

    /// Compares one block with its checksum, whether it was checked before or not.
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
        let at = block + 1;
        if let Some(word) = self.sound.get(at / 64) {
            word.fetch_or(1 << (at % 64), Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cold]
fn outside(what: &'static str, offset: u64) -> MapError {
    MapError::Corrupt { what, offset }
}
