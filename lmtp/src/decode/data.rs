//! The content after `DATA` (RFC 5321 sections 4.1.1.4 and 4.5.2).
//!
//! Only CRLF "." CRLF ends the content, and only CRLF begins a line: a lone LF or CR is content, so
//! that no message can hide commands behind a line end that another server reads differently.

use mailstow_engine::{LineEnds, Lines};
use memchr::memmem::Finder;

/// A line end and the dot behind it, which is stuffed or ends the content.
const LINE_END_AND_DOT: &[u8] = b"\r\n.";

/// Undoes dot-stuffing and line ends of one message.
#[derive(Debug)]
pub struct DataDecoder {
    at_line_start: bool,
    /// The last byte was a CR.
    after_cr: bool,
    line_ends: LineEnds,
    dots: Finder<'static>,
}

/// What one call achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes at the front of the buffer that need not be shown again. What follows them must
    /// stand at the front of the next buffer.
    pub consumed: usize,
    /// A CR from before this buffer comes first: no LF followed it.
    pub cr_first: bool,
    /// Bytes of content, at the front of the buffer now.
    pub produced: usize,
    /// The final dot is among the consumed bytes.
    pub finished: bool,
}

impl Default for DataDecoder {
    fn default() -> Self {
        Self {
            at_line_start: true,
            after_cr: false,
            line_ends: LineEnds::default(),
            dots: Finder::new(LINE_END_AND_DOT),
        }
    }
}

impl DataDecoder {
    /// Decodes what has arrived, in place. At most two bytes (of a `.` CR that may be the end)
    /// stay unconsumed.
    pub fn decode(&mut self, buffer: &mut [u8]) -> Decoded {
        let (consumed, unstuffed, finished) = self.unstuff(buffer);
        let unstuffed = buffer.get_mut(..unstuffed).unwrap_or_default();
        let converted = self.line_ends.convert(unstuffed);
        Decoded {
            consumed,
            cr_first: converted.cr_first,
            produced: converted.produced,
            finished,
        }
    }

    /// Undoes dot-stuffing. Returns how many bytes were consumed, how many of them are content,
    /// at the front of the buffer, and whether the final dot was among them.
    fn unstuff(&mut self, buffer: &mut [u8]) -> (usize, usize, bool) {
        let (mut read, mut written) = (0, 0);
        match buffer.first() {
            None => return (0, 0, false),
            Some(b'\n') if self.after_cr => {
                self.at_line_start = true;
                (read, written) = (1, 1);
            }
            Some(_) => {}
        }
        self.after_cr = false;
        while let Some(rest) = buffer.get(read..) {
            if self.at_line_start {
                match rest {
                    [b'.', b'\r', b'\n', ..] => return (read + 3, written, true),
                    [] | [b'.'] | [b'.', b'\r'] => break,
                    [b'.', ..] => read += 1,
                    _ => {}
                }
                self.at_line_start = false;
            }
            let rest = buffer.get(read..).unwrap_or_default();
            // The dot is looked at once more, at the start of its line.
            let found = self
                .dots
                .find(rest)
                .map(|at| at + LINE_END_AND_DOT.len() - 1);
            let length = found.unwrap_or(rest.len());
            self.at_line_start = rest.get(..length).is_some_and(|r| r.ends_with(b"\r\n"));
            self.after_cr = rest.get(..length).and_then(<[u8]>::last) == Some(&b'\r');
            if read != written {
                buffer.copy_within(read..read + length, written);
            }
            read += length;
            written += length;
            if found.is_none() {
                break;
            }
        }
        (read, written, false)
    }

