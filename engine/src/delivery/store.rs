//! The store: a bounded queue and the threads that write mailboxes.
//!
//! Imports the rest of `delivery`, `mailbox`, `message`, `io`, `config`, `sync`.

use super::ahead;
use super::base::open_base;
use super::copies::{Copy, copies};
use super::digest::BaseDigest;
use super::flush::Flusher;
use super::health::Health;
use super::job::{Job, OnOutcome, Promised, Ticket};
use super::journal::{DirectorySource, JournalSource};
use super::keeper::Keeper;
use super::promise::Promise;
use super::queue::Queue;
use super::receipt::Receipt;
use super::recovery::RecoveryReport;
use super::repetition::known_already;
use super::types::Mail;
use super::writer::write_mail;
use crate::clock;
use crate::config::{Durability, Settings, StatusFields};
use crate::descriptors::Descriptors;
use crate::envelope::{Recipient, ReversePath};
use crate::io::{Blocking, Disk, PathError, StateDirectory};
use crate::log::{DeliveryId, LogError};
use crate::mailbox::maildir::NameMaker;
use crate::mailbox::{Known, MailboxSettings};
use crate::message::{Message, MessageBuilder, Spool};
use crate::route::MailboxTarget;
use crate::supervisor::{SupervisedThread, Supervisor};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

/// Why a store cannot be opened.
///
/// ```
/// use mailstow_engine::{Engine, EngineError, Settings, StoreError};
///
/// let mut settings = Settings::default();
/// settings.routing.virtual_mailbox_base = "vhosts".into();
/// let error = Engine::open(&settings).expect_err("the path is relative");
/// assert!(matches!(error, EngineError::Store(StoreError::RelativeBase { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no base.
    #[error(
        "virtual_mailbox_base is not set; set it to the directory that holds the mailboxes: mail \
         cannot be delivered without"
    )]
    NoBase,
    /// The base is not an absolute path.
    #[error(
        "virtual_mailbox_base = {}: not an absolute path; set it to the directory that holds the \
         mailboxes",
        base.display()
    )]
    RelativeBase {
        /// As configured.
        base: PathBuf,
    },
    /// The base is missing and cannot be made, or is no directory.
    #[error("virtual_mailbox_base {}: {source}; {}", base.display(), base_remedy(source))]
    Base {
        /// As configured.
        base: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The state directory cannot be made, or others can replace what is in it.
    #[error(
        "state directory {}: {source}; create it for the user mailstow runs as, or name another \
         one with --state-directory",
        directory.display()
    )]
    State {
        /// As configured.
        directory: PathBuf,
        /// Why not.
        source: PathError,
    },
    /// The delivery log cannot be opened or recovered.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No more threads.
    #[error(
        "cannot start a writer thread: {source}; raise the limit on processes (TasksMax=, ulimit -u)"
    )]
    Thread {
        /// The system's answer.
        source: io::Error,
    },
}

/// What an operator does about a base that cannot be used.
fn base_remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => {
            "create it, and the directories above it, or mount what belongs there"
        }
        io::ErrorKind::PermissionDenied => {
            "create it for the user mailstow runs as, and let that user into the directories \
             above it"
        }
        _ => "name a directory",
    }
}

/// What all writers share.
#[derive(Debug)]
pub(super) struct Shared<D: Disk> {
    pub(super) disk: D,
    pub(super) settings: MailboxSettings,
    pub(super) base: BaseDigest,
    pub(super) known: Known,
    pub(super) names: NameMaker,
    pub(super) flusher: Flusher,
    pub(super) queue: Queue,
    /// The delivery log, for `durability = "logged"`.
    pub(super) keeper: Option<Keeper<D::Handle>>,
    ids: Ids,
}

impl<D: Disk> Shared<D> {
    /// True when copies of this message in mboxes lack the fields in which readers of mboxes keep
    /// their state.
    pub(super) fn without_status(&self, message: &Message) -> bool {
        message.has_status_fields() && self.settings.mbox_status_fields == StatusFields::Remove
    }
}

