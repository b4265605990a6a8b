//! Writes batches of records into segments: frames them, pads to blocks, flushes, goes on to the
//! next segment.
//!
//! Has no threads. Invariants:
//! at any time at most one batch is not flushed; a block with flushed bytes is never written
//! again (a batch is padded to a whole block, because a torn rewrite of a half-filled block could
//! take acknowledged frames with it); a segment is flushed before the next takes a frame.

use super::buffer::AlignedBuffer;
use super::codec::EncodedRecord;
use super::error::LogError;
use super::frame::{
    FRAGMENT_BYTES_MAX, FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, RECORD_BYTES_LIMIT,
};
use super::medium::{LogFile as _, LogMedium};
use super::segment::{BLOCK, BLOCK_BYTES, live_name};
use super::segments::{Opened, Segments};
use super::walk::SPACE_MIN;
use crate::sync::Arc;
use crc32fast::Hasher;

/// Bytes gathered before a write; a larger batch takes several writes and one flush.
const BUFFER_BYTES: usize = 1 << 20;
/// More than a frame's header and alignment, and the end of a segment too short for another.
const FRAME_OVERHEAD: u64 = 128;

/// The writing end of the log.
#[derive(Debug)]
pub(crate) struct Appender<M: LogMedium> {
    segments: Arc<Segments<M>>,
    file: M::File,
    name: String,
    epoch: Hasher,
    buffer: AlignedBuffer,
    /// Where the buffer's first byte goes, in the file.
    offset: u64,
    end: u64,
    /// Something was written and not flushed.
    dirty: bool,
    /// The next frame begins a batch.
    batch_start: bool,
    /// Bytes of segments used up since the log was opened.
    consumed: u64,
    /// Another segment was begun since the request.
    rotated: bool,
}

/// The most bytes of segments a record of `payload_bytes` can use up, alone in its batch.
pub(crate) fn charge(payload_bytes: u64, usable_bytes: u64) -> u64 {
    let frames = payload_bytes / FRAGMENT_BYTES_MAX as u64 + 2 * (payload_bytes / usable_bytes) + 4;
    payload_bytes + frames * FRAME_OVERHEAD + BLOCK
}

impl<M: LogMedium> Appender<M> {
    /// Appends to a segment just begun.
    pub(crate) fn new(segments: Arc<Segments<M>>, opened: Opened<M::File>) -> Self {
        debug_assert!(
            !opened.header.reserved,
            "a reserved segment takes no frames"
        );
        Self {
            segments,
            epoch: opened.header.epoch(),
            name: live_name(opened.header.number),
            end: opened.header.segment_bytes,
            file: opened.file,
            buffer: AlignedBuffer::new(BUFFER_BYTES),
            offset: BLOCK,
            dirty: false,
            batch_start: true,
            consumed: 0,
            rotated: true,
        }
    }

    /// Bytes for frames left in this segment.
    pub(crate) fn room(&self) -> u64 {
        debug_assert!(
            self.position() <= self.end,
            "frames end inside of their segment"
        );
        self.end - self.position()
    }

    /// Writes and flushes a batch; answers the bytes of segments used up. When it returns, every
    /// record of the batch is durable.
    ///
    /// # Errors
    /// The disk failed: what of the batch is durable is unknown and the log must be reopened.
    pub(crate) fn write_batch<'a>(
        &mut self,
        batch: impl IntoIterator<Item = (u64, &'a EncodedRecord)>,
    ) -> Result<u64, LogError> {
        let before = self.consumed;
        self.batch_start = true;
        let mut newest = None;
        for (sequence, record) in batch {
            debug_assert!(newest < Some(sequence), "records are in order");
            newest = Some(sequence);
            self.record(sequence, record)?;
        }
        self.flush()?;
        debug_assert_eq!(self.buffer.len(), 0, "nothing of a batch waits");
        Ok(self.consumed - before)
    }

