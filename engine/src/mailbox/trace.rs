//! The trace lines each delivery puts on top of a message.
//!
//! Imports `address`, `envelope`, `clock`, `octets`. Order and form are those of Postfix
//! virtual(8): `From ` (mbox only), `Return-Path`, `X-Original-To`, `Delivered-To`. Addresses
//! stand here with the octets they came with. Invariant: no address ends its line.

use crate::address::ReversePath;
use crate::clock;
use crate::envelope::Recipient;
use crate::octets;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::time::Duration;

/// What the lines say, in external form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace<'a> {
    /// Empty for the null reverse-path.
    pub reverse_path: &'a str,
    /// The original recipient; empty when unknown.
    pub original: &'a str,
    /// The forward-path.
    pub address: &'a str,
}

impl Trace<'_> {
    /// `Return-Path`, `X-Original-To` (left out when unknown) and `Delivered-To`, each ending in
    /// LF.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut lines = Vec::with_capacity(160);
        self.push_header(&mut lines);
        lines
    }

    /// The same behind the line that begins a message in an mbox, `From sender  date` with the
    /// date as asctime(3) writes it, in local time; `time` is since the UNIX epoch.
    pub(crate) fn mbox_header(&self, time: Duration) -> Vec<u8> {
        self.mbox_header_at(&local_time(time))
    }

    fn mbox_header_at(&self, date: &str) -> Vec<u8> {
        let mut lines = Vec::with_capacity(224);
        let sender = match self.reverse_path {
            "" => "MAILER-DAEMON",
            address => address,
        };
        lines.extend_from_slice(b"From ");
        lines.extend_from_slice(&one_line(sender));
        lines.extend_from_slice(b"  ");
        lines.extend_from_slice(date.as_bytes());
        lines.push(b'\n');
        self.push_header(&mut lines);
        lines
    }

    fn push_header(&self, lines: &mut Vec<u8>) {
        for (name, value, is_said) in [
            ("Return-Path: <", self.reverse_path, true),
            ("X-Original-To: ", self.original, !self.original.is_empty()),
            ("Delivered-To: ", self.address, true),
        ] {
            if is_said {
                lines.extend_from_slice(name.as_bytes());
                lines.extend_from_slice(&one_line(value));
                let end = if name.ends_with('<') { ">\n" } else { "\n" };
                lines.extend_from_slice(end.as_bytes());
            }
        }
    }
}

/// `Return-Path`, `X-Original-To` (left out when unknown) and `Delivered-To`, each ending in LF.
pub(crate) fn header(reverse_path: &ReversePath, recipient: &Recipient) -> Vec<u8> {
    Trace {
        reverse_path: &reverse_path.external(),
        original: recipient.original.as_deref().unwrap_or_default(),
        address: &recipient.address.external(),
    }
    .header()
}

/// The same behind the line that begins a message in an mbox, dated now.
pub(crate) fn mbox_header(reverse_path: &ReversePath, recipient: &Recipient) -> Vec<u8> {
    mbox_header_at(reverse_path, recipient, &local_time(clock::since_epoch()))
}

fn mbox_header_at(reverse_path: &ReversePath, recipient: &Recipient, date: &str) -> Vec<u8> {
    Trace {
        reverse_path: &reverse_path.external(),
        original: recipient.original.as_deref().unwrap_or_default(),
        address: &recipient.address.external(),
    }
    .mbox_header_at(date)
}

/// Returns the octets of an address, with `?` for those that could end a header line. Other
/// control characters stay, as virtual(8) keeps them.
fn one_line(text: &str) -> Cow<'_, [u8]> {
    let is_plain = |known, byte| known & (b' '..0x7f).contains(&byte);
    if text.bytes().fold(true, is_plain) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut line = octets::octets(text);
    let ends_line = |byte: &u8| matches!(byte, b'\n' | b'\r' | b'\0');
    if line.iter().any(ends_line) {
        line.to_mut()
            .iter_mut()
            .filter(|byte| ends_line(byte))
            .for_each(|byte| *byte = b'?');
    }
    line
}

fn local_time(time: Duration) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(0);
    let now = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = now.to_zoned(TimeZone::system());
    local.strftime("%a %b %e %H:%M:%S %Y").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, parse_address};

    fn recipient(original: &str) -> Recipient {
        Recipient {
            address: Address::new("a b", Some("vm.example")),
            original: Some(original.to_owned()),
        }
    }

    #[test]
    fn the_lines_stand_in_postfix_order_with_addresses_quoted() {
        let sender = parse_address("sender@ex.example").unwrap();
        let date = "Sun Nov 22 06:51:19 2026";
        let lines = |sender: &ReversePath, original| {
            String::from_utf8(mbox_header_at(sender, &recipient(original), date)).unwrap()
        };
        assert_eq!(
            lines(&sender, "Orig+X@ex.example"),
            "From sender@ex.example  Sun Nov 22 06:51:19 2026\n\
             Return-Path: <sender@ex.example>\n\
             X-Original-To: Orig+X@ex.example\n\
             Delivered-To: \"a b\"@vm.example\n"
        );
        assert_eq!(
            lines(&ReversePath::Null, ""),
            "From MAILER-DAEMON  Sun Nov 22 06:51:19 2026\n\
             Return-Path: <>\nDelivered-To: \"a b\"@vm.example\n"
        );
    }

    #[test]
    fn an_original_recipient_cannot_forge_lines() {
        let lines = header(&ReversePath::Null, &recipient("a@b\nX-Forged: yes\r"));
        let expected = "Return-Path: <>\nX-Original-To: a@b?X-Forged: yes?\n\
                        Delivered-To: \"a b\"@vm.example\n";
        assert_eq!(lines, expected.as_bytes());
    }

    #[test]
    fn addresses_keep_their_octets_and_control_characters_but_no_line_end() {
        let sender = parse_address(&octets::text(b"\"a\x1b\x7f\r\n\0b\"@\xfc>\xc2\x85.example"));
        let lines = header(&sender.unwrap(), &recipient(&octets::text(b"\xff@x")));
        let expected = b"Return-Path: <\"a\x1b\x7f\\?\\??b\"@\xfc>\xc2\x85.example>\n\
                         X-Original-To: \xff@x\nDelivered-To: \"a b\"@vm.example\n";
        assert_eq!(lines, expected, "{}", lines.escape_ascii());
    }

    #[test]
    fn the_date_has_the_length_of_asctime() {
        assert_eq!(local_time(clock::since_epoch()).len(), 24);
    }
}
