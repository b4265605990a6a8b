//! From the bytes of the wire to the content of a message: dot-stuffing undone, CRLF turned into
//! LF, everything else kept as it is.
//!
//! Imports nothing. Both decoders work in place on whatever piece of the stream has arrived:
//! what they give is the same for every way the stream was split.

mod chunk;
mod data;

pub use chunk::{ChunkDecoder, Converted};
pub use data::{DataDecoder, Decoded};

/// What was seen on the way, for the policies about content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// A LF without CR before it.
    pub bare_newline: bool,
    /// Bytes of the longest line, CRLF included.
    pub longest: usize,
    /// Bytes of the line that has not ended yet.
    current: usize,
}

impl Lines {
    fn grow(&mut self, bytes: usize) {
        self.current = self.current.saturating_add(bytes);
        self.longest = self.longest.max(self.current);
    }

    fn end(&mut self) {
        self.current = 0;
    }
}

/// Moves the line `from..line_feed` (its LF at `line_feed`) to `to` and returns where it ends
/// there; `ended` says that the byte before the LF is its CR, which is dropped.
fn move_line(buffer: &mut [u8], from: usize, line_feed: usize, ended: bool, to: usize) -> usize {
    let text_end = if ended { line_feed - 1 } else { line_feed };
    buffer.copy_within(from..text_end, to);
    let at = to + (text_end - from);
    if let Some(byte) = buffer.get_mut(at) {
        *byte = b'\n';
    }
    at + 1
}
