//! The engine: opens tables and writers, resolves, delivers, reloads, closes.
//!
//! Imports every room below it. All methods may be called from any thread. One background
//! thread watches the table files, one for each recipient map merges its changes; the writer
//! threads belong to `delivery`.

use crate::config::Settings;
use crate::delivery::{
    Health, Mail, OnOutcome, Outcome, Receipt, RecoveryReport, Store, StoreError,
};
use crate::envelope::{Recipient, ReversePath};
use crate::io::StateDirectory;
use crate::log::LogError;
use crate::map::{MapHandle, MapKeeper};
use crate::message::MessageBuilder;
use crate::route::{MailboxTarget, Router, table_context};
use crate::swap::Swap;
use crate::sync::{Arc, Condvar, Mutex, wait, wait_timeout};
use crate::table::{OpenError, TableCache};
use std::io;
use std::path::Path;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often table files are looked at; a change must be in force within two seconds.
const TABLE_WATCH_INTERVAL: Duration = Duration::from_millis(400);

/// How often a recipient map is looked at whose changes may have become many.
const MAP_KEEP_INTERVAL: Duration = Duration::from_secs(2);

/// Why an engine cannot be opened or reloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A lookup table or domain list.
    #[error(transparent)]
    Table(#[from] OpenError),
    /// The mailboxes or the state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The watcher thread.
    #[error("cannot start a thread: {0}; raise the limit on processes of this user")]
    Thread(std::io::Error),
}

/// An open engine.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    store: Store,
    watcher: Option<JoinHandle<()>>,
}

/// What the watcher thread and the callers share.
#[derive(Debug)]
struct Shared {
    routing: Mutex<Routing>,
    router: Swap<Router>,
    closing: Mutex<bool>,
    wake: Condvar,
}

/// The tables that are open, and the settings that named them. Held while a snapshot is
/// rebuilt, never while a recipient is looked up.
#[derive(Debug)]
struct Routing {
    settings: Settings,
    cache: TableCache,
}

