//! The bytes of a message file: plain, or one zstd frame.
//!
//! Invariants: the name of a file tells the size of the message, whatever its form (Dovecot counts
//! that for quota and asks for no more); a frame ends with a checksum, so that half a frame is
//! never taken for a whole one. The same message gives the same frame with one version of the zstd
//! library. A build without the feature `zstd` makes no frames, and says that it cannot read one.
//! Source: RFC 8878.

mod frame;
#[cfg(feature = "zstd")]
mod with_zstd;
#[cfg(any(test, not(feature = "zstd")))]
#[cfg_attr(
    feature = "zstd",
    allow(dead_code, unreachable_pub, reason = "only its tests use it")
)]
mod without_zstd;

#[cfg(feature = "zstd")]
use with_zstd as codec;
#[cfg(not(feature = "zstd"))]
use without_zstd as codec;

pub use codec::frame_of;
pub use frame::Frame;

use crate::config::Compress;
use crate::io::Disk;
use std::io::{self, Write as _};

/// A frame begins with these bytes (RFC 8878 section 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes of a frame written at once.
const PIECE_BYTES: usize = 128 * 1024;

/// Takes the pieces of a message and writes them into a file.
pub(super) struct Filler<'a, D: Disk> {
    into: Into<'a, D>,
}

enum Into<'a, D: Disk> {
    Plain(&'a D, &'a D::Handle),
    Zstd(Box<codec::Encoder<Pieces<'a, D>>>),
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
            Compress::Zstd => Into::Zstd(Box::new(codec::encoder(Pieces::new(disk, file), size)?)),
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

/// Looks whether `file` is a frame with `message`.
///
/// # Errors
/// It begins as a frame does, and this build has no zstd.
pub fn look_into_frame(file: &[u8], message: &[u8]) -> io::Result<Frame> {
    let is_lost = file.first_chunk() == Some(&[0; MAGIC.len()]);
    if is_lost || MAGIC.starts_with(file) {
        return Ok(Frame::Torn);
    }
    if !file.starts_with(&MAGIC) {
        return Ok(Frame::Other);
    }
    codec::look_into(file, message)
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

    fn look(file: &[u8], message: &[u8]) -> Frame {
        look_into_frame(file, message).unwrap()
    }

    #[test]
    fn a_frame_is_told_from_half_a_frame_and_from_other_files() {
        let message = "Subject: hello\n\n".repeat(4000).into_bytes();
        let frame = frame_of(&message).unwrap().unwrap();
        assert!(frame.len() < message.len() / 10);
        assert_eq!(look(&frame, &message), Frame::OfThis);
        assert_eq!(look(&frame, b"Subject: other\n"), Frame::Other);
        assert_eq!(look(&message, &message), Frame::Other);
        for cut in 0..frame.len() {
            assert_eq!(look(&frame[..cut], &message), Frame::Torn, "{cut}");
        }
        let lost = [&[0; 4096], &frame[frame.len() / 2..]].concat();
        assert_eq!(look(&lost, &message), Frame::Torn);
        let mut damaged = frame;
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        // The content is whole then, but not to be relied on.
        assert_ne!(look(&damaged, &message), Frame::Other);
    }
}
