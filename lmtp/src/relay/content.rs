//! The content of a message as it is sent, and what its trace fields say.
//!
//! Does no I/O. Each LF of the stored form becomes CRLF, a dot at the beginning of a line is
//! doubled (RFC 5321 section 4.5.2), and a lone CR becomes a blank, as in Postfix
//! (`cleanup_replace_stray_cr_lf`): servers that take it for a line end would see other lines
//! than we do, and with them another end of the message.

use mailstow_engine::Message;
use std::io;

/// `Received` fields by which a message is known to go round (`hopcount_limit`).
pub(super) const HOPS_MAX: usize = 50;

/// Bytes of one value that is copied from the header.
const DATE_BYTES_MAX: usize = 100;

/// Turns the stored form into the form that is sent, in pieces cut anywhere.
#[derive(Debug)]
pub(super) struct Encoder {
    at_line_start: bool,
}

impl Encoder {
    pub(super) const fn new() -> Self {
        Self {
            at_line_start: true,
        }
    }

    /// Appends `piece`.
    pub(super) fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() + piece.len() / 32 + 8);
        let mut rest = piece;
        while !rest.is_empty() {
            if self.at_line_start && rest.first() == Some(&b'.') {
                out.push(b'.');
            }
            let (line, after) = match memchr::memchr(b'\n', rest) {
                Some(at) => (rest.get(..at), rest.get(at + 1..)),
                None => (Some(rest), None),
            };
            let start = out.len();
            out.extend_from_slice(line.unwrap_or_default());
            if let Some(copied) = out.get_mut(start..)
                && memchr::memchr(b'\r', copied).is_some()
            {
                let strays = copied.iter_mut().filter(|byte| **byte == b'\r');
                strays.for_each(|byte| *byte = b' ');
            }
            self.at_line_start = after.is_some();
            if after.is_some() {
                out.extend_from_slice(b"\r\n");
            }
            rest = after.unwrap_or_default();
        }
    }

    /// Appends what ends the content.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        if !self.at_line_start {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

/// What the trace fields of a header say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TraceFields {
    /// `Received` fields.
    pub(super) hops: usize,
    /// The date of the last of them, which is the first in the header; else of the message.
    pub(super) date: Option<String>,
}

impl TraceFields {
    /// Reads the header of a message.
    ///
    /// # Errors
    /// The message cannot be read.
    pub(super) fn of(message: &Message) -> io::Result<Self> {
        let mut reader = HeaderReader::default();
        let read = message.for_each_chunk(|chunk| match reader.read(chunk) {
            true => Ok(()),
            false => Err(Stop(None)),
        });
        match read {
            Err(Stop(Some(error))) => return Err(error),
            Err(Stop(None)) | Ok(()) => reader.end_field(),
        }
        Ok(reader.trace)
    }

    /// Returns the trace field that we add (RFC 5321 section 4.4). It is the same each time that a
    /// message is sent, so that servers know a repetition: its date is that of the hop before.
    pub(super) fn trace(&self, host: &str, protocol: &str, queue_id: Option<&str>) -> String {
        let id = match queue_id {
            Some(id) => format!(" id {id}"),
            None => String::new(),
        };
        let date = match &self.date {
            Some(date) => format!(";\n\t{date}"),
            None => String::new(),
        };
        format!("Received: by {host} (mailstow) with {protocol}{id}{date}\n")
    }
}

/// Why a message is not read any further.
struct Stop(Option<io::Error>);

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self(Some(error))
    }
}

/// Reads the fields of a header, keeping no more than the beginning and the end of each.
#[derive(Debug, Default)]
struct HeaderReader {
    trace: TraceFields,
    has_received_date: bool,
    name: Vec<u8>,
    /// Behind the last semicolon, or the colon, of the field.
    tail: Vec<u8>,
    in_name: bool,
    line_bytes: usize,
}

/// Longest name of a field that is recognised.
const NAME_BYTES_MAX: usize = 8;

impl HeaderReader {
    /// Reads on; false when the header is over.
    fn read(&mut self, chunk: &[u8]) -> bool {
        for &byte in chunk {
            if self.line_bytes == 0 {
                let continues = matches!(byte, b' ' | b'\t');
                if !continues {
                    self.end_field();
                    self.in_name = true;
                }
                if byte == b'\n' {
                    return false;
                }
            }
            self.line_bytes += 1;
            match byte {
                b'\n' => self.line_bytes = 0,
                b':' if self.in_name => self.in_name = false,
                _ if self.in_name && self.name.len() <= NAME_BYTES_MAX => self.name.push(byte),
                _ if self.in_name => {}
                b';' => self.tail.clear(),
                b' ' | b'\t' if self.tail.is_empty() => {}
                _ if self.tail.len() <= DATE_BYTES_MAX => self.tail.push(byte),
                _ => {}
            }
        }
        true
    }

