//! Line ends: the one rule by which every entrance turns what it receives into the stored form.
//!
//! CR LF becomes LF; every other byte stays, also a lone CR, a lone LF and NUL. Works in place on
//! pieces cut anywhere: the result is that of the whole stream. The rule and its reasons are in
//! [`crate::manual::content`].

/// What was seen of the lines, for policies about content.
///
/// ```
/// use mailstow_engine::{LineEnds, Lines};
///
/// let mut line_ends = LineEnds::default();
/// line_ends.convert(&mut *b"one\r\ntwo\n".clone().as_mut_slice());
/// let lines: Lines = line_ends.lines();
/// assert_eq!((lines.bare_newline, lines.longest), (true, 5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// An LF without CR before it.
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

    fn end(&mut self, is_crlf: bool) {
        match is_crlf {
            true => self.current = 0,
            false => self.bare_newline = true,
        }
    }
}

/// Converts the line ends of one message that arrives in pieces.
///
/// ```
/// use mailstow_engine::LineEnds;
///
/// let mut line_ends = LineEnds::default();
/// let mut piece = *b"one\r\ntwo\r";
/// let converted = line_ends.convert(&mut piece);
/// assert_eq!(&piece[..converted.produced], b"one\ntwo");
/// // The CR at the end waits for what follows it.
/// let mut next = *b"\n";
/// let converted = line_ends.convert(&mut next);
/// assert_eq!((converted.cr_first, &next[..converted.produced]), (false, &b"\n"[..]));
/// assert!(!line_ends.finish());
/// ```
#[derive(Clone, Debug, Default)]
pub struct LineEnds {
    /// The bytes so far ended with a CR that was not handed out yet.
    holds_cr: bool,
    lines: Lines,
}

/// What one call gave.
///
/// ```
/// use mailstow_engine::{Converted, LineEnds};
///
/// let mut piece = *b"a\r\nb";
/// let converted = LineEnds::default().convert(&mut piece);
/// assert_eq!(converted, Converted { cr_first: false, produced: 3 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// A CR from before this piece comes first: no LF followed it.
    pub cr_first: bool,
    /// Bytes of content at the front of the piece. The whole piece was consumed.
    pub produced: usize,
}

impl LineEnds {
    /// Converts a piece in place.
    pub fn convert(&mut self, piece: &mut [u8]) -> Converted {
        let Some(first) = piece.first() else {
            return Converted {
                cr_first: false,
                produced: 0,
            };
        };
        let mut after_cr = std::mem::take(&mut self.holds_cr);
        let cr_first = after_cr && *first != b'\n';
        after_cr &= !cr_first;
        let (mut read, mut written) = (0, 0);
        while let Some(rest) = piece.get(read..) {
            let Some(length) = memchr::memchr(b'\n', rest) else {
                self.holds_cr = rest.last() == Some(&b'\r');
                let kept = rest.len() - usize::from(self.holds_cr);
                self.lines.grow(rest.len());
                move_bytes(piece, read, kept, written);
                written += kept;
                break;
            };
            let has_cr = length > 0 && rest.get(length - 1) == Some(&b'\r');
            self.lines.grow(length + 1);
            self.lines.end(has_cr || after_cr);
            after_cr = false;
            let text = length - usize::from(has_cr);
            move_bytes(piece, read, text, written);
            if let Some(end) = piece.get_mut(written + text) {
                *end = b'\n';
            }
            written += text + 1;
            read += length + 1;
        }
        Converted {
            cr_first,
            produced: written,
        }
    }

    /// Ends the message. True when a CR is still to be written.
    pub fn finish(&mut self) -> bool {
        std::mem::take(&mut self.holds_cr)
    }

    /// Returns what was seen so far.
    pub fn lines(&self) -> Lines {
        self.lines
    }
}

/// Counts the LF in `piece` that have no CR before them; `before` is the byte before the piece.
pub(crate) fn bare_newlines(before: Option<u8>, piece: &[u8]) -> u64 {
    let all = memchr::memchr_iter(b'\n', piece).count();
    let has_cr_before = before == Some(b'\r') && piece.first() == Some(&b'\n');
    let crlf = match memchr::memchr(b'\r', piece) {
        None => 0,
        Some(_) => memchr::memmem::find_iter(piece, b"\r\n").count(),
    };
    (all - crlf - usize::from(has_cr_before)) as u64
}

fn move_bytes(piece: &mut [u8], from: usize, length: usize, to: usize) {
    if from != to {
        piece.copy_within(from..from + length, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn convert(wire: &[u8], splits: &[usize]) -> (Vec<u8>, Lines) {
        let mut line_ends = LineEnds::default();
        let mut content = Vec::new();
        let mut ends: Vec<usize> = splits.iter().map(|s| s % (wire.len() + 1)).collect();
        ends.push(wire.len());
        ends.sort_unstable();
        let mut start = 0;
        for end in ends {
            let mut piece = wire[start..end].to_vec();
            start = end;
            let converted = line_ends.convert(&mut piece);
            if converted.cr_first {
                content.push(b'\r');
            }
            content.extend_from_slice(&piece[..converted.produced]);
        }
        if line_ends.finish() {
            content.push(b'\r');
        }
        (content, line_ends.lines())
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

    proptest! {
        #[test]
        fn bare_newlines_are_counted_across_pieces(
            content in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'x')], 0..40),
            cut in 0usize..40,
        ) {
            let expected = (0..content.len())
                .filter(|at| content[*at] == b'\n' && (*at == 0 || content[at - 1] != b'\r'))
                .count() as u64;
            let (one, two) = content.split_at(cut.min(content.len()));
            let counted = bare_newlines(None, one) + bare_newlines(one.last().copied(), two);
            prop_assert_eq!(counted, expected);
        }
    }
}
