//! One LMTP command line, parsed (RFC 2033, RFC 5321 section 4.1, and the extensions SIZE,
//! 8BITMIME, BINARYMIME, CHUNKING, SMTPUTF8, DSN and XFORWARD).
//!
//! Pure: a line goes in, a command or the reply that refuses it comes out; what is allowed in
//! which state is decided by the session.

mod envelope;
mod params;
mod paths;
mod xforward;
mod xtext;

pub use envelope::{Body, MailCommand, RcptCommand};
pub use paths::Paths;
pub use xforward::{Forwarded, ForwardedName};

use crate::reply::Reply;
use mailstow_engine::octets;
use std::borrow::Cow;

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// `LHLO name`
    Lhlo,
    /// `MAIL FROM:<reverse-path> parameters`
    Mail(MailCommand),
    /// `RCPT TO:<forward-path> parameters`
    Rcpt(RcptCommand),
    /// `DATA`
    Data,
    /// `BDAT octets [LAST]` (RFC 3030)
    Bdat {
        /// Octets that follow the command line.
        octets: u64,
        /// The message ends with this chunk.
        last: bool,
    },
    /// `RSET`
    Rset,
    /// `NOOP`
    Noop,
    /// `VRFY`
    Vrfy,
    /// `QUIT`
    Quit,
    /// `XFORWARD name=value ...` (Postfix XFORWARD_README)
    Xforward(Vec<Forwarded>),
}

/// Why a command line was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What to answer.
    pub reply: Reply,
    /// What it means for the session.
    pub severity: Severity,
}

/// What a refused command line means for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The sender or recipient is refused, not the way the client speaks.
    Recipient,
    /// The client does not speak our protocol; too many of these end the session.
    Protocol,
    /// We cannot tell where the next command begins: the session must end.
    Desynchronised,
}

impl Refusal {
    fn protocol(reply: Reply) -> Self {
        Self {
            reply,
            severity: Severity::Protocol,
        }
    }
}

/// The commands there are.
const VERBS: [&[u8]; 10] = [
    b"LHLO",
    b"MAIL",
    b"RCPT",
    b"DATA",
    b"BDAT",
    b"RSET",
    b"NOOP",
    b"VRFY",
    b"QUIT",
    b"XFORWARD",
];