/// Makes ids of messages: a random part drawn when the store was opened, and a count.
#[derive(Debug)]
struct Ids {
    random: u64,
    count: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        Self {
            // The standard library's hashers are keyed from the system's random numbers.
            random: RandomState::new().hash_one(clock::since_epoch()),
            count: AtomicU64::new(0),
        }
    }

    fn next(&self) -> DeliveryId {
        // Relaxed: only the numbers must differ.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        DeliveryId((u128::from(self.random) << 64) | u128::from(count))
    }
}

/// Writes messages into mailboxes, durably. May be shared between threads.
///
/// Dropping it finishes what was submitted and ends the writers.
#[derive(Debug)]
pub struct Store<D: Disk = Blocking> {
    shared: Arc<Shared<D>>,
    spool: Spool,
    /// From this size on a message may go into its mailbox as it arrives.
    ahead_from_bytes: u64,
    descriptors: Descriptors,
    supervisor: Supervisor,
    writers: Vec<SupervisedThread>,
    checkpointer: Option<SupervisedThread>,
    recovered: Option<RecoveryReport>,
}

impl Store<Blocking> {
    /// Opens the state directory and the base (made when missing if `store.make_base` says so
    /// and the directory above is there), and starts the writers.
    ///
    /// # Errors
    /// A directory cannot be opened or made, or a thread cannot be started.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        Self::open_on(Blocking::new(), settings)
    }

    /// Recovers the delivery log in `directory`, which nobody may be using, and empties it: what
    /// [`Store::open`] does before anything else.
    ///
    /// # Errors
    /// As [`Store::open`]; the log is in use or damaged.
    pub fn recover(settings: &Settings, directory: &Path) -> Result<RecoveryReport, StoreError> {
        Self::recover_from(settings, DirectorySource::at(directory, settings))
    }

    /// As [`Store::recover`]; what is damaged of the log is given up, and only the rest recovered.
    ///
    /// # Errors
    /// As there.
    pub fn recover_in_part(
        settings: &Settings,
        directory: &Path,
    ) -> Result<RecoveryReport, StoreError> {
        let source = DirectorySource::at(directory, settings).accepting_damage();
        Self::recover_from(settings, source)
    }

    fn recover_from(
        settings: &Settings,
        source: DirectorySource,
    ) -> Result<RecoveryReport, StoreError> {
        let disk = Blocking::new();
        open_base(&disk, settings)?;
        let delivery_log = source.delivery_log();
        let keeper = Keeper::new(Box::new(source), delivery_log);
        let known = Known::default();
        Ok(keeper.open(&disk, &MailboxSettings::from(settings), &known)?)
    }

    /// As [`Store::submit`]; returns one receipt for the message.
    pub(crate) fn submit_for_receipt(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, MailboxTarget)>,
        on_outcome: Arc<OnOutcome>,
    ) -> Receipt {
        let tickets = self.submit(mail, to, on_outcome);
        Receipt::new(tickets, &self.shared)
    }
}

