//! The message as a command reads it: the lines that its flags prepend, and its content with their
//! changes.
//!
//! Source: Postfix pipe(8), flags. Only the start of a line is changed; an incomplete last line is
//! completed.

use super::super::loops::delivered_to;
use super::arguments::original;
use super::attributes::{Attributes, Flags};
use crate::address::{ReversePath, fold_case, quote_address};
use crate::clock;
use crate::envelope::Recipient;
use crate::mail::Mail;
use crate::octets;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::io;

/// Bytes of content in one piece.
const PIECE_BYTES: usize = 64 * 1024;

/// Passes the message to `take`, piece by piece. `recipient` is the first one.
///
/// # Errors
/// The message cannot be read, or `take` fails.
pub(super) fn render<E: From<io::Error>>(
    mail: &Mail,
    recipient: &Recipient,
    attributes: &Attributes,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (flags, eol) = (attributes.flags, attributes.eol.as_slice());
    let date = match flags.envelope_line {
        true => date(),
        false => String::new(),
    };
    let head = head(mail, recipient, attributes, &date);
    if !head.is_empty() {
        take(&head)?;
    }
    let is_plain = eol == b"\n" && !flags.stuff_dots && !flags.quote_from;
    if is_plain {
        mail.message.for_each_chunk(&mut take)?;
    } else {
        let mut lines = Lines::new(flags, eol);
        let mut out = Vec::with_capacity(PIECE_BYTES);
        mail.message.for_each_chunk(|chunk| {
            for piece in chunk.chunks(PIECE_BYTES) {
                out.clear();
                lines.push(piece, &mut out);
                take(&out)?;
            }
            Ok::<(), E>(())
        })?;
        out.clear();
        lines.finish(&mut out);
        if !out.is_empty() {
            take(&out)?;
        }
    }
    let is_incomplete = mail.message.size() > 0 && !mail.message.ends_with_newline();
    if is_incomplete {
        take(eol)?;
    }
    if flags.blank_line_at_end {
        take(eol)?;
    }
    Ok(())
}

/// Returns true when the header of a message says that it was delivered to the recipient before.
pub(super) fn is_loop(mail: &Mail, recipient: &Recipient) -> bool {
    let wanted = fold_case(&recipient.address.internal()).into_owned();
    delivered_to(&mail.message).contains(&wanted)
}

/// The lines before the content.
fn head(mail: &Mail, recipient: &Recipient, attributes: &Attributes, date: &str) -> Vec<u8> {
    let (flags, eol) = (attributes.flags, attributes.eol.as_slice());
    let mut out = Vec::new();
    let mut line = |parts: &[&str]| {
        for part in parts {
            out.extend_from_slice(&one_line(part));
        }
        out.extend_from_slice(eol);
    };
    let sender = match &mail.reverse_path {
        ReversePath::Null => attributes.null_sender.clone(),
        ReversePath::Address(address) => address.internal(),
    };
    let sender = match sender.as_str() {
        "" => String::new(),
        sender => quote_address(sender).into_owned(),
    };
    if flags.envelope_line {
        let shown = match sender.as_str() {
            "" => "MAILER-DAEMON",
            sender => sender,
        };
        line(&["From ", shown, "  ", date]);
    }
    if flags.return_path {
        line(&["Return-Path: <", &sender, ">"]);
    }
    let original = original(recipient);
    if flags.original_to && !original.is_empty() {
        line(&["X-Original-To: ", &quote_address(&original)]);
    }
    if flags.delivered_to {
        line(&["Delivered-To: ", &recipient.address.external()]);
    }
    out
}

/// The original recipient in internal form; empty when it is unknown.
pub(super) fn original_of(recipient: &Recipient) -> String {
    original(recipient)
}

/// The octets of a text, with `?` in place of line ends.
fn one_line(text: &str) -> Vec<u8> {
    let mut line = octets::octets(text).into_owned();
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r' | b'\0') {
            *byte = b'?';
        }
    }
    line
}

