//! One LMTP session: commands in, replies out, in order.
//!
//! The commands of a pipeline
//! are worked off one after the other and their replies sent together; nothing is read ahead
//! past a command that changes how the following bytes are to be understood. Sources: RFC 2033,
//! RFC 5321, RFC 2920 (pipelining).

mod body;
mod content;
mod deliver;
mod lookup;
mod notify;
mod outcomes;
mod settle;
mod state;
mod summary;
mod transaction;
mod unread;
mod wire;

use crate::admission::Guest;
use crate::buffers::BYTES_MAX;
use crate::client_socket::ClientSocket;
use crate::command::{Command, Forwarded, ForwardedName, MailCommand, Paths, RcptCommand};
use crate::command::{Refusal, Severity, parse};
use crate::drain::DrainListener;
use crate::input::Line;
use crate::log::DeliveryLine;
use crate::reply::{self, Reply, write_status};
use crate::shared::Shared;
use mailstow_engine::Status;
use mailstow_engine::config::Settings;
use mailstow_engine::route::FoundTargets;
use mailstow_engine::transport::Client;
use state::SessionState;
use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use transaction::{Accepted, Transaction};
use unread::Unread;
use wire::{Arrival, Closed, OUT_BYTES_MAX, Timer, Wait, Wire};

/// Buffer for commands, in bytes, unless a line may be longer.
const COMMAND_BYTES: usize = 4096;

/// Said to new connections, new transactions and idle sessions when the server comes to an end.
pub(crate) const CLOSING: Reply = Reply::new(421, "4.3.2", "Server is shutting down");

/// Said when the memory of all envelopes, or of those of one peer, is used up.
const NO_MEMORY: &str = "Too much mail is being received";

/// A session.
#[derive(Debug)]
pub(crate) struct Session<S> {
    wire: Wire<S>,
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    id: String,
    peer: String,
    guest: Guest,
    origin: Origin,
    state: SessionState,
    /// DSN was offered: success notices are ours to send.
    has_dsn: bool,
    /// Messages whose replies the client may not have read.
    unread: Unread,
    /// Timer of the deliveries; made for the first.
    timer: Option<Timer>,
    bad_commands: u32,
    skipping: bool,
}

/// What XFORWARD told of where the message comes from.
#[derive(Debug, Default)]
struct Origin {
    ident: String,
    client: Client,
}

impl Origin {
    /// Bytes of text.
    fn texts(&self) -> usize {
        let Client {
            name,
            address,
            port,
            helo,
            protocol,
            // Of a transaction.
            sasl_sender: _,
        } = &self.client;
        let texts = [&self.ident, name, address, port, helo, protocol];
        texts.into_iter().map(String::len).sum()
    }
}

impl<S: ClientSocket> Session<S> {
    /// A session over `stream`; `peer` is who connected, for the log.
    pub(crate) fn new(stream: S, (peer, guest): (String, Guest), shared: Arc<Shared>) -> Self {
        let settings = shared.settings();
        let drain = DrainListener::new(&shared.drain);
        Self {
            wire: Wire::new(stream, &settings.lmtp, shared.buffers.clone(), drain),
            id: shared.ids.next(),
            shared,
            settings,
            peer,
            guest,
            origin: Origin::default(),
            state: SessionState::Connected,
            has_dsn: false,
            unread: Unread::default(),
            timer: None,
            bad_commands: 0,
            skipping: false,
        }
    }

    /// Talks until the connection is over.
    pub(crate) async fn run(mut self) {
        let Err(closed) = self.talk().await;
        if matches!(closed, Closed::IdleTimeout) {
            self.confirm_if_read().await;
            let reply = Reply::new(421, "4.4.2", "Idle for too long");
            self.wire.end(&reply).await;
        }
        self.settle().await;
        let reason = match closed {
            Closed::IdleTimeout => "timeout",
            Closed::WriteTimeout => "the client does not read its replies",
            Closed::ByClient => "lost connection",
            Closed::Broken(ref error) => {
                tracing::debug!(session = self.id, %error, "broken connection");
                "lost connection"
            }
            Closed::Ended => "end of the session",
        };
        if let Some(transaction) = self.state.transaction() {
            tracing::info!(
                session = self.id,
                id = transaction.id,
                client = &*self.client(),
                "{reason} in a mail transaction; nothing of it was delivered"
            );
        } else {
            tracing::debug!(session = self.id, "{reason}");
        }
    }

    async fn talk(&mut self) -> Result<Infallible, Closed> {
        if self.wire.is_draining() {
            return Err(self.wire.end(&CLOSING).await);
        }
        reply::greeting(&mut self.wire.out, &self.settings.lmtp.hostname);
        loop {
            if self.skipping {
                self.skip_line().await?;
                continue;
            }
            match self
                .wire
                .input
                .line(self.settings.limits.command_line_bytes)
            {
                Line::Whole(length) => self.line(length).await?,
                Line::TooLong => self.skipping = true,
                Line::Unfinished => self.more().await?,
            }
        }
    }

