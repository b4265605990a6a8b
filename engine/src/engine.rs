//! The engine: opens tables and writers, resolves, delivers, reloads, closes.
//!
//! All methods may be called from any thread. The writer threads belong to `delivery`.

use crate::address::Address;
use crate::clock;
use crate::config::Settings;
use crate::delivery::{
    Health, Mail, OnOutcome, Outcome, Receipt, RecoveryReport, Store, Stores, of_mailboxes,
};
use crate::descriptors::Descriptors;
use crate::envelope::{Recipient, ReversePath};
use crate::io::{PathError, SafeDirectory, open_state_directory};
use crate::log::LogError;
use crate::message::MessageBuilder;
use crate::route::{FoundTargets, RouteError, Router};
use crate::routing::{EngineError, Routing};
use crate::sync::{Arc, Condvar, Mutex, OnceLock, wait};
use crate::target::{LocalEnd, MailboxTarget, Target, TransportTarget};
use crate::transport::{Transport, Transports};
use std::borrow::Cow;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

/// An open engine.
///
/// ```
/// # mod site { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/site.inc")); }
/// # let site = site::site()?;
/// use mailstow_engine::{Engine, parse_mailbox};
///
/// let engine = Engine::open(&site.settings)?;
/// let address = parse_mailbox("info@example.com")?;
/// let mailbox = engine.snapshot().mailbox(&address)?;
/// assert_eq!(mailbox.path, "example.com/info");
/// engine.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    routing: Routing,
    store: Store,
    /// There was a directory for mailboxes when it was opened, or mail that needs one.
    has_base: bool,
    /// Of mailboxes of accounts, once local delivery is in use.
    accounts: OnceLock<Store>,
    transports: Transports,
    /// What of the settings says where mail goes; `None` when all of it is stored.
    hand_over: Mutex<Option<Arc<Settings>>>,
    /// How long a transport may take.
    transport_deadline: Duration,
}

/// The settings, where transports are in use.
fn hand_over(settings: &Settings) -> Option<Arc<Settings>> {
    settings
        .transport
        .enabled
        .then(|| Arc::new(settings.clone()))
}

