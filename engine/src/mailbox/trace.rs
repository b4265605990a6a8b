//! The trace lines each delivery puts on top of a message.
//!
//! Imports `address`, `envelope`, `clock`. Order and form are those
//! of Postfix virtual(8): `From ` (mbox only), `Return-Path`, `X-Original-To`, `Delivered-To`.

use crate::address::ReversePath;
use crate::clock;
use crate::envelope::Recipient;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;

/// `Return-Path`, `X-Original-To` (left out when unknown) and `Delivered-To`, each ending in LF.
pub fn header(reverse_path: &ReversePath, recipient: &Recipient) -> String {
    let mut lines = String::with_capacity(160);
    push_header(&mut lines, reverse_path, recipient);
    lines
}

/// The same behind the line that begins a message in an mbox, `From sender  date` with the date
/// as asctime(3) writes it, in local time.
pub fn mbox_header(reverse_path: &ReversePath, recipient: &Recipient) -> String {
    mbox_header_at(reverse_path, recipient, &local_time())
}

fn mbox_header_at(reverse_path: &ReversePath, recipient: &Recipient, date: &str) -> String {
    let mut lines = String::with_capacity(224);
    let sender = match reverse_path {
        ReversePath::Null => "MAILER-DAEMON".to_owned(),
        ReversePath::Address(address) => one_line(&address.external()),
    };
    // Writing into a String cannot fail.
    let _ = writeln!(lines, "From {sender}  {date}");
    push_header(&mut lines, reverse_path, recipient);
    lines
}

fn push_header(lines: &mut String, reverse_path: &ReversePath, recipient: &Recipient) {
    let _ = writeln!(
        lines,
        "Return-Path: <{}>",
        one_line(&reverse_path.to_string())
    );
    if !recipient.original.is_empty() {
        let _ = writeln!(lines, "X-Original-To: {}", one_line(&recipient.original));
    }
    let _ = writeln!(
        lines,
        "Delivered-To: {}",
        one_line(&recipient.address.external())
    );
}

/// An address with control characters could forge header lines.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, "?")
}

fn local_time() -> String {
    let seconds = i64::try_from(clock::since_epoch().as_secs()).unwrap_or(0);
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
            original: original.to_owned(),
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
        assert_eq!(local_time().len(), 24);
    }
}
