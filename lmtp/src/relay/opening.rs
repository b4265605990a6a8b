//! The beginning of a session: greeting, hello, TLS.
//!
//! Does no I/O: it is given replies and says what comes next. Sources: RFC 5321 sections 3.1 and
//! 3.2, RFC 2033 section 4.1, RFC 3207 (STARTTLS).

use super::nexthop::Protocol;
use super::outcome::{Stage, session_refused};
use super::replies::Reply;
use mailstow_engine::{EnhancedCode, Status};

/// What a server offers (RFC 5321 section 4.1.1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) pipelining: bool,
    pub(super) eight_bit: bool,
    pub(super) utf8: bool,
    pub(super) dsn: bool,
    pub(super) starttls: bool,
    /// `SIZE` is offered, with this limit; 0 is none.
    pub(super) size: Option<u64>,
    /// Attributes of XFORWARD, in upper case; empty when it is not offered.
    pub(super) xforward: Vec<String>,
}

impl Extensions {
    fn of(hello: &Reply) -> Self {
        let mut found = Self::default();
        for line in hello.lines.iter().skip(1) {
            let line = line.to_ascii_uppercase();
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default() {
                "PIPELINING" => found.pipelining = true,
                "8BITMIME" => found.eight_bit = true,
                "SMTPUTF8" => found.utf8 = true,
                "DSN" => found.dsn = true,
                "STARTTLS" => found.starttls = true,
                "SIZE" => {
                    let limit = words.next().and_then(|digits| digits.parse().ok());
                    found.size = Some(limit.unwrap_or(0));
                }
                "XFORWARD" => found.xforward = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        found
    }
}

/// Whether TLS is wanted, as `smtp_tls_security_level` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsWish {
    /// Not at all, or it is in use already.
    Never,
    /// Where it is offered.
    May,
    /// Else no mail is sent.
    Must,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send this, and read a reply.
    Send(String),
    /// Negotiate TLS, then go on with [`Opening::secured`].
    StartTls,
    /// The session is ready for mail.
    Ready(Extensions),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Hello,
    Helo,
    StartTls,
}

/// The beginning of one session.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    protocol: Protocol,
    /// The name we greet with.
    me: &'a str,
    server: &'a str,
    tls: TlsWish,
    state: State,
    /// What was offered before STARTTLS.
    offered: Extensions,
}

impl<'a> Opening<'a> {
    /// Waits for the greeting of `server`.
    pub(super) fn new(protocol: Protocol, me: &'a str, server: &'a str, tls: TlsWish) -> Self {
        Self {
            protocol,
            me,
            server,
            tls,
            state: State::Greeting,
            offered: Extensions::default(),
        }
    }

    /// Returns what is going on, for people.
    pub(super) fn stage(&self) -> Stage {
        match self.state {
            State::Greeting => Stage::Greeting,
            State::Hello | State::Helo | State::StartTls => Stage::Hello,
        }
    }

    /// Takes the next reply.
    ///
    /// # Errors
    /// The server takes no mail: the reply for its recipients.
    pub(super) fn reply(&mut self, reply: &Reply) -> Result<Next, Status> {
        match self.state {
            State::Greeting if reply.code == 220 => Ok(Next::Send(self.hello())),
            State::Greeting => Err(self.refused(reply, "the greeting")),
            State::Hello if reply.code == 250 => self.offers(Extensions::of(reply)),
            State::Hello if reply.code / 100 == 5 && self.may_be_old() => {
                self.state = State::Helo;
                Ok(Next::Send(format!("HELO {}\r\n", self.me)))
            }
            State::Helo if reply.code == 250 => Ok(Next::Ready(Extensions::default())),
            State::Hello | State::Helo => Err(self.refused(reply, self.hello_word())),
            State::StartTls if reply.code == 220 => Ok(Next::StartTls),
            State::StartTls if self.tls == TlsWish::May => {
                Ok(Next::Ready(std::mem::take(&mut self.offered)))
            }
            State::StartTls => Err(self.refused(reply, "STARTTLS")),
        }
    }

    /// TLS is in use: what was learnt before it is forgotten. Returns what to send.
    pub(super) fn secured(&mut self) -> String {
        self.tls = TlsWish::Never;
        self.hello()
    }

    /// Servers that know no EHLO know no TLS.
    fn may_be_old(&self) -> bool {
        self.protocol == Protocol::Smtp && self.tls != TlsWish::Must
    }

