//! The reply for a recipient after a server's reply, or its silence.
//!
//! Does no I/O. A server that refuses a message or a recipient answers for it, with its codes and
//! its text. What only says that we and the server do not understand each other is no fault of the
//! mail, and is answered 4xx.

use super::replies::{Garbage, Reply};
use mailstow_engine::{EnhancedCode, Status};
use std::fmt;
use std::io;

/// How a connection came to its end too early. Displays it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("lost connection with {0}")]
    Closed(String),
    #[error("lost connection with {0}: {1}")]
    Broken(String, io::Error),
    #[error("{0} did not answer in time")]
    Timeout(String),
    #[error("{0} does not speak the protocol: it sent {1}")]
    Garbage(String, Garbage),
}

impl Lost {
    /// Returns the reply for recipients; `stage` names the step.
    pub(super) fn status(&self, stage: Stage) -> Status {
        let enhanced = match self {
            Self::Closed(_) | Self::Broken(..) | Self::Timeout(_) => EnhancedCode::new(4, 4, 2),
            Self::Garbage(..) => EnhancedCode::new(4, 5, 0),
        };
        let doubt = match stage {
            Stage::Answers => "; the message may have been taken, and may be delivered twice",
            _ => "",
        };
        Status::new(451, enhanced, format!("{self} while {stage}{doubt}"))
    }
}

/// What was going on when a connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Greeting,
    Hello,
    Commands,
    Content,
    /// The whole message was sent: the server may have taken it.
    Answers,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "receiving the initial greeting",
            Self::Hello => "performing the handshake",
            Self::Commands => "sending the envelope",
            Self::Content => "sending the message",
            Self::Answers => "waiting for the reply to the message",
        })
    }
}

/// Returns what a refusal, 4xx or 5xx, means to a recipient; `to` is what it answers.
pub(super) fn refused(reply: &Reply, server: &str, to: &str) -> Status {
    let text = format!("{server} said: {} (in reply to {to})", shown(reply));
    // Codes about the session, or about what the server takes from us: not about the mail.
    let is_ours = matches!(
        reply.code,
        421 | 454 | 500 | 502 | 503 | 504 | 530 | 534 | 535 | 538 | 555
    );
    if is_ours {
        // A server that ends the session says why; other codes are about the protocol.
        let own = reply.enhanced();
        let own = own.filter(|enhanced| reply.code == 421 && enhanced.class == 4);
        let enhanced = own.unwrap_or(EnhancedCode::new(4, 5, 0));
        return Status::new(451, enhanced, text);
    }
    let class = match reply.code / 100 {
        5 => 5,
        _ => 4,
    };
    let enhanced = reply.enhanced();
    Status::new(
        reply.code,
        enhanced.unwrap_or(EnhancedCode::new(class, 0, 0)),
        text,
    )
}

/// Returns what a refusal of RCPT means: 552 means 452 there (RFC 5321 section 4.5.3.1.10).
pub(super) fn recipient_refused(reply: &Reply, server: &str) -> Status {
    match (reply.code, reply.enhanced()) {
        (552, None) => {
            let text = format!("{server} said: {} (in reply to RCPT TO)", shown(reply));
            Status::new(452, EnhancedCode::new(4, 5, 3), text)
        }
        _ => refused(reply, server, "RCPT TO"),
    }
}

/// Returns what a 2xx after the message means.
pub(super) fn taken(reply: &Reply, server: &str) -> Status {
    let enhanced = reply.enhanced().unwrap_or(EnhancedCode::new(2, 0, 0));
    let text = format!("sent to {server}: {}", reply.text());
    Status::new(reply.code, enhanced, text)
}

/// Returns what the refusal of a session means to all recipients: 4xx in any case.
pub(super) fn session_refused(reply: &Reply, server: &str, to: &str) -> Status {
    let text = format!(
        "{server} takes no mail now: {} (in reply to {to})",
        shown(reply)
    );
    Status::new(451, EnhancedCode::new(4, 4, 1), text)
}

fn shown(reply: &Reply) -> String {
    match reply.enhanced() {
        Some(enhanced) => format!("{} {enhanced} {}", reply.code, reply.text()),
        None => format!("{} {}", reply.code, reply.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, text: &str) -> Reply {
        let lines = vec![text.to_owned()];
        Reply { code, lines }
    }

    #[test]
    fn a_refusal_keeps_its_codes_and_its_text() {
        let status = refused(&reply(550, "5.1.1 no such user"), "store", "RCPT TO");
        assert_eq!(
            status.to_string(),
            "550 5.1.1 store said: 550 5.1.1 no such user (in reply to RCPT TO)"
        );
        let status = refused(&reply(452, "full"), "store", "DATA");
        assert_eq!(
            (status.code, status.enhanced),
            (452, EnhancedCode::new(4, 0, 0))
        );
    }

    #[test]
    fn a_misunderstanding_bounces_no_mail() {
        for code in [421, 500, 502, 503, 504, 530, 535, 555] {
            let status = refused(&reply(code, "5.5.1 what"), "store", "MAIL FROM");
            assert!(status.is_temporary(), "{status}");
        }
        let status = session_refused(&reply(554, "no service"), "store", "the greeting");
        assert!(status.is_temporary(), "{status}");
        let status = refused(&reply(421, "4.3.2 shutting down"), "store", "DATA");
        assert_eq!(
            status.to_string(),
            "451 4.3.2 store said: 421 4.3.2 shutting down (in reply to DATA)"
        );
    }

    #[test]
    fn too_many_recipients_are_tried_again() {
        let status = recipient_refused(&reply(552, "too many recipients"), "store");
        assert_eq!(status.code, 452);
        let status = recipient_refused(&reply(552, "5.2.2 mailbox full"), "store");
        assert_eq!(status.code, 552);
    }

    #[test]
    fn only_a_message_sent_in_full_is_in_doubt() {
        let lost = Lost::Closed("store".into());
        let status = lost.status(Stage::Answers);
        assert!(status.text.contains("delivered twice"), "{status}");
        assert_eq!(
            (status.code, status.enhanced),
            (451, EnhancedCode::new(4, 4, 2))
        );
        assert!(!lost.status(Stage::Content).text.contains("twice"));
    }
}