impl<D: Disk> Store<D> {
    /// As [`Store::open`], with mailboxes on another disk (the state directory is always a real
    /// one: nothing in it must last).
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disk: D, settings: &Settings) -> Result<Self, StoreError> {
        let source = DirectorySource::new(settings);
        let is_needed = match settings.store.durability {
            Durability::Logged => true,
            // In a directory that all users share, a log is not ours.
            Durability::Direct => {
                source.exists() && StateDirectory::open(&settings.state_directory).is_ok()
            }
        };
        let settings = Settings {
            delivery_log: source.delivery_log(),
            ..settings.clone()
        };
        let source = is_needed.then(|| Box::new(source) as Box<dyn JournalSource>);
        Self::open_with(disk, &settings, source)
    }

    /// As [`Store::open`], with a delivery log from `source`. A log left by an earlier process is
    /// recovered even when it is used no more.
    fn open_with(
        disk: D,
        settings: &Settings,
        source: Option<Box<dyn JournalSource>>,
    ) -> Result<Self, StoreError> {
        let mut store = Self::without_threads(disk, settings, source)?;
        if store.shared.keeper.is_some() {
            let shared = Arc::clone(&store.shared);
            let checkpoint = move || {
                if let Some(keeper) = &shared.keeper {
                    keeper.run(&shared.disk, &shared.settings, &shared.known);
                }
            };
            let thread = store.supervisor.spawn("mailstow-check", 0, checkpoint);
            store.checkpointer = Some(thread.map_err(|source| StoreError::Thread { source })?);
        }
        for number in 0..settings.store.writers.max(1) {
            let shared = Arc::clone(&store.shared);
            let name = format!("mailstow-wr{number}");
            let thread = store
                .supervisor
                .spawn(&name, 0, move || write_mail(&shared));
            let thread = thread.map_err(|source| StoreError::Thread { source })?;
            store.writers.push(thread);
        }
        Ok(store)
    }

    /// A store whose work is done by whoever asks for it.
    fn without_threads(
        disk: D,
        settings: &Settings,
        source: Option<Box<dyn JournalSource>>,
    ) -> Result<Self, StoreError> {
        open_base(&disk, settings)?;
        let directory = &settings.state_directory;
        let open = match settings.store.durability {
            Durability::Direct => StateDirectory::open_for_scratch,
            Durability::Logged => StateDirectory::open,
        };
        let state = open(directory).map_err(|source| StoreError::State {
            directory: directory.clone(),
            source,
        })?;
        let descriptors = Descriptors::plan(settings);
        let mut shared = Shared {
            disk,
            settings: MailboxSettings::from(settings),
            base: BaseDigest::of(&settings.routing.virtual_mailbox_base),
            known: Known::default(),
            names: NameMaker::new(&settings.store.host),
            flusher: Flusher::new(settings.store.flush),
            queue: Queue::new(settings.limits.queued_deliveries, descriptors.batch()),
            keeper: source.map(|source| Keeper::new(source, settings.delivery_log.clone())),
            ids: Ids::new(),
        };
        let mut recovered = None;
        if let Some(keeper) = &shared.keeper {
            let is_logged = settings.store.durability == Durability::Logged;
            match keeper.open(&shared.disk, &shared.settings, &shared.known) {
                Ok(report) => {
                    tracing::info!("delivery log: {report}");
                    recovered = Some(report);
                }
                // Mail is put off until there is room, which whoever reads mail may make.
                Err(error) if is_logged && error.is_disk_full() => keeper.open_later(error),
                Err(error) => return Err(error.into()),
            }
        }
        if settings.store.durability == Durability::Direct {
            shared.keeper = None;
        }
        let keeper = shared.keeper.as_ref();
        let logged_bytes_max = keeper.map_or(0, Keeper::message_bytes_max);
        let ahead_from_bytes = logged_bytes_max.max(settings.limits.message_memory_bytes as u64);
        let shared = Arc::new(shared);
        let weak = Arc::downgrade(&shared);
        let make_room = move || {
            let shared = weak.upgrade();
            let keeper = shared.as_ref().and_then(|shared| shared.keeper.as_ref());
            keeper.is_some_and(Keeper::make_room_for_others)
        };
        Ok(Self {
            shared,
            ahead_from_bytes,
            spool: Spool::new(Arc::new(state), &settings.limits, Arc::new(make_room))
                .with_files(descriptors.scratch_files()),
            descriptors,
            supervisor: Supervisor::default(),
            writers: Vec::new(),
            checkpointer: None,
            recovered,
        })
    }

    /// A new empty message, to be filled and submitted.
    pub fn new_message(&self) -> MessageBuilder {
        self.spool.message()
    }

    /// True when so much of a message has come that [`Store::go_ahead`] is worth a call.
    pub fn may_go_ahead(&self, size: u64) -> bool {
        size > self.ahead_from_bytes
    }

    /// Lets a long message that is arriving for one mailbox go there from here on, where it stays
    /// invisible until it is submitted, so that storing it takes no copy. It must then be submitted
    /// for these recipients, in this order. To be called once, and of no consequence when nothing
    /// comes of it.
    pub fn go_ahead(
        &self,
        message: &mut MessageBuilder,
        reverse_path: &ReversePath,
        (recipients, target): (&[Recipient], &MailboxTarget),
    ) {
        if !self.may_go_ahead(message.size()) || !message.is_in_scratch() {
            return;
        }
        let to = recipients.iter().map(|one| (one.clone(), target.clone()));
        let copies = copies(to.collect(), self.shared.settings.copies);
        let [Copy { names, .. }] = copies.as_slice() else {
            return;
        };
        let header = names.maildir_header(reverse_path);
        if let Some(placed) = ahead::begin(&self.shared, header, target) {
            message.go_on_in(placed);
        }
    }

    /// Begins to store a message in each of the mailboxes; returns at once, with one ticket for
    /// each recipient. `store.copies` says whether recipients of one mailbox share a copy. The
    /// bound of the queue is not enforced here: see [`Store::poll_room`].
    ///
    /// `on_outcome` is called once for each recipient whose ticket was not abandoned in time, with
    /// its index in `to`, from another thread, possibly before this returns.
    pub fn submit(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, MailboxTarget)>,
        on_outcome: Arc<OnOutcome>,
    ) -> Vec<Ticket> {
        let shared = &self.shared;
        let base = &shared.settings.base;
        let mut tickets: Vec<Option<Ticket>> = Vec::new();
        tickets.resize_with(to.len(), || None);
        let copies = copies(to, shared.settings.copies);
        let (copies, repeated) = shared.without_repeated(&mail, copies);
        for (name, target, repeated) in repeated {
            for index in name.indices() {
                if let Some(slot) = tickets.get_mut(index) {
                    *slot = Some(Ticket::settled(repeated.clone()));
                }
                on_outcome(index, known_already(base, &target));
            }
        }
        let promise = self.promise(&mail, &copies);
        let through_log = promise.as_ref().is_some_and(|p| self.fits_log(&mail, p));
        let mut jobs = Vec::with_capacity(copies.len());
        let mut recipient = 0;
        for copy in copies {
            let count = copy.names.iter().count();
            let mut job = Job::new(Arc::clone(&mail), copy, Arc::clone(&on_outcome), base);
            if let Some(promise) = &promise {
                job = job.with_promise(Promised {
                    promise: Arc::clone(promise),
                    recipient,
                    through_log,
                });
            }
            recipient += count;
            for (index, offset) in job.places() {
                if let Some(slot) = tickets.get_mut(index) {
                    *slot = Some(job.ticket(offset));
                }
            }
            jobs.push(job);
        }
        shared.queue.push(jobs.into_iter());
        debug_assert!(tickets.iter().all(Option::is_some), "a ticket for each");
        tickets.into_iter().flatten().collect()
    }

    fn promise(&self, mail: &Arc<Mail>, copies: &[Copy]) -> Option<Arc<Promise>> {
        let shared = &self.shared;
        shared.keeper.as_ref()?;
        if copies.is_empty() {
            return None;
        }
        let id = shared.ids.next();
        let how = (shared.base, shared.without_status(&mail.message));
        let promise = Promise::new(id, mail, copies, &shared.names, how);
        Some(Arc::new(promise))
    }

    fn fits_log(&self, mail: &Mail, promise: &Promise) -> bool {
        let (size, envelope) = (mail.message.size(), promise.envelope());
        self.shared.keeper.as_ref().is_some_and(|keeper| {
            size <= keeper.message_bytes_max()
                && size + envelope.record_bytes() as u64 <= keeper.record_bytes_max() as u64
                && envelope.recipients.len() <= LOGGED_RECIPIENTS_MAX
        })
    }

    /// What recovery did when the store was opened; `None` without a delivery log.
    pub fn recovered(&self) -> Option<RecoveryReport> {
        self.recovered
    }

    /// Whether mail is taken now, what waits, and which threads failed.
    pub fn health(&self) -> Health {
        let keeper = self.shared.keeper.as_ref();
        let (log, waiting) = keeper.map_or_else(Default::default, Keeper::health);
        Health {
            log,
            waiting,
            threads: self.supervisor.failures(),
        }
    }

    /// How the file descriptors of the process are shared out.
    pub fn descriptors(&self) -> Descriptors {
        self.descriptors
    }

    /// Makes every mailbox durable and frees the delivery log now.
    ///
    /// # Errors
    /// The disk failed.
    pub fn checkpoint(&self) -> Result<(), LogError> {
        match &self.shared.keeper {
            Some(keeper) => keeper.checkpoint(&self.shared.disk),
            None => Ok(()),
        }
    }

    /// True while fewer deliveries than `limits.queued_deliveries` wait or are being made.
    pub fn has_room(&self) -> bool {
        self.shared.queue.has_room()
    }

    /// For asynchronous callers: ready when [`Store::has_room`]; else the task is woken when
    /// there may be room. Use it as `std::future::poll_fn(|cx| store.poll_room(cx)).await`.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        self.shared.queue.poll_room(context)
    }
}

