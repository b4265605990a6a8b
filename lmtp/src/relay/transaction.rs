//! One mail transaction as its client sees it: what to send, what each reply means.
//!
//! Does no I/O: [`Transaction::step`] says what comes next, [`Transaction::reply`] takes replies.
//! Invariant: every recipient has exactly one outcome when the transaction is over, in whatever way
//! it ends. Sources: RFC 5321 section 3.3, RFC 2033 section 4.2 (one reply for each recipient after
//! the message), RFC 2920 (pipelining), RFC 1870 (SIZE), RFC 6531 (SMTPUTF8).

use super::envelope::{self, Envelope, Rcpt};
use super::nexthop::Protocol;
use super::opening::Extensions;
use super::outcome::{Lost, Stage, recipient_refused, refused, taken};
use super::replies::{Garbage, Reply};
use mailstow_engine::{EnhancedCode, Status};
use std::collections::VecDeque;

/// Bytes of commands that are sent together, and replies that may be awaited: their sum stays
/// within what sockets hold, so that both sides never wait for each other (RFC 2920 section 3.1).
const GROUP_BYTES: usize = 8 * 1024;
const AWAITED_MAX: usize = 100;

/// Who is spoken to.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its name, for people.
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) extensions: Extensions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Rset,
    Xforward,
    Mail,
    /// Of the recipient with that index.
    Rcpt(usize),
    Data,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send these commands.
    Send(Vec<u8>),
    /// Read a reply.
    Read,
    /// Send the message and the dot that ends it, then say so with
    /// [`Transaction::ends_content`].
    Content,
    /// Every recipient has its outcome.
    Over(Session),
}

/// What becomes of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// It takes the next transaction.
    Ready,
    /// It takes the next transaction after RSET.
    NeedsReset,
    /// It has to be closed.
    Closes,
}

/// A transaction in progress.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    peer: &'a Peer,
    envelope: &'a Envelope,
    recipients: &'a [Rcpt],
    utf8: bool,
    queued: VecDeque<Command>,
    awaited: VecDeque<Command>,
    outcomes: Vec<Option<Status>>,
    accepted: VecDeque<usize>,
    mail_refused: bool,
    /// DATA was answered 354.
    data: bool,
    stage: Stage,
    has_begun: bool,
}

impl<'a> Transaction<'a> {
    /// A transaction with `peer`; `reset`: an earlier one was not finished.
    pub(super) fn new(
        peer: &'a Peer,
        envelope: &'a Envelope,
        recipients: &'a [Rcpt],
        reset: bool,
    ) -> Self {
        let mut this = Self {
            peer,
            envelope,
            recipients,
            utf8: envelope.sender.needs_utf8(),
            queued: VecDeque::with_capacity(recipients.len() + 4),
            awaited: VecDeque::new(),
            outcomes: vec![None; recipients.len()],
            accepted: VecDeque::new(),
            mail_refused: false,
            data: false,
            stage: Stage::Commands,
            has_begun: false,
        };
        this.queue(reset);
        this
    }

    /// Queues the commands for all recipients whose addresses this server can take; the others have
    /// their outcome at once.
    fn queue(&mut self, reset: bool) {
        let extensions = &self.peer.extensions;
        if let Some(limit) = extensions.size.filter(|limit| *limit > 0)
            && self.envelope.size > limit
        {
            let text = format!(
                "Message of {} bytes exceeds the limit of {limit} bytes of {}",
                self.envelope.size, self.peer.name
            );
            return self.fail(&Status::new(552, EnhancedCode::new(5, 3, 4), text));
        }
        if !self.envelope.sender.is_sendable() {
            let text = "Sender address has control characters, which no server takes";
            return self.fail(&Status::new(553, EnhancedCode::new(5, 1, 7), text));
        }
        let no_utf8 = || {
            let text = format!("{} does not offer SMTPUTF8", self.peer.name);
            Status::new(553, EnhancedCode::new(5, 6, 7), text)
        };
        if self.utf8 && !extensions.utf8 {
            return self.fail(&no_utf8());
        }
        let mut sent = Vec::with_capacity(self.recipients.len());
        for (index, recipient) in self.recipients.iter().enumerate() {
            let path = &recipient.path;
            let refused = if !path.is_sendable() {
                let text = "Recipient address has control characters, which no server takes";
                Some(Status::new(553, EnhancedCode::new(5, 1, 3), text))
            } else if path.needs_utf8() && !extensions.utf8 {
                Some(no_utf8())
            } else {
                self.utf8 |= path.needs_utf8();
                sent.push(Command::Rcpt(index));
                None
            };
            if let Some(outcome) = self.outcomes.get_mut(index) {
                *outcome = refused;
            }
        }
        if sent.is_empty() {
            return;
        }
        if reset {
            self.queued.push_back(Command::Rset);
        }
        self.queued.extend([Command::Xforward, Command::Mail]);
        self.queued.extend(sent);
        self.queued.push_back(Command::Data);
    }

    /// Returns what comes next.
    pub(super) fn step(&mut self) -> Step {
        match self.stage {
            Stage::Content => Step::Content,
            Stage::Answers if self.accepted.is_empty() => Step::Over(Session::Ready),
            Stage::Answers => Step::Read,
            Stage::Greeting | Stage::Hello | Stage::Commands => self.next_commands(),
        }
    }

    fn next_commands(&mut self) -> Step {
        let mut out = Vec::new();
        while out.len() < GROUP_BYTES && self.may_send() {
            let Some(command) = self.queued.pop_front() else {
                break;
            };
            if self.encode(&mut out, command) {
                self.awaited.push_back(command);
            }
        }
        if !out.is_empty() {
            self.has_begun = true;
            return Step::Send(out);
        }
        if !self.awaited.is_empty() {
            return Step::Read;
        }
        match (self.data, self.accepted.is_empty()) {
            (true, false) => {
                self.stage = Stage::Content;
                Step::Content
            }
            // The server wants a message that has no recipient; how it would answer it is not
            // told by the standards.
            (true, true) => Step::Over(Session::Closes),
            (false, _) if self.has_begun => Step::Over(Session::NeedsReset),
            (false, _) => Step::Over(Session::Ready),
        }
    }

