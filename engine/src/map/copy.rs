//! A map's bytes in memory of this process, copied from the file block by block as they are asked
//! for.
//!
//! Invariants: a block is copied once, and a byte of it is given out only after its CRC-32 matched;
//! it never changes after that. What happens to the file meanwhile, truncation included, or to its
//! disk, is an error of the copying and never a signal, as it would be if the file were mapped.
//!
//! Memory is that of the blocks that were asked for, rounded up to huge pages, and is given back
//! with the copy.
#![allow(
    unsafe_code,
    reason = "one thread fills a block while others read the neighbouring blocks, which the \
        borrow checker cannot follow"
)]

use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::slice;

use super::error::MapError;
use super::format::{BLOCK_BYTES, BLOCK_BYTES_U64, Header, Section};
use super::processor::prefetch_pointer;
use super::reserved::{CHUNK_BYTES, Reserved};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};

/// Blocks that are copied at once, a huge page: busy maps are read as a whole.
const CHUNK_BLOCKS: usize = CHUNK_BYTES / BLOCK_BYTES;
/// Copied at once at first: a program that looks up one recipient reads no more. An interpreter
/// takes a second for a few blocks.
const SMALL_BLOCKS: usize = if cfg!(miri) { 2 } else { 16 };
/// How many reads are small.
const SMALL_READS: usize = 16;
/// Threads that copy different chunks do not wait for each other, mostly.
const LOCKS: usize = 64;

/// What a map is copied from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file, whatever happens to its name.
    File { file: File, path: PathBuf },
    /// Bytes from elsewhere.
    Bytes(Box<[u8]>),
}

impl Source {
    /// The file, if it is one.
    pub(super) fn file(&self) -> Option<&File> {
        match self {
            Self::File { file, .. } => Some(file),
            Self::Bytes(_) => None,
        }
    }

    fn len(&self) -> Result<u64, MapError> {
        match self {
            Self::File { file, path } => match file.metadata() {
                Ok(metadata) => Ok(metadata.len()),
                Err(source) => Err(MapError::io(path, "stat", source)),
            },
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Fills `buffer` from `offset` on, as far as there are bytes, and says how many there were.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(filled as u64);
            let read = match self {
                Self::File { file, .. } => match file.read_at(rest, at) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read?,
                },
                Self::Bytes(bytes) => {
                    let at = usize::try_from(at).unwrap_or(usize::MAX);
                    bytes.get(at..).unwrap_or_default().read(rest)?
                }
            };
            if read == 0 {
                break;
            }
            filled += read;
        }
        Ok(filled)
    }

    /// Has the system read `len` bytes from `offset` on from the disk in one go, as far as they are
    /// not in its memory.
    fn fetch(&self, offset: u64, len: u64) {
        if let (Self::File { file, .. }, Some(len)) = (self, NonZeroU64::new(len)) {
            // A system that cannot reads them when they are asked for.
            let _ = rustix::fs::fadvise(file, offset, Some(len), rustix::fs::Advice::WillNeed);
        }
    }

    fn failed(&self, source: io::Error) -> MapError {
        let path = match self {
            Self::File { path, .. } => path.as_path(),
            Self::Bytes(_) => Path::new("in memory"),
        };
        MapError::io(path, "read", source)
    }

    /// The bytes of `section`.
    fn section(&self, section: Section) -> Result<Box<[u8]>, MapError> {
        let len = usize::try_from(section.len).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        let read = self.read(&mut bytes, section.offset);
        bytes.truncate(read.map_err(|source| self.failed(source))?);
        Ok(bytes.into())
    }
}

/// The bytes of a map between its header and its checksums.
#[derive(Debug)]
pub(super) struct PrivateCopy {
    source: Arc<Source>,
    checksums: Arc<[u8]>,
    memory: Reserved,
    /// Where the checksums begin: the end of what can be asked for.
    end: usize,
    /// One bit a block, the header's included, which is never asked for.
    sound: Box<[AtomicU64]>,
    loading: [Mutex<()>; LOCKS],
    reads: AtomicUsize,
    sound_blocks: AtomicUsize,
}