/// Parses one command line, given without its line end. Only its content may be odd: a line that
/// has a CR or NUL in it is refused whatever it says.
///
/// # Errors
/// The reply that refuses it.
pub fn parse(line: &[u8], paths: Paths) -> Result<Command, Refusal> {
    let is_whole = memchr::memchr2(b'\r', b'\0', line).is_none();
    let line = line.trim_ascii_end();
    let end = memchr::memchr2(b' ', b'\t', line).unwrap_or(line.len());
    let (verb, rest) = line.split_at(end);
    let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
    if !is_whole && VERBS.into_iter().any(is) {
        let reply = Reply::new(501, "5.5.2", "The command has a CR or NUL in it");
        let mut refusal = Refusal::protocol(reply);
        if is(b"BDAT") {
            refusal.severity = Severity::Desynchronised;
        }
        return Err(refusal);
    }
    if is(b"RCPT") {
        return envelope::rcpt(&text(rest), paths)
            .map(Command::Rcpt)
            .map_err(|reply| Refusal {
                reply,
                severity: Severity::Recipient,
            });
    }
    if is(b"BDAT") {
        return bdat(rest).ok_or(Refusal {
            reply: Reply::new(501, "5.5.4", "Syntax: BDAT octets [LAST]"),
            severity: Severity::Desynchronised,
        });
    }
    let simple = |command, syntax| {
        if rest.is_empty() {
            Ok(command)
        } else {
            Err(Refusal::protocol(Reply::new(501, "5.5.4", syntax)))
        }
    };
    if is(b"MAIL") {
        envelope::mail(&text(rest), paths)
            .map(Command::Mail)
            .map_err(Refusal::protocol)
    } else if is(b"DATA") {
        simple(Command::Data, "Syntax: DATA")
    } else if is(b"RSET") {
        simple(Command::Rset, "Syntax: RSET")
    } else if is(b"QUIT") {
        simple(Command::Quit, "Syntax: QUIT")
    } else if is(b"NOOP") {
        Ok(Command::Noop)
    } else if is(b"VRFY") {
        Ok(Command::Vrfy)
    } else if is(b"LHLO") {
        if rest.is_empty() {
            let reply = Reply::new(501, "5.5.4", "Syntax: LHLO name");
            return Err(Refusal::protocol(reply));
        }
        Ok(Command::Lhlo)
    } else if is(b"XFORWARD") {
        xforward::parse(&text(rest))
            .map(Command::Xforward)
            .map_err(Refusal::protocol)
    } else {
        let reply = Reply::new(500, "5.5.1", "Unknown command");
        Err(Refusal::protocol(reply))
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    octets::text(bytes.trim_ascii_start())
}

/// `octets [LAST]`. A count we cannot read is not survivable: the octets that follow would be
/// taken for commands.
fn bdat(rest: &[u8]) -> Option<Command> {
    let text = std::str::from_utf8(rest).ok()?;
    let mut words = text.split_ascii_whitespace();
    let octets = words.next()?;
    if octets.len() > 19 || !octets.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    let octets = octets.parse().ok()?;
    words
        .next()
        .is_none()
        .then_some(Command::Bdat { octets, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strict(line: &str) -> Result<Command, Refusal> {
        parse(line.as_bytes(), Paths::Strict)
    }

    fn code(line: &str) -> (u16, &'static str) {
        let refusal = strict(line).unwrap_err();
        (refusal.reply.code, refusal.reply.enhanced)
    }

    #[test]
    fn verbs_are_recognised_in_any_case() {
        assert_eq!(strict("lHlO client.example"), Ok(Command::Lhlo));
        assert_eq!(strict("data"), Ok(Command::Data));
        assert_eq!(strict("RSET "), Ok(Command::Rset));
        assert_eq!(strict("NOOP what ever"), Ok(Command::Noop));
        assert_eq!(strict("Vrfy someone"), Ok(Command::Vrfy));
        assert_eq!(strict("quit"), Ok(Command::Quit));
    }

    #[test]
    fn the_greetings_of_smtp_and_all_we_do_not_have_are_unknown() {
        for line in [
            "HELO a",
            "EHLO a",
            "HELP",
            "EXPN a",
            "TURN",
            "STARTTLS",
            "AUTH PLAIN",
            "",
            " DATA",
            "DATAX",
            "\u{0}",
        ] {
            assert_eq!(code(line), (500, "5.5.1"), "{line:?}");
        }
    }

    #[test]
    fn commands_without_arguments_refuse_them() {
        for line in ["DATA x", "RSET x", "QUIT x", "LHLO"] {
            assert_eq!(code(line), (501, "5.5.4"), "{line:?}");
        }
    }

    #[test]
    fn bdat_needs_a_count_and_a_wrong_one_ends_the_session() {
        let chunk = |octets, last| Ok(Command::Bdat { octets, last });
        assert_eq!(strict("BDAT 0"), chunk(0, false));
        assert_eq!(strict("BDAT 12 last"), chunk(12, true));
        for line in [
            "BDAT",
            "BDAT x",
            "BDAT -1",
            "BDAT 1 FIRST",
            "BDAT 1 LAST x",
            "BDAT +1",
        ] {
            let refusal = strict(line).unwrap_err();
            assert_eq!(refusal.severity, Severity::Desynchronised, "{line:?}");
        }
        assert!(strict("BDAT 99999999999999999999").is_err());
    }

    #[test]
    fn a_line_may_hold_any_octets_but_cr_and_nul() {
        assert!(parse(b"MAIL FROM:<\xff@x>", Paths::Strict).is_ok());
        assert!(parse(b"RCPT TO:<\xc3@x>", Paths::Strict).is_ok());
        assert!(parse(b"XFORWARD IDENT=1 HELO=\xc3", Paths::Strict).is_ok());
        for line in [
            "MAIL FROM:<a\rb@x>",
            "RCPT TO:<a\0b@x>",
            "NOOP\r",
            "BDAT 1 LAST\r",
        ] {
            assert_eq!(code(line), (501, "5.5.2"), "{line:?}");
        }
        let chunk = strict("BDAT 1 LAST\r").unwrap_err();
        assert_eq!(chunk.severity, Severity::Desynchronised);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            for verb in ["", "MAIL FROM:<", "RCPT TO:<a@b> ORCPT=", "XFORWARD ", "BDAT "] {
                let line = [verb.as_bytes(), &line].concat();
                let _ = parse(&line, Paths::Strict);
                let _ = parse(&line, Paths::Lenient);
            }
        }
    }
}
