//! Replies of a server, taken out of the bytes that it sends.
//!
//! Does no I/O. The server may be broken or hostile: every length is bounded, and a text becomes
//! one line without control characters. Source: RFC 5321 section 4.2, RFC 2034.

use mailstow_engine::{EnhancedCode, octets};
use std::fmt::Write as _;

/// Bytes of one line of a reply; RFC 5321 allows 512.
const LINE_BYTES_MAX: usize = 4096;
/// Lines of one reply.
const LINES_MAX: usize = 256;
/// Bytes of the text of a reply that are kept for people.
const TEXT_BYTES_MAX: usize = 400;

/// A server does not speak the protocol. Displays what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Garbage {
    #[error("a reply line of more than {LINE_BYTES_MAX} bytes")]
    LongLine,
    #[error("a reply of more than {LINES_MAX} lines")]
    ManyLines,
    #[error("a line that is no reply")]
    NoReply,
    #[error("a reply to nothing")]
    Unasked,
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Reply code, from 200 to 599.
    pub(super) code: u16,
    /// What follows the code on each line, in octets' text form.
    pub(super) lines: Vec<String>,
}

impl Reply {
    /// True for 2xx.
    pub(super) fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    /// True for 4xx and 5xx.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.code / 100, 4 | 5)
    }

    /// Returns the enhanced status code, if it is of the class of the reply code.
    pub(super) fn enhanced(&self) -> Option<EnhancedCode> {
        let (code, _) = EnhancedCode::split(self.lines.first()?)?;
        (u16::from(code.class) == self.code / 100).then_some(code)
    }

    /// Returns the text of all lines as one, without enhanced codes and of bounded length.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let line = EnhancedCode::split(line).map_or(line.as_str(), |(_, rest)| rest);
            if !text.is_empty() && !line.is_empty() {
                text.push(' ');
            }
            text.extend(line.chars().map(|c| match c {
                c if c.is_control() || octets::is_octet(c) => '?',
                c => c,
            }));
            if text.len() > TEXT_BYTES_MAX {
                text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
                let _ = text.write_str("...");
                break;
            }
        }
        text
    }
}

/// Takes the bytes of a server apart.
#[derive(Debug, Default)]
pub(super) struct Replies {
    unused: Vec<u8>,
    /// Bytes of `unused` that were used up.
    used: usize,
    /// The lines so far of a reply that has more.
    begun: Option<Reply>,
}

impl Replies {
    /// Takes what the server sent.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // What is left is less than a line, unless replies wait to be taken.
        self.unused.drain(..self.used);
        self.used = 0;
        self.unused.extend_from_slice(bytes);
    }

    /// True when everything that came was used.
    pub(super) fn is_empty(&self) -> bool {
        self.used == self.unused.len() && self.begun.is_none()
    }

    /// Returns the next whole reply; `None` when more has to come.
    ///
    /// # Errors
    /// This is not the protocol; nothing that follows can be understood.
    pub(super) fn next(&mut self) -> Result<Option<Reply>, Garbage> {
        loop {
            let rest = self.unused.get(self.used..).unwrap_or_default();
            let Some(end) = memchr::memchr(b'\n', rest) else {
                return match rest.len() > LINE_BYTES_MAX {
                    true => Err(Garbage::LongLine),
                    false => Ok(None),
                };
            };
            if end > LINE_BYTES_MAX {
                return Err(Garbage::LongLine);
            }
            let line = rest.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let (code, is_last, text) = split_line(line).ok_or(Garbage::NoReply)?;
            let text = octets::text(text).into_owned();
            self.used += end + 1;
            let reply = self.begun.get_or_insert_with(|| Reply {
                code,
                lines: Vec::new(),
            });
            if reply.code != code {
                return Err(Garbage::NoReply);
            }
            reply.lines.push(text);
            if reply.lines.len() > LINES_MAX {
                return Err(Garbage::ManyLines);
            }
            if is_last {
                return Ok(self.begun.take());
            }
        }
    }
}

/// Splits a line into its code, whether it is the last one of its reply, and its text.
fn split_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |sum: u16, digit: &u8| sum * 10 + u16::from(digit - b'0');
    let code = digits.iter().fold(0, number);
    let (is_last, text) = match rest.split_first() {
        None => (true, rest),
        Some((b' ', text)) => (true, text),
        Some((b'-', text)) => (false, text),
        Some(_) => return None,
    };
    (200..600).contains(&code).then_some((code, is_last, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Reply>, Garbage> {
        let mut replies = Replies::default();
        replies.push(bytes);
        let mut found = Vec::new();
        while let Some(reply) = replies.next()? {
            found.push(reply);
        }
        Ok(found)
    }

    #[test]
    fn replies_come_out_however_their_bytes_are_cut() {
        let bytes = b"250-a.example\r\n250-SIZE 10\r\n250 DSN\r\n354\r\n550 5.1.1 no\n";
        let whole = all(bytes).unwrap();
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].lines, ["a.example", "SIZE 10", "DSN"]);
        assert_eq!(whole[2].enhanced(), Some(EnhancedCode::new(5, 1, 1)));
        assert_eq!(whole[2].text(), "no");
        let (mut replies, mut dripped) = (Replies::default(), Vec::new());
        for byte in bytes {
            replies.push(&[*byte]);
            dripped.extend(replies.next().unwrap());
        }
        assert_eq!(dripped, whole);
        assert!(replies.is_empty());
    }

    #[test]
    fn what_was_used_is_forgotten_however_it_is_cut() {
        let mut replies = Replies::default();
        replies.push(b"25");
        for _ in 0..10_000 {
            replies.push(b"0 ok\r\n25");
            assert!(replies.next().unwrap().is_some());
            assert_eq!(replies.next(), Ok(None));
        }
        assert!(replies.unused.len() < 100, "{}", replies.unused.len());
    }

    #[test]
    fn what_is_no_reply_is_known_at_once() {
        for bytes in [
            &b"hello\r\n"[..],
            b"25\r\n",
            b"250x\r\n",
            b"199 a\r\n",
            b"600 a\r\n",
            b"\r\n",
            b"250-a\r\n251 b\r\n",
        ] {
            assert_eq!(all(bytes), Err(Garbage::NoReply), "{bytes:?}");
        }
        assert_eq!(all(&[b'2'; 5000]), Err(Garbage::LongLine));
        assert_eq!(all(&b"250-a\r\n".repeat(300)), Err(Garbage::ManyLines));
    }

    #[test]
    fn a_text_is_one_line_of_bounded_length() {
        let reply = all(b"451-4.2.1 a\x07\xff\r\n451 4.2.1 b\r\n").unwrap();
        assert_eq!(reply[0].text(), "a?? b");
        let long = format!("250 {}\r\n", "\u{fc}".repeat(1000));
        assert!(all(long.as_bytes()).unwrap()[0].text().len() < 410);
    }

    #[test]
    fn an_enhanced_code_counts_only_in_the_class_of_its_reply() {
        for (line, wanted) in [
            ("550 5.1.1 x", true),
            ("550 5.1.1", true),
            ("550 4.1.1 x", false),
            ("550 5.1 x", false),
            ("550 5.1.1.1 x", false),
            ("550 5.9999.1 x", false),
            ("550 +5.1.1 x", false),
        ] {
            let reply = all(format!("{line}\r\n").as_bytes()).unwrap();
            assert_eq!(reply[0].enhanced().is_some(), wanted, "{line}");
        }
    }
}
