//! A handle: the library in one of its modes.
//!
//! The same calls work in all modes; [`Backend`] has the differences. Any thread may call all
//! methods.

use crate::boundary::{CompletionCallback, Kind, Pool, mailstow, mailstow_statistics};
use crate::client::{Client, Submission};
use crate::completions::Completions;
use crate::config::{Bounds, Config};
use crate::content::{Content, too_large};
use crate::counters::{Counters, Permit, add};
use crate::failure::Failure;
use crate::flight::Flight;
use crate::message::{Message, parse, parse_to_send};
use crate::mode::Mode;
use crate::outcome::Outcome;
use crate::result::{
    MAILSTOW_BUSY, MAILSTOW_INVALID, MAILSTOW_NO_TABLES, MAILSTOW_STORE, MAILSTOW_USER_CHANGED,
    MAILSTOW_WRONG_MODE, mailstow_result,
};
use crate::results::Results;
use mailstow_engine::{
    AddressClass, Engine, EnhancedCode, Format, LogState, Mail, MailboxTarget, MessageBuilder,
    Resolution, Route, Router, Status,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// There is no delivery log: the mode is not `MAILSTOW_MODE_LOGGED`.
pub const MAILSTOW_LOG_STATE_NONE: u32 = 0;
/// Mail is acknowledged through the delivery log.
pub const MAILSTOW_LOG_STATE_IN_SERVICE: u32 = 1;
/// The delivery log failed; mail is answered 451 4.3.0 until the library has opened and recovered
/// it again.
pub const MAILSTOW_LOG_STATE_FAILED: u32 = 2;

/// The object behind a handle.
#[derive(Debug)]
pub(crate) struct Handle {
    number: u64,
    mode: Mode,
    /// The user that opened it.
    user: u32,
    bounds: Mutex<Arc<Bounds>>,
    backend: Backend,
    completions: Arc<Completions>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Backend {
    /// Logged or direct.
    Local(Box<Engine>),
    Client(Client),
}

impl Kind for Handle {
    type Handle = mailstow;
    const NUMBER: u64 = 4;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Handle> = Pool::new();
        &POOL
    }
}

impl Handle {
    /// Opens the library in this mode.
    pub(crate) fn open(config: &Config, mode: Mode) -> Result<Self, Failure> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        crate::log::install();
        let configuration = config.load(mode)?;
        for warning in &configuration.warnings {
            tracing::warn!("{warning}");
        }
        let settings = &configuration.settings;
        let completions = Arc::new(Completions::new()?);
        let counters = Arc::new(Counters::default());
        let backend = match mode {
            Mode::Logged | Mode::Direct => {
                let engine = Engine::open(settings)?;
                for warning in engine.table_warnings() {
                    tracing::warn!("{warning}");
                }
                Backend::Local(Box::new(engine))
            }
            Mode::Client => Backend::Client(Client::open(settings, &completions, &counters)?),
        };
        Ok(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            mode,
            user: rustix::process::geteuid().as_raw(),
            bounds: Mutex::new(Arc::new(Bounds::from(settings))),
            backend,
            completions,
            counters,
        })
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Reads the configuration again, and changed tables at once.
    pub(crate) fn reload(&self, config: &Config) -> Result<(), Failure> {
        let configuration = config.load(self.mode)?;
        let settings = &configuration.settings;
        match &self.backend {
            Backend::Local(engine) => {
                for complaint in engine.reload(settings)? {
                    tracing::warn!("{complaint}");
                }
            }
            Backend::Client(client) => client.reload(settings)?,
        }
        let mut bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        *bounds = Arc::new(Bounds {
            // Mailboxes stay in their directory.
            base: bounds.base.clone(),
            ..Bounds::from(settings)
        });
        Ok(())
    }

    fn bounds(&self) -> Arc<Bounds> {
        let bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&bounds)
    }

    /// Returns the current tables; `None` for a client without any.
    fn snapshot(&self) -> Option<Arc<Router>> {
        match &self.backend {
            Backend::Local(engine) => Some(engine.snapshot()),
            Backend::Client(client) => client.snapshot(),
        }
    }

    /// Looks an address up. Also returns the settings, which have the path above mailboxes.
    pub(crate) fn resolve(&self, address: &[u8]) -> Result<(Resolution, Arc<Bounds>), Failure> {
        let router = self.snapshot().ok_or(MAILSTOW_NO_TABLES)?;
        add(&self.counters.lookups);
        let resolution = match parse(address) {
            Ok(address) => router.resolve(&address),
            Err(status) => Resolution {
                error: Some(status),
                ..Resolution::default()
            },
        };
        Ok((resolution, self.bounds()))
    }

    /// Returns the reply to RCPT for a message of `size` bytes; 0 when the size is unknown.
    pub(crate) fn check(&self, address: &[u8], size: u64) -> Result<Status, Failure> {
        let router = self.snapshot().ok_or(MAILSTOW_NO_TABLES)?;
        add(&self.counters.lookups);
        let parsed = match &self.backend {
            Backend::Local(_) => parse(address),
            Backend::Client(_) => parse_to_send(address),
        };
        let address = match parsed {
            Ok(address) => address,
            Err(status) => return Ok(status),
        };
        let bounds = self.bounds();
        let most = bounds.message_bytes_max;
        if most > 0 && size > most {
            return Ok(too_large(most));
        }
        let resolution = router.resolve(&address);
        if let Some(error) = resolution.error
            && !is_for_others(&resolution.results)
        {
            return Ok(error);
        }
        if size > 0 && bounds.mailbox_bytes_max > 0 {
            let mailboxes = resolution.results.iter().filter_map(|r| r.mailbox.as_ref());
            for mailbox in mailboxes {
                if let Some(status) = over_limit(mailbox, size, &bounds) {
                    return Ok(status);
                }
            }
        }
        Ok(Status::new(250, EnhancedCode::new(2, 1, 5), "Ok"))
    }

    /// Begins a message.
    pub(crate) fn new_message(&self) -> Result<Message, Failure> {
        self.check_user()?;
        let bounds = self.bounds();
        let permit = self.counters.open(bounds.in_flight_max);
        let permit = permit.ok_or(MAILSTOW_BUSY)?;
        let builder: MessageBuilder = match &self.backend {
            Backend::Local(engine) => engine.new_message(),
            Backend::Client(client) => client.new_message(),
        };
        let content = Content::new(builder.without_envelope_line(), bounds.message_bytes_max);
        let is_local = matches!(self.backend, Backend::Local(_));
        let router = self.snapshot();
        Ok(Message::new(
            self.number,
            bounds,
            router,
            is_local,
            content,
            permit,
        ))
    }

    /// Returns the right to deliver this message now.
    pub(crate) fn admit(&self, message: &Message) -> Result<Permit, Failure> {
        self.check_user()?;
        if message.owner != self.number {
            let text = "the message was made for another handle";
            return Err(Failure::new(MAILSTOW_INVALID, text));
        }
        if message.envelope.recipients.is_empty() {
            let text = "the message has no recipient that was accepted";
            return Err(Failure::new(MAILSTOW_INVALID, text));
        }
        if message.content.is_cut_short() {
            let text = "the content is incomplete: its end, CRLF \".\" CRLF, is missing because \
                the sender disconnected";
            return Err(Failure::new(MAILSTOW_INVALID, text));
        }
        let count = message.envelope.recipients.len();
        let most = message.bounds.in_flight_max;
        let permit = self.counters.deliver(count, most);
        Ok(permit.ok_or(MAILSTOW_BUSY)?)
    }

    /// Delivers a message that was admitted, and waits.
    pub(crate) fn deliver(&self, message: Message, permit: Permit) -> Results {
        add(&self.counters.messages);
        let envelope = message.envelope;
        let content = match message.content.finish() {
            Ok(content) => content,
            Err(status) => return self.refused(&envelope.recipients, &status, permit),
        };
        match &self.backend {
            Backend::Client(client) => {
                let submission = Submission {
                    envelope,
                    message: content,
                    permit,
                };
                client.deliver(submission, &self.counters)
            }
            Backend::Local(engine) => {
                let mail = Mail {
                    reverse_path: envelope.reverse_path,
                    queue_id: envelope.retry_key,
                    client: Default::default(),
                    dsn: Default::default(),
                    message: content,
                };
                let count = envelope.deliveries.len();
                let flight = Flight::new(envelope.recipients, count, permit, &self.counters);
                let flight = Arc::new(flight);
                let landing = Arc::clone(&flight);
                let on_outcome = move |delivery: usize, outcome: mailstow_engine::Outcome| {
                    landing.put_and_wake(delivery, outcome.into());
                };
                let receipt =
                    engine.submit(Arc::new(mail), envelope.deliveries, Arc::new(on_outcome));
                let results = flight.begin(Some(receipt)).or_else(|| flight.wait());
                results.unwrap_or_else(|| lost(&self.counters))
            }
        }
    }

    /// Starts the threads that submitted messages need, where they are not running.
    pub(crate) fn start_threads(&self) -> Result<(), Failure> {
        match &self.backend {
            Backend::Local(_) => self.completions.start(),
            Backend::Client(client) => client.start(),
        }
    }

    /// Submits an admitted message, after [`Handle::start_threads`]; its results arrive as a
    /// completion.
    pub(crate) fn submit(&self, message: Message, permit: Permit, token: u64) {
        let envelope = message.envelope;
        let content = match message.content.finish() {
            Ok(content) => content,
            Err(status) => {
                add(&self.counters.messages);
                let results = self.refused(&envelope.recipients, &status, permit);
                self.completions.put(token, results);
                return;
            }
        };
        let engine = match &self.backend {
            Backend::Client(client) => {
                let submission = Submission {
                    envelope,
                    message: content,
                    permit,
                };
                client.submit(submission, token);
                add(&self.counters.messages);
                return;
            }
            Backend::Local(engine) => engine,
        };
        let mail = Mail {
            reverse_path: envelope.reverse_path,
            queue_id: envelope.retry_key,
            client: Default::default(),
            dsn: Default::default(),
            message: content,
        };
        let count = envelope.deliveries.len();
        let flight = Flight::new(envelope.recipients, count, permit, &self.counters);
        let flight = Arc::new(flight);
        let number = self.completions.watch(token, &flight);
        let (landing, completions) = (Arc::clone(&flight), Arc::clone(&self.completions));
        let on_outcome = move |delivery: usize, outcome: mailstow_engine::Outcome| {
            if let Some(results) = landing.put(delivery, outcome.into()) {
                completions.land(number, results);
            }
        };
        let receipt = engine.submit(Arc::new(mail), envelope.deliveries, Arc::new(on_outcome));
        add(&self.counters.messages);
        if let Some(results) = flight.begin(Some(receipt)) {
            self.completions.land(number, results);
        }
    }

    fn refused(
        &self,
        recipients: &[crate::message::Accepted],
        status: &Status,
        permit: Permit,
    ) -> Results {
        let recipients: Vec<String> = recipients
            .iter()
            .map(|recipient| recipient.address.external())
            .collect();
        let outcomes = recipients
            .iter()
            .map(|recipient| (recipient.as_str(), Outcome::refused(status.clone())));
        Results::new(outcomes, None, permit, &self.counters)
    }

    pub(crate) fn completions(&self) -> &Completions {
        &self.completions
    }

    pub(crate) fn set_function(&self, function: Option<CompletionCallback>) {
        self.completions.set_function(function);
    }

    /// Makes every mailbox durable and frees the delivery log.
    pub(crate) fn checkpoint(&self) -> Result<(), Failure> {
        match (&self.backend, self.mode) {
            (Backend::Local(engine), Mode::Logged) => engine
                .checkpoint()
                .map_err(|error| Failure::new(MAILSTOW_STORE, &error.to_string())),
            _ => Err(MAILSTOW_WRONG_MODE.into()),
        }
    }

    pub(crate) fn statistics(&self) -> mailstow_statistics {
        let counters = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut figures = mailstow_statistics {
            struct_size: 0,
            log_state: MAILSTOW_LOG_STATE_NONE,
            messages: read(&counters.messages),
            durable: read(&counters.durable),
            refused: read(&counters.refused),
            deferred: read(&counters.deferred),
            in_doubt: read(&counters.in_doubt),
            in_flight: counters.in_flight() as u64,
            in_flight_max: self.bounds().in_flight_max as u64,
            lookups: read(&counters.lookups),
            busy: read(&counters.busy),
            ..mailstow_statistics::default()
        };
        if let Backend::Local(engine) = &self.backend {
            let health = engine.health();
            figures.waiting = health.waiting as u64;
            match health.log {
                LogState::Direct => {}
                LogState::InService {
                    bytes_used,
                    bytes_max,
                } => {
                    figures.log_state = MAILSTOW_LOG_STATE_IN_SERVICE;
                    figures.log_bytes = bytes_used;
                    figures.log_bytes_max = bytes_max;
                }
                LogState::Failed(_) => figures.log_state = MAILSTOW_LOG_STATE_FAILED,
            }
        }
        figures
    }

    /// Checks that the process has the user that opened the handle: no other user may write for it.
    fn check_user(&self) -> Result<(), mailstow_result> {
        match rustix::process::geteuid().as_raw() == self.user {
            true => Ok(()),
            false => Err(MAILSTOW_USER_CHANGED),
        }
    }

    /// Finishes submitted messages and ends all threads.
    pub(crate) fn close(self) {
        match self.backend {
            Backend::Local(engine) => engine.close(),
            Backend::Client(client) => client.close(),
        }
        self.completions.close();
    }
}