    /// Waits for more of a command.
    async fn more(&mut self) -> Result<(), Closed> {
        // A long command gets more only when it needs it.
        let wanted = self.wire.input.unused().len() + COMMAND_BYTES;
        let most = COMMAND_BYTES.max(self.settings.limits.command_line_bytes);
        let target = wanted.min(most);
        self.wire.input.shrink(target.max(BYTES_MAX));
        let wait = match self.state.transaction() {
            None => Wait::Transaction,
            Some(_) => Wait::Command,
        };
        match self.wire.fill(target, wait).await? {
            Arrival::Bytes(_) => {
                self.client_goes_on();
                Ok(())
            }
            Arrival::Drain => {
                self.confirm_if_read().await;
                Err(self.wire.end(&CLOSING).await)
            }
        }
    }

    /// Reads past the rest of a line that is too long.
    async fn skip_line(&mut self) -> Result<(), Closed> {
        let unused = self.wire.input.unused();
        if let Some(at) = memchr::memchr(b'\n', unused) {
            self.wire.input.consume(at + 1);
            self.skipping = false;
            let reply = Reply::new(500, "5.5.2", "Line too long");
            let severity = Severity::Protocol;
            return self.refuse(Refusal { reply, severity }).await;
        }
        let all = unused.len();
        self.wire.input.consume(all);
        self.more().await
    }

    /// Works off one whole line of `length` bytes.
    async fn line(&mut self, length: usize) -> Result<(), Closed> {
        self.wire.is_alive(self.settings.lmtp.idle_timeout);
        let line = self.wire.input.unused().get(..length).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let paths = if self.settings.lmtp.lenient_paths {
            Paths::Lenient
        } else {
            Paths::Strict
        };
        let parsed = parse(line, paths);
        self.wire.input.consume(length);
        match parsed {
            Ok(command) => {
                self.bad_commands = 0;
                self.command(command).await?;
            }
            Err(refusal) => self.refuse(refusal).await?,
        }
        if self.wire.out.len() > OUT_BYTES_MAX {
            self.wire.flush().await?;
        }
        Ok(())
    }

    async fn command(&mut self, command: Command) -> Result<(), Closed> {
        match command {
            Command::Lhlo => {
                self.state = SessionState::Greeted;
                self.reset();
                self.settings = self.shared.settings();
                let size_max = self.settings.routing.message_size_limit;
                let host = &self.settings.lmtp.hostname;
                self.has_dsn = self.shared.notices.is_offered();
                reply::capabilities(&mut self.wire.out, host, size_max, self.has_dsn);
            }
            Command::Mail(mail) => return self.mail(mail).await,
            Command::Rcpt(rcpt) => self.rcpt(rcpt).await,
            Command::Data => return self.data().await,
            Command::Bdat { octets, last } => return self.bdat(octets, last).await,
            Command::Rset => {
                self.reset();
                self.reply(250, "2.0.0", "Ok");
            }
            Command::Noop => self.reply(250, "2.0.0", "Ok"),
            Command::Vrfy => self.reply(252, "2.3.3", "Try RCPT instead"),
            Command::Quit => {
                self.reply(221, "2.0.0", "Bye");
                self.wire.flush().await?;
                self.reset();
                return Err(Closed::Ended);
            }
            Command::Xforward(attributes) => self.xforward(attributes),
        }
        Ok(())
    }

    /// Answers a line that is no command for us; too many of them end the session.
    async fn refuse(&mut self, refusal: Refusal) -> Result<(), Closed> {
        match refusal.severity {
            Severity::Recipient => refusal.reply.write(&mut self.wire.out),
            Severity::Desynchronised => return Err(self.wire.end(&refusal.reply).await),
            Severity::Protocol => {
                self.bad_commands += 1;
                let most = self.settings.limits.command_errors;
                if most > 0 && self.bad_commands >= most {
                    let reply = Reply::new(421, "4.7.0", "Too many bad commands");
                    return Err(self.wire.end(&reply).await);
                }
                refusal.reply.write(&mut self.wire.out);
            }
        }
        Ok(())
    }

