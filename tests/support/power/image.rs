//! The content of a disk in memory: copies share what they have in common.

use std::sync::Arc;

/// Bytes of one block.
const BLOCK: usize = 4096;

type Block = Arc<[u8; BLOCK]>;

/// A disk; what was never written reads as zeros.
#[derive(Clone)]
pub struct Image {
    blocks: Vec<Option<Block>>,
}

impl Image {
    /// An empty disk; `bytes` is a multiple of 4096.
    pub fn new(bytes: usize) -> Self {
        assert!(bytes.is_multiple_of(BLOCK), "whole blocks");
        Self {
            blocks: vec![None; bytes / BLOCK],
        }
    }

    /// How much fits.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    /// Up to `length` bytes from `offset` on; fewer at the end of the disk.
    pub fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let end = (offset + length).min(self.bytes());
        let mut read = vec![0; end.saturating_sub(offset)];
        for (block, within, from, length) in pieces(offset, read.len()) {
            if let Some(block) = &self.blocks[block] {
                read[from..from + length].copy_from_slice(&block[within..within + length]);
            }
        }
        read
    }

    /// Writes all of it; the disk does not grow.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (block, within, from, length) in pieces(offset, data.len()) {
            let block = self.blocks[block].get_or_insert_with(|| Arc::new([0; BLOCK]));
            let block = Arc::make_mut(block);
            block[within..within + length].copy_from_slice(&data[from..from + length]);
        }
    }

    /// Makes a range read as zeros.
    pub fn clear(&mut self, offset: usize, length: usize) {
        for (block, within, _, length) in pieces(offset, length) {
            if length == BLOCK {
                self.blocks[block] = None;
            } else if let Some(block) = &mut self.blocks[block] {
                Arc::make_mut(block)[within..within + length].fill(0);
            }
        }
    }
}

/// The parts of a range that lie in one block each: the block, where in it, where in the range,
/// and how long.
fn pieces(offset: usize, length: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done;
        let within = at % BLOCK;
        let piece = (BLOCK - within).min(length - done);
        let from = done;
        done += piece;
        (piece > 0).then_some((at / BLOCK, within, from, piece))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_reads_back_what_was_written_across_blocks() {
        let mut disk = Image::new(4 * BLOCK);
        disk.write(BLOCK - 3, b"across");
        assert_eq!(disk.read(BLOCK - 4, 8), b"\0across\0");
        let before = disk.clone();
        disk.clear(BLOCK - 1, 2);
        assert_eq!(disk.read(BLOCK - 3, 6), b"ac\0\0ss");
        assert_eq!(before.read(BLOCK - 3, 6), b"across");
        assert_eq!(disk.read(4 * BLOCK - 2, 10), b"\0\0");
    }
}
