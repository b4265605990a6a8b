//! The store: takes messages, with a bounded queue and threads that write mailboxes.

#[cfg(any(test, feature = "sim"))]
mod by_hand;

use super::base::{check_base, open_base};
use super::capacity::Capacity;
use super::context::Context;
use super::copies::{Copy, Named, copies};
use super::delivery::Delivery;
use super::error::StoreError;
use super::handed_over::HandedOver;
use super::health::{Health, LogState, hung_failure};
use super::in_flight::InFlight;
use super::in_place;
use super::jobs::Jobs;
use super::ledger::Ledger;
use super::ledger::fingerprint::BaseDigest;
use super::ledger::journal::{DirectorySource, JournalSource};
use super::ledger::logged_message::LoggedMessage;
use super::log_supervisor::LogSupervisor;
use super::receipt::{Receipt, settle_early};
use super::recovery::RecoveryReport;
use super::repetition::{already_in_flight, known_already, without_in_flight, without_repeated};
use super::reply::{MessagePart, OnOutcome, Ticket};
use super::shared::Shared;
use super::step_limit::StepLimit;
use super::types::{Mail, Outcome};
use super::watchdog;
use super::writer_pool::WriterPool;
use super::writer_pools::WriterPools;
use crate::clock;
use crate::config::{Durability, Settings};
use crate::descriptors::Descriptors;
use crate::envelope::{Recipient, ReversePath};
use crate::io::{Blocking, Disk, StateDirectory};
use crate::log::{DeliveryId, LogError};
use crate::message::{MessageBuilder, Spool};
use crate::supervisor::{SupervisedThread, Supervisor};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::target::MailboxTarget;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Weak;
use std::task::{self, Poll};

/// Makes message ids: a random part drawn when the store was opened, and a counter.
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

/// Writes messages into mailboxes, durably. Threads may share it.
///
/// Dropping it finishes the submitted deliveries and ends the writers.
#[derive(Debug)]
pub struct Store<D: Disk = Blocking> {
    shared: Arc<Shared<D>>,
    ids: Ids,
    in_flight: InFlight<LoggedMessage>,
    handed_over: InFlight<HandedOver>,
    spool: Spool,
    /// A longer message may be received in place.
    in_place_from_bytes: u64,
    descriptors: Descriptors,
    supervisor: Supervisor,
    watch: Option<SupervisedThread>,
    capacity: Arc<Capacity>,
    /// Threads do its work.
    has_threads: bool,
    log: Option<Arc<LogSupervisor<D::Handle>>>,
    checkpointer: Option<SupervisedThread>,
    recovered: Option<RecoveryReport>,
}

impl Store<Blocking> {
    /// Opens the state directory and the base, and starts the writers. Creates a missing base if
    /// `store.make_base` allows it and its parent directory exists.
    ///
    /// # Errors
    /// A directory cannot be opened or made, or a thread cannot be started.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        Self::open_on(Blocking::new(), settings)
    }

    /// As [`Store::open`], with messages flushed in their mailboxes alone.
    pub(super) fn open_without_log(settings: &Settings) -> Result<Self, StoreError> {
        Self::open_with(Blocking::new(), settings, None)
    }

    /// Checks that the base is there. Creates nothing.
    ///
    /// # Errors
    /// The base is not set, or cannot be used.
    pub fn check_base(settings: &Settings) -> Result<(), StoreError> {
        check_base(&Blocking::new(), settings)
    }

    /// Recovers the delivery log in `directory` and empties it, as [`Store::open`] does first. No
    /// other process may use the log.
    ///
    /// # Errors
    /// As [`Store::open`]; the log is in use or damaged.
    pub fn recover(settings: &Settings, directory: &Path) -> Result<RecoveryReport, StoreError> {
        Self::recover_from(settings, DirectorySource::at(directory, settings))
    }

    /// As [`Store::recover`]; drops the damaged part of the log, and recovers the rest.
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
        let step_limit = Arc::new(StepLimit::new(settings.store.mailbox_timeout));
        let bounds = (Arc::new(Capacity::new(0)), 1);
        let pools = Arc::new(WriterPools::new(&disk, settings, bounds));
        let with = (pools, Jobs::Threads(step_limit));
        let supervisor = Arc::new(LogSupervisor::new(Box::new(source), delivery_log, with));
        let context = Arc::new(Context::new(disk, settings));
        let report = supervisor.open(&context)?;
        Ok(report.unwrap_or_default())
    }
}