impl PrivateCopy {
    /// Reads and checks header and checksums; copies nothing else.
    ///
    /// # Errors
    /// [`MapError::Header`], [`MapError::TooNew`] or [`MapError::Io`].
    pub(super) fn open(source: Source) -> Result<(Self, Header), MapError> {
        let mut block = vec![0; BLOCK_BYTES];
        let read = source.read(&mut block, 0);
        block.truncate(read.map_err(|error| source.failed(error))?);
        let header = Header::decode(&block, source.len()?)?;
        let checksums = source.section(header.checksums)?;
        let whole = checksums.len() as u64 == header.checksums.len;
        if !whole || crc32fast::hash(&checksums) != header.checksums_crc {
            return Err(MapError::header(
                "the checksum of the checksums does not match",
            ));
        }
        let copy = Self::new(Arc::new(source), checksums.into(), header.checksums.offset)?;
        Ok((copy, header))
    }

    fn new(source: Arc<Source>, checksums: Arc<[u8]>, end: u64) -> Result<Self, MapError> {
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        let memory = Reserved::new(end).map_err(|error| match &*source {
            Source::File { path, .. } => MapError::io(path, "get memory for", error),
            Source::Bytes(_) => source.failed(error),
        })?;
        let words = end / BLOCK_BYTES / 64 + 1;
        Ok(Self {
            source,
            checksums,
            memory,
            end,
            sound: (0..words).map(|_| AtomicU64::new(0)).collect(),
            loading: std::array::from_fn(|_| Mutex::new(())),
            reads: AtomicUsize::new(0),
            sound_blocks: AtomicUsize::new(0),
        })
    }

    /// Another copy of the same map, of which nothing was asked for yet.
    pub(super) fn again(&self) -> Result<Self, MapError> {
        let (source, checksums) = (Arc::clone(&self.source), Arc::clone(&self.checksums));
        Self::new(source, checksums, self.end as u64)
    }

    /// What is copied from.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Number of blocks behind the header.
    pub(super) fn blocks(&self) -> usize {
        self.checksums.len() / 4
    }

    /// Bytes that were copied.
    pub(super) fn copied_bytes(&self) -> usize {
        // Relaxed: a number that nothing else depends on.
        self.sound_blocks.load(Ordering::Relaxed) * BLOCK_BYTES
    }

    /// Gives all memory back; blocks are copied anew when they are asked for.
    pub(super) fn forget(&mut self) {
        // When memory cannot be given back, what is there stays good.
        if self.memory.clear().is_err() {
            return;
        }
        for word in &self.sound {
            // Relaxed: as it is borrowed for writing, no other thread looks.
            word.store(0, Ordering::Relaxed);
        }
        self.sound_blocks.store(0, Ordering::Relaxed);
    }

    /// The bytes `start..start + len` of the file, checked; `what` names them in an error.
    #[inline]
    pub(super) fn bytes(
        &self,
        start: u64,
        len: usize,
        what: &'static str,
    ) -> Result<&[u8], MapError> {
        let range = usize::try_from(start)
            .ok()
            .and_then(|from| Some(from..from.checked_add(len)?))
            .filter(|range| range.end <= self.end);
        let Some(range) = range else {
            return Err(outside(what, start));
        };
        let first = range.start / BLOCK_BYTES;
        let last = range.end.saturating_sub(1) / BLOCK_BYTES;
        // Most reads lie within one block that was copied long ago.
        if !(self.is_sound(first) && (first == last || (first + 1 == last && self.is_sound(last))))
        {
            self.load_range(&range, what)?;
        }
        // SAFETY: the range lies in the memory, and all its blocks are sound.
        Ok(unsafe { self.slice(range) })
    }

    /// The cache line at `start`, a multiple of 64, checked: as [`PrivateCopy::bytes`] with fewer
    /// steps, so that the processor gets further ahead while it waits for one.
    #[inline]
    pub(super) fn line(&self, start: u64, what: &'static str) -> Result<&[u8; 64], MapError> {
        let at = usize::try_from(start).ok();
        let Some(at) = at.filter(|at| *at < self.end && at.is_multiple_of(64)) else {
            return Err(outside(what, start));
        };
        // Blocks begin and end at multiples of 64, too: the line is all in one of them.
        if !self.is_sound(at / BLOCK_BYTES) {
            self.load_range(&(at..at + 64), what)?;
        }
        // SAFETY: the range lies in the memory, and its block is sound.
        let line = unsafe { self.slice(at..at + 64) };
        line.first_chunk::<64>().ok_or_else(|| outside(what, start))
    }