/// Returns the current time, as asctime(3) writes it.
fn date() -> String {
    let seconds = i64::try_from(clock::since_epoch().as_secs()).unwrap_or(0);
    let now = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = now.to_zoned(TimeZone::system());
    local.strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// Changes the start and the end of each line.
struct Lines<'a> {
    flags: Flags,
    eol: &'a [u8],
    /// The start of a line that may become `From `.
    held: Vec<u8>,
    at_start: bool,
}

const FROM: &[u8] = b"From ";

impl<'a> Lines<'a> {
    fn new(flags: Flags, eol: &'a [u8]) -> Self {
        Self {
            flags,
            eol,
            held: Vec::new(),
            at_start: true,
        }
    }

    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_end) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            if self.at_start {
                self.held.extend_from_slice(text);
                let may_begin = FROM.starts_with(&self.held) && self.held.len() < FROM.len();
                if may_begin && !is_end {
                    continue;
                }
                self.start(out);
                self.at_start = false;
            } else {
                out.extend_from_slice(text);
            }
            if is_end {
                out.extend_from_slice(self.eol);
                self.at_start = true;
            }
        }
    }

    /// Writes the start of a line.
    fn start(&mut self, out: &mut Vec<u8>) {
        if self.flags.quote_from && self.held.starts_with(FROM) {
            out.push(b'>');
        }
        if self.flags.stuff_dots && self.held.starts_with(b".") {
            out.push(b'.');
        }
        out.append(&mut self.held);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.at_start {
            self.start(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mail, recipient};
    use super::*;

    fn attributes(words: &str) -> Attributes {
        let words = format!("user=v {words} argv=x");
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Attributes::parse(&words).unwrap()
    }

    fn rendered(content: &str, words: &str) -> String {
        let mut out = Vec::new();
        let (mail, to) = (mail("s@ex.example", content), recipient("Info@vm.example"));
        render(&mail, &to, &attributes(words), |piece| {
            out.extend_from_slice(piece);
            Ok::<(), io::Error>(())
        })
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn flags_add_lines_in_the_order_of_postfix() {
        let head = head(
            &mail("s@ex.example", "x\n"),
            &recipient("Info@vm.example"),
            &attributes("flags=DFOR"),
            "Sun Nov 22 06:51:19 2026",
        );
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "From s@ex.example  Sun Nov 22 06:51:19 2026\nReturn-Path: <s@ex.example>\n\
             X-Original-To: o@ex.example\nDelivered-To: Info@vm.example\n"
        );
        let returned = rendered("A: b\n\n", "flags=R");
        assert_eq!(returned, "Return-Path: <s@ex.example>\nA: b\n\n");
    }

    #[test]
    fn lines_are_changed_at_their_starts_and_ends_only() {
        let content = "A: b\n\nFrom a\nx From b\n.\n..c\nFro\n";
        assert_eq!(rendered(content, ""), content);
        assert_eq!(
            rendered(content, "flags=.>B eol=\\r\\n"),
            "A: b\r\n\r\n>From a\r\nx From b\r\n..\r\n...c\r\nFro\r\n\r\n"
        );
        assert_eq!(rendered("A: b\n\n", "flags=B"), "A: b\n\n\n");
    }

    #[test]
    fn pieces_of_any_size_give_the_same_lines() {
        let content = b"From a\n.b\nFrom\nFrom x\n\n. From \nF";
        let flags = attributes("flags=.>").flags;
        let render = |size: usize| {
            let (mut lines, mut out) = (Lines::new(flags, b"\r\n"), Vec::new());
            for piece in content.chunks(size) {
                lines.push(piece, &mut out);
            }
            lines.finish(&mut out);
            out
        };
        let whole = render(content.len());
        for size in 1..content.len() {
            assert_eq!(render(size), whole, "{size}");
        }
    }

    #[test]
    fn a_message_that_was_delivered_before_is_a_loop() {
        let to = recipient("Info@vm.example");
        let loops = |content: &str| is_loop(&mail("s@ex.example", content), &to);
        assert!(loops("Subject: x\nDELIVERED-TO: info@VM.example\n\nx\n"));
        assert!(!loops("Delivered-To: other@vm.example\n\nx\n"));
        assert!(!loops("Subject: x\n\nDelivered-To: info@vm.example\n"));
    }
}
