//! What an autoreply needs of the message that it answers: fields of its header.
//!
//! Pure but for reading the message. Sources: RFC 5322, RFC 2047, RFC 2369, RFC 2919, RFC 3834
//! section 2.

use mail_parser::{Address, HeaderValue, Message, MessageParser};
use mailstow_engine::Mail;
use std::io;

/// Most bytes of a header that is read. Who sends a longer one gets no reply.
const HEADER_BYTES_MAX: usize = 256 * 1024;

/// The fields that name who a message is for.
const RECIPIENT_FIELDS: [&str; 6] = ["To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"];

/// What is known of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Original {
    /// Why the message asks for no reply.
    pub(super) refusal: Option<String>,
    /// The addresses that its header names as recipients.
    pub(super) recipients: Vec<String>,
    /// Without angle brackets.
    pub(super) message_id: Option<String>,
    /// The messages that it refers to, without angle brackets.
    pub(super) references: Vec<String>,
    /// Decoded.
    pub(super) subject: Option<String>,
}

impl Original {
    /// Reads the header of a message.
    ///
    /// # Errors
    /// The message cannot be read.
    pub(super) fn of(mail: &Mail) -> io::Result<Self> {
        Ok(match header(mail)? {
            Some(header) => Self::parse(&header),
            None => Self {
                refusal: Some("its header is too long".to_owned()),
                ..Self::default()
            },
        })
    }

    /// Takes what is needed out of a header.
    pub(super) fn parse(header: &[u8]) -> Self {
        let Some(message) = MessageParser::default().parse_headers(header) else {
            return Self::default();
        };
        let ids = |value: Option<&HeaderValue<'_>>| match value {
            Some(HeaderValue::Text(id)) => vec![id.to_string()],
            Some(HeaderValue::TextList(ids)) => ids.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let mut references = ids(message.header("References"));
        if references.is_empty() {
            // RFC 5322 section 3.6.4: only when it names one message.
            references = ids(message.header("In-Reply-To"));
            references.truncate(usize::from(references.len() == 1));
        }
        Self {
            refusal: refusal(header, &message),
            recipients: recipients(&message),
            message_id: ids(message.header("Message-ID")).into_iter().next(),
            references,
            subject: message.subject().map(str::to_owned),
        }
    }
}

/// The header with the empty line behind it; `None` when it is too long.
fn header(mail: &Mail) -> io::Result<Option<Vec<u8>>> {
    /// Enough was read, or the message cannot be read.
    struct Stop(Option<io::Error>);
    impl From<io::Error> for Stop {
        fn from(error: io::Error) -> Self {
            Self(Some(error))
        }
    }
    let mut header = Vec::new();
    let read = mail.message.for_each_chunk(|chunk| {
        header.extend_from_slice(chunk);
        let is_whole = memchr::memmem::find(&header, b"\n\n").is_some();
        match is_whole || header.len() > HEADER_BYTES_MAX {
            true => Err(Stop(None)),
            false => Ok(()),
        }
    });
    if let Err(Stop(Some(error))) = read {
        return Err(error);
    }
    // A message without a header begins with an empty line.
    let end = match header.starts_with(b"\n") {
        true => 1,
        false => memchr::memmem::find(&header, b"\n\n").map_or(header.len(), |end| end + 2),
    };
    header.truncate(end);
    Ok((header.len() <= HEADER_BYTES_MAX).then_some(header))
}

/// Why the message asks for no reply: a list or a program has sent it, or it says so.
fn refusal(header: &[u8], message: &Message<'_>) -> Option<String> {
    message.headers().iter().find_map(|field| {
        let value = header.get(field.offset_start as usize..field.offset_end as usize);
        let value = String::from_utf8_lossy(value.unwrap_or_default()).to_ascii_lowercase();
        let word = first_word(&value);
        let name = field.name().to_ascii_lowercase();
        let is_automatic = match name.as_str() {
            "auto-submitted" => word != "no",
            "precedence" => matches!(word, "bulk" | "list" | "junk" | "auto_reply"),
            "x-auto-response-suppress" => ["all", "autoreply", "oof"].iter().any(|kind| {
                value
                    .split([',', ' ', '\t', '\r', '\n'])
                    .any(|one| one == *kind)
            }),
            "content-type" => word == "multipart/report",
            "x-spam-flag" => word == "yes",
            "x-autoreply" | "x-autorespond" | "mailing-list" => true,
            _ => name.starts_with("list-"),
        };
        is_automatic.then(|| format!("a list or a program sent it: {}", field.name()))
    })
}

