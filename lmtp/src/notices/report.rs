//! The success notice as a message: a multipart/report of what was delivered.
//!
//! Pure. Invariants: no text of an envelope or message ends a line of the notice or begins another
//! part of it; only the header of the message is returned, whatever `RET` says (RFC 3461 section
//! 4.3). Sources: RFC 3461 section 6, RFC 3462, RFC 3464, RFC 6533.

use mailstow_engine::octets;
use std::borrow::Cow;
use std::fmt::Write as _;

/// Most bytes of a header that are returned (Postfix's `bounce_size_limit`).
pub(crate) const HEADER_BYTES_MAX: usize = 50_000;

/// A notice for the sender of one message.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Who gets it, in external form.
    pub(crate) sender: String,
    /// The name of this host.
    pub(crate) host: String,
    /// Our id of the message, unique on this host.
    pub(crate) id: String,
    /// The client's queue id; empty when unknown.
    pub(crate) queue_id: String,
    /// `ENVID`, decoded.
    pub(crate) envelope_id: Option<String>,
    /// When the message arrived and when it was delivered, as RFC 5322 writes dates.
    pub(crate) arrived: String,
    pub(crate) delivered: String,
    /// The message came with SMTPUTF8, and so may its notice.
    pub(crate) utf8: bool,
    /// Whose mail was delivered; at least one.
    pub(crate) recipients: Vec<Delivered>,
    /// The header of the message, as it is stored.
    pub(crate) header: Vec<u8>,
}

/// A recipient whose sender asked for a notice.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    /// In external form.
    pub(crate) address: String,
    /// Type and decoded address of `ORCPT`, joined by `;`; empty when not given.
    pub(crate) original: String,
    /// What was done.
    pub(crate) action: Action,
    /// Enhanced status code.
    pub(crate) code: String,
    /// What became of the mail.
    pub(crate) text: String,
}

/// What was done with the mail for a recipient (RFC 3464 section 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Delivered,
    /// The recipient is an alias: the notice says no more than that it was expanded.
    Expanded,
    /// It went on to where no notices are sent.
    Relayed,
}

impl Report {
    /// Returns the message, with LF line ends.
    pub(crate) fn message(&self) -> Vec<u8> {
        let kind = if self.is_international() {
            "global-"
        } else {
            ""
        };
        let boundary = self.boundary();
        let mut out = String::with_capacity(2048 + self.header.len());
        // Writing into a String cannot fail.
        let _ = write!(
            out,
            "From: MAILER-DAEMON@{host} (Mail Delivery System)\n\
             To: {to}\n\
             Subject: Successful Mail Delivery Report\n\
             Date: {date}\n\
             Message-ID: <{id}.notice@{host}>\n\
             Auto-Submitted: auto-replied\n\
             MIME-Version: 1.0\n\
             Content-Type: multipart/report; report-type={kind}delivery-status;\n\
             \tboundary=\"{boundary}\"\n\
             Content-Transfer-Encoding: 8bit\n\
             \n\
             This is a MIME-encapsulated message.\n\
             \n\
             --{boundary}\n\
             Content-Description: Notification\n\
             Content-Type: text/plain; charset=utf-8\n\
             Content-Transfer-Encoding: 8bit\n\
             \n\
             This is the mail system at host {host}.\n\
             \n\
             Your message was delivered as listed below. You receive this notice because\n\
             you, or your mail program, asked for it.\n\
             \n",
            host = field(&self.host, false),
            to = self.field(&self.sender),
            date = self.delivered,
            id = self.id,
        );
        for recipient in &self.recipients {
            let address = self.field(&recipient.address);
            let _ = writeln!(out, "<{address}>: {}", recipient.said());
        }
        let mut recipients = self.recipients.iter();
        if recipients.any(|recipient| recipient.action == Action::Relayed) {
            out.push_str(
                "\nWhat was relayed has gone to a system that sends no such notices. You may\n\
                 still get a notice when it cannot be delivered there.\n",
            );
        }
        let _ = write!(
            out,
            "\n--{boundary}\n\
             Content-Description: Delivery report\n\
             Content-Type: message/{kind}delivery-status\n\
             Content-Transfer-Encoding: 8bit\n\
             \n\
             Reporting-MTA: dns; {host}\n",
            host = field(&self.host, false),
        );
        if let Some(id) = &self.envelope_id {
            let _ = writeln!(out, "Original-Envelope-Id: {}", self.field(id));
        }
        if !self.queue_id.is_empty() {
            let _ = writeln!(out, "X-Mailstow-Queue-ID: {}", field(&self.queue_id, false));
        }
        let _ = writeln!(out, "Arrival-Date: {}", self.arrived);
        for recipient in &self.recipients {
            self.push_recipient(&mut out, recipient);
        }
        let headers = match kind {
            "" => "text/rfc822-headers",
            _ => "message/global-headers",
        };
        let _ = write!(
            out,
            "\n--{boundary}\n\
             Content-Description: Message Headers\n\
             Content-Type: {headers}\n\
             Content-Transfer-Encoding: 8bit\n\
             \n\
             Return-Path: <{}>\n",
            self.field(&self.sender)
        );
        let mut message = octets::octets(&out).into_owned();
        message.extend_from_slice(&self.header);
        if !message.ends_with(b"\n") {
            message.push(b'\n');
        }
        message.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
        message
    }