    /// Has the processor fetch the cache line with byte `at` of the file, without waiting for it.
    #[inline]
    pub(super) fn prefetch(&self, at: u64) {
        if let Some(at) = usize::try_from(at).ok().filter(|at| *at < self.end) {
            prefetch_pointer(self.memory.base().wrapping_add(at));
        }
    }

    /// # Safety
    /// The range must end before `end`, and all its blocks must be sound.
    #[inline]
    unsafe fn slice(&self, range: Range<usize>) -> &[u8] {
        let start = self.memory.base().wrapping_add(range.start);
        // SAFETY: the memory lives as long as `self`, the range lies in it, and no thread writes
        // to a block that is sound, before the copy is borrowed for writing.
        unsafe { slice::from_raw_parts(start, range.end.saturating_sub(range.start)) }
    }

    /// Whether block `at`, counted from the start of the file, is here.
    #[inline]
    fn is_sound(&self, at: usize) -> bool {
        // Acquire, with the Release where the bit is set: who sees it sees the bytes.
        self.sound
            .get(at / 64)
            .is_some_and(|word| word.load(Ordering::Acquire) & (1 << (at % 64)) != 0)
    }

    #[cold]
    fn load_range(&self, range: &Range<usize>, what: &'static str) -> Result<(), MapError> {
        if range.is_empty() {
            return Ok(());
        }
        for block in range.start / BLOCK_BYTES..=(range.end - 1) / BLOCK_BYTES {
            if block == 0 {
                return Err(outside(what, 0));
            }
            self.load(block)?;
        }
        Ok(())
    }

    /// Copies and checks block `block`, counted from the start of the file, unless it is here.
    ///
    /// # Errors
    /// [`MapError::Io`] or [`MapError::Corrupt`].
    pub(super) fn load(&self, block: usize) -> Result<(), MapError> {
        if self.is_sound(block) {
            return Ok(());
        }
        let lock = self.loading.get(block / CHUNK_BLOCKS % LOCKS);
        let _alone = lock.map(Mutex::lock);
        if self.is_sound(block) {
            return Ok(());
        }
        // Relaxed: a number that nothing else depends on.
        let window = match self.reads.fetch_add(1, Ordering::Relaxed) {
            0..SMALL_READS => SMALL_BLOCKS,
            _ => CHUNK_BLOCKS,
        };
        let start = block / window * window;
        let end = (start + window).min(self.end / BLOCK_BYTES);
        let bytes = |blocks: usize| blocks as u64 * BLOCK_BYTES_U64;
        self.source.fetch(bytes(start), bytes(end - start));
        let mut failure = None;
        let mut at = start.max(1);
        while at < end {
            let missing = (at..end).take_while(|at| !self.is_sound(*at)).count();
            if missing > 0 && self.fill(at..at + missing).is_err() {
                // It may be the disk under a block that is not wanted.
                if let Err(error) = self.fill(block..block + 1) {
                    failure = Some(self.source.failed(error));
                }
            }
            at += missing.max(1);
        }
        match failure {
            _ if self.is_sound(block) => Ok(()),
            Some(error) => Err(error),
            None => Err(MapError::Corrupt {
                what: "block",
                offset: block as u64 * BLOCK_BYTES_U64,
            }),
        }
    }