/// The first word of the body of a field, behind blanks and comments (RFC 5322 section 3.2.2).
fn first_word(body: &str) -> &str {
    let mut rest = body.trim_start();
    while let Some(end) = comment_end(rest) {
        rest = rest.get(end..).unwrap_or_default().trim_start();
    }
    let mut words = rest.split([' ', '\t', '\r', '\n', ';', '(', ',']);
    words.next().unwrap_or_default()
}

/// Where the comment ends that `text` begins with. Comments may hold others; one that is not closed
/// is none.
fn comment_end(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    let mut is_quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_quoted => is_quoted = false,
            b'\\' => is_quoted = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return (at > 0).then_some(at + 1);
        }
    }
    None
}

fn recipients(message: &Message<'_>) -> Vec<String> {
    let is_recipient = |name: &str| {
        let mut known = RECIPIENT_FIELDS.iter();
        known.any(|known| name.eq_ignore_ascii_case(known))
    };
    let fields = message.headers().iter();
    let fields = fields.filter(|field| is_recipient(field.name()));
    let values = fields.filter_map(|field| match field.value() {
        HeaderValue::Address(addresses) => Some(addresses),
        _ => None,
    });
    let named = |addresses: &Address<'_>| -> Vec<String> {
        let addresses = addresses.iter().filter_map(|one| one.address());
        addresses.map(str::to_owned).collect()
    };
    values.flat_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal_of(field: &str) -> bool {
        let header = format!("From: a@b\n{field}\nSubject: x\n\n");
        Original::parse(header.as_bytes()).refusal.is_some()
    }

    #[test]
    fn lists_and_programs_ask_for_no_reply() {
        for field in [
            "List-Id: <l.example>",
            "list-unsubscribe: <mailto:x@y>",
            "List-Post: NO",
            "Precedence: bulk",
            "PRECEDENCE:  Junk ",
            "Precedence: list",
            "Auto-Submitted: auto-replied",
            "Auto-Submitted: auto-generated; x=y",
            "Auto-Submitted:\n auto-notified",
            "Auto-Submitted: (no) auto-generated",
            "Auto-Submitted: (a (nested \\) one)\n no) auto-generated",
            "Auto-Submitted: (no",
            "Precedence: (sent to all) bulk",
            "X-Auto-Response-Suppress: DR, OOF, AutoReply",
            "X-Auto-Response-Suppress: All",
            "Content-Type: multipart/report; report-type=delivery-status; boundary=x",
            "X-Spam-Flag: YES",
        ] {
            assert!(refusal_of(field), "{field}");
        }
        for field in [
            "Auto-Submitted: no",
            "Auto-Submitted: No (a person)",
            "Auto-Submitted: (by (a) person)\n (really) no; x=y",
            "Precedence: first-class",
            "X-Auto-Response-Suppress: DR, RN",
            "X-List: x",
            "Content-Type: text/plain",
            "X-Spam-Flag: NO",
        ] {
            assert!(!refusal_of(field), "{field}");
        }
    }

    #[test]
    fn the_fields_that_a_reply_needs_are_taken_out() {
        let original = Original::parse(
            b"To: Info <info@example.com>, grp: a@b, \"x y\"@c;\nCC: <c@d>\nResent-To: r@s\n\
              Subject: =?iso-8859-1?q?Gr=FC=DFe?=\n and more\nMessage-Id: <1@x>\n\
              References: <0@x> <2@y>\n\n",
        );
        let recipients = ["info@example.com", "a@b", "c@d", "r@s"];
        for recipient in recipients {
            assert!(
                original.recipients.iter().any(|to| to == recipient),
                "{recipient}"
            );
        }
        assert_eq!(original.subject.as_deref(), Some("Grüße and more"));
        assert_eq!(original.message_id.as_deref(), Some("1@x"));
        assert_eq!(original.references, ["0@x", "2@y"]);
        let answer = Original::parse(b"Message-Id: <1@x>\nIn-Reply-To: <0@x>\n\n");
        assert_eq!(answer.references, ["0@x"]);
    }

    #[test]
    fn what_is_no_header_is_taken_as_an_empty_one() {
        for text in [
            &b""[..],
            b"\n",
            b"\n\nbody\n",
            b"no field\n\n",
            b"\xff\xfe: x\n",
        ] {
            let original = Original::parse(text);
            assert_eq!(original.subject, None);
            assert!(original.recipients.is_empty());
        }
    }
}