    /// Whether another segment was begun since the last question.
    pub(crate) fn take_rotated(&mut self) -> bool {
        std::mem::take(&mut self.rotated)
    }

    fn position(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    fn record(&mut self, sequence: u64, record: &EncodedRecord) -> Result<(), LogError> {
        let mut rest = record.payload();
        debug_assert!(!rest.is_empty(), "a frame without payload is not read");
        debug_assert!(
            rest.len() <= RECORD_BYTES_LIMIT,
            "a record can be read again"
        );
        let record_bytes = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let mut fragment = 0;
        loop {
            if self.room() < SPACE_MIN {
                self.next_segment(sequence, fragment)?;
            }
            let space = usize::try_from(self.room()).unwrap_or(usize::MAX) - FRAME_HEADER_BYTES;
            let take = rest.len().min(FRAGMENT_BYTES_MAX).min(space);
            let (payload, behind) = rest.split_at_checked(take).unwrap_or((rest, &[]));
            debug_assert!(!payload.is_empty(), "each fragment has a byte at least");
            let whole = fragment == 0 && behind.is_empty();
            let header = FrameHeader {
                sequence,
                payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                record_bytes,
                fragment,
                payload_crc: if whole {
                    record.payload_crc()
                } else {
                    crc32fast::hash(payload)
                },
                kind: record.kind().to_byte(),
                last: behind.is_empty(),
                batch_start: self.batch_start,
            };
            debug_assert!(
                !self.batch_start || self.position().is_multiple_of(BLOCK),
                "a batch begins at a block"
            );
            self.batch_start = false;
            let bytes = header.encode(&self.epoch);
            self.put(&bytes)?;
            self.put(payload)?;
            self.pad(FRAME_ALIGN);
            if behind.is_empty() {
                return Ok(());
            }
            rest = behind;
            fragment += 1;
        }
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), LogError> {
        self.consumed += bytes.len() as u64;
        while !bytes.is_empty() {
            let taken = self.buffer.put(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.buffer.is_full() {
                debug_assert!(self.offset.is_multiple_of(BLOCK), "blocks are written");
                self.file
                    .write_at(self.buffer.bytes(), self.offset)
                    .map_err(|error| LogError::io("write", &self.name, error))?;
                self.offset += self.buffer.len() as u64;
                self.buffer.clear();
                self.dirty = true;
            }
        }
        Ok(())
    }

    fn pad(&mut self, unit: usize) {
        let before = self.buffer.len();
        self.buffer.pad(unit);
        self.consumed += (self.buffer.len() - before) as u64;
    }

    /// Makes everything put so far durable.
    fn flush(&mut self) -> Result<(), LogError> {
        self.pad(BLOCK_BYTES);
        let failed = |error| LogError::io("flush", &self.name, error);
        if self.buffer.len() > 0 {
            debug_assert!(
                self.position() <= self.end,
                "a batch ends inside of its segment"
            );
            debug_assert!(self.offset.is_multiple_of(BLOCK), "blocks are written");
            self.file
                .write_and_flush(self.buffer.bytes(), self.offset)
                .map_err(failed)?;
            self.offset += self.buffer.len() as u64;
            self.buffer.clear();
        } else if self.dirty {
            self.file.flush().map_err(failed)?;
        }
        self.dirty = false;
        Ok(())
    }

    fn next_segment(&mut self, sequence: u64, fragment: u32) -> Result<(), LogError> {
        self.flush()?;
        self.consumed += self.room();
        debug_assert!(!self.dirty, "a segment is flushed before the next one");
        let opened = self.segments.begin(sequence, fragment)?;
        debug_assert!(
            live_name(opened.header.number) > self.name,
            "numbers of segments count up"
        );
        self.epoch = opened.header.epoch();
        self.name = live_name(opened.header.number);
        self.end = opened.header.segment_bytes;
        self.file = opened.file;
        self.offset = BLOCK;
        self.batch_start = true;
        self.rotated = true;
        Ok(())
    }
}
