//! The bytes a session has received and not yet used.
//!
//! Invariant: the buffer never grows past what the caller asked room for plus what is unused, and
//! can be given back whenever nothing is in it, so that thousands of idle sessions hold no buffers.

/// A buffer that is filled at its end and used from its front.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// What stands at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A whole line, its length with its line end.
    Whole(usize),
    /// More bytes than a line may have; the line may not even have ended.
    TooLong,
    /// No line end yet.
    Unfinished,
}

impl Input {
    /// The unused bytes.
    pub(crate) fn unused(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The unused bytes, to be decoded in place.
    pub(crate) fn unused_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// True when every byte was used.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Declares the first `count` unused bytes used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room for the next read: at least one byte, and as much as makes the buffer `target` bytes.
    pub(crate) fn room(&mut self, target: usize) -> &mut [u8] {
        let unused = self.end - self.start;
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = unused;
        }
        let wanted = target.max(unused + 1);
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// `count` bytes were written into the [`room`](Self::room).
    pub(crate) fn received(&mut self, count: usize) {
        self.end = self.bytes.len().min(self.end + count);
    }

    /// True while there is memory to fill.
    pub(crate) fn has_buffer(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Goes on with this buffer, whose content means nothing. Nothing may be unused.
    pub(crate) fn use_buffer(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.is_empty(), "no arrived bytes are lost");
        self.bytes = bytes;
    }

    /// Gives the buffer back when nothing is in it.
    pub(crate) fn release(&mut self) -> Option<Vec<u8>> {
        self.is_empty().then(|| std::mem::take(&mut self.bytes))
    }

    /// Frees a buffer that is larger than `bytes`, when nothing is in it.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if self.bytes.len() > bytes {
            drop(self.release());
        }
    }

    /// Looks for a line of at most `bytes_max` bytes, its line end included.
    pub(crate) fn line(&self, bytes_max: usize) -> Line {
        let unused = self.unused();
        match memchr::memchr(b'\n', unused) {
            Some(at) if at < bytes_max => Line::Whole(at + 1),
            Some(_) => Line::TooLong,
            None if unused.len() >= bytes_max => Line::TooLong,
            None => Line::Unfinished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(input: &mut Input, bytes: &[u8]) {
        let target = input.unused().len() + bytes.len();
        input.room(target)[..bytes.len()].copy_from_slice(bytes);
        input.received(bytes.len());
    }

    #[test]
    fn lines_come_out_as_they_went_in_whatever_the_pieces() {
        let mut input = Input::default();
        fill(&mut input, b"NOOP\r\nRS");
        assert_eq!(input.line(100), Line::Whole(6));
        input.consume(6);
        assert_eq!(input.line(100), Line::Unfinished);
        fill(&mut input, b"ET\r\n");
        assert_eq!(input.unused(), b"RSET\r\n");
        input.consume(6);
        assert!(input.is_empty());
    }

    #[test]
    fn a_line_past_the_limit_is_seen_before_it_ends() {
        let mut input = Input::default();
        fill(&mut input, &[b'x'; 10]);
        assert_eq!(input.line(11), Line::Unfinished);
        assert_eq!(input.line(10), Line::TooLong);
        fill(&mut input, b"\r\n");
        assert_eq!(input.line(11), Line::TooLong);
        assert_eq!(input.line(12), Line::Whole(12));
    }

    #[test]
    fn an_idle_buffer_is_given_back_and_an_unused_byte_never() {
        let mut input = Input::default();
        fill(&mut input, b"ab");
        assert_eq!(input.release(), None);
        assert_eq!(input.unused(), b"ab");
        input.consume(2);
        let bytes = input.release().unwrap();
        assert!(!input.has_buffer());
        assert_eq!(input.bytes.capacity(), 0);
        input.use_buffer(bytes);
        fill(&mut input, b"cd");
        assert_eq!(input.unused(), b"cd");
    }
}