impl Engine {
    /// Opens tables and mailbox store and starts the engine's threads.
    ///
    /// # Errors
    /// A table, the mailbox base or the state directory cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, EngineError> {
        let cache = TableCache::new(table_context(&settings.routing));
        let router = Arc::new(Router::open(&settings.routing, &cache)?);
        let store = Store::open(settings)?;
        let shared = Arc::new(Shared {
            routing: Mutex::new(Routing {
                settings: settings.clone(),
                cache,
            }),
            router: Swap::new(router),
            closing: Mutex::new(false),
            wake: Condvar::new(),
        });
        let watcher = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("mailstow-tables".into())
                .stack_size(256 * 1024)
                .spawn(move || shared.watch())
                .map_err(EngineError::Thread)?
        };
        Ok(Self {
            shared,
            store,
            watcher: Some(watcher),
        })
    }

    /// Makes the state directory, and those above it, for this user alone when it is missing, as
    /// [`Engine::open`] does.
    ///
    /// # Errors
    /// It can be neither opened nor made.
    pub fn make_state_directory(directory: &Path) -> io::Result<()> {
        StateDirectory::open(directory).map(|_| ())
    }

    /// Recovers the delivery log in `directory`, which must not be in use, and empties it: what
    /// [`Engine::open`] does before anything else.
    ///
    /// # Errors
    /// The mailbox base cannot be used; the log is in use or damaged.
    pub fn recover(settings: &Settings, directory: &Path) -> Result<RecoveryReport, EngineError> {
        Ok(Store::recover(settings, directory)?)
    }

    /// As [`Engine::recover`]; gives up what is damaged of the log and recovers only the rest.
    ///
    /// # Errors
    /// As there.
    pub fn recover_in_part(
        settings: &Settings,
        directory: &Path,
    ) -> Result<RecoveryReport, EngineError> {
        Ok(Store::recover_in_part(settings, directory)?)
    }

    /// The current snapshot of routing. Takes no lock.
    pub fn snapshot(&self) -> Arc<Router> {
        let router = self.shared.router.load();
        router.look_at_maps();
        router
    }

    /// Complaints about the tables that are open: file, line, what is wrong.
    pub fn table_warnings(&self) -> Vec<String> {
        self.shared.routing.lock().cache.warnings()
    }

    /// Takes new settings into use and reads changed table files at once. Returns complaints
    /// that do not stand in the way. Settings of the store (base, writers, limits) keep the
    /// values the engine was opened with.
    ///
    /// # Errors
    /// The new settings name a table that cannot be opened; the old ones stay in force.
    pub fn reload(&self, settings: &Settings) -> Result<Vec<String>, EngineError> {
        let mut routing = self.shared.routing.lock();
        let context = table_context(&settings.routing);
        let mut complaints = Vec::new();
        let new_cache = if context == table_context(&routing.settings.routing) {
            complaints = routing.cache.refresh_now().problems;
            None
        } else {
            Some(TableCache::new(context))
        };
        let cache = new_cache.as_ref().unwrap_or(&routing.cache);
        let router = Router::open(&settings.routing, cache)?;
        complaints.extend_from_slice(router.warnings());
        complaints.extend(cache.warnings());
        if let Some(cache) = new_cache {
            routing.cache = cache;
        }
        routing.settings = settings.clone();
        self.shared.router.replace(Arc::new(router));
        Ok(complaints)
    }

    /// A new, empty message to be filled.
    pub fn new_message(&self) -> MessageBuilder {
        self.store.new_message()
    }

    /// True when so much of a message has come that [`Engine::go_ahead`] is worth a call.
    pub fn may_go_ahead(&self, size: u64) -> bool {
        self.store.may_go_ahead(size)
    }

    /// Lets a long message that is arriving go into its mailbox from here on, where it stays
    /// invisible until it is submitted, so that storing it takes no copy.
    ///
    /// The message must then be submitted for this delivery alone. To be called once for a
    /// message; nothing comes of it where it cannot be done. Waits for the mailbox.
    pub fn go_ahead(
        &self,
        message: &mut MessageBuilder,
        reverse_path: &ReversePath,
        to: (&Recipient, &MailboxTarget),
    ) {
        self.store.go_ahead(message, reverse_path, to);
    }

    /// Hands a message over for delivery to `to`; returns at once, with the receipt for the
    /// message. The bound of the queue is not enforced here: see [`Engine::has_room`].
    ///
    /// `on_outcome` is called once for each recipient, with its index in `to`, except for those
    /// that were abandoned in time; from another thread, possibly before this returns.
    pub fn submit(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, MailboxTarget)>,
        on_outcome: Arc<OnOutcome>,
    ) -> Receipt {
        self.store.submit_for_receipt(mail, to, on_outcome)
    }

    /// Delivers and waits: one outcome per recipient, in order. A success is durable.
    pub fn deliver(&self, mail: Arc<Mail>, to: Vec<(Recipient, MailboxTarget)>) -> Vec<Outcome> {
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

    /// True while fewer deliveries than `limits.queued_deliveries` wait or are being made.
    pub fn has_room(&self) -> bool {
        self.store.has_room()
    }

    /// For asynchronous callers: ready when [`Engine::has_room`]; else the task is woken when
    /// there may be room. Use it as `std::future::poll_fn(|cx| engine.poll_room(cx)).await`.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        self.store.poll_room(context)
    }

    /// Whether mail is taken now, and what waits.
    pub fn health(&self) -> Health {
        self.store.health()
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
        self.store.checkpoint()
    }

    /// Finishes what was submitted and ends the engine's threads.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        *self.shared.closing.lock() = true;
        self.shared.wake.notify_all();
        if let Some(watcher) = self.watcher.take()
            && watcher.join().is_err()
        {
            tracing::error!("the table watcher ended with a panic");
        }
    }
}

impl Shared {
    /// Looks after the table files until the engine closes.
    fn watch(&self) {
        let mut keepers = Vec::new();
        loop {
            self.keep_maps(&mut keepers);
            let closing = wait_timeout(&self.wake, self.closing.lock(), TABLE_WATCH_INTERVAL);
            if *closing {
                return;
            }
            drop(closing);
            self.refresh();
        }
    }

    /// Starts a keeper for each recipient map that has none, and ends those of maps that are in
    /// use no more.
    fn keep_maps(&self, keepers: &mut Vec<(Arc<MapHandle>, MapKeeper)>) {
        let maps = self.routing.lock().cache.maps();
        keepers.retain(|(kept, _)| maps.iter().any(|map| Arc::ptr_eq(map, kept)));
        for map in maps {
            if keepers.iter().any(|(kept, _)| Arc::ptr_eq(&map, kept)) {
                continue;
            }
            match MapKeeper::start(Arc::clone(&map), MAP_KEEP_INTERVAL) {
                Ok(keeper) => keepers.push((map, keeper)),
                Err(error) => tracing::warn!(%error, "changes of a map are not merged"),
            }
        }
    }

    /// Reads changed table files and swaps the snapshot. What cannot be read keeps its old
    /// contents and is reported.
    fn refresh(&self) {
        let routing = self.routing.lock();
        let refresh = routing.cache.refresh();
        for problem in &refresh.problems {
            tracing::error!("{problem}");
        }
        for warning in &refresh.warnings {
            tracing::warn!("{warning}");
        }
        if !refresh.changed {
            return;
        }
        match Router::open(&routing.settings.routing, &routing.cache) {
            Ok(router) => {
                self.router.replace(Arc::new(router));
                for name in &refresh.reloaded {
                    tracing::info!("table {name}: changed, now in force");
                }
            }
            Err(error) => tracing::error!("the old tables stay in force: {error}"),
        }
    }
}
