//! Mail to send: samples that are awkward each in its own way, and big ones.

use std::fmt::Write as _;

/// A mail that exercises one difficulty.
pub struct Sample {
    /// What is difficult about it, as a word for file names and subjects.
    pub name: &'static str,
    /// Envelope sender; empty for the null reverse-path.
    pub sender: &'static str,
    /// Envelope recipient.
    pub recipient: &'static str,
    /// Header and body, LF line ends.
    pub content: Vec<u8>,
}

/// A plain mail of a few lines with the given subject.
pub fn plain(subject: &str) -> Vec<u8> {
    format!(
        "From: sender@client.example\nTo: recipient@example.com\nSubject: {subject}\n\
         Message-ID: <{subject}@client.example>\nDate: Sun, 22 Nov 2026 08:00:00 +0000\n\n\
         Text of {subject}.\n"
    )
    .replace("Subject: \n", "Subject: none\n")
    .into_bytes()
}

/// A mail of about `bytes` bytes whose lines say where they stand, so that a torn or shuffled
/// copy differs from it.
pub fn sized(subject: &str, bytes: usize) -> Vec<u8> {
    let mut text = String::from_utf8(plain(subject)).expect("ASCII");
    let mut line = 0_usize;
    while text.len() < bytes {
        let _ = writeln!(
            text,
            "{line:012} {subject} abcdefghijklmnopqrstuvwxyz0123456789"
        );
        line += 1;
    }
    text.into_bytes()
}

/// What MAIL FROM must declare for this mail to go through Postfix.
pub fn mail_parameters(sender: &str, content: &[u8]) -> &'static str {
    let header_end = content.windows(2).position(|w| w == b"\n\n");
    let header = &content[..header_end.unwrap_or(content.len())];
    if !sender.is_ascii() || (!header.is_ascii() && std::str::from_utf8(header).is_ok()) {
        " SMTPUTF8 BODY=8BITMIME"
    } else if content.is_ascii() {
        ""
    } else {
        " BODY=8BITMIME"
    }
}

/// The awkward ones. Recipients are `info` and `sales` at example.com, extensions with `+`.
pub fn samples() -> Vec<Sample> {
    const HEADER: &str = "From: a@client.example\nTo: b@example.com\n\
                          Date: Sun, 22 Nov 2026 08:00:00 +0000\nMessage-ID: <x@client.example>\n";
    let sample = |name, sender, recipient, rest: &[u8]| {
        let mut content = format!("{HEADER}Subject: {name}\n").into_bytes();
        content.extend_from_slice(rest);
        Sample {
            name,
            sender,
            recipient,
            content,
        }
    };
    let long = [b"\n", "x".repeat(5000).as_bytes(), b"\nend\n"].concat();
    let from_lines =
        b"\nFrom the start\n>From quoted\n From blank\nfrom small\nFrom: colon\nFrom\n";
    vec![
        sample(
            "plain",
            "s@client.example",
            "sales@example.com",
            b"\nText.\n",
        ),
        sample(
            "8-bit",
            "s@client.example",
            "sales@example.com",
            b"\nGr\xfc\xdfe \xe9\xff\n",
        ),
        sample(
            "from-lines",
            "s@client.example",
            "info@example.com",
            from_lines,
        ),
        sample(
            "no-final-newline",
            "s@client.example",
            "info@example.com",
            b"\nlast line",
        ),
        sample(
            "dots",
            "s@client.example",
            "sales@example.com",
            b"\n.\n..\n...\n.x\n",
        ),
        sample("empty-body", "s@client.example", "info@example.com", b"\n"),
        sample("header-only", "s@client.example", "sales@example.com", b""),
        sample("long-line", "s@client.example", "sales@example.com", &long),
        sample("null-sender", "", "info@example.com", b"\nA bounce.\n"),
        sample(
            "quoted-sender",
            "\"a b\"@client.example",
            "info@example.com",
            b"\nText.\n",
        ),
        sample(
            "quoted",
            "s@client.example",
            "\"quoted part\"@example.com",
            b"\nText.\n",
        ),
        sample(
            "extension",
            "s@client.example",
            "info+Ext@example.com",
            b"\nText.\n",
        ),
        sample(
            "upper-case",
            "S@Client.Example",
            "SALES@EXAMPLE.COM",
            b"\nText.\n",
        ),
        sample(
            "catch-all",
            "s@client.example",
            "Any.Body@example.com",
            b"\nText.\n",
        ),
        sample(
            "blank-lines",
            "s@client.example",
            "info@example.com",
            b"\n\n\n\nText.\n\n\n",
        ),
        sample(
            "brought-headers",
            "s@client.example",
            "sales@example.com",
            b"Return-Path: <forged@client.example>\nDelivered-To: other@example.com\n\nText.\n",
        ),
        sample(
            "smtputf8",
            "j\u{f6}rg@client.example",
            "sales@example.com",
            "X-Name: J\u{f6}rg \u{4e2d}\u{6587}\n\nGr\u{fc}\u{df}e\n".as_bytes(),
        ),
    ]
}