    fn push_recipient(&self, out: &mut String, recipient: &Delivered) {
        out.push('\n');
        if let Some((kind, original)) = recipient.original.split_once(';') {
            let kind = field(kind, false);
            let _ = match self.address_type(original) {
                "rfc822" => writeln!(out, "Original-Recipient: {kind}; {}", self.field(original)),
                _ => writeln!(out, "Original-Recipient: {}", self.typed(original)),
            };
        }
        let action = match recipient.action {
            Action::Delivered => "delivered",
            Action::Expanded => "expanded",
            Action::Relayed => "relayed",
        };
        let _ = write!(
            out,
            "Final-Recipient: {}\nAction: {action}\nStatus: {}\n\
             Diagnostic-Code: X-Mailstow; {}\nLast-Attempt-Date: {}\n",
            self.typed(&recipient.address),
            recipient.code,
            recipient.said(),
            self.delivered,
        );
    }

    /// An address of the notice goes beyond ASCII, and may.
    fn is_international(&self) -> bool {
        let addresses = self
            .recipients
            .iter()
            .flat_map(|r| [&r.address, &r.original]);
        let mut texts = addresses.chain([&self.sender]).chain(&self.envelope_id);
        self.utf8 && texts.any(|text| !text.is_ascii())
    }

    fn address_type(&self, address: &str) -> &'static str {
        if address.is_ascii() {
            "rfc822"
        } else {
            "utf-8"
        }
    }

    /// An address with its type (RFC 6533 section 3).
    fn typed(&self, address: &str) -> String {
        let kind = self.address_type(address);
        let mut typed = format!("{kind}; ");
        for c in field(address, true).chars() {
            if c.is_ascii() || self.utf8 {
                typed.push(c);
            } else {
                let _ = write!(typed, "\\x{{{:X}}}", u32::from(c));
            }
        }
        typed
    }

    fn field<'a>(&self, text: &'a str) -> Cow<'a, str> {
        field(text, self.utf8)
    }

    /// A line that occurs nowhere in the header that is returned.
    fn boundary(&self) -> String {
        let mut boundary = format!("{}/{}", self.id, field(&self.host, false));
        boundary.retain(|c| c.is_ascii_alphanumeric() || "-./".contains(c));
        boundary.truncate(60);
        while memchr::memmem::find(&self.header, boundary.as_bytes()).is_some() {
            boundary.push('x');
        }
        boundary
    }
}

impl Delivered {
    fn said(&self) -> Cow<'_, str> {
        match self.action {
            Action::Expanded => Cow::Borrowed("alias expanded"),
            Action::Delivered => field(&self.text, false),
            Action::Relayed => Cow::Owned(format!("relayed: {}", field(&self.text, false))),
        }
    }
}