    /// Copies blocks, none of which is sound, and marks those that match their checksums. To be
    /// called by the thread that has the lock of the chunk they lie in.
    fn fill(&self, blocks: Range<usize>) -> io::Result<()> {
        if blocks.clone().any(|block| self.is_sound(block)) {
            return Ok(());
        }
        let from = blocks.start * BLOCK_BYTES;
        let len = (blocks.end - blocks.start) * BLOCK_BYTES;
        debug_assert!(
            from + len <= self.end,
            "blocks end where the checksums begin"
        );
        let start = self.memory.base().wrapping_add(from);
        // SAFETY: the blocks lie in the memory; none is sound, so no thread reads them, and this
        // thread has the lock that every writer takes.
        let memory = unsafe { slice::from_raw_parts_mut(start, len) };
        let read = self.source.read(memory, from as u64)?;
        // SAFETY: as above, and from here on no thread writes: others read a block once its bit is
        // set.
        let whole = unsafe { slice::from_raw_parts(start.cast_const(), read.min(len)) };
        for (block, bytes) in blocks.zip(whole.chunks_exact(BLOCK_BYTES)) {
            let crc = self.checksums.get((block - 1) * 4..);
            let crc = crc.and_then(|crc| crc.first_chunk::<4>());
            if crc.is_some_and(|crc| crc32fast::hash(bytes) == u32::from_le_bytes(*crc))
                && let Some(word) = self.sound.get(block / 64)
            {
                // Release: see `is_sound`.
                word.fetch_or(1 << (block % 64), Ordering::Release);
                self.sound_blocks.fetch_add(1, Ordering::Relaxed);
            }
        }
        if read < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

#[cold]
fn outside(what: &'static str, offset: u64) -> MapError {
    MapError::Corrupt { what, offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of a map: more than one read takes at first.
    const BLOCKS: usize = SMALL_BLOCKS + 4;
    const DAMAGED: usize = SMALL_BLOCKS + 2;

    /// A map of one block of each number from 1 on, of which one is not what its checksum says.
    fn copy() -> PrivateCopy {
        let mut file = vec![0; BLOCK_BYTES];
        for number in 1..BLOCKS {
            file.extend_from_slice(&[u8::try_from(number).unwrap(); BLOCK_BYTES]);
        }
        let checksums: Vec<u8> = file[BLOCK_BYTES..]
            .chunks(BLOCK_BYTES)
            .flat_map(|block| crc32fast::hash(block).to_le_bytes())
            .collect();
        file[DAMAGED * BLOCK_BYTES + 7] ^= 1;
        let end = file.len() as u64;
        file.extend_from_slice(&checksums);
        PrivateCopy::new(Arc::new(Source::Bytes(file.into())), checksums.into(), end).unwrap()
    }

    /// Reads the middle of a block, and across its end where there is another one.
    fn read(copy: &PrivateCopy, block: usize) {
        let number = u8::try_from(block).unwrap();
        let at = (block * BLOCK_BYTES) as u64;
        let line = copy.line(at + 128, "line");
        let across = copy.bytes(at + BLOCK_BYTES_U64 - 40, 80, "bytes");
        if block == DAMAGED {
            assert!(line.is_err());
        } else {
            assert_eq!(line.unwrap(), &[number; 64]);
        }
        if [block, block + 1].contains(&DAMAGED) || block + 1 == BLOCKS {
            assert!(across.is_err());
        } else {
            let (left, right) = across.unwrap().split_at(40);
            assert_eq!((left, right), (&[number; 40][..], &[number + 1; 40][..]));
        }
    }

    #[test]
    fn threads_that_fill_one_copy_at_once_read_the_same_and_nothing_that_is_damaged() {
        let mut copy = copy();
        for _ in 0..2 {
            std::thread::scope(|scope| {
                // Each begins elsewhere, so that one fills what another reads beside it.
                for first in [0, SMALL_BLOCKS / 2, SMALL_BLOCKS] {
                    let copy = &copy;
                    scope.spawn(move || {
                        (first..first + BLOCKS).for_each(|at| match at % BLOCKS {
                            0 => assert!(copy.bytes(0, 1, "header").is_err()),
                            block => read(copy, block),
                        });
                    });
                }
            });
            assert_eq!(copy.copied_bytes(), (BLOCKS - 2) * BLOCK_BYTES);
            // What was given back is filled again.
            copy.forget();
            assert_eq!(copy.copied_bytes(), 0);
        }
    }

    #[test]
    fn nothing_is_read_outside_of_the_blocks() {
        let copy = copy();
        let end = (BLOCKS * BLOCK_BYTES) as u64;
        for (start, len) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (4096, usize::MAX)] {
            assert!(copy.bytes(start, len, "bytes").is_err(), "{start} {len}");
        }
        for start in [4096 + 1, end, u64::MAX - 63] {
            assert!(copy.line(start, "line").is_err(), "{start}");
        }
        assert_eq!(copy.bytes(end, 0, "bytes").unwrap(), b"");
        copy.prefetch(end);
    }
}
