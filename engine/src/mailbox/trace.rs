//! The trace lines each delivery puts on top of a message.
//!
//! Imports `address`, `envelope`, `clock`. Order and form are those
//! of Postfix virtual(8): `From ` (mbox only), `Return-Path`, `X-Original-To`, `Delivered-To`.

use crate::address::ReversePath;
use crate::clock;
use crate::envelope::Recipient;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::fmt::Write as _;
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
    pub(crate) fn header(&self) -> String {
        let mut lines = String::with_capacity(160);
        self.push_header(&mut lines);
        lines
    }

    /// The same behind the line that begins a message in an mbox, `From sender  date` with the
    /// date as asctime(3) writes it, in local time; `time` is since the UNIX epoch.
    pub(crate) fn mbox_header(&self, time: Duration) -> String {
        self.mbox_header_at(&local_time(time))
    }

    fn mbox_header_at(&self, date: &str) -> String {
        let mut lines = String::with_capacity(224);
        let sender = match self.reverse_path {
            "" => Cow::Borrowed("MAILER-DAEMON"),
            address => one_line(address),
        };
        // Writing into a String cannot fail.
        let _ = writeln!(lines, "From {sender}  {date}");
        self.push_header(&mut lines);
        lines
    }

    fn push_header(&self, lines: &mut String) {
        for (name, value, is_said) in [
            ("Return-Path: <", self.reverse_path, true),
            ("X-Original-To: ", self.original, !self.original.is_empty()),
            ("Delivered-To: ", self.address, true),
        ] {
            if is_said {
                lines.push_str(name);
                lines.push_str(&one_line(value));
                lines.push_str(if name.ends_with('<') { ">\n" } else { "\n" });
            }
        }
    }
}

/// `Return-Path`, `X-Original-To` (left out when unknown) and `Delivered-To`, each ending in LF.
pub(crate) fn header(reverse_path: &ReversePath, recipient: &Recipient) -> String {
    Trace {
        reverse_path: &reverse_path.external(),
        original: recipient.original.as_deref().unwrap_or_default(),
        address: &recipient.address.external(),
    }
    .header()
}

/// The same behind the line that begins a message in an mbox, dated now.
pub(crate) fn mbox_header(reverse_path: &ReversePath, recipient: &Recipient) -> String {
    mbox_header_at(reverse_path, recipient, &local_time(clock::since_epoch()))
}

fn mbox_header_at(reverse_path: &ReversePath, recipient: &Recipient, date: &str) -> String {
    Trace {
        reverse_path: &reverse_path.external(),
        original: recipient.original.as_deref().unwrap_or_default(),
        address: &recipient.address.external(),
    }
    .mbox_header_at(date)
}

/// An address with control characters could forge header lines.
fn one_line(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| (b' '..0x7f).contains(&byte);
    if !text.bytes().all(is_plain) && text.contains(char::is_control) {
        Cow::Owned(text.replace(char::is_control, "?"))
    } else {
        Cow::Borrowed(text)
    }
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
        assert_eq!(
            mbox_header_at(&sender, &recipient("Orig+X@ex.example"), date),
            "From sender@ex.example  Sun Nov 22 06:51:19 2026\n\
             Return-Path: <sender@ex.example>\n\
             X-Original-To: Orig+X@ex.example\n\
             Delivered-To: \"a b\"@vm.example\n"
        );
        assert_eq!(
            mbox_header_at(&ReversePath::Null, &recipient(""), date),
            "From MAILER-DAEMON  Sun Nov 22 06:51:19 2026\n\
             Return-Path: <>\nDelivered-To: \"a b\"@vm.example\n"
        );
    }

    #[test]
    fn an_original_recipient_cannot_forge_lines() {
        let lines = header(&ReversePath::Null, &recipient("a@b\nX-Forged: yes\r"));
        assert_eq!(
            lines,
            "Return-Path: <>\nX-Original-To: a@b?X-Forged: yes?\n\
             Delivered-To: \"a b\"@vm.example\n"
        );
    }

    #[test]
    fn the_date_has_the_length_of_asctime() {
        assert_eq!(local_time(clock::since_epoch()).len(), 24);
    }
}
