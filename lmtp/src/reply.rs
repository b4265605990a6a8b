//! Replies as the wire wants them (RFC 5321 section 4.2, RFC 2034 for the enhanced codes).
//!
//! Invariant: what is written is one line of at most [`REPLY_LINE_BYTES_MAX`] bytes without control
//! characters, whatever the text holds, so that no address or error text can forge a second reply.

use mailstow_engine::{Status, octets};
use std::borrow::Cow;

/// Longest reply line in bytes, CRLF included (RFC 5321 section 4.5.3.1.5).
pub const REPLY_LINE_BYTES_MAX: usize = 512;

/// A reply of the protocol itself; the outcome of a delivery is a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Reply code.
    pub code: u16,
    /// Enhanced status code; empty for the classes that have none (220 greeting, 354).
    pub enhanced: &'static str,
    /// Text.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with a fixed text.
    pub const fn new(code: u16, enhanced: &'static str, text: &'static str) -> Self {
        Self {
            code,
            enhanced,
            text: Cow::Borrowed(text),
        }
    }

    /// A reply with a made text.
    pub fn with_text(code: u16, enhanced: &'static str, text: String) -> Self {
        Self {
            code,
            enhanced,
            text: Cow::Owned(text),
        }
    }

    /// Appends the reply line to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        push_number(out, self.code);
        if !self.enhanced.is_empty() {
            out.push(b' ');
            out.extend_from_slice(self.enhanced.as_bytes());
        }
        out.push(b' ');
        push_text(out, &self.text, true);
        end_line(out, start);
    }
}

/// Appends `status` as one reply line, with `words` between code and text. Without `utf8`
/// (RFC 6531 section 3.7.4.2: only a client that asked for SMTPUTF8 may be sent it) other than
/// ASCII characters become `?`.
pub fn write_status(out: &mut Vec<u8>, status: &Status, words: &[&str], utf8: bool) {
    let start = out.len();
    push_number(out, status.code);
    out.push(b' ');
    push_number(out, u16::from(status.enhanced.class));
    out.push(b'.');
    push_number(out, status.enhanced.subject);
    out.push(b'.');
    push_number(out, status.enhanced.detail);
    for word in words {
        out.push(b' ');
        push_text(out, word, utf8);
    }
    out.push(b' ');
    push_text(out, &status.text, utf8);
    end_line(out, start);
}

fn push_number(out: &mut Vec<u8>, number: u16) {
    let mut digits = [0; 5];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    let leading_zeros = digits.iter().take(4).take_while(|d| **d == b'0').count();
    out.extend(digits.iter().skip(leading_zeros));
}

fn push_text(out: &mut Vec<u8>, text: &str, utf8: bool) {
    let plain = |b: u8| (b' '..0x7f).contains(&b);
    if text.bytes().all(plain) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let mut encoded = [0; 4];
    for c in text.chars() {
        let shown = if c.is_control() || (!utf8 && !c.is_ascii()) || octets::is_octet(c) {
            '?'
        } else {
            c
        };
        out.extend_from_slice(shown.encode_utf8(&mut encoded).as_bytes());
    }
}

/// Ends the line that began at `start`, shortening it to the legal length at a character border.
fn end_line(out: &mut Vec<u8>, start: usize) {
    let mut end = start + REPLY_LINE_BYTES_MAX - 2;
    if out.len() > end {
        while end > start && out.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
            end -= 1;
        }
        out.truncate(end);
    }
    out.extend_from_slice(b"\r\n");
}

/// `220 host LMTP mailstow ready`
pub fn greeting(out: &mut Vec<u8>, host: &str) {
    Reply::with_text(220, "", format!("{host} LMTP mailstow ready")).write(out);
}

/// Appends the answer to LHLO: every extension, in the multi-line form of RFC 5321 section
/// 4.1.1.1. DSN is offered where notices can be sent.
pub fn capabilities(out: &mut Vec<u8>, host: &str, size_max: u64, dsn: bool) {
    const LAST: &str = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE";
    let size = format!("SIZE {size_max}");
    let lines = [
        host,
        "PIPELINING",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        &size,
        "CHUNKING",
        "BINARYMIME",
        if dsn { "DSN" } else { "" },
        LAST,
    ];
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        let start = out.len();
        out.extend_from_slice(if line == LAST { b"250 " } else { b"250-" });
        push_text(out, line, false);
        end_line(out, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_reply_is_code_enhanced_code_and_text() {
        assert_eq!(line(&Reply::new(354, "", "OK")), "354 OK\r\n");
        let unknown = Reply::new(500, "5.5.1", "Unknown command");
        assert_eq!(line(&unknown), "500 5.5.1 Unknown command\r\n");
        let mut out = Vec::new();
        let status = Status::ok("delivered to maildir");
        write_status(&mut out, &status, &["<a@b>", "ID"], false);
        assert_eq!(out, b"250 2.0.0 <a@b> ID delivered to maildir\r\n");
    }

    #[test]
    fn no_text_breaks_the_line_or_exceeds_its_length() {
        let forged = Reply::with_text(451, "4.3.0", "a\r\n250 2.0.0 b\0".into());
        assert_eq!(line(&forged), "451 4.3.0 a??250 2.0.0 b?\r\n");
        let long = line(&Reply::with_text(451, "4.3.0", "ü".repeat(400)));
        assert!(long.len() <= REPLY_LINE_BYTES_MAX && long.ends_with("ü\r\n"));
    }

    #[test]
    fn a_client_without_smtputf8_is_sent_ascii() {
        let status = Status::unknown_user("ü is unknown");
        let mut out = Vec::new();
        write_status(&mut out, &status, &["<ü@b>"], false);
        assert_eq!(out, b"550 5.1.1 <?@b> ? is unknown\r\n");
    }

    #[test]
    fn the_last_capability_ends_the_answer() {
        let mut out = Vec::new();
        capabilities(&mut out, "mx.example", 1000, true);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.split_terminator("\r\n").collect();
        assert!(lines.iter().rev().skip(1).all(|l| l.starts_with("250-")));
        assert_eq!(
            lines.last(),
            Some(&"250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")
        );
        assert!(lines.contains(&"250-SIZE 1000") && lines.contains(&"250-DSN"));
        let mut out = Vec::new();
        capabilities(&mut out, "mx.example", 1000, false);
        assert!(!String::from_utf8(out).unwrap().contains("DSN"));
    }
}