impl<D: Disk> Drop for Store<D> {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.writers.clear();
        if let Some(keeper) = &self.shared.keeper {
            keeper.close();
        }
        self.checkpointer = None;
    }
}

/// What only tests do with a store by itself.
#[cfg(any(test, feature = "sim"))]
impl<D: Disk> Store<D> {
    /// Where messages are held.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// The disk the mailboxes are on.
    pub fn disk(&self) -> &D {
        &self.shared.disk
    }

    /// The client has read the replies for these deliveries, all of one message; see
    /// [`Receipt::confirm`].
    pub fn confirm(&self, tickets: &[Ticket]) {
        self.shared.confirm(tickets);
    }

    /// The client was lost before it showed that it read the replies for these deliveries, all
    /// of one message; see [`Receipt`].
    pub fn doubt(&self, tickets: &[Ticket]) {
        self.shared.doubt(tickets);
    }

    /// Why the delivery log takes nothing now: its last write failed, and it is opened again
    /// from time to time. `None` when all is well.
    pub fn log_failure(&self) -> Option<LogError> {
        self.shared.keeper.as_ref()?.failure()
    }

    /// Finishes what was submitted, and ends the writers. Deliveries that wait for a busy lock
    /// may take as long as their patience.
    pub fn close(self) {
        drop(self);
    }
}

