//! One attempt to deliver a message: commands in one piece, the content, a reply for each
//! recipient.
//!
//! Sources: RFC 2033, RFC 2920 (pipelining), RFC 3461 (ORCPT, xtext), XFORWARD_README.

use super::connection::{Connection, Lost};
use super::reply::Reply;
use crate::message::{Accepted, Envelope};
use mailstow_engine::{EnhancedCode, Message, Status, octets};
use std::io::Write as _;
use std::time::Instant;

/// Content is sent in pieces of about so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// The progress of an attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    /// For each recipient of the attempt, the server's answer.
    pub(super) answers: Vec<Option<Answer>>,
    /// The whole content was sent to recipients that have no answer yet.
    pub(super) was_sent: bool,
    /// The replies to the content are in the connection.
    pub(super) has_unread: bool,
    /// Why it did not complete.
    pub(super) lost: Option<Lost>,
}

/// The server's answer for a recipient.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// The content was sent for it, and its state is unknown: the server failed with a message that
    /// it may have stored.
    pub(super) is_doubtful: bool,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self {
            status,
            is_doubtful: false,
        }
    }
}

/// The server failed to flush or write a message that it has.
const SYSTEM_TROUBLE: EnhancedCode = EnhancedCode::new(4, 3, 0);
/// An earlier delivery of the message is in progress.
const UNDER_WAY: EnhancedCode = EnhancedCode::new(4, 4, 2);

/// Sends the message for `recipients` of its envelope.
pub(super) fn run(
    connection: &mut Connection,
    envelope: &Envelope,
    message: &Message,
    recipients: &[&Accepted],
    deadline: Instant,
) -> Attempt {
    let mut attempt = Attempt {
        answers: vec![None; recipients.len()],
        was_sent: false,
        has_unread: false,
        lost: None,
    };
    let done = attempt.go(connection, envelope, message, recipients, deadline);
    attempt.lost = done.err();
    attempt
}

impl Attempt {
    fn go(
        &mut self,
        connection: &mut Connection,
        envelope: &Envelope,
        message: &Message,
        recipients: &[&Accepted],
        deadline: Instant,
    ) -> Result<(), Lost> {
        let commands = commands(connection, envelope, message, recipients);
        connection.send(&commands, deadline)?;
        if connection.takes_ident && envelope.retry_key.is_some() {
            // A failure has no effect on the mail.
            connection.reply(deadline)?;
        }
        let mail = connection.reply(deadline)?;
        let mut accepted = Vec::with_capacity(recipients.len());
        for (at, answer) in self.answers.iter_mut().enumerate() {
            let reply = connection.reply(deadline)?;
            match mail.is_success() && reply.is_success() {
                true => accepted.push(at),
                false if mail.is_success() => *answer = Some(reply.status().into()),
                false => *answer = Some(mail.status().into()),
            }
        }
        let data = connection.reply(deadline)?;
        match data.code {
            // Servers differ in their replies to a content without recipients.
            354 if accepted.is_empty() => return Err(Lost::Strange),
            354 => {}
            // A 2xx reply without content: replies and commands do not match.
            200..400 => return Err(Lost::Strange),
            _ => {
                self.answer_all(&accepted, &data);
                return Ok(());
            }
        }
        send_content(connection, message, deadline)?;
        self.was_sent = true;
        let last = accepted.last().copied();
        let mut is_in_progress = false;
        for at in accepted {
            let reply = match Some(at) == last {
                true => connection.last_reply(deadline)?,
                false => connection.reply(deadline)?,
            };
            let status = reply.status();
            if status.enhanced == UNDER_WAY {
                // It will have an outcome, for which the server is asked again.
                is_in_progress = true;
            } else if let Some(answer) = self.answers.get_mut(at) {
                *answer = Some(Answer {
                    is_doubtful: status.enhanced == SYSTEM_TROUBLE,
                    status,
                });
            }
        }
        self.has_unread = true;
        match is_in_progress {
            true => Err(Lost::InProgress),
            false => Ok(()),
        }
    }

    /// The content is refused for all accepted recipients.
    fn answer_all(&mut self, accepted: &[usize], reply: &Reply) {
        for at in accepted {
            if let Some(answer) = self.answers.get_mut(*at) {
                *answer = Some(reply.status().into());
            }
        }
    }
}

/// Returns all commands up to DATA.
fn commands(
    connection: &Connection,
    envelope: &Envelope,
    message: &Message,
    recipients: &[&Accepted],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + 128 * recipients.len());
    if let (true, Some(key)) = (connection.takes_ident, &envelope.retry_key) {
        out.extend_from_slice(b"XFORWARD IDENT=");
        push_xtext(&mut out, &octets::octets(key));
        out.extend_from_slice(b"\r\n");
    }
    let sender = envelope.reverse_path.external();
    let is_ascii = sender.is_ascii() && recipients.iter().all(|r| r.address.external().is_ascii());
    out.extend_from_slice(b"MAIL FROM:<");
    out.extend_from_slice(&octets::octets(&sender));
    // Writing to a vector does not fail.
    let _ = write!(out, "> SIZE={} BODY=8BITMIME", message.size());
    if connection.takes_utf8 && !is_ascii {
        out.extend_from_slice(b" SMTPUTF8");
    }
    out.extend_from_slice(b"\r\n");
    for recipient in recipients {
        out.extend_from_slice(b"RCPT TO:<");
        out.extend_from_slice(&octets::octets(&recipient.address.external()));
        out.push(b'>');
        if let (true, Some(original)) = (connection.takes_original, &recipient.original) {
            out.extend_from_slice(b" ORCPT=rfc822;");
            push_xtext(&mut out, &octets::octets(original));
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"DATA\r\n");
    out
}

/// RFC 3461 section 4.
fn push_xtext(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'!'..=b'~' if !b"+=".contains(byte) => out.push(*byte),
            _ => {
                let _ = write!(out, "+{byte:02X}");
            }
        }
    }
}

/// The content with CRLF and stuffed dots, and its end.
fn send_content(
    connection: &mut Connection,
    message: &Message,
    deadline: Instant,
) -> Result<(), Lost> {
    let mut wire = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 16);
    let mut at_line_start = true;
    let sent: Result<(), Chunk> = message.for_each_chunk(|chunk| {
        for line in chunk.split_inclusive(|byte| *byte == b'\n') {
            if at_line_start && line.first() == Some(&b'.') {
                wire.push(b'.');
            }
            match line.strip_suffix(b"\n") {
                Some(text) => {
                    wire.extend_from_slice(text);
                    wire.extend_from_slice(b"\r\n");
                    at_line_start = true;
                }
                None => {
                    wire.extend_from_slice(line);
                    at_line_start = false;
                }
            }
            if wire.len() >= PIECE_BYTES {
                connection.send(&wire, deadline).map_err(Chunk)?;
                wire.clear();
            }
        }
        Ok(())
    });
    sent.map_err(|Chunk(lost)| lost)?;
    if !at_line_start {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    connection.send(&wire, deadline)
}

/// Why the content could not be sent.
struct Chunk(Lost);

impl From<std::io::Error> for Chunk {
    fn from(error: std::io::Error) -> Self {
        Self(Lost::System(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_hides_what_would_end_a_parameter() {
        let mut out = Vec::new();
        push_xtext(&mut out, "a+b=c d\r\nü@x".as_bytes());
        assert_eq!(out, b"a+2Bb+3Dc+20d+0D+0A+C3+BC@x");
    }
}
