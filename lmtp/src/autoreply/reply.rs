//! The reply as a message.
//!
//! Pure. Invariant: whatever the original message and the text hold, the reply has one field of
//! each name, and says that a program sent it. Source: RFC 3834 section 3, RFC 5322 section 3.6.4.

use super::original::Original;
use super::person::Person;
use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::date::Date;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mailstow_engine::octets;
use std::time::Duration;

/// Longest subject of the original that is repeated, in characters.
const SUBJECT_CHARS_MAX: usize = 200;
/// Most messages that a reply refers to.
const REFERENCES_MAX: usize = 20;
/// Longest message id, in bytes.
const ID_BYTES_MAX: usize = 500;

/// What a reply is made of.
#[derive(Clone, Debug)]
pub(super) struct Reply<'a> {
    pub(super) person: &'a Person,
    /// The sender of the original, in external form.
    pub(super) sender: &'a str,
    pub(super) original: &'a Original,
    pub(super) text: &'a str,
    /// Of this machine.
    pub(super) host: &'a str,
    /// Unique on this machine.
    pub(super) id: &'a str,
    /// Since the UNIX epoch.
    pub(super) now: Duration,
}

impl Reply<'_> {
    /// Returns the message, with LF line ends.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub(super) fn message(&self) -> Result<Vec<u8>, String> {
        let from = self.person.address.external();
        let subject = self.original.subject.as_deref().map(str::trim);
        let subject = match subject.unwrap_or_default() {
            "" => "your message",
            subject => subject,
        };
        let subject: String = subject.chars().take(SUBJECT_CHARS_MAX).collect();
        let subject = subject.replace(char::is_control, " ");
        let seconds = i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        let mut message = MessageBuilder::new()
            .from(address(&from))
            .to(address(self.sender))
            .subject(Text::new(format!("Auto: {subject}")))
            .date(Date::new(seconds))
            .message_id(MessageId::new(format!(
                "{}.autoreply@{}",
                self.id, self.host
            )));
        if let Some(id) = self.original.message_id.as_deref().filter(|id| is_id(id)) {
            let before = self.original.references.iter().map(String::as_str);
            let mut references: Vec<&str> = before.filter(|id| is_id(id)).collect();
            let excess = references.len().saturating_sub(REFERENCES_MAX - 1);
            references.drain(..excess);
            references.push(id);
            message = message
                .in_reply_to(MessageId::new(id))
                .references(MessageId::new_list(references.into_iter()));
        }
        let text = self.text.replace("\r\n", "\n");
        let message = message
            .header("Auto-Submitted", Raw::new("auto-replied"))
            .header("X-Auto-Response-Suppress", Raw::new("All"))
            .text_body(text);
        let message = message.write_to_vec().map_err(|error| error.to_string())?;
        Ok(with_lf(&message))
    }
}

fn address(external: &str) -> Address<'_> {
    let name: Option<&str> = None;
    Address::new_address(name, octets::shown(external))
}

/// Whether it can stand in a field as the id of a message.
fn is_id(id: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>');
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(is_part)
}

fn with_lf(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        let (line, after) = rest.split_at(at);
        out.extend_from_slice(line);
        out.push(b'\n');
        rest = after.get(2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::MessageParser;
    use mailstow_engine::Recipient;
    use mailstow_engine::address::{self as engine, ExtensionRule};
    use proptest::prelude::*;

    fn person(local_part: &str) -> Person {
        let recipient = Recipient {
            address: engine::Address::new(local_part, Some("example.com")),
            original: None,
        };
        let rule = ExtensionRule {
            delimiters: "+".into(),
            owner_request_special: true,
        };
        Person::of(&recipient, &rule).unwrap()
    }

    fn made(original: &Original, text: &str) -> String {
        let person = person("info");
        let reply = Reply {
            person: &person,
            sender: "\"a b\"@x.example",
            original,
            text,
            host: "mx.example.com",
            id: "4F2B",
            now: Duration::from_secs(1_764_400_000),
        };
        String::from_utf8(reply.message().unwrap()).unwrap()
    }

    #[test]
    fn a_reply_says_what_it_is_and_what_it_answers() {
        let original = Original::parse(
            b"Subject: Hello\nMessage-ID: <2@x.example>\nReferences: <1@x.example>\n\n",
        );
        let reply = made(&original, "I am away.\n");
        for line in [
            "From: <info@example.com>",
            "To: <\"a b\"@x.example>",
            "Subject: Auto: Hello",
            "Date: Sat, 29 Nov 2025 07:06:40 +0000",
            "Message-ID: <4F2B.autoreply@mx.example.com>",
            "In-Reply-To: <2@x.example>",
            "References: <1@x.example> <2@x.example>",
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
        ] {
            assert!(reply.lines().any(|known| known == line), "{line}\n{reply}");
        }
        assert!(reply.ends_with("\nI am away.\n"), "{reply}");
        assert!(!reply.contains('\r'));
    }

    #[test]
    fn text_and_subject_beyond_ascii_are_encoded() {
        let original = Original::parse("Subject: Grüße\n\n".as_bytes());
        let reply = made(&original, "Schöne Grüße\n");
        assert!(reply.is_ascii(), "{reply}");
        let parsed = MessageParser::default().parse(reply.as_bytes()).unwrap();
        assert_eq!(parsed.subject(), Some("Auto: Grüße"));
        assert_eq!(parsed.body_text(0).unwrap().trim_end(), "Schöne Grüße");
        let none = made(&Original::default(), "x\n");
        assert!(none.contains("\nSubject: Auto: your message\n"));
        assert!(!none.contains("In-Reply-To") && !none.contains("References"));
    }

    proptest! {
        #[test]
        fn nothing_in_an_original_adds_a_field_to_its_reply(
            subject in "\\PC{0,300}|[\\x00-\\x7f]{0,60}",
            id in "[\\x00-\\x7f]{0,40}",
            references in proptest::collection::vec("[\\x00-\\x7f]{0,30}", 0..40),
            text in "\\PC{0,200}|[\\x01-\\x7f]{0,200}",
        ) {
            let original = Original {
                refusal: None,
                recipients: Vec::new(),
                message_id: Some(id),
                references,
                subject: Some(subject),
            };
            let reply = made(&original, &text);
            let header = reply.split("\n\n").next().unwrap();
            let known = [
                "From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References",
                "Auto-Submitted", "X-Auto-Response-Suppress", "MIME-Version", "Content-Type",
                "Content-Transfer-Encoding",
            ];
            let mut seen = Vec::new();
            for line in header.lines().filter(|line| !line.starts_with([' ', '\t'])) {
                let name = line.split(':').next().unwrap();
                prop_assert!(known.contains(&name), "{}", header);
                prop_assert!(!seen.contains(&name), "{}", header);
                prop_assert!(line.len() <= 998);
                seen.push(name);
            }
            prop_assert!(header.is_ascii());
        }
    }
}