impl<D: Disk> Store<D> {
    /// As [`Store::open`], with mailboxes on another disk. The state directory is always on a real
    /// disk: nothing in it must last.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disk: D, settings: &Settings) -> Result<Self, StoreError> {
        let source = DirectorySource::new(settings);
        let is_needed = match settings.store.durability {
            Durability::Logged => true,
            // A log in a directory that all users share may belong to another user.
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

    /// As [`Store::open`], with a delivery log from `source`. Recovers a log left by an earlier
    /// process even when the settings ask for none.
    fn open_with(
        disk: D,
        settings: &Settings,
        source: Option<Box<dyn JournalSource>>,
    ) -> Result<Self, StoreError> {
        let mut store = Self::with_or_without_threads(disk, settings, source, true)?;
        if let Some(log) = &store.log {
            let (log, context) = (Arc::clone(log), Arc::clone(&store.shared.context));
            let checkpoint = move || log.run(&context);
            let thread = store.supervisor.spawn("mailstow-check", 0, checkpoint);
            store.checkpointer = Some(thread.map_err(|source| StoreError::Thread { source })?);
        }
        store.start_writers(store.shared.pools.base())?;
        let (shared, supervisor) = (Arc::clone(&store.shared), store.supervisor.clone());
        let work = move || watchdog::run(&shared, &supervisor);
        let thread = store.supervisor.spawn("mailstow-watch", 0, work);
        store.watch = Some(thread.map_err(|source| StoreError::Thread { source })?);
        Ok(store)
    }

    fn start_writers(&self, pool: &Arc<WriterPool>) -> Result<(), StoreError> {
        for _ in 0..pool.writers_wanted() {
            let started = watchdog::start_writer(&self.shared, &self.supervisor, pool);
            started.map_err(|source| StoreError::Thread { source })?;
        }
        Ok(())
    }

    /// Returns the file system of a mailbox.
    fn pool(&self, mailbox: &str) -> Arc<WriterPool> {
        self.shared
            .pools
            .of(mailbox, |pool| match self.has_threads {
                true => self.start_writers(pool).map_err(io::Error::other),
                false => Ok(()),
            })
    }

    /// Creates a store whose work is done by threads that are started here, or by its caller.
    fn with_or_without_threads(
        disk: D,
        settings: &Settings,
        source: Option<Box<dyn JournalSource>>,
        has_threads: bool,
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
        let context = Arc::new(Context::new(disk, settings));
        let capacity = Arc::new(Capacity::new(settings.limits.queued_deliveries));
        let bounds = (Arc::clone(&capacity), descriptors.batch());
        let pools = Arc::new(WriterPools::new(&context.disk, settings, bounds));
        let step_limit = Arc::new(StepLimit::new(settings.store.mailbox_timeout));
        let is_logged = settings.store.durability == Durability::Logged;
        let mut recovered = None;
        let log = match source {
            None => None,
            Some(source) => {
                let jobs = match has_threads {
                    true => Jobs::Threads(Arc::clone(&step_limit)),
                    false => Jobs::AtOnce,
                };
                let with = (Arc::clone(&pools), jobs);
                let delivery_log = settings.delivery_log.clone();
                let log = Arc::new(LogSupervisor::new(source, delivery_log, with));
                match log.open(&context) {
                    Ok(report) => {
                        recovered = report;
                        if let Some(report) = report {
                            tracing::info!("delivery log: {report}");
                        }
                    }
                    // Mail is deferred until there is space, which users make by deleting mail.
                    Err(error) if is_logged && error.is_disk_full() => {
                        log.ledger().log.open_later(error);
                    }
                    Err(error) => return Err(error.into()),
                }
                is_logged.then_some(log)
            }
        };
        let ledger = log.as_ref().map(|log| Arc::clone(log.ledger()));
        let logged_bytes_max = ledger.as_ref().map_or(0, |ledger| ledger.message_bytes_max);
        let in_place_from_bytes = logged_bytes_max.max(settings.limits.message_memory_bytes as u64);
        let weak = ledger.as_ref().map(Arc::downgrade);
        let make_room = move || {
            let ledger = weak.as_ref().and_then(Weak::upgrade);
            ledger.is_some_and(|ledger| ledger.make_room_for_others())
        };
        let shared = Arc::new(Shared {
            context,
            pools,
            step_limit,
            ledger,
        });
        Ok(Self {
            shared,
            ids: Ids::new(),
            in_flight: InFlight::default(),
            handed_over: InFlight::default(),
            in_place_from_bytes,
            spool: Spool::new(Arc::new(state), &settings.limits, Arc::new(make_room))
                .with_files(descriptors.scratch_files()),
            descriptors,
            supervisor: Supervisor::default(),
            watch: None,
            has_threads,
            capacity,
            log,
            checkpointer: None,
            recovered,
        })
    }

    /// Returns a new empty message, to be filled and submitted.
    pub fn new_message(&self) -> MessageBuilder {
        self.spool.message()
    }

    /// Returns true when a message is long enough for [`Store::receive_in_place`] to be worth a
    /// call.
    pub fn may_receive_in_place(&self, size: u64) -> bool {
        size > self.in_place_from_bytes
    }

    /// Receives the rest of a long message in place: in its one mailbox, where it stays invisible
    /// until it is submitted, so that storing it needs no copy. The message must then be submitted
    /// for these recipients, in this order. Must be called at most once. Does nothing where the
    /// mailbox does not allow it.
    pub fn receive_in_place(
        &self,
        message: &mut MessageBuilder,
        reverse_path: &ReversePath,
        (recipients, target): (&[Recipient], &MailboxTarget),
    ) {
        if !self.may_receive_in_place(message.size()) || !message.is_in_scratch() {
            return;
        }
        let to = recipients.iter().map(|one| (one.clone(), target.clone()));
        let copies = copies(to.collect(), self.shared.context.settings.copies);
        let [Copy { names, .. }] = copies.as_slice() else {
            return;
        };
        let header = names.maildir_header(reverse_path);
        self.shared.pools.note_changes(&self.shared.context.disk);
        let pool = self.pool(&target.path);
        if !pool.admits(&target.path, self.shared.step_limit.limit()) {
            return;
        }
        if let Some(sink) = in_place::begin(&self.shared.context, header, target) {
            message.go_on_in(sink);
        }
    }

    /// As [`Store::submit`]; returns one receipt for the message.
    pub(super) fn submit_for_receipt(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, MailboxTarget)>,
        on_outcome: Arc<OnOutcome>,
    ) -> Receipt {
        let tickets = self.submit(mail, to, on_outcome);
        Receipt::new(tickets, self.shared.ledger.as_ref())
    }

