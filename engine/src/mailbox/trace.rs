//! The trace lines each delivery puts on top of a message.
//!
//! Order and form are those of Postfix virtual(8): `From ` (mbox only), `Return-Path`,
//! `X-Original-To`, `Delivered-To`; the last two once for each recipient of the copy, behind one
//! another. Addresses stand here with the octets they came with. Invariant: no address ends its
//! line.

use crate::octets;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::time::Duration;

/// A recipient as the lines name it, in external form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    /// The original recipient; empty when unknown.
    pub original: &'a str,
    /// The forward-path.
    pub address: &'a str,
}

/// Returns `Return-Path`, then `X-Original-To` (left out when unknown) and `Delivered-To` for each
/// recipient, each ending in LF. An empty reverse-path is the null one.
pub(crate) fn header<'a>(reverse_path: &str, names: impl Iterator<Item = Name<'a>>) -> Vec<u8> {
    let mut lines = Vec::with_capacity(160);
    push_header(&mut lines, reverse_path, names);
    lines
}

/// As [`header`], behind the line that begins a message in an mbox: `From sender  date`, with the
/// date as asctime(3) writes it, in local time. `time` is since the UNIX epoch.
pub(crate) fn mbox_header<'a>(
    reverse_path: &str,
    names: impl Iterator<Item = Name<'a>>,
    time: Duration,
) -> Vec<u8> {
    mbox_header_at(reverse_path, names, &local_time(time))
}

fn mbox_header_at<'a>(
    reverse_path: &str,
    names: impl Iterator<Item = Name<'a>>,
    date: &str,
) -> Vec<u8> {
    let mut lines = Vec::with_capacity(224);
    let sender = match reverse_path {
        "" => "MAILER-DAEMON",
        address => address,
    };
    push_line(&mut lines, "From ", sender, "  ");
    lines.extend_from_slice(date.as_bytes());
    lines.push(b'\n');
    push_header(&mut lines, reverse_path, names);
    lines
}

fn push_header<'a>(lines: &mut Vec<u8>, reverse_path: &str, names: impl Iterator<Item = Name<'a>>) {
    push_line(lines, "Return-Path: <", reverse_path, ">\n");
    for Name { original, address } in names {
        if !original.is_empty() {
            push_line(lines, "X-Original-To: ", original, "\n");
        }
        push_line(lines, "Delivered-To: ", address, "\n");
    }
}

fn push_line(lines: &mut Vec<u8>, name: &str, address: &str, end: &str) {
    lines.extend_from_slice(name.as_bytes());
    lines.extend_from_slice(&one_line(address));
    lines.extend_from_slice(end.as_bytes());
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
    use crate::address::parse_address;
    use crate::clock;

    fn one<'a>(original: &'a str) -> impl Iterator<Item = Name<'a>> {
        std::iter::once(Name {
            original,
            address: "\"a b\"@vm.example",
        })
    }

    #[test]
    fn the_lines_are_in_the_order_of_postfix() {
        let date = "Sun Nov 22 06:51:19 2026";
        let lines = |sender, original| {
            String::from_utf8(mbox_header_at(sender, one(original), date)).unwrap()
        };
        assert_eq!(
            lines("sender@ex.example", "Orig+X@ex.example"),
            "From sender@ex.example  Sun Nov 22 06:51:19 2026\n\
             Return-Path: <sender@ex.example>\n\
             X-Original-To: Orig+X@ex.example\n\
             Delivered-To: \"a b\"@vm.example\n"
        );
        assert_eq!(
            lines("", ""),
            "From MAILER-DAEMON  Sun Nov 22 06:51:19 2026\n\
             Return-Path: <>\nDelivered-To: \"a b\"@vm.example\n"
        );
    }

    #[test]
    fn every_recipient_of_the_copy_is_named() {
        let names = [("", "a@vm.example"), ("o@vm.example", "b@vm.example")];
        let names = names.map(|(original, address)| Name { original, address });
        let expected = "Return-Path: <s@ex.example>\nDelivered-To: a@vm.example\n\
                        X-Original-To: o@vm.example\nDelivered-To: b@vm.example\n";
        assert_eq!(
            header("s@ex.example", names.into_iter()),
            expected.as_bytes()
        );
    }

    #[test]
    fn an_original_recipient_cannot_forge_lines() {
        let expected = "Return-Path: <>\nX-Original-To: a@b?X-Forged: yes?\n\
                        Delivered-To: \"a b\"@vm.example\n";
        assert_eq!(header("", one("a@b\nX-Forged: yes\r")), expected.as_bytes());
    }

    #[test]
    fn addresses_keep_their_octets_and_control_characters_but_no_line_end() {
        let sender = parse_address(&octets::text(b"\"a\x1b\x7f\r\n\0b\"@\xfc>\xc2\x85.example"));
        let original = octets::text(b"\xff@x");
        let lines = header(&sender.unwrap().external(), one(&original));
        let expected = b"Return-Path: <\"a\x1b\x7f\\?\\??b\"@\xfc>\xc2\x85.example>\n\
                         X-Original-To: \xff@x\nDelivered-To: \"a b\"@vm.example\n";
        assert_eq!(lines, expected, "{}", lines.escape_ascii());
    }

    #[test]
    fn the_date_has_the_length_of_asctime() {
        assert_eq!(local_time(clock::since_epoch()).len(), 24);
    }
}
