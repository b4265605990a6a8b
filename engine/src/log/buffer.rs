//! A buffer whose memory begins at a block boundary, as direct I/O asks for.
//!
//! Imports `segment` (block size). Invariant: the memory is reserved once and never moves, so the
//! alignment found at the start holds.

use super::segment::BLOCK_BYTES;

/// Bytes waiting to be written as one piece.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    filled: usize,
    capacity: usize,
}

impl AlignedBuffer {
    /// Room for `capacity` bytes, rounded up to whole blocks.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES);
        let memory = vec![0; capacity + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        // align_offset may answer "cannot tell"; then direct I/O fails loudly, not silently.
        let start = if start <= BLOCK_BYTES { start } else { 0 };
        Self {
            memory,
            start,
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
        let from = self.start + self.filled;
        if let (Some(room), Some(bytes)) =
            (self.memory.get_mut(from..from + take), bytes.get(..take))
        {
            room.copy_from_slice(bytes);
        }
        self.filled += take;
        take
    }

    /// Zeros up to the next multiple of `unit`, which divides the block size.
    pub(crate) fn pad(&mut self, unit: usize) {
        let to = self.filled.next_multiple_of(unit);
        let (from, to_byte) = (self.start + self.filled, self.start + to);
        if let Some(room) = self.memory.get_mut(from..to_byte) {
            room.fill(0);
        }
        self.filled = to;
    }

    /// What was put in.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory
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
