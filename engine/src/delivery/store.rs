//! The store: a bounded queue and the threads that write mailboxes.
//!
//! Imports the rest of `delivery`, `mailbox`, `message`, `io`, `config`, `sync`.

use super::flush::Flusher;
use super::job::{Job, OnOutcome, Ticket};
use super::queue::{Batch, Queue};
use super::round::Round;
use super::types::Mail;
use crate::config::Settings;
use crate::envelope::Recipient;
use crate::io::{Blocking, Credentials, Disk, StateDirectory};
use crate::mailbox::maildir::NameMaker;
use crate::mailbox::{Known, MailboxSettings};
use crate::message::{MessageBuilder, Spool};
use crate::route::MailboxTarget;
use crate::sync::Arc;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
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
    /// The state directory is missing and cannot be made.
    #[error(
        "state directory {}: {source}; create it for the user mailstow runs as, or name another \
         one with --state-directory",
        directory.display()
    )]
    State {
        /// As configured.
        directory: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No more threads.
    #[error("cannot start a writer thread: {source}; raise the limit of processes")]
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
pub(super) struct Shared<D> {
    pub(super) disk: D,
    pub(super) settings: MailboxSettings,
    pub(super) known: Known,
    pub(super) names: NameMaker,
    pub(super) flusher: Flusher,
    pub(super) queue: Queue,
    batch: usize,
}

/// Writes messages into mailboxes, durably. May be shared between threads.
///
/// Dropping it does what [`Store::close`] does.
#[derive(Debug)]
pub struct Store<D: Disk = Blocking> {
    shared: Arc<Shared<D>>,
    spool: Spool,
    threads: Vec<JoinHandle<()>>,
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
}

impl<D: Disk> Store<D> {
    /// As [`Store::open`], with mailboxes on another disk (the state directory is always a real
    /// one: nothing in it must last).
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disk: D, settings: &Settings) -> Result<Self, StoreError> {
        open_base(&disk, settings)?;
        let directory = &settings.state_directory;
        let state = StateDirectory::open(directory).map_err(|source| StoreError::State {
            directory: directory.clone(),
            source,
        })?;
        let shared = Arc::new(Shared {
            disk,
            settings: MailboxSettings::from(settings),
            known: Known::default(),
            names: NameMaker::new(&settings.store.host),
            flusher: Flusher::new(settings.store.flush),
            queue: Queue::new(settings.limits.queued_deliveries),
            batch: settings.store.batch,
        });
        let mut store = Self {
            shared,
            spool: Spool::new(Arc::new(state), &settings.limits),
            threads: Vec::new(),
        };
        for number in 0..settings.store.writers.max(1) {
            let shared = Arc::clone(&store.shared);
            let thread = std::thread::Builder::new()
                .name(format!("mailstow-wr{number}"))
                .spawn(move || write_mail(&shared))
                .map_err(|source| StoreError::Thread { source })?;
            store.threads.push(thread);
        }
        Ok(store)
    }

    /// A new empty message, to be filled and submitted.
    pub fn new_message(&self) -> MessageBuilder {
        self.spool.message()
    }

    /// Where messages are held.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// The disk the mailboxes are on.
    pub fn disk(&self) -> &D {
        &self.shared.disk
    }

    /// Begins to store a message in each of the mailboxes; returns at once, with one ticket for
    /// each. The bound of the queue is not enforced here: see [`Store::poll_room`].
    ///
    /// `on_outcome` is called once for each mailbox whose ticket was not abandoned in time, with
    /// its index in `to`, from another thread, possibly before this returns.
    pub fn submit(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, MailboxTarget)>,
        on_outcome: Arc<OnOutcome>,
    ) -> Vec<Ticket> {
        let base = &self.shared.settings.base;
        let jobs: Vec<Job> = to
            .into_iter()
            .enumerate()
            .map(|(index, to)| {
                let (mail, on_outcome) = (Arc::clone(&mail), Arc::clone(&on_outcome));
                Job::new(mail, to, index, on_outcome, base)
            })
            .collect();
        let tickets = jobs.iter().map(Job::ticket).collect();
        self.shared.queue.push(jobs.into_iter());
        tickets
    }

    /// True while fewer deliveries wait than `limits.queued_deliveries`.
    pub fn has_room(&self) -> bool {
        self.shared.queue.has_room()
    }

    /// For asynchronous callers: ready when [`Store::has_room`]; else the task is woken when
    /// there may be room. Use it as `std::future::poll_fn(|cx| store.poll_room(cx)).await`.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        self.shared.queue.poll_room(context)
    }

    /// Finishes what was submitted, and ends the writers. Deliveries that wait for a busy lock
    /// may take as long as their patience.
    pub fn close(self) {
        drop(self);
    }
}

impl<D: Disk> Drop for Store<D> {
    fn drop(&mut self) {
        self.shared.queue.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a writer thread ended by a panic");
            }
        }
    }
}

/// A writer thread. A panic costs the deliveries of one round, which are answered 451, and
/// nothing else.
fn write_mail<D: Disk>(shared: &Shared<D>) {
    let mut credentials = Credentials::of_this_thread();
    while let Some(Batch { jobs, mboxes }) = shared.queue.take(shared.batch) {
        let round = Round::new(shared, &mut credentials);
        if catch_unwind(AssertUnwindSafe(|| round.run(jobs))).is_err() {
            tracing::error!("a writer panicked; its deliveries were answered with an error");
        }
        shared.queue.give_back(mboxes);
    }
}

/// Makes the base if only the last directory of its path is missing. Mailbox owners must be able
/// to search it, and to make directories in it when all of them are one user.
fn open_base<D: Disk>(disk: &D, settings: &Settings) -> Result<(), StoreError> {
    let base = settings.routing.virtual_mailbox_base.clone();
    if !base.is_absolute() {
        return Err(StoreError::RelativeBase { base });
    }
    let missing = match disk.open_root(&base) {
        Ok(_) => return Ok(()),
        Err(source) => source,
    };
    let made = match missing.kind() {
        io::ErrorKind::NotFound if settings.store.make_base => make_base(&base, settings),
        _ => Err(missing),
    };
    made.map_err(|source| StoreError::Base { base, source })
}

fn make_base(base: &Path, settings: &Settings) -> io::Result<()> {
    let is_root = nix::unistd::geteuid().is_root();
    let mode = if is_root { 0o755 } else { 0o700 };
    std::fs::DirBuilder::new().mode(mode).create(base)?;
    let uid = static_id(&settings.routing.virtual_uid_maps);
    let gid = static_id(&settings.routing.virtual_gid_maps);
    if let (true, Some(uid), Some(gid)) = (is_root, uid, gid) {
        std::os::unix::fs::chown(base, Some(uid), Some(gid))?;
    }
    tracing::info!(base = %base.display(), uid, gid, "created virtual_mailbox_base");
    Ok(())
}

/// The one user of all mailboxes, if the tables say so plainly.
fn static_id(tables: &str) -> Option<u32> {
    let id = tables.trim().strip_prefix("static:")?.trim().parse().ok()?;
    (id != 0).then_some(id)
}
