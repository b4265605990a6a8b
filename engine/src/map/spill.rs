//! Entries of a build, parted by hash, in memory up to a bound and in a file beyond it.
//!
//! Invariant: a part comes back as the same bytes in the order they were put in.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::error::MapError;
use super::files;

/// Number of parts: the high eight bits of the hash.
pub(super) const PARTS: usize = 256;

/// The part that entries with this hash belong to.
#[inline]
pub(super) fn part_of(hash: u64) -> usize {
    usize::from(hash.to_be_bytes()[0])
}

/// Entries of one part.
#[derive(Debug, Default)]
pub(super) struct Part {
    memory: Vec<u8>,
    /// Offset and length of each piece in the file.
    spilled: Vec<(u64, usize)>,
}

#[derive(Debug)]
pub(super) struct Spill {
    target: PathBuf,
    parts: Vec<Part>,
    buffered: usize,
    buffer_bytes: usize,
    file: Option<File>,
    file_bytes: u64,
}

impl Spill {
    pub(super) fn new(target: &Path, buffer_bytes: usize) -> Self {
        Self {
            target: target.to_owned(),
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            buffered: 0,
            buffer_bytes,
            file: None,
            file_bytes: 0,
        }
    }

    /// Appends whole entries to part `at`.
    #[inline]
    pub(super) fn put(&mut self, at: usize, entries: &[u8]) {
        debug_assert!(at < PARTS, "every hash has its part");
        if let Some(part) = self.parts.get_mut(at) {
            part.memory.extend_from_slice(entries);
            self.buffered += entries.len();
        }
    }

    /// To be called after a few entries were put in.
    pub(super) fn write_out_if_full(&mut self) -> Result<(), MapError> {
        if self.buffered >= self.buffer_bytes {
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), MapError> {
        debug_assert_eq!(
            self.buffered,
            self.parts
                .iter()
                .map(|part| part.memory.len())
                .sum::<usize>(),
            "memory is counted"
        );
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(files::unnamed(&self.target)?),
        };
        for part in self.parts.iter_mut().filter(|part| !part.memory.is_empty()) {
            file.write_all_at(&part.memory, self.file_bytes)
                .map_err(|source| {
                    MapError::io(&self.target, "write temporary entries of", source)
                })?;
            part.spilled.push((self.file_bytes, part.memory.len()));
            self.file_bytes += part.memory.len() as u64;
            part.memory.clear();
        }
        self.buffered = 0;
        Ok(())
    }

    /// All parts, and what gives their bytes.
    pub(super) fn into_parts(self) -> (Vec<Part>, Spilled) {
        let spilled = Spilled {
            target: self.target,
            file: self.file,
        };
        (self.parts, spilled)
    }
}

/// The file with what did not fit in memory. Any thread may fetch from it.
#[derive(Debug)]
pub(super) struct Spilled {
    target: PathBuf,
    file: Option<File>,
}

impl Spilled {
    /// All entries of one part, which gives up its memory.
    pub(super) fn fetch(&self, part: Part) -> Result<Vec<u8>, MapError> {
        match self.read(&part)? {
            Cow::Borrowed(_) => Ok(part.memory),
            Cow::Owned(bytes) => Ok(bytes),
        }
    }

    /// All entries of one part.
    pub(super) fn read<'p>(&self, part: &'p Part) -> Result<Cow<'p, [u8]>, MapError> {
        let Some(file) = self.file.as_ref().filter(|_| !part.spilled.is_empty()) else {
            return Ok(Cow::Borrowed(&part.memory));
        };
        let spilled: usize = part.spilled.iter().map(|(_, len)| len).sum();
        let mut bytes = Vec::with_capacity(spilled + part.memory.len());
        for &(offset, len) in &part.spilled {
            let start = bytes.len();
            bytes.resize(start + len, 0);
            file.read_exact_at(bytes.get_mut(start..).unwrap_or_default(), offset)
                .map_err(|source| {
                    MapError::io(&self.target, "read temporary entries of", source)
                })?;
        }
        bytes.extend_from_slice(&part.memory);
        debug_assert_eq!(
            bytes.len(),
            spilled + part.memory.len(),
            "a part is read as it was written"
        );
        Ok(Cow::Owned(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_whole_and_in_order_whether_spilled_or_not() {
        let directory = tempfile::tempdir().unwrap();
        for buffer_bytes in [10, 500, 1_000_000] {
            let mut spill = Spill::new(&directory.path().join("map"), buffer_bytes);
            for i in 0..1000u64 {
                spill.put(part_of(i << 56 | i), &i.to_le_bytes());
                spill.write_out_if_full().unwrap();
            }
            let (parts, spilled) = spill.into_parts();
            assert_eq!(parts.len(), PARTS);
            for (at, part) in (0..).zip(parts) {
                let expected: Vec<u8> = (0..1000u64)
                    .filter(|i| *i % 256 == at)
                    .flat_map(u64::to_le_bytes)
                    .collect();
                assert_eq!(spilled.fetch(part).unwrap(), expected);
            }
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