/// What a simulation does in place of the threads.
#[cfg(test)]
impl<D: Disk> Store<D> {
    pub(super) fn open_stepwise(
        disk: D,
        settings: &Settings,
        source: Box<dyn JournalSource>,
    ) -> Result<Self, StoreError> {
        Self::without_threads(disk, settings, Some(source))
    }

    /// Writes what waits.
    pub(super) fn step(&self, credentials: &std::cell::RefCell<crate::io::Credentials>) {
        if let Some(batch) = self.shared.queue.take() {
            super::writer::write_from(&self.shared, credentials, batch);
        }
    }

    /// A checkpoint, to be made by whoever calls this, whatever the store is doing then; a second
    /// one while mailboxes are flushed would wait for the first, on the thread that makes it.
    pub(super) fn checkpointer(&self) -> impl FnOnce() + Send + use<D> {
        let shared = Arc::downgrade(&self.shared);
        move || {
            if let Some(shared) = shared.upgrade()
                && let Some(keeper) = &shared.keeper
                && !keeper.dirty.is_flushing()
            {
                keeper.checkpoint_or_fail(&shared.disk);
            }
        }
    }

    pub(super) fn keeper(&self) -> &Keeper<D::Handle> {
        self.shared.keeper.as_ref().unwrap()
    }

    /// Opens a log that failed again, as the checkpoint thread does.
    pub(super) fn reopen(&self) -> Result<RecoveryReport, LogError> {
        let shared = &self.shared;
        self.keeper().forget();
        let known = &shared.known;
        self.keeper().open(&shared.disk, &shared.settings, known)
    }
}

/// More recipients would make the envelope as large as messages are.
const LOGGED_RECIPIENTS_MAX: usize = 2000;
