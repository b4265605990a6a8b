//! Contents after `DATA` and `BDAT`: a decoder and a model of it that sees everything at once.

use crate::decode::DataDecoder;
use mailstow_engine::{LineEnds, Lines};

/// Decodes the content of a message, once as it follows `DATA` and once as chunks, in pieces as
/// the first bytes of the input say.
///
/// # Panics
/// Pieces give another content than the whole; the content, its size or what was seen of its lines
/// differs from the model's; or the content is another one when it is stuffed and decoded again.
pub fn check_content(bytes: &[u8]) {
    let (cuts, wire) = bytes.split_at(bytes.len().min(4));
    let ends = |mut at: usize| {
        let mut ends: Vec<usize> = Vec::new();
        for cut in cuts.iter().cycle() {
            at += usize::from(*cut) + 1;
            if at >= wire.len() {
                break;
            }
            ends.push(at);
        }
        ends.push(wire.len());
        ends
    };
    let end = data_end(wire);
    let message = &wire[..end.unwrap_or(wire.len())];
    let (expected, rest) = (unstuffed(message), end.map(|end| &wire[end..]));
    for ends in [ends(0), vec![wire.len()]] {
        let decoded = Decoded::new(wire, &ends);
        assert_eq!(decoded.left.as_deref(), rest, "what follows the message");
        if rest.is_none() {
            assert!(expected.starts_with(&decoded.content));
            // What is held back: a dot and a CR at the start of a line, or a CR at its end.
            let held = expected.len() - decoded.content.len();
            assert!(held <= 2, "{held} bytes are held back");
            continue;
        }
        assert_eq!(
            decoded.content.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
        decoded.check_lines(&undotted(message));
        decoded.check_again(&ends);
    }
    let chunked = joined_lines(wire);
    for ends in [ends(0), vec![wire.len()]] {
        let mut line_ends = LineEnds::default();
        let (mut content, mut start) = (Vec::new(), 0);
        for end in ends {
            let mut piece = wire[start..end].to_vec();
            start = end;
            let converted = line_ends.convert(&mut piece);
            content.extend(converted.cr_first.then_some(b'\r'));
            content.extend_from_slice(&piece[..converted.produced]);
        }
        content.extend(line_ends.finish().then_some(b'\r'));
        assert_eq!(
            content.escape_ascii().to_string(),
            chunked.escape_ascii().to_string()
        );
    }
}

/// What the decoder made of a message.
struct Decoded {
    content: Vec<u8>,
    lines: Lines,
    /// What follows the end of the message; `None` when it did not end.
    left: Option<Vec<u8>>,
}

impl Decoded {
    /// Feeds the decoder pieces that end at `ends`.
    ///
    /// # Panics
    /// It makes more of a piece than the piece has, or holds back more than it may.
    fn new(wire: &[u8], ends: &[usize]) -> Self {
        let mut decoder = DataDecoder::default();
        let (mut content, mut pending, mut start) = (Vec::new(), Vec::new(), 0);
        for end in ends {
            pending.extend_from_slice(&wire[start..*end]);
            start = *end;
            let step = decoder.decode(&mut pending);
            assert!(step.produced <= step.consumed && step.consumed <= pending.len());
            content.extend(step.cr_first.then_some(b'\r'));
            content.extend_from_slice(&pending[..step.produced]);
            pending.drain(..step.consumed);
            if step.finished {
                pending.extend_from_slice(&wire[start..]);
                return Self {
                    content,
                    lines: decoder.lines(),
                    left: Some(pending),
                };
            }
            assert!(pending.len() <= 2, "{} bytes wait", pending.len());
        }
        Self {
            content,
            lines: decoder.lines(),
            left: None,
        }
    }

    /// Compares size and lines with those of the content before its line ends were converted.
    fn check_lines(&self, wire: &[u8]) {
        let line_ends = wire.windows(2).filter(|two| two == b"\r\n").count();
        assert_eq!(self.content.len(), wire.len() - line_ends, "the size");
        let is_bare = |at: usize| at == 0 || wire[at - 1] != b'\r';
        let bare = memchr::memchr_iter(b'\n', wire).any(is_bare);
        assert_eq!(self.lines.bare_newline, bare, "an LF without CR");
        let lines = memchr::memmem::find_iter(wire, b"\r\n").map(|at| at + 2);
        let ends: Vec<usize> = lines.chain([wire.len()]).collect();
        let starts = [0].into_iter().chain(ends.iter().copied());
        let longest = starts.zip(&ends).map(|(start, end)| end - start).max();
        assert_eq!(Some(self.lines.longest), longest, "the longest line");
    }

    /// Stuffs the content as a client does, and decodes that in pieces.
    fn check_again(&self, ends: &[usize]) {
        let wire = stuffed(&self.content);
        let whole = wire.len();
        let ends = ends.iter().copied().filter(|end| *end < whole);
        let again = Self::new(&wire, &ends.chain([whole]).collect::<Vec<_>>());
        assert_eq!(
            again.left.as_deref(),
            Some(&b""[..]),
            "stuffed content ends early"
        );
        assert_eq!(
            again.content.escape_ascii().to_string(),
            self.content.escape_ascii().to_string(),
            "stuffed and decoded again"
        );
        assert!(!again.lines.bare_newline, "every line ends with CRLF");
    }
}

/// The content as it follows `DATA`: each LF becomes CRLF, a dot at the start of a line is doubled.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        wire.extend(line.starts_with(b".").then_some(b'.'));
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        wire.extend_from_slice(text);
        // Content after `DATA` always ends with a line end.
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// Where the content after `DATA` ends: behind the first line that is a dot alone.
pub(super) fn data_end(wire: &[u8]) -> Option<usize> {
    if wire.starts_with(b".\r\n") {
        return Some(3);
    }
    let end = wire.windows(5).position(|five| five == b"\r\n.\r\n")?;
    Some(end + 5)
}

/// The content without its final line, stuffed dots and the CR of each line end.
pub(super) fn unstuffed(wire: &[u8]) -> Vec<u8> {
    joined_lines(&undotted(wire))
}

/// The content without its final line and stuffed dots.
fn undotted(wire: &[u8]) -> Vec<u8> {
    let wire = match wire {
        b".\r\n" => b"",
        _ => match wire.strip_suffix(b"\r\n.\r\n") {
            Some(_) => &wire[..wire.len() - 3],
            None => wire,
        },
    };
    let mut content = Vec::new();
    let mut at_line_start = true;
    for (at, byte) in wire.iter().enumerate() {
        if at_line_start && *byte == b'.' {
            at_line_start = false;
            continue;
        }
        at_line_start = *byte == b'\n' && at > 0 && wire[at - 1] == b'\r';
        content.push(*byte);
    }
    content
}

/// CRLF becomes LF; a lone CR or LF stays.
pub(super) fn joined_lines(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'\r' || bytes.get(at + 1) != Some(&b'\n') {
            out.push(*byte);
        }
    }
    out
}