/// A text on one line. Without `utf8`, what is not ASCII becomes `?`, and octets that are not
/// UTF-8 do in every case.
fn field(text: &str, utf8: bool) -> Cow<'_, str> {
    let is_plain = |c: char| match c.is_ascii() {
        true => !c.is_ascii_control(),
        false => utf8 && !c.is_control() && !octets::is_octet(c),
    };
    if text.chars().all(is_plain) {
        Cow::Borrowed(text)
    } else {
        let plain = text.chars().map(|c| if is_plain(c) { c } else { '?' });
        Cow::Owned(plain.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            sender: "s@client.example".into(),
            host: "mx.example.com".into(),
            id: "ABC".into(),
            queue_id: "4F1".into(),
            envelope_id: Some("a+b".into()),
            arrived: "Sun, 22 Nov 2026 08:00:00 +0000".into(),
            delivered: "Sun, 22 Nov 2026 08:00:01 +0000".into(),
            utf8: false,
            recipients: vec![Delivered {
                address: "\"a b\"@example.com".into(),
                original: "rfc822;o+x@example.org".into(),
                action: Action::Delivered,
                code: "2.0.0".into(),
                text: "delivered to maildir".into(),
            }],
            header: b"Subject: x\nTo: y\n".to_vec(),
        }
    }

    fn text(report: &Report) -> String {
        String::from_utf8(report.message()).unwrap()
    }

    #[test]
    fn a_notice_names_the_recipient_and_returns_the_header() {
        let text = text(&report());
        for line in [
            "To: s@client.example\n",
            "Content-Type: multipart/report; report-type=delivery-status;\n",
            "\nOriginal-Envelope-Id: a+b\n",
            "\nOriginal-Recipient: rfc822; o+x@example.org\n\
             Final-Recipient: rfc822; \"a b\"@example.com\nAction: delivered\nStatus: 2.0.0\n",
            "\n<\"a b\"@example.com>: delivered to maildir\n",
            "Content-Type: text/rfc822-headers\nContent-Transfer-Encoding: 8bit\n\n\
             Return-Path: <s@client.example>\nSubject: x\nTo: y\n\n--ABC/mx.example.com--\n",
        ] {
            assert!(text.contains(line), "{line:?} is missing in {text}");
        }
        assert_eq!(text.matches("\n--ABC/mx.example.com").count(), 4);
    }

    #[test]
    fn an_alias_is_expanded_and_its_members_stay_private() {
        let mut report = report();
        report.recipients[0].action = Action::Expanded;
        let text = text(&report);
        assert!(text.contains("Action: expanded\n") && text.contains(": alias expanded\n"));
        assert!(!text.contains("maildir"));
    }

    #[test]
    fn nothing_of_an_envelope_or_header_can_forge_a_line_or_a_part() {
        let mut report = report();
        let forged = "x\r\nAction: failed\n\n--ABC/mx.example.com--\0";
        report.sender = forged.into();
        report.envelope_id = Some(forged.into());
        report.recipients[0].address = forged.into();
        report.recipients[0].original = format!("rfc822{forged};{forged}");
        report.header = b"Subject: x\n--ABC/mx.example.com\nY: z".to_vec();
        let text = text(&report);
        assert!(!text.contains("\nAction: failed"), "{text}");
        let lines = text
            .lines()
            .filter(|line| line.starts_with("--ABC/mx.example.comx"));
        assert_eq!(lines.count(), 4, "{text}");
        assert!(!text.contains(['\r', '\0']));
    }

    #[test]
    fn addresses_beyond_ascii_are_written_as_rfc_6533_has_them() {
        let mut report = report();
        report.recipients[0].address = "ü@example.com".into();
        let plain = text(&report);
        assert!(
            plain.contains("Final-Recipient: utf-8; \\x{FC}@example.com\n"),
            "{plain}"
        );
        assert!(plain.contains("report-type=delivery-status") && plain.is_ascii());
        report.utf8 = true;
        let global = text(&report);
        assert!(
            global.contains("Final-Recipient: utf-8; ü@example.com\n"),
            "{global}"
        );
        assert!(global.contains("Content-Type: message/global-delivery-status\n"));
        assert!(global.contains("Content-Type: message/global-headers\n"));
        report.recipients[0].address = octets::text(b"\xfc@example.com").into_owned();
        assert!(text(&report).contains("Final-Recipient: utf-8; ?@example.com\n"));
    }
}