impl Engine {
    /// Opens tables and mailbox store and starts the engine's threads.
    ///
    /// # Errors
    /// A table, the mailbox base or the state directory cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, EngineError> {
        // The tables first: a mistake in them is found before a delivery log is recovered.
        let routing = Routing::open(settings)?;
        let own = of_mailboxes(settings);
        let store = Store::open(&own)?;
        let has_base = matches!(own, Cow::Borrowed(_));
        let accounts = OnceLock::new();
        if let Some(store) = Store::open_accounts(settings)? {
            // No other thread has it yet.
            let _ = accounts.set(store);
        }
        let transports = Transports::default();
        transports.configure(settings);
        Ok(Self {
            routing,
            store,
            has_base,
            accounts,
            transports,
            hand_over: Mutex::new(hand_over(settings)),
            transport_deadline: settings.lmtp.delivery_deadline,
        })
    }

    /// Looks whether `virtual_mailbox_base` is there, and makes nothing.
    ///
    /// # Errors
    /// The base is not set, or cannot be used.
    pub fn check_base(settings: &Settings) -> Result<(), EngineError> {
        Ok(Store::check_base(&of_mailboxes(settings))?)
    }

    /// Opens the state directory as [`Engine::open`] does: it is made, with those above it, for
    /// this user alone when it is missing.
    ///
    /// # Errors
    /// It can be neither opened nor made, or others can replace what is in it.
    pub fn make_state_directory(directory: &Path) -> Result<SafeDirectory, PathError> {
        open_state_directory(directory)
    }

    /// Recovers the delivery log in `directory`, which must not be in use, and empties it: what
    /// [`Engine::open`] does before anything else.
    ///
    /// # Errors
    /// The mailbox base cannot be used; the log is in use or damaged.
    pub fn recover(settings: &Settings, directory: &Path) -> Result<RecoveryReport, EngineError> {
        Ok(Store::recover_any(settings, directory, false)?)
    }

    /// As [`Engine::recover`]; gives up what is damaged of the log and recovers only the rest.
    ///
    /// # Errors
    /// As there.
    pub fn recover_in_part(
        settings: &Settings,
        directory: &Path,
    ) -> Result<RecoveryReport, EngineError> {
        Ok(Store::recover_any(settings, directory, true)?)
    }

    /// The current snapshot of routing. Takes no lock.
    pub fn snapshot(&self) -> Arc<Router> {
        self.routing.snapshot()
    }

    /// Finds where mail for `given` goes, by the tables of `router`: into mailboxes, and where
    /// `[transport]` is enabled to transports. `expand_aliases` as in [`Router::find`].
    ///
    /// A transport that is not known is an error, before a message is taken for it.
    pub fn find_targets(
        &self,
        router: &Router,
        given: Address,
        expand_aliases: bool,
    ) -> FoundTargets {
        let Some(settings) = self.hand_over.lock().clone() else {
            return router.find(given, expand_aliases).into();
        };
        let is_own = |transport: &str, nexthop: &str| settings.is_own_socket(transport, nexthop);
        let mut found = router.find_targets(given, expand_aliases, &is_own);
        let targets = found.targets.as_deref().unwrap_or_default();
        let unknown = targets.iter().find_map(|(member, target)| match target {
            Target::Transport(target) => self.unknown(member, target),
            Target::Local(target) => match &target.end {
                LocalEnd::Transport(target) => self.unknown(member, target),
                _ => None,
            },
            Target::Mailbox(_) => None,
        });
        if let Some(error) = unknown {
            found.targets = Err(error);
        }
        found
    }

    /// The error of a recipient whose transport is not known.
    fn unknown(&self, member: &Address, target: &TransportTarget) -> Option<RouteError> {
        let unknown = || RouteError::UnknownTransport {
            address: member.external(),
            transport: target.transport.clone(),
        };
        let known = self.transports.get(&target.transport);
        known.is_none().then(unknown)
    }

    /// Complaints about the tables that are open: file, line, what is wrong.
    pub fn table_warnings(&self) -> Vec<String> {
        self.routing.table_warnings()
    }

    /// Waits until tables that were just changed are known to be whole; see
    /// [`Routing::settle_tables`].
    pub fn settle_tables(&self) -> bool {
        self.routing.settle_tables()
    }

    /// Takes new settings into use and reads changed table files at once. Returns complaints
    /// that do not stand in the way. Settings of the store (base, writers, limits) keep the
    /// values the engine was opened with.
    ///
    /// # Errors
    /// The new settings name a table that cannot be opened; the old ones stay in force.
    pub fn reload(&self, settings: &Settings) -> Result<Vec<String>, EngineError> {
        if !self.has_base && !settings.routing.virtual_mailbox_base.as_os_str().is_empty() {
            return Err(EngineError::NewBase);
        }
        if self.accounts.get().is_none()
            && let Some(store) = Store::open_accounts(settings)?
            && self.accounts.set(store).is_err()
        {
            tracing::debug!("another reload has opened the store of accounts");
        }
        let complaints = self.routing.reload(settings)?;
        self.transports.configure(settings);
        *self.hand_over.lock() = hand_over(settings);
        Ok(complaints)
    }

    /// A new, empty message to be filled.
    pub fn new_message(&self) -> MessageBuilder {
        self.store.new_message()
    }

    /// Returns true when a message is so long that [`Engine::receive_in_place`] is worth a call.
    pub fn may_receive_in_place(&self, size: u64) -> bool {
        self.store.may_receive_in_place(size)
    }

    /// Receives the rest of a long message in place: in its mailbox, where it stays invisible until
    /// it is submitted, so that storing it takes no copy.
    ///
    /// All recipients of the message must have this mailbox, and it must then be submitted for them
    /// in this order. Must be called once at most. Does nothing where the mailbox does not allow
    /// it. Waits for the mailbox for at most 2 s.
    pub fn receive_in_place(
        &self,
        message: &mut MessageBuilder,
        reverse_path: &ReversePath,
        to: (&[Recipient], &MailboxTarget),
    ) {
        self.store.receive_in_place(message, reverse_path, to);
    }

    /// Takes in a transport by the name that tables know it by; it takes the place of one of the
    /// same name. Where a target names a transport that is not known, its mail is answered 451
    /// 4.3.5.
    pub fn register_transport(&self, name: impl Into<String>, transport: Arc<dyn Transport>) {
        self.transports.register(name.into(), transport);
    }

    /// Hands a message over for delivery to `to`; returns at once, with the receipt for the
    /// message. Each target is a mailbox or a transport; transports have as long as
    /// `lmtp.delivery_deadline`. Recipients that have the same mailbox share one copy that names
    /// all of them, unless `store.copies` asks for one each. The bound of the queue is not enforced
    /// here: see [`Engine::has_capacity`].
    ///
    /// `on_outcome` is called once for each recipient, with its index in `to`, except for those
    /// that were abandoned in time; from another thread, possibly before this returns.
    pub fn submit<T: Into<Target>>(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, T)>,
        on_outcome: Arc<OnOutcome>,
    ) -> Receipt {
        let deadline = clock::now() + self.transport_deadline;
        let stores = Stores {
            mailboxes: &self.store,
            accounts: self.accounts.get(),
        };
        let to = to.into_iter().map(|(one, target)| (one, target.into()));
        stores.submit(mail, to.collect(), (&self.transports, deadline), on_outcome)
    }

    /// Delivers and waits: one outcome per recipient, in order. A success is durable.
    pub fn deliver<T: Into<Target>>(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, T)>,
    ) -> Vec<Outcome> {
        let expected = to.len();
        let done = Arc::new((Mutex::new(vec![None; expected]), Condvar::new()));
        let report = Arc::clone(&done);
        let on_outcome = move |index: usize, outcome: Outcome| {
            if let Some(slot) = report.0.lock().get_mut(index) {
                *slot = Some(outcome);
            }
            report.1.notify_one();
        };
        let receipt = self.submit(mail, to, Arc::new(on_outcome));
        debug_assert_eq!(receipt.recipients(), expected, "one outcome per recipient");
        let mut outcomes = done.0.lock();
        while outcomes.iter().any(Option::is_none) {
            outcomes = wait(&done.1, outcomes);
        }
        // The caller reads the outcomes.
        receipt.confirm();
        outcomes.iter_mut().filter_map(Option::take).collect()
    }

    /// True while fewer deliveries than `limits.queued_deliveries` wait or are being made; those
    /// that wait for a lock which another program holds are not counted.
    pub fn has_capacity(&self) -> bool {
        self.store.has_capacity() && self.accounts.get().is_none_or(Store::has_capacity)
    }

    /// For asynchronous callers: ready when [`Engine::has_capacity`]; else the task is woken when
    /// there may be room. Use it as `std::future::poll_fn(|cx| engine.poll_capacity(cx)).await`.
    pub fn poll_capacity(&self, context: &mut Context<'_>) -> Poll<()> {
        match (self.store.poll_capacity(context), self.accounts.get()) {
            (Poll::Ready(()), Some(accounts)) => accounts.poll_capacity(context),
            (room, _) => room,
        }
    }

    /// Says that the engine will be dropped soon: deliveries that a mailbox holds up, for example
    /// because its file server does not answer, are answered 4xx within seconds.
    pub fn prepare_close(&self) {
        self.store.prepare_close();
        if let Some(accounts) = self.accounts.get() {
            accounts.prepare_close();
        }
    }

    /// How the file descriptors of the process are shared out: how many connections a server may
    /// have open beside the engine.
    pub fn descriptors(&self) -> Descriptors {
        self.store.descriptors()
    }

    /// Whether mail is taken now, what waits, which threads failed, and which tables are not used
    /// as they are now.
    pub fn health(&self) -> Health {
        let mut health = self.store.health();
        if let Some(accounts) = self.accounts.get() {
            health.add(accounts.health());
        }
        health.threads.extend(self.routing.failures());
        health.tables.extend(self.routing.held_back());
        health
    }

    /// What recovery did when the engine was opened; `None` without a delivery log.
    pub fn recovered(&self) -> Option<RecoveryReport> {
        self.store.recovered()
    }

    /// Makes every mailbox durable and frees the delivery log now, which the engine does from
    /// time to time by itself.
    ///
    /// # Errors
    /// The disk failed.
    pub fn checkpoint(&self) -> Result<(), LogError> {
        self.store.checkpoint()?;
        self.accounts.get().map_or(Ok(()), Store::checkpoint)
    }

    /// Finishes what was submitted and ends the engine's threads.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.transports.close();
    }
}
