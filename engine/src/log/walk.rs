//! Steps through the frames of one segment.
//!
//! Knows nothing of records: what a frame means, and whether it is the expected one, is decided by
//! `scan`.

use super::frame::{
    FRAGMENT_BYTES_MAX, FRAME_ALIGN, FRAME_HEADER_BYTES, FrameFault, FrameHeader, frame_bytes,
};
use super::medium::LogFile;
use super::segment::{BLOCK, BLOCK_BYTES, HeaderFault, SegmentHeader};
use crc32fast::Hasher;
use std::io;

/// Bytes read at once; more than the longest frame.
const WINDOW_BYTES: usize = 1 << 20;
const _: () = assert!(WINDOW_BYTES > FRAGMENT_BYTES_MAX + 2 * BLOCK_BYTES);
/// A segment with less room than this left is full.
pub(crate) const SPACE_MIN: u64 = 64;

/// A frame and its payload.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) payload: &'a [u8],
    /// In the file.
    pub(crate) offset: u64,
}

/// One segment, read through a window.
#[derive(Debug)]
pub(crate) struct SegmentWalk<F> {
    file: F,
    pub(crate) header: SegmentHeader,
    epoch: Hasher,
    window: Vec<u8>,
    window_from: u64,
    /// Where the next frame is looked for.
    position: u64,
}

impl<F: LogFile> SegmentWalk<F> {
    /// Reads the header.
    pub(crate) fn open(file: F) -> io::Result<Result<Self, HeaderFault>> {
        let mut block = vec![0; BLOCK_BYTES];
        let length = file.read_at(&mut block, 0)?;
        block.truncate(length);
        let header = match SegmentHeader::decode(&block) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        Ok(Ok(Self::with_header(file, header)))
    }

    /// As if that header stood there.
    pub(crate) fn with_header(file: F, header: SegmentHeader) -> Self {
        Self {
            epoch: header.epoch(),
            header,
            file,
            window: Vec::new(),
            window_from: 0,
            position: BLOCK,
        }
    }

    /// The first batch there is; the position stays.
    pub(crate) fn first_batch(&mut self) -> io::Result<Option<FrameHeader>> {
        let position = self.look_again_at(0);
        let first = self.find_batch(|_| true)?;
        self.look_again_at(position);
        Ok(first)
    }

    /// Where the next frame is looked for, in the file.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads the file again from `position` on; answers where the walk was before.
    pub(crate) fn look_again_at(&mut self, position: u64) -> u64 {
        self.window.clear();
        std::mem::replace(&mut self.position, position)
    }

    /// The next frame whose checksums are right and that `fits`; `None` where there is none, and
    /// then the position stays.
    pub(crate) fn next_frame(
        &mut self,
        fits: impl Fn(&FrameHeader) -> bool,
    ) -> io::Result<Option<Frame<'_>>> {
        let mut offset = self.position;
        if self.fault_at(offset)? == Some(FrameFault::Empty) {
            // The rest of the block is padding; then a batch begins.
            offset = (offset + 1).next_multiple_of(BLOCK);
        }
        let Some(header) = self.valid_at(offset)? else {
            return Ok(None);
        };
        let begins = offset == BLOCK || offset != self.position;
        let starts_where_batches_do = offset.is_multiple_of(BLOCK) || !header.batch_start;
        if (begins && !header.batch_start) || !starts_where_batches_do || !fits(&header) {
            return Ok(None);
        }
        let payload_bytes = usize::try_from(header.payload_bytes).unwrap_or(FRAGMENT_BYTES_MAX);
        self.position = offset + frame_bytes(payload_bytes) as u64;
        debug_assert!(
            self.position.is_multiple_of(FRAME_ALIGN as u64),
            "frames are aligned"
        );
        debug_assert!(
            self.position <= self.header.segment_bytes,
            "a valid frame ends inside of its segment"
        );
        let payload = self.window_bytes(offset + FRAME_HEADER_BYTES as u64, payload_bytes)?;
        Ok(Some(Frame {
            header,
            payload: payload.unwrap_or_default(),
            offset,
        }))
    }

    /// Looks behind the position for the start of a batch that `fits`: such a frame proves that
    /// what stands before it had been durable. Moves the position there.
    pub(crate) fn find_batch(
        &mut self,
        fits: impl Fn(&FrameHeader) -> bool,
    ) -> io::Result<Option<FrameHeader>> {
        let mut offset = (self.position + 1).next_multiple_of(BLOCK);
        // The header may name more bytes than there are.
        let end = self.header.segment_bytes.min(self.file.size()?);
        debug_assert!(
            offset > self.position,
            "records that were read are not read again"
        );
        while offset < end {
            // Cheap tests first: most blocks here hold zeros or frames of an earlier use.
            if self.fault_at(offset)?.is_none()
                && let Some(header) = self.valid_at(offset)?
                && header.batch_start
                && fits(&header)
            {
                self.position = offset;
                return Ok(Some(header));
            }
            offset += BLOCK;
        }
        Ok(None)
    }

    /// Why the bytes at `offset` are no frame header; `None` if they are one.
    fn fault_at(&mut self, offset: u64) -> io::Result<Option<FrameFault>> {
        Ok(self.header_at(offset)?.err())
    }

    fn header_at(&mut self, offset: u64) -> io::Result<Result<FrameHeader, FrameFault>> {
        if self.header.segment_bytes.saturating_sub(offset) < SPACE_MIN {
            return Ok(Err(FrameFault::Checksum));
        }
        let epoch = self.epoch.clone();
        let bytes = self.window_bytes(offset, FRAME_HEADER_BYTES)?;
        Ok(match bytes.and_then(<[u8]>::first_chunk) {
            Some(bytes) => FrameHeader::decode(bytes, &epoch),
            None => Err(FrameFault::Checksum),
        })
    }

    /// The frame header at `offset` if payload and place are right too.
    fn valid_at(&mut self, offset: u64) -> io::Result<Option<FrameHeader>> {
        let Ok(header) = self.header_at(offset)? else {
            return Ok(None);
        };
        let payload_bytes = usize::try_from(header.payload_bytes).unwrap_or(FRAGMENT_BYTES_MAX);
        if offset + frame_bytes(payload_bytes) as u64 > self.header.segment_bytes {
            return Ok(None);
        }
        let payload = self.window_bytes(offset + FRAME_HEADER_BYTES as u64, payload_bytes)?;
        let whole = payload.is_some_and(|bytes| crc32fast::hash(bytes) == header.payload_crc);
        Ok(whole.then_some(header))
    }

    /// Bytes of the file, or `None` past its end.
    fn window_bytes(&mut self, offset: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let inside =
            |from: u64, held: usize| offset >= from && offset + length as u64 <= from + held as u64;
        if !inside(self.window_from, self.window.len()) {
            self.window_from = offset / BLOCK * BLOCK;
            let left = self.header.segment_bytes - self.window_from;
            let length = usize::try_from(left).unwrap_or(WINDOW_BYTES);
            self.window.resize(length.min(WINDOW_BYTES), 0);
            let held = self.file.read_at(&mut self.window, self.window_from)?;
            self.window.truncate(held);
        }
        if !inside(self.window_from, self.window.len()) {
            return Ok(None);
        }
        debug_assert!(self.window_from.is_multiple_of(BLOCK), "blocks are read");
        let from = usize::try_from(offset - self.window_from).unwrap_or(usize::MAX);
        Ok(self.window.get(from..from.saturating_add(length)))
    }
}