    fn offers(&mut self, extensions: Extensions) -> Result<Next, Status> {
        match self.tls {
            TlsWish::May | TlsWish::Must if extensions.starttls => {
                self.offered = extensions;
                self.state = State::StartTls;
                Ok(Next::Send("STARTTLS\r\n".to_owned()))
            }
            TlsWish::Must => {
                let text = format!("{} does not offer TLS, which is required", self.server);
                Err(Status::new(451, EnhancedCode::new(4, 7, 4), text))
            }
            TlsWish::Never | TlsWish::May => Ok(Next::Ready(extensions)),
        }
    }

    fn hello(&mut self) -> String {
        self.state = State::Hello;
        format!("{} {}\r\n", self.hello_word(), self.me)
    }

    fn hello_word(&self) -> &'static str {
        match (self.protocol, self.state) {
            (_, State::Helo) => "HELO",
            (Protocol::Lmtp, _) => "LHLO",
            (Protocol::Smtp, _) => "EHLO",
        }
    }

    fn refused(&self, reply: &Reply, to: &str) -> Status {
        session_refused(reply, self.server, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        let lines = text.lines().map(|line| line.split_at(4).1.to_owned());
        Reply {
            code: text.split_at(3).0.parse().unwrap(),
            lines: lines.collect(),
        }
    }

    /// Gives the replies one after the other; what was to be sent, and what came last.
    fn talk(
        (protocol, tls): (Protocol, TlsWish),
        replies: &[&str],
    ) -> (String, Result<Next, Status>) {
        let mut opening = Opening::new(protocol, "me", "store", tls);
        let (mut sent, mut last) = (String::new(), Ok(Next::StartTls));
        for text in replies {
            last = opening.reply(&reply(text));
            match &last {
                Ok(Next::Send(bytes)) => sent += bytes,
                Ok(Next::StartTls) => sent += &opening.secured(),
                Ok(Next::Ready(_)) | Err(_) => {}
            }
        }
        (sent, last)
    }

    const HELLO: &str = "250-store\n250-pipelining\n250-SIZE 1000\n250-STARTTLS\n\
                         250-XFORWARD NAME ident\n250 8BITMIME";

    #[test]
    fn the_hello_tells_what_a_server_offers() {
        let lmtp = (Protocol::Lmtp, TlsWish::Never);
        let (sent, last) = talk(lmtp, &["220 hi", HELLO]);
        assert_eq!(sent, "LHLO me\r\n");
        let Ok(Next::Ready(extensions)) = last else {
            panic!("{last:?}");
        };
        assert!(extensions.pipelining && extensions.eight_bit && !extensions.utf8);
        assert_eq!(extensions.size, Some(1000));
        assert_eq!(extensions.xforward, ["NAME", "IDENT"]);
    }

    #[test]
    fn tls_begins_where_it_is_offered_and_everything_is_asked_anew() {
        let may = (Protocol::Smtp, TlsWish::May);
        let (sent, last) = talk(may, &["220 hi", HELLO, "220 go", "250 store"]);
        assert_eq!(sent, "EHLO me\r\nSTARTTLS\r\nEHLO me\r\n");
        assert_eq!(last, Ok(Next::Ready(Extensions::default())));
        let (_, last) = talk(may, &["220 hi", "250 store"]);
        assert!(matches!(last, Ok(Next::Ready(_))));
        let (_, last) = talk(may, &["220 hi", HELLO, "454 no"]);
        assert!(matches!(last, Ok(Next::Ready(e)) if e.pipelining));
    }

    #[test]
    fn no_mail_goes_without_the_tls_that_is_required() {
        let must = (Protocol::Smtp, TlsWish::Must);
        for replies in [
            &["220 hi", "250 store"][..],
            &["220 hi", HELLO, "454 no"],
            &["220 hi", "502 what"],
        ] {
            let (_, last) = talk(must, replies);
            assert!(last.unwrap_err().is_temporary(), "{replies:?}");
        }
    }

    #[test]
    fn a_server_that_refuses_the_session_refuses_no_mail_for_good() {
        for replies in [
            &["554 no service"][..],
            &["421 later"],
            &["250 odd"],
            &["220 hi", "550 no"],
            &["220 hi", "354 odd"],
        ] {
            let (_, last) = talk((Protocol::Lmtp, TlsWish::Never), replies);
            assert!(last.unwrap_err().is_temporary(), "{replies:?}");
        }
    }

    #[test]
    fn an_old_smtp_server_is_greeted_with_helo() {
        let smtp = (Protocol::Smtp, TlsWish::May);
        let (sent, last) = talk(smtp, &["220 hi", "502 what", "250 store"]);
        assert_eq!(sent, "EHLO me\r\nHELO me\r\n");
        assert!(matches!(last, Ok(Next::Ready(_))));
    }
}