    async fn mail(&mut self, mail: MailCommand) -> Result<(), Closed> {
        if self.wire.is_draining() {
            return Err(self.wire.end(&CLOSING).await);
        }
        if !self.state.is_greeted() {
            self.reply(503, "5.5.1", "LHLO needed first");
            return Ok(());
        }
        if self.state.transaction().is_some() {
            self.reply(503, "5.5.1", "MAIL already given");
            return Ok(());
        }
        self.settings = self.shared.settings();
        let size_max = self.settings.routing.message_size_limit;
        if size_max > 0 && mail.size.is_some_and(|size| size > size_max) {
            let status = body::too_large(size_max);
            write_status(&mut self.wire.out, &status, &[], mail.smtputf8);
            return Ok(());
        }
        let limits = &self.settings.limits;
        let Some(begun) = self.guest.begin(limits.transactions_per_peer) else {
            self.reply(451, "4.3.2", "Too many transactions from you");
            return Ok(());
        };
        let mut memory = self.guest.envelope(limits.envelope_bytes);
        if memory.add_transaction(self.origin.texts() + mail.texts()) {
            self.state = SessionState::Envelope(Box::new(Transaction {
                mail,
                memory,
                _begun: begun,
                router: self.shared.engine.snapshot(),
                settings: Arc::clone(&self.settings),
                id: self.shared.ids.next(),
                started: std::time::Instant::now(),
                accepted: Vec::new(),
            }));
            self.reply(250, "2.1.0", "Ok");
        } else {
            self.guest.log_no_memory(limits.envelope_bytes);
            self.reply(452, "4.3.1", NO_MEMORY);
        }
        Ok(())
    }

    async fn rcpt(&mut self, rcpt: RcptCommand) {
        let is_between_chunks = self.state.is_between_chunks();
        let Some(transaction) = self.state.transaction_mut() else {
            return self.reply(503, "5.5.1", "MAIL needed first");
        };
        if is_between_chunks {
            return self.reply(503, "5.5.1", "RCPT is not allowed after BDAT");
        }
        if transaction.accepted.len() >= transaction.settings.limits.recipients {
            return self.reply(452, "4.5.3", "Too many recipients");
        }
        let expand_aliases = transaction.settings.lmtp.expand_aliases;
        let FoundTargets {
            address,
            expansion,
            targets,
        } = lookup::find(
            &self.shared.engine,
            (&transaction.router, &transaction.settings),
            rcpt.address,
            &self.shared.drain,
        )
        .await;
        let shown = address.external();
        let mut original = rcpt.original;
        if expand_aliases && original.is_empty() {
            original.clone_from(&shown);
        }
        match targets {
            Ok(members) => {
                let accepted = Accepted {
                    shown,
                    original,
                    dsn: rcpt.dsn.filter(|_| self.has_dsn),
                    expansion,
                    members,
                };
                if transaction.accept(accepted) {
                    self.reply(250, "2.1.5", "Ok");
                } else {
                    let most = transaction.settings.limits.envelope_bytes;
                    self.guest.log_no_memory(most);
                    self.reply(452, "4.3.1", NO_MEMORY);
                }
            }
            Err(error) => {
                let status = error.status();
                write_status(&mut self.wire.out, &status, &[], transaction.utf8());
                self.log_refused(&shown, &original, &status, &error.to_string());
            }
        }
    }

    fn log_refused(&self, to: &str, orig_to: &str, status: &Status, reason: &str) {
        let Some(transaction) = self.state.transaction() else {
            return;
        };
        DeliveryLine {
            queue_id: self.queue_id(&transaction.id),
            id: &transaction.id,
            to,
            orig_to,
            from: &transaction.sender(),
            mailbox: "",
            size: transaction.mail.size.unwrap_or(0),
            received: transaction.started.elapsed(),
            queued: Duration::ZERO,
            stored: Duration::ZERO,
            status,
            reason,
            client: &self.client(),
            session: &self.id,
        }
        .emit();
    }

    fn xforward(&mut self, attributes: Vec<Forwarded>) {
        if self.state.transaction().is_some() {
            return self.reply(503, "5.5.1", "XFORWARD is not allowed after MAIL");
        }
        for Forwarded { name, value } in attributes {
            match name {
                ForwardedName::Ident => self.origin.ident = value,
                ForwardedName::Name => self.origin.client.name = value,
                ForwardedName::Addr => self.origin.client.address = value,
                ForwardedName::Port => self.origin.client.port = value,
                ForwardedName::Proto => self.origin.client.protocol = value,
                ForwardedName::Helo => self.origin.client.helo = value,
                ForwardedName::Source => {}
            }
        }
        self.reply(250, "2.0.0", "Ok");
    }

    /// Ends the transaction; XFORWARD holds for one (XFORWARD_README).
    fn reset(&mut self) {
        self.state.end_transaction();
        self.origin = Origin::default();
    }

    /// The queue id of the client; ours when it gave none.
    fn queue_id<'a>(&'a self, id: &'a str) -> &'a str {
        if self.origin.ident.is_empty() {
            id
        } else {
            &self.origin.ident
        }
    }

    /// Where the message comes from: the client's client when the client said so.
    fn client(&self) -> Cow<'_, str> {
        let Client { name, address, .. } = &self.origin.client;
        match (name.is_empty(), address.is_empty()) {
            (true, true) => Cow::Borrowed(&self.peer),
            (true, false) => Cow::Owned(format!("unknown[{address}]")),
            (false, _) => Cow::Owned(format!("{name}[{address}]")),
        }
    }

    fn reply(&mut self, code: u16, enhanced: &'static str, text: &'static str) {
        Reply::new(code, enhanced, text).write(&mut self.wire.out);
    }
}
