//! The content after `BDAT` (RFC 3030): no dot-stuffing, only CRLF turned into LF, also where a
//! chunk ends between the two.
//!
//! Imports nothing.

use super::{Lines, move_line};

/// Converts the line ends of one message that comes in chunks.
#[derive(Debug, Default)]
pub struct ChunkDecoder {
    /// The bytes so far ended with a CR that is not given out yet.
    holds_cr: bool,
    lines: Lines,
}

/// What one call gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// A CR from before this buffer comes first: it turned out to stand alone.
    pub cr_first: bool,
    /// Bytes of content at the front of the buffer. The whole buffer was consumed.
    pub produced: usize,
}

impl ChunkDecoder {
    /// Converts what has arrived, in place.
    pub fn decode(&mut self, buffer: &mut [u8]) -> Converted {
        let Some(first) = buffer.first() else {
            return Converted {
                cr_first: false,
                produced: 0,
            };
        };
        let mut after_cr = std::mem::take(&mut self.holds_cr);
        let cr_first = after_cr && *first != b'\n';
        if cr_first {
            after_cr = false;
        }
        let mut read = 0;
        let mut written = 0;
        while let Some(rest) = buffer.get(read..) {
            let Some(length) = memchr::memchr(b'\n', rest) else {
                self.holds_cr = rest.last() == Some(&b'\r');
                let kept = rest.len() - usize::from(self.holds_cr);
                self.lines.grow(rest.len());
                buffer.copy_within(read..read + kept, written);
                written += kept;
                break;
            };
            let line = rest.get(..length).unwrap_or_default();
            let ended = line.last() == Some(&b'\r');
            self.lines.grow(length + 1);
            if ended || after_cr {
                self.lines.end();
            } else {
                self.lines.bare_newline = true;
            }
            after_cr = false;
            written = move_line(buffer, read, read + length, ended, written);
            read += length + 1;
        }
        Converted {
            cr_first,
            produced: written,
        }
    }

    /// The message has ended: whether a CR is still to be written.
    pub fn finish(&mut self) -> bool {
        std::mem::take(&mut self.holds_cr)
    }

    /// What was seen so far.
    pub fn lines(&self) -> Lines {
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn convert(wire: &[u8], splits: &[usize]) -> (Vec<u8>, Lines) {
        let mut decoder = ChunkDecoder::default();
        let mut content = Vec::new();
        let mut ends: Vec<usize> = splits.iter().map(|s| s % (wire.len() + 1)).collect();
        ends.push(wire.len());
        ends.sort_unstable();
        let mut start = 0;
        for end in ends {
            let mut piece = wire[start..end].to_vec();
            start = end;
            let converted = decoder.decode(&mut piece);
            if converted.cr_first {
                content.push(b'\r');
            }
            content.extend_from_slice(&piece[..converted.produced]);
        }
        if decoder.finish() {
            content.push(b'\r');
        }
        (content, decoder.lines())
    }

    #[test]
    fn only_crlf_changes() {
        let (content, lines) = convert(b".\r\na\rb\nc\r\r\n.\r\nend\r", &[]);
        assert_eq!(content, b".\na\rb\nc\r\n.\nend\r");
        assert!(lines.bare_newline);
        let (content, lines) = convert(b"a\r\nb\r\n", &[2, 5]);
        assert_eq!(content, b"a\nb\n");
        assert!(!lines.bare_newline);
        assert_eq!(lines.longest, 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_split_gives_what_the_whole_stream_gives(
            wire in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'x')], 0..40),
            splits in proptest::collection::vec(0usize..200, 0..20),
        ) {
            let mut expected = Vec::new();
            for (n, byte) in wire.iter().enumerate() {
                if *byte != b'\r' || wire.get(n + 1) != Some(&b'\n') {
                    expected.push(*byte);
                }
            }
            let (content, lines) = convert(&wire, &splits);
            prop_assert_eq!(content, expected);
            prop_assert_eq!(lines, convert(&wire, &[]).1);
        }
    }
}