    pub(super) fn ledger(&self) -> Option<&Arc<Ledger<D::Handle>>> {
        self.shared.ledger.as_ref()
    }

    pub(super) fn base_digest(&self) -> BaseDigest {
        self.shared.context.base_digest
    }

    /// Returns the messages that transports are delivering.
    pub(super) fn handed_over(&self) -> &InFlight<HandedOver> {
        &self.handed_over
    }

    pub(super) fn next_id(&self) -> DeliveryId {
        self.ids.next()
    }

    /// Begins to store a message in each of the mailboxes; returns one ticket for each recipient at
    /// once. `store.copies` says whether recipients of one mailbox share a copy. This call does not
    /// enforce the bound of the queue: see [`Store::poll_capacity`].
    ///
    /// `on_outcome` is called once for each recipient whose ticket was not abandoned in time, with
    /// its index in `to`, from another thread, possibly before this returns.
    pub fn submit(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, MailboxTarget)>,
        on_outcome: Arc<OnOutcome>,
    ) -> Vec<Ticket> {
        let context = &self.shared.context;
        let base = &context.settings.base;
        let mut tickets: Vec<Option<Ticket>> = Vec::new();
        tickets.resize_with(to.len(), || None);
        let mut copies = copies(to, context.settings.copies);
        if let Some(ledger) = &self.shared.ledger {
            settle_early(ledger);
            let mut answer = |name: Named, ticket: Ticket, outcome: Outcome| {
                for index in name.indices() {
                    if let Some(slot) = tickets.get_mut(index) {
                        *slot = Some(ticket.clone());
                    }
                    on_outcome(index, outcome.clone());
                }
            };
            // In this order, because a message that is settled in between is then in doubt.
            let digest = context.base_digest;
            let (left, in_flight) = without_in_flight(&self.in_flight, digest, &mail, copies);
            for (name, target, ()) in in_flight {
                answer(name, Ticket::not_made(), already_in_flight(base, &target));
            }
            let (left, repeated) = without_repeated(&ledger.unconfirmed, digest, &mail, left);
            copies = left;
            for (name, target, repeated) in repeated {
                let ticket = Ticket::settled(repeated);
                answer(name, ticket, known_already(base, &target));
            }
        }
        self.shared.pools.note_changes(&context.disk);
        let message = self.logged_message(&mail, &copies);
        if let (Some((message, _)), Some(id)) = (&message, &mail.queue_id) {
            self.in_flight.add(id, message);
        }
        let mut deliveries: Vec<(Arc<WriterPool>, Vec<Delivery>)> = Vec::new();
        let limit = self.shared.step_limit.limit();
        let mut recipient = 0;
        for copy in copies {
            let count = copy.names.iter().count();
            let part = message.as_ref().map(|(message, through_log)| MessagePart {
                message: Arc::clone(message),
                recipient,
                through_log: *through_log,
            });
            recipient += count;
            let (mail, on_outcome) = (Arc::clone(&mail), Arc::clone(&on_outcome));
            let delivery = Delivery::new(mail, copy, part, on_outcome, base);
            for (index, offset) in delivery.places() {
                if let Some(slot) = tickets.get_mut(index) {
                    *slot = Some(delivery.ticket(offset));
                }
            }
            let path = &delivery.target.path;
            let pool = self.pool(path);
            if !pool.admits(path, limit) {
                let error = pool.error(delivery.mailbox());
                delivery.finish(Err(error.into()));
                continue;
            }
            let is_it = |(known, _): &&mut (Arc<WriterPool>, _)| Arc::ptr_eq(known, &pool);
            match deliveries.iter_mut().find(is_it) {
                Some((_, deliveries)) => deliveries.push(delivery),
                None => deliveries.push((pool, vec![delivery])),
            }
        }
        for (pool, deliveries) in deliveries {
            pool.queue.push(deliveries.into_iter());
        }
        debug_assert!(tickets.iter().all(Option::is_some), "a ticket for each");
        tickets.into_iter().flatten().collect()
    }

    /// Returns the message for the log, and whether it goes through the log. `None` without a log.
    fn logged_message(
        &self,
        mail: &Arc<Mail>,
        copies: &[Copy],
    ) -> Option<(Arc<LoggedMessage>, bool)> {
        let ledger = self.shared.ledger.as_ref()?;
        if copies.is_empty() {
            return None;
        }
        let context = &self.shared.context;
        let how = (context.base_digest, context.without_status(&mail.message));
        let message = LoggedMessage::new(
            self.ids.next(),
            mail,
            copies,
            &context.names,
            how,
            ledger.late_ends.clone(),
        );
        let (size, envelope) = (mail.message.size(), message.envelope());
        let fits_log = size <= ledger.message_bytes_max
            && size + envelope.record_bytes() as u64 <= ledger.record_bytes_max as u64
            && envelope.recipients.len() <= LOGGED_RECIPIENTS_MAX;
        Some((Arc::new(message), fits_log))
    }

    /// Returns what recovery did when the store was opened; `None` without a delivery log.
    pub fn recovered(&self) -> Option<RecoveryReport> {
        self.recovered
    }

    /// Returns whether the store takes mail now, how much waits, and which threads failed.
    pub fn health(&self) -> Health {
        let health = self.log.as_ref().map(|log| log.health());
        let health = health.unwrap_or_else(|| {
            let hung = self.shared.pools.hung().into_iter();
            (LogState::Direct, 0, hung.map(hung_failure).collect())
        });
        let (log, waiting, file_systems) = health;
        Health {
            log,
            waiting,
            file_systems,
            threads: self.supervisor.failures(),
            tables: Vec::new(),
        }
    }

    /// Returns how the file descriptors of the process are divided.
    pub fn descriptors(&self) -> Descriptors {
        self.descriptors
    }

    /// Makes every mailbox durable and frees the delivery log now.
    ///
    /// # Errors
    /// The disk failed.
    pub fn checkpoint(&self) -> Result<(), LogError> {
        match &self.log {
            Some(log) => log.checkpoint(&self.shared.context),
            None => Ok(()),
        }
    }

    /// Returns true while fewer deliveries than `limits.queued_deliveries` wait or are in progress.
    /// Deliveries that wait for a lock which another program holds do not count.
    pub fn has_capacity(&self) -> bool {
        self.capacity.is_left()
    }

    /// Ready when [`Store::has_capacity`], for asynchronous callers; otherwise the task is woken
    /// when there may be room. Use it as
    /// `std::future::poll_fn(|cx| store.poll_capacity(cx)).await`.
    pub fn poll_capacity(&self, context: &mut task::Context<'_>) -> Poll<()> {
        self.capacity.poll(context)
    }

    /// Prepares the store to be dropped soon: deliveries that a mailbox delays are answered within
    /// seconds.
    pub fn prepare_close(&self) {
        self.shared.step_limit.hurry();
    }
}

impl<D: Disk> Drop for Store<D> {
    fn drop(&mut self) {
        for pool in self.shared.pools.all() {
            pool.queue.close();
        }
        self.shared.step_limit.hurry();
        self.shared.step_limit.end();
        // The watchdog would start writers in place of those that end.
        self.watch = None;
        watchdog::wait_for_writers(&self.shared);
        if let Some(ledger) = &self.shared.ledger {
            ledger.log.close();
        }
        self.checkpointer = None;
    }
}

/// More recipients would make the envelope as large as a message.
const LOGGED_RECIPIENTS_MAX: usize = 2000;