    /// Whether the next command may be sent before all replies have come.
    fn may_send(&self) -> bool {
        if self.awaited.is_empty() {
            // Without pipelining it is known by now whether there is anything to send.
            return match self.queued.front() {
                Some(Command::Data) => !self.accepted.is_empty() || !self.has_begun,
                _ => true,
            };
        }
        self.peer.extensions.pipelining && self.awaited.len() < AWAITED_MAX
    }

    fn encode(&self, out: &mut Vec<u8>, command: Command) -> bool {
        let extensions = &self.peer.extensions;
        match command {
            Command::Rset => out.extend_from_slice(b"RSET\r\n"),
            Command::Xforward => {
                return envelope::xforward(out, &self.envelope.forwarded, extensions);
            }
            Command::Mail => envelope::mail(out, self.envelope, extensions, self.utf8),
            Command::Rcpt(index) => match self.recipients.get(index) {
                Some(recipient) => envelope::rcpt(out, recipient, extensions),
                None => return false,
            },
            Command::Data => out.extend_from_slice(b"DATA\r\n"),
        }
        true
    }

    /// Takes the next reply.
    ///
    /// # Errors
    /// The session cannot go on; [`Transaction::lost`] or [`Transaction::fail`] ends it.
    pub(super) fn reply(&mut self, reply: &Reply) -> Result<(), Broken> {
        if reply.code == 421 {
            let to = match (self.stage, self.awaited.front()) {
                (Stage::Content, _) => "the message",
                (Stage::Answers, _) => "end of DATA",
                (_, Some(Command::Rset)) => "RSET",
                (_, Some(Command::Xforward)) => "XFORWARD",
                (_, Some(Command::Mail)) => "MAIL FROM",
                (_, Some(Command::Rcpt(_))) => "RCPT TO",
                (_, Some(Command::Data)) => "DATA",
                (_, None) => "no command",
            };
            return Err(Broken::Closing(refused(reply, &self.peer.name, to)));
        }
        if self.stage == Stage::Answers {
            return self.answer(reply);
        }
        let Some(command) = self.awaited.pop_front() else {
            return Err(Broken::Garbage(Garbage::Unasked));
        };
        let is_wanted = match command {
            Command::Data => reply.code == 354,
            _ => reply.is_success(),
        };
        if !is_wanted && !reply.is_refusal() {
            return Err(Broken::Garbage(Garbage::Unasked));
        }
        let server = &self.peer.name;
        match command {
            Command::Rset if reply.is_refusal() => {
                return Err(Broken::Closing(refused(reply, server, "RSET")));
            }
            // A server may refuse what it offered; the mail does not depend on it.
            Command::Rset | Command::Xforward => {}
            Command::Mail if reply.is_refusal() => {
                let status = refused(reply, server, "MAIL FROM");
                self.mail_refused = true;
                self.queued.clear();
                self.fail(&status);
            }
            Command::Mail => {}
            Command::Rcpt(index) => {
                if reply.is_success() && !self.mail_refused {
                    self.accepted.push_back(index);
                } else if reply.is_refusal() {
                    let status = recipient_refused(reply, server);
                    self.settle(index, &status);
                }
            }
            Command::Data if reply.is_refusal() => {
                let status = refused(reply, server, "DATA");
                self.accepted.clear();
                self.fail(&status);
            }
            Command::Data => self.data = true,
        }
        Ok(())
    }

    fn answer(&mut self, reply: &Reply) -> Result<(), Broken> {
        let server = &self.peer.name;
        let status = match (reply.is_success(), reply.is_refusal()) {
            (true, _) => taken(reply, server),
            (_, true) => refused(reply, server, "end of DATA"),
            _ => return Err(Broken::Garbage(Garbage::Unasked)),
        };
        match self.peer.protocol {
            Protocol::Lmtp => {
                if let Some(index) = self.accepted.pop_front() {
                    self.settle(index, &status);
                }
            }
            Protocol::Smtp => {
                for index in std::mem::take(&mut self.accepted) {
                    self.settle(index, &status);
                }
            }
        }
        Ok(())
    }

    /// The message is sent in full but for the end that makes it one: from now on the server may
    /// take it.
    pub(super) fn ends_content(&mut self) {
        self.stage = Stage::Answers;
    }

    /// Returns what is going on, for people.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// The connection was lost: all recipients without an outcome are deferred.
    pub(super) fn lost(&mut self, lost: &Lost) {
        let status = lost.status(self.stage);
        self.fail(&status);
    }

    /// Gives all recipients without an outcome this one.
    pub(super) fn fail(&mut self, status: &Status) {
        for outcome in &mut self.outcomes {
            outcome.get_or_insert_with(|| status.clone());
        }
    }

    fn settle(&mut self, index: usize, status: &Status) {
        if let Some(outcome) = self.outcomes.get_mut(index) {
            outcome.get_or_insert_with(|| status.clone());
        }
    }

    /// Returns the outcome of each recipient, in order.
    pub(super) fn outcomes(self) -> Vec<Status> {
        let unknown = || Status::system("The outcome of a delivery is unknown");
        let outcomes = self.outcomes.into_iter();
        outcomes.map(|one| one.unwrap_or_else(unknown)).collect()
    }
}

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Returns the reply for recipients when the server announces that it closes.
    Closing(Status),
    Garbage(Garbage),
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
