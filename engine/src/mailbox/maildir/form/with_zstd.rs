//! Frames by the zstd library.

use super::frame::Frame;
use std::io::{self, Read as _, Write as _};

/// zstd's own default: mail shrinks to about a third at some hundred MB/s.
const LEVEL: i32 = 3;

/// Writes a frame piece by piece.
pub(super) type Encoder<W> = zstd::stream::write::Encoder<'static, W>;

/// For a message of `size` bytes.
pub(super) fn encoder<W: io::Write>(out: W, size: u64) -> io::Result<Encoder<W>> {
    let mut encoder = Encoder::new(out, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(size))?;
    encoder.include_contentsize(true)?;
    Ok(encoder)
}

/// Returns the frame of a whole message; `None` in a build without zstd.
///
/// # Errors
/// No memory.
pub fn frame_of(message: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut encoder = encoder(Vec::new(), message.len() as u64)?;
    encoder.write_all(message)?;
    encoder.finish().map(Some)
}

/// Compares what is in a file that begins as a frame does.
pub(super) fn look_into(file: &[u8], message: &[u8]) -> io::Result<Frame> {
    // A frame with more than the message is not read to its end.
    let most = message.len() as u64 + 1;
    let mut content = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(file);
    let read = decoder.and_then(|decoder| decoder.take(most).read_to_end(&mut content));
    Ok(match read {
        Err(_) => Frame::Torn,
        Ok(_) if content == message => Frame::OfThis,
        Ok(_) => Frame::Other,
    })
}
