//! The bytes of a message file: plain, or one zstd frame.
//!
//! Invariants: the name of a file tells the size of the message, whatever its form (Dovecot counts
//! that for quota and asks for no more); a frame ends with a checksum, so that half a frame is
//! never taken for a whole one. The same message gives the same frame with one version of the zstd
//! library. Source: RFC 8878.

use crate::config::Compress;
use crate::io::Disk;
use std::io::{self, Read as _, Write as _};

/// A frame begins with these bytes (RFC 8878 section 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes of a frame written at once.
const PIECE_BYTES: usize = 128 * 1024;
/// zstd's own default: mail shrinks to about a third at some hundred MB/s.
const LEVEL: i32 = 3;

/// Takes the pieces of a message and writes them into a file.
pub(super) struct Filler<'a, D: Disk> {
    into: Into<'a, D>,
}

enum Into<'a, D: Disk> {
    Plain(&'a D, &'a D::Handle),
    Zstd(Box<zstd::stream::write::Encoder<'static, Pieces<'a, D>>>),
}

impl<'a, D: Disk> Filler<'a, D> {
    /// For a message of `size` bytes.
    pub(super) fn new(
        disk: &'a D,
        file: &'a D::Handle,
        compress: Compress,
        size: u64,
    ) -> io::Result<Self> {
        let into = match compress {
            Compress::None => Into::Plain(disk, file),
            Compress::Zstd => Into::Zstd(Box::new(encoder(Pieces::new(disk, file), size)?)),
        };
        Ok(Self { into })
    }

    pub(super) fn put(&mut self, parts: [&[u8]; 2]) -> io::Result<()> {
        match &mut self.into {
            Into::Plain(disk, file) => disk.write_all(file, parts),
            Into::Zstd(encoder) => parts.iter().try_for_each(|part| encoder.write_all(part)),
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self.into {
            Into::Plain(..) => Ok(()),
            Into::Zstd(encoder) => encoder.finish()?.flush(),
        }
    }
}

fn encoder<W: io::Write>(
    out: W,
    size: u64,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(size))?;
    encoder.include_contentsize(true)?;
    Ok(encoder)
}

/// The frame of a whole message.
///
/// # Errors
/// No memory.
pub fn frame_of(message: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = encoder(Vec::new(), message.len() as u64)?;
    encoder.write_all(message)?;
    encoder.finish()
}

/// What a file is when its bytes are not the message itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole frame with this message.
    OfThis,
    /// A whole frame with something else, or no frame at all.
    Other,
    /// The beginning of a frame, or a damaged one, or one whose beginning was lost: no program
    /// makes a message that begins with zeros.
    Torn,
}

/// Looks whether `file` is a frame with `message`.
pub fn look_into_frame(file: &[u8], message: &[u8]) -> Frame {
    let is_lost = file.first_chunk() == Some(&[0; MAGIC.len()]);
    if is_lost || MAGIC.starts_with(file) {
        return Frame::Torn;
    }
    if !file.starts_with(&MAGIC) {
        return Frame::Other;
    }
    // A frame with more than the message is not read to its end.
    let most = message.len() as u64 + 1;
    let mut content = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(file);
    let read = decoder.and_then(|decoder| decoder.take(most).read_to_end(&mut content));
    match read {
        Err(_) => Frame::Torn,
        Ok(_) if content == message => Frame::OfThis,
        Ok(_) => Frame::Other,
    }
}

/// Gathers a frame into pieces for the disk.
struct Pieces<'a, D: Disk> {
    disk: &'a D,
    file: &'a D::Handle,
    gathered: Vec<u8>,
}

impl<'a, D: Disk> Pieces<'a, D> {
    fn new(disk: &'a D, file: &'a D::Handle) -> Self {
        Self {
            disk,
            file,
            gathered: Vec::new(),
        }
    }
}

impl<D: Disk> io::Write for Pieces<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.gathered.is_empty() {
            self.disk.write_all(self.file, [&self.gathered, &[]])?;
            self.gathered.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_told_from_half_a_frame_and_from_other_files() {
        let message = "Subject: hello\n\n".repeat(4000).into_bytes();
        let frame = frame_of(&message).unwrap();
        assert!(frame.len() < message.len() / 10);
        assert_eq!(look_into_frame(&frame, &message), Frame::OfThis);
        assert_eq!(look_into_frame(&frame, b"Subject: other\n"), Frame::Other);
        assert_eq!(look_into_frame(&message, &message), Frame::Other);
        for cut in 0..frame.len() {
            assert_eq!(
                look_into_frame(&frame[..cut], &message),
                Frame::Torn,
                "{cut}"
            );
        }
        let lost = [&[0; 4096], &frame[frame.len() / 2..]].concat();
        assert_eq!(look_into_frame(&lost, &message), Frame::Torn);
        let mut damaged = frame;
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        // The content is whole then, but not to be relied on.
        assert_ne!(look_into_frame(&damaged, &message), Frame::Other);
    }
}
