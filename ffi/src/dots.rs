//! Undoes the dot-stuffing of SMTP (RFC 5321 section 4.5.2) in pieces of any size.
//!
//! In the wire form only CRLF begins a line, so that no message can hide its end behind a line end
//! that another server reads differently; in content whose line ends were converted to LF, LF does.

use memchr::memchr;

/// Where in the content the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    /// After a dot at the start of a line, which is not content.
    Dot,
    /// After such a dot and a CR, which may be content.
    DotCr,
    Text,
    /// After a CR that is content.
    Cr,
}

/// Undoes the dot-stuffing of one message.
#[derive(Debug)]
pub(crate) struct Dots {
    at: At,
    /// Lines end with CRLF; otherwise with LF.
    crlf: bool,
}

impl Dots {
    pub(crate) fn new(crlf: bool) -> Self {
        let at = At::LineStart;
        Self { at, crlf }
    }

    /// Appends the content in `piece` to `content`. Returns how many bytes of the piece were
    /// taken, and whether the content ended with them.
    pub(crate) fn undo(&mut self, piece: &[u8], content: &mut Vec<u8>) -> (usize, bool) {
        let mut taken = 0;
        while let Some((&byte, rest)) = piece.get(taken..).and_then(<[u8]>::split_first) {
            if self.at == At::Text {
                // Up to the end of the line in one step.
                let end = if self.crlf { b'\r' } else { b'\n' };
                let all = 1 + rest.len();
                let length = piece
                    .get(taken..)
                    .and_then(|text| memchr(end, text))
                    .map_or(all, |at| at + 1);
                content.extend_from_slice(piece.get(taken..taken + length).unwrap_or_default());
                if piece.get(taken + length - 1) == Some(&end) {
                    self.at = if self.crlf { At::Cr } else { At::LineStart };
                }
                taken += length;
                continue;
            }
            taken += 1;
            match (self.at, byte) {
                (At::LineStart, b'.') => {
                    self.at = At::Dot;
                    continue;
                }
                (At::Dot, b'\r') if self.crlf => {
                    self.at = At::DotCr;
                    continue;
                }
                (At::Dot, b'\n') if !self.crlf => return (taken, true),
                (At::DotCr, b'\n') => return (taken, true),
                (At::DotCr, _) => content.push(b'\r'),
                _ => {}
            }
            content.push(byte);
            self.at = match (self.crlf, byte) {
                (true, b'\r') => At::Cr,
                (true, b'\n') if self.at == At::Cr => At::LineStart,
                (false, b'\n') => At::LineStart,
                _ => At::Text,
            };
        }
        (taken, false)
    }

    /// How many bytes are left until the content can end, at least.
    pub(crate) fn left_min(&self) -> usize {
        let end = match (self.crlf, self.at) {
            (true, At::Text) => "\r\n.\r\n",
            (true, At::Cr) => "\n.\r\n",
            (true, At::LineStart) => ".\r\n",
            (true, At::Dot) => "\r\n",
            (false, At::Text | At::Cr) => "\n.\n",
            (false, At::LineStart) => ".\n",
            (_, At::Dot | At::DotCr) => "\n",
        };
        end.len()
    }

    /// Returns whether content without its last line is incomplete: it has the form that follows
    /// DATA (RFC 5321 section 4.1.1.4). Text from a program may end anywhere.
    pub(crate) fn needs_end(&self) -> bool {
        self.crlf
    }

    /// Ends the content without its last line: appends the bytes held back.
    pub(crate) fn finish(&mut self, content: &mut Vec<u8>) {
        if self.at == At::DotCr {
            content.push(b'\r');
        }
        self.at = At::LineStart;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content, and what follows its end; fed in pieces of `step` bytes.
    fn undone(crlf: bool, wire: &[u8], step: usize) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut dots = Dots::new(crlf);
        let mut content = Vec::new();
        let mut at = 0;
        while at < wire.len() {
            let piece = &wire[at..(at + step).min(wire.len())];
            let (taken, ended) = dots.undo(piece, &mut content);
            at += taken;
            if ended {
                return (content, Some(wire[at..].to_vec()));
            }
            assert_eq!(taken, piece.len());
        }
        dots.finish(&mut content);
        (content, None)
    }

    #[test]
    fn stuffed_dots_go_and_a_line_that_is_a_dot_ends_the_content_however_it_is_cut() {
        type Case = (bool, &'static [u8], &'static [u8], Option<&'static [u8]>);
        let cases: [Case; 14] = [
            (
                true,
                b"a\r\n..b\r\n.\r\nNOOP\r\n",
                b"a\r\n.b\r\n",
                Some(b"NOOP\r\n"),
            ),
            (true, b".\r\n", b"", Some(b"")),
            (true, b"..\r\n.\r\n", b".\r\n", Some(b"")),
            (true, b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n", Some(b"")),
            (true, b"a\n.\r\nb\r\n.\r\n", b"a\n.\r\nb\r\n", Some(b"")),
            (true, b"a\r\n.\nb\r\n.\r\n", b"a\r\n\nb\r\n", Some(b"")),
            (true, b"a\r\n.\rb\r\n.\r\n", b"a\r\n\rb\r\n", Some(b"")),
            (true, b"a\r\r\n.\r\n", b"a\r\r\n", Some(b"")),
            (true, b"no end\r\n.", b"no end\r\n", None),
            (true, b"no end\r\n.\r", b"no end\r\n\r", None),
            (false, b"a\n..b\n.\nrest", b"a\n.b\n", Some(b"rest")),
            (false, b"a\r\n.\r\n.\n", b"a\r\n\r\n", Some(b"")),
            (false, b".x\n\n.\n", b"x\n\n", Some(b"")),
            (false, b"no end", b"no end", None),
        ];
        for (crlf, wire, content, rest) in cases {
            let shown = String::from_utf8_lossy(wire).into_owned();
            for step in 1..=wire.len() {
                let (found, after) = undone(crlf, wire, step);
                assert_eq!(found, content, "{shown:?} by {step}");
                assert_eq!(after.as_deref(), rest, "{shown:?} by {step}");
            }
            let (found, after) = undone_carefully(crlf, wire);
            assert_eq!(found, content, "{shown:?}");
            assert_eq!(after.as_deref(), rest, "{shown:?}");
        }
    }

    /// As [`undone`], fed with only as many bytes as must still be content, so that none after the
    /// end are.
    fn undone_carefully(crlf: bool, wire: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut dots = Dots::new(crlf);
        let mut content = Vec::new();
        let mut at = 0;
        while at < wire.len() {
            let piece = &wire[at..(at + dots.left_min()).min(wire.len())];
            let (taken, ended) = dots.undo(piece, &mut content);
            assert_eq!(taken, piece.len(), "nothing behind the end");
            at += taken;
            if ended {
                return (content, Some(wire[at..].to_vec()));
            }
        }
        dots.finish(&mut content);
        (content, None)
    }
}