    /// What was seen so far.
    pub fn lines(&self) -> Lines {
        self.line_ends.lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `wire` in pieces that end at `splits`; returns content and what follows the end.
    fn decode(wire: &[u8], splits: &[usize]) -> (Vec<u8>, Option<Vec<u8>>, Lines) {
        let mut decoder = DataDecoder::default();
        let (mut content, mut pending) = (Vec::new(), Vec::new());
        let mut ends: Vec<usize> = splits.iter().map(|s| s % (wire.len() + 1)).collect();
        ends.push(wire.len());
        ends.sort_unstable();
        let mut start = 0;
        for end in ends {
            pending.extend_from_slice(&wire[start..end]);
            start = end;
            let decoded = decoder.decode(&mut pending);
            assert!(decoded.produced <= decoded.consumed);
            if decoded.cr_first {
                content.push(b'\r');
            }
            content.extend_from_slice(&pending[..decoded.produced]);
            pending.drain(..decoded.consumed);
            if decoded.finished {
                pending.extend_from_slice(&wire[start..]);
                return (content, Some(pending), decoder.lines());
            }
            assert!(pending.len() <= 2, "{pending:?}");
        }
        (content, None, decoder.lines())
    }

    /// The same on the whole stream, as slowly and plainly as can be.
    fn oracle(wire: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut content = Vec::new();
        let mut rest = wire;
        loop {
            let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
            let (line, after) = (&rest[..end], &rest[end + 2..]);
            if line == b"." {
                return Some((content, after.to_vec()));
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            content.push(b'\n');
            rest = after;
        }
    }

    fn whole(wire: &str) -> (String, Option<String>) {
        let (content, rest, _) = decode(wire.as_bytes(), &[]);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(content), rest.map(text))
    }

    #[test]
    fn dots_and_line_ends_are_undone() {
        let some = |content: &str, rest: &str| (content.to_owned(), Some(rest.to_owned()));
        assert_eq!(whole("a\r\nb\r\n.\r\nQUIT\r\n"), some("a\nb\n", "QUIT\r\n"));
        assert_eq!(whole(".\r\n"), some("", ""));
        assert_eq!(whole("..\r\n...x\r\n.y\r\n.\r\n"), some(".\n..x\ny\n", ""));
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_content() {
        for not_the_end in [
            "body\n.\nMAIL FROM:<x>\r\n",
            "body\n.\r\nMAIL FROM:<x>\r\n",
            "body\r\n.\nMAIL FROM:<x>\r\n",
            "body\r\n.\rMAIL FROM:<x>\r\n",
            "body\r\n.\r\r\nMAIL FROM:<x>\r\n",
            "body\r.\r\nMAIL FROM:<x>\r\n",
            "body\r.\rMAIL FROM:<x>\r\n",
            "body\r\n. \r\nMAIL FROM:<x>\r\n",
            "body\r\n.\0\r\nMAIL FROM:<x>\r\n",
        ] {
            let (content, rest) = whole(not_the_end);
            assert_eq!(rest, None, "{not_the_end:?}");
            assert!(content.contains("MAIL FROM:<x>\n"), "{not_the_end:?}");
            let (_, rest) = whole(&format!("{not_the_end}.\r\n"));
            assert_eq!(rest.as_deref(), Some(""), "{not_the_end:?}");
        }
    }

    #[test]
    fn lone_line_ends_are_kept_and_reported() {
        let (content, _, lines) = decode(b"a\rb\nc\r\r\n.\r\n", &[]);
        assert_eq!(content, b"a\rb\nc\r\n");
        assert!(lines.bare_newline);
        let (_, _, lines) = decode(b"a\rb\r\n12345678\r\n.\r\n", &[1, 2, 5, 7]);
        assert!(!lines.bare_newline);
        assert_eq!(lines.longest, 10);
    }

    fn wire() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(&b"\r\n"[..]), 3 => Just(&b"."[..]), 2 => Just(&b"\r"[..]),
            2 => Just(&b"\n"[..]), 3 => Just(&b"text"[..]), 1 => Just(&b"\0"[..]),
            1 => Just(&b"\r\n.\r\n"[..]),
        ];
        proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_split_gives_what_the_whole_stream_gives(
            wire in wire(),
            splits in proptest::collection::vec(0usize..200, 0..20),
        ) {
            let (content, rest, lines) = decode(&wire, &splits);
            match oracle(&wire) {
                Some((expected, after)) => {
                    prop_assert_eq!(content, expected);
                    prop_assert_eq!(rest, Some(after));
                }
                None => prop_assert_eq!(rest, None),
            }
            prop_assert_eq!(lines, decode(&wire, &[]).2);
        }

        #[test]
        fn every_stuffed_message_comes_back(message in wire()) {
            let mut sent = Vec::new();
            let lines: Vec<_> = message.split(|b| *b == b'\n').collect();
            for line in &lines {
                let line: Vec<u8> = line.iter().copied().filter(|b| *b != b'\r').collect();
                if line.starts_with(b".") { sent.push(b'.'); }
                sent.extend_from_slice(&line);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b".\r\n");
            let expected: Vec<u8> = message.iter().copied().filter(|b| *b != b'\r').collect();
            let (content, rest, _) = decode(&sent, &[]);
            prop_assert_eq!(content, [expected, b"\n".to_vec()].concat());
            prop_assert_eq!(rest, Some(Vec::new()));
        }
    }
}