    fn end_field(&mut self) {
        let is = |wanted: &[u8]| self.name.trim_ascii_end().eq_ignore_ascii_case(wanted);
        let date = || {
            let text = self.tail.trim_ascii();
            let is_text = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
            let is_date = is_text && !text.is_empty() && text.len() <= DATE_BYTES_MAX;
            let text = || String::from_utf8_lossy(text).into_owned();
            is_date.then(text)
        };
        if is(b"received") {
            self.trace.hops += 1;
            if let Some(date) = date()
                && !self.has_received_date
            {
                self.has_received_date = true;
                self.trace.date = Some(date);
            }
        } else if is(b"date") && self.trace.date.is_none() {
            self.trace.date = date();
        }
        self.name.clear();
        self.tail.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(content: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        let mut encoder = Encoder::new();
        encoder.encode(content, &mut whole);
        encoder.finish(&mut whole);
        let mut dripped = Vec::new();
        let mut encoder = Encoder::new();
        for byte in content {
            encoder.encode(&[*byte], &mut dripped);
        }
        encoder.finish(&mut dripped);
        assert_eq!(whole, dripped, "however it is cut");
        whole
    }

    #[test]
    fn lines_end_with_crlf_and_dots_are_doubled() {
        for (content, wanted) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\n..\na.\n", b"..\r\n...\r\na.\r\n.\r\n"),
            (b"\n\n", b"\r\n\r\n.\r\n"),
            (b"\xff\0\n", b"\xff\0\r\n.\r\n"),
        ] {
            assert_eq!(sent(content), wanted, "{content:?}");
        }
    }

    #[test]
    fn nothing_in_a_message_can_end_it() {
        for content in [
            &b"a\n.\nb\n"[..],
            b"a\r\n.\r\nb\n",
            b"a\r.\rb\n",
            b"a\r.\nb\n",
            b".\r",
            b"\r.\r\n",
        ] {
            let sent = sent(content);
            let body = sent.strip_suffix(b".\r\n").unwrap();
            let ends = [&b"\r\n.\r\n"[..], b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r.\n"];
            for end in ends {
                let found = body.windows(end.len()).any(|window| window == end);
                assert!(!found, "{content:?}: {end:?}");
            }
            let lone = sent
                .iter()
                .zip(sent.iter().skip(1))
                .any(|pair| (pair.0 == &b'\r') != (pair.1 == &b'\n'));
            assert!(!lone, "{content:?}");
        }
    }

    fn trace_of(header: &[u8]) -> TraceFields {
        let mut reader = HeaderReader::default();
        for byte in header {
            if !reader.read(&[*byte]) {
                break;
            }
        }
        reader.end_field();
        reader.trace
    }

    #[test]
    fn hops_are_counted_in_the_header_alone() {
        let found =
            trace_of(b"received: from a;\n\t one \nDate: two\nRECEIVED : b; three\n\nReceived:\n");
        assert_eq!(found.hops, 2);
        assert_eq!(found.date.as_deref(), Some("one"));
        assert_eq!(trace_of(b"Date: two\n").date.as_deref(), Some("two"));
        assert_eq!(
            trace_of(b"Receivedx: a\nX: Received: b\n\n"),
            TraceFields::default()
        );
        assert_eq!(trace_of(&b"Received: x\n".repeat(60)).hops, 60);
    }

    #[test]
    fn the_trace_field_is_equal_each_time_a_message_is_sent() {
        let fields = trace_of(b"Received: from a; Sun, 29 Nov 2026 14:00:00 +0000\n\n");
        let wanted = "Received: by router.example (mailstow) with LMTP id 4F1;\n\
                      \tSun, 29 Nov 2026 14:00:00 +0000\n";
        assert_eq!(fields.trace("router.example", "LMTP", Some("4F1")), wanted);
        let plain = TraceFields::default().trace("r", "LMTP", None);
        assert_eq!(plain, "Received: by r (mailstow) with LMTP\n");
    }

    #[test]
    fn a_hostile_date_adds_no_field() {
        let found = trace_of(b"Received: a; x\r\n\tX-Evil: 1\n\n");
        assert_eq!(found.date, None);
        let long = [&b"Received: a; "[..], &[b'd'; 500], b"\n\n"].concat();
        assert_eq!(trace_of(&long).date, None);
    }
}