/// For a message whose results were handed over elsewhere, which no blocking call has.
fn lost(counters: &Arc<Counters>) -> Results {
    let permit = Permit::empty(counters);
    Results::new(std::iter::empty(), None, permit, counters)
}

/// Returns whether another server decides about these recipients: their domain is in no table here.
fn is_for_others(results: &[Route]) -> bool {
    let [only] = results else { return false };
    only.class == AddressClass::Default && !matches!(only.transport.as_str(), "error" | "retry")
}

/// Returns why a mailbox cannot take a message of that size; `None` when it can, or when that is
/// unknown.
fn over_limit(target: &MailboxTarget, size: u64, bounds: &Bounds) -> Option<Status> {
    let most = bounds.mailbox_bytes_max;
    if size > most {
        let text = format!("Message is larger than the mailbox limit of {most} bytes");
        return Some(Status::new(552, EnhancedCode::new(5, 2, 3), text));
    }
    if target.format != Format::Mbox || bounds.base.as_os_str().is_empty() {
        return None;
    }
    let path = bounds
        .base
        .join(mailstow_engine::octets::path(&target.path));
    let length = std::fs::metadata(path).ok()?.len();
    let text = format!("Mailbox would exceed its limit of {most} bytes");
    (length.saturating_add(size) > most).then(|| Status::mailbox_full(text))
}

#[cfg(test)]
mod tests;
