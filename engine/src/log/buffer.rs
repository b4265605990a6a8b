//! A buffer whose memory begins at a block boundary, as direct I/O asks for.
//!
//! Invariant: the memory is reserved once and never moves, so the alignment found at the start
//! holds.

use super::segment::BLOCK_BYTES;
use memmap2::{Advice, MmapMut};

/// The size of a large page on most machines, and its alignment.
const LARGE_PAGE_BYTES: usize = 2 << 20;
/// Buffers smaller than this are not worth a large page.
const LARGE_BUFFER_BYTES: usize = 512 << 10;

/// Bytes waiting to be written as one piece.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    memory: Memory,
    start: usize,
    filled: usize,
    capacity: usize,
}

/// All zeros at first.
#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    /// In one piece to the disk as well, where the kernel has a large page to give: direct I/O
    /// of scattered pages takes a third longer.
    Mapped(MmapMut),
}

impl Memory {
    fn new(bytes: usize) -> Self {
        match bytes < LARGE_BUFFER_BYTES {
            true => Self::Heap(vec![0; bytes]),
            false => Self::mapped(bytes).unwrap_or_else(|| Self::Heap(vec![0; bytes])),
        }
    }

    fn mapped(bytes: usize) -> Option<Self> {
        let map = MmapMut::map_anon(bytes + LARGE_PAGE_BYTES).ok()?;
        // A kernel without large pages gives small ones.
        let _ = map.advise(Advice::HugePage);
        Some(Self::Mapped(map))
    }

    /// Where a buffer may begin.
    fn start(&self) -> usize {
        let (alignment, start) = match self {
            Self::Heap(bytes) => (BLOCK_BYTES, bytes.as_ptr().align_offset(BLOCK_BYTES)),
            Self::Mapped(map) => (
                LARGE_PAGE_BYTES,
                map.as_ptr().align_offset(LARGE_PAGE_BYTES),
            ),
        };
        // align_offset may answer "cannot tell"; then direct I/O fails loudly, not silently.
        if start <= alignment { start } else { 0 }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl AlignedBuffer {
    /// Room for `capacity` bytes, rounded up to whole blocks.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES);
        let memory = Memory::new(capacity + BLOCK_BYTES);
        debug_assert!(
            memory.start() + capacity <= memory.bytes().len(),
            "the memory has room after the boundary"
        );
        Self {
            start: memory.start(),
            memory,
            filled: 0,
            capacity,
        }
    }

    /// Bytes put in so far.
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.capacity
    }

    /// Takes as much of `bytes` as fits and tells how much that was.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        let take = bytes.len().min(self.capacity - self.filled);
        debug_assert!(self.filled + take <= self.capacity, "it fits");
        let from = self.start + self.filled;
        if let (Some(room), Some(bytes)) = (
            self.memory.bytes_mut().get_mut(from..from + take),
            bytes.get(..take),
        ) {
            room.copy_from_slice(bytes);
        }
        self.filled += take;
        take
    }

    /// Zeros up to the next multiple of `unit`, which divides the block size.
    pub(crate) fn pad(&mut self, unit: usize) {
        debug_assert!(BLOCK_BYTES.is_multiple_of(unit), "a unit of blocks");
        let to = self.filled.next_multiple_of(unit);
        debug_assert!(to <= self.capacity, "whole blocks are reserved");
        let (from, to_byte) = (self.start + self.filled, self.start + to);
        if let Some(room) = self.memory.bytes_mut().get_mut(from..to_byte) {
            room.fill(0);
        }
        self.filled = to;
    }

    /// What was put in.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory
            .bytes()
            .get(self.start..self.start + self.filled)
            .unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_begin_at_a_block_boundary() {
        let mut buffer = AlignedBuffer::new(5000);
        assert_eq!(buffer.put(&[7; 9000]), 8192, "two whole blocks");
        assert!(buffer.is_full());
        assert_eq!(buffer.bytes().as_ptr().align_offset(BLOCK_BYTES), 0);
        assert!(buffer.bytes().iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_large_buffer_begins_at_a_large_page_and_takes_all_it_was_made_for() {
        let bytes = vec![7; LARGE_BUFFER_BYTES + 5];
        let mut buffer = AlignedBuffer::new(LARGE_BUFFER_BYTES);
        assert_eq!(buffer.put(&bytes), LARGE_BUFFER_BYTES);
        assert!(buffer.is_full());
        let first = buffer.bytes().as_ptr();
        assert_eq!(first.align_offset(LARGE_PAGE_BYTES), 0);
        assert!(buffer.bytes() == &bytes[..LARGE_BUFFER_BYTES]);
        buffer.clear();
        buffer.pad(BLOCK_BYTES);
        assert_eq!(buffer.len(), 0);
    }

    #[test]
    fn padding_hides_what_an_earlier_batch_left() {
        let mut buffer = AlignedBuffer::new(BLOCK_BYTES);
        buffer.put(&[9; 100]);
        buffer.clear();
        buffer.put(&[1; 3]);
        buffer.pad(8);
        assert_eq!(buffer.bytes(), [1, 1, 1, 0, 0, 0, 0, 0]);
        buffer.pad(BLOCK_BYTES);
        assert_eq!(buffer.len(), BLOCK_BYTES);
    }
}
