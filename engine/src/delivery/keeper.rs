//! Keeps the delivery log of a store: who may use it, checkpoints, opening it again after it
//! failed.
//!
//! Imports the rest of `delivery`, `log`, `io`, `clock`, `sync`. Invariants: a log is recovered
//! before anything else uses it; it is opened again only when nobody uses the failed one any more;
//! a checkpoint covers only messages whose every delivery ended before the flush of the file
//! systems began.

mod checkpoint;
mod open;
mod recheck;
mod retry;
mod status;

use super::context::Context;
use super::domains::Domains;
use super::doubt::{Doubts, Keep};
use super::file_systems::FileSystems;
use super::floors::Floors;
use super::jobs::{Job, Jobs};
use super::journal::{Journal, JournalSource, confirmed_records, in_doubt_max, log_settings};
use super::late_ends::LateEnds;
use super::recovery::{PageCache, Recovery};
use super::refusals::Refusals;
use super::stuck::{Stuck, StuckMail};
use crate::clock;
use crate::config::DeliveryLogSettings;
use crate::io::Disk;
use crate::log::{DeliveryId, LogError, Sequence};
use crate::sync::{Arc, Condvar, Mutex, wait, wait_timeout};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// First pause before a failed log is opened again; it doubles up to the longest.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Between two checkpoints, however full the log is.
const CHECKPOINT_PAUSE_MIN: Duration = Duration::from_millis(100);

/// The log is told after so long that a reply was read, unless a batch of deliveries has done so:
/// killed before, the store takes an equal message sent on purpose for a repetition.
const NEWS_WAIT: Duration = Duration::from_secs(1);

/// The log of a store and what belongs to it.
pub(super) struct Keeper<H> {
    source: Box<dyn JournalSource>,
    settings: DeliveryLogSettings,
    /// Longest record, in bytes.
    record_bytes_max: usize,
    state: Mutex<State>,
    changed: Condvar,
    /// Checkpoints come one after the other: what one reads, another would free.
    checkpointing: Mutex<()>,
    pub(super) floors: Floors,
    pub(super) file_systems: FileSystems<H>,
    pub(super) doubts: Doubts,
    pub(super) refusals: Refusals,
    /// The ends of deliveries that were answered before.
    pub(super) late_ends: LateEnds,
    stuck: StuckMail,
    domains: Arc<Domains>,
    jobs: Jobs,
    /// Mount points of file systems whose mail is being tried again.
    at_work: Mutex<BTreeSet<PathBuf>>,
    /// The log directory says that a file system is suspect.
    noted_suspects: Mutex<bool>,
}

#[derive(Debug)]
struct State {
    journal: Option<Arc<dyn Journal>>,
    /// Why there is none.
    failure: Option<Failure>,
    /// Rounds that use it.
    users: usize,
    checkpoint_asked: bool,
    closing: bool,
    /// What the log held when the store was opened was recovered.
    is_recovered: bool,
    /// Where the last checkpoint stands: without records behind it there is nothing to do.
    checkpoint_at: Sequence,
}

/// Why the log is out of service.
#[derive(Clone, Debug)]
struct Failure {
    /// The newest cause: of the failure, or why it could not be opened again.
    cause: LogError,
    /// On the clock of the system.
    since: Duration,
    /// Times it was tried to open it again, and when it is tried next.
    attempts: u64,
    next_attempt: Instant,
}

/// The right to use the log; while it is held, the log is not opened again.
pub(super) struct Pass<'a, H> {
    keeper: &'a Keeper<H>,
    pub(super) journal: Arc<dyn Journal>,
}

impl<H> fmt::Debug for Keeper<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl<H> Drop for Pass<'_, H> {
    fn drop(&mut self) {
        let poisoned = self.journal.poisoned();
        let mut state = self.keeper.state.lock();
        state.users -= 1;
        if let Some(error) = poisoned {
            state.fail(error);
        }
        // The checkpointer waits for the last user of a log that failed, and for no other.
        let is_last = state.journal.is_none() && state.users == 0;
        drop(state);
        if is_last {
            self.keeper.changed.notify_all();
        }
    }
}

impl State {
    /// Takes a log out of service that failed, even if nothing uses it now.
    fn fail_if_poisoned(&mut self) {
        if let Some(error) = self.journal.as_ref().and_then(|journal| journal.poisoned()) {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: LogError) {
        if self.journal.take().is_some() {
            self.is_out_of_service(error);
        }
    }

    fn is_in_service(&mut self, journal: Arc<dyn Journal>, checkpoint_at: Sequence) {
        self.checkpoint_at = checkpoint_at;
        self.journal = Some(journal);
        self.failure = None;
    }

    fn is_out_of_service(&mut self, error: LogError) {
        tracing::error!(
            %error,
            "the delivery log is out of service: mail is answered 451 4.3.0 until it was opened \
             again and recovered"
        );
        self.failure = Some(Failure {
            cause: error,
            since: clock::since_epoch(),
            attempts: 0,
            next_attempt: clock::now(),
        });
    }
}

/// A panic of the checkpointer may come between a flush and its result: the log is taken out of
/// service, and every file system is suspect.
struct FailOnPanic<'a, H: fmt::Debug + Send + Sync + 'static>(&'a Keeper<H>);

impl<H: fmt::Debug + Send + Sync + 'static> Drop for FailOnPanic<'_, H> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = LogError::Panicked {
                thread: "mailstow-check",
            };
            self.0
                .file_systems
                .all_fail(&io::Error::other(error.clone()));
            self.0.fail(error);
        }
    }
}

/// Work on a file system, until it ends.
struct EndOfWork<H> {
    keeper: Arc<Keeper<H>>,
    mount_point: PathBuf,
}

impl<H> Drop for EndOfWork<H> {
    fn drop(&mut self) {
        self.keeper.at_work.lock().remove(&self.mount_point);
    }
}

/// Time to free some of it, so that nobody has to wait.
fn is_half_full(journal: &dyn Journal) -> bool {
    let usage = journal.usage();
    usage.segments_live * usage.segment_bytes > usage.log_bytes_max / 2
}

/// What the checkpointer does next.
enum Next {
    Checkpoint,
    Tell,
    Reopen,
    End,
}

impl<H: fmt::Debug + Send + Sync + 'static> Keeper<H> {
    pub(super) fn new(
        source: Box<dyn JournalSource>,
        settings: DeliveryLogSettings,
        (domains, jobs): (Arc<Domains>, Jobs),
    ) -> Self {
        let log = log_settings(&settings);
        Self {
            source,
            doubts: Doubts::new(Keep::from(&settings), in_doubt_max(&log)),
            record_bytes_max: log.record_bytes_max,
            settings,
            state: Mutex::new(State {
                journal: None,
                failure: None,
                users: 0,
                checkpoint_asked: false,
                closing: false,
                is_recovered: false,
                checkpoint_at: Sequence(0),
            }),
            changed: Condvar::new(),
            checkpointing: Mutex::default(),
            floors: Floors::default(),
            file_systems: FileSystems::default(),
            refusals: Refusals::default(),
            late_ends: LateEnds::default(),
            stuck: StuckMail::default(),
            domains,
            jobs,
            at_work: Mutex::default(),
            noted_suspects: Mutex::default(),
        }
    }

    /// Longest message for the log, in bytes.
    pub(super) fn message_bytes_max(&self) -> u64 {
        self.settings.message_bytes_max
    }

    /// Longest record that the log takes, in bytes.
    pub(super) fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// The log, or why there is none now.
    pub(super) fn enter(&self) -> Result<Pass<'_, H>, LogError> {
        let mut state = self.state.lock();
        let Some(journal) = state.journal.clone() else {
            let cause = state.failure.as_ref().map(|failure| failure.cause.clone());
            return Err(cause.unwrap_or(LogError::Closed));
        };
        state.users += 1;
        drop(state);
        let pass = Pass {
            keeper: self,
            journal,
        };
        if is_half_full(pass.journal.as_ref()) {
            self.ask();
        }
        Ok(pass)
    }

    /// The log cannot be opened now: it is tried again as when it failed.
    pub(super) fn open_later(&self, error: LogError) {
        self.state.lock().is_out_of_service(error);
    }

    /// Has every attempt be due now.
    #[cfg(test)]
    pub(super) fn hurry(&self) {
        self.file_systems.hurry();
        self.stuck.hurry();
    }

    /// Drops a log that failed.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.state.lock().journal = None;
    }

    /// As the checkpoint thread does with a checkpoint that fails.
    #[cfg(test)]
    pub(super) fn checkpoint_or_fail<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
    ) {
        if let Err(error) = self.checkpoint(context) {
            self.fail(error);
        }
    }

    /// What keeps the log from being used; `None` when all is well.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn failure(&self) -> Option<LogError> {
        let state = self.state.lock();
        state.failure.as_ref().map(|failure| failure.cause.clone())
    }

    /// It could not be opened again.
    fn not_yet(&self, error: LogError, next_attempt: Instant) {
        if let Some(failure) = &mut self.state.lock().failure {
            failure.cause = error;
            failure.attempts += 1;
            failure.next_attempt = next_attempt;
        }
    }

    /// A mailbox cannot be written for want of space: has the log give back what it can do without.
    /// True when something was gained, and it is to be tried again. A checkpoint, which frees more
    /// of the log, is made soon in any case.
    pub(super) fn make_room(&self, journal: &dyn Journal) -> bool {
        let gained = journal.give_back(false);
        self.ask();
        gained > 0
    }

    /// As [`Self::make_room`], for who does not use the log.
    pub(super) fn make_room_for_others(&self) -> bool {
        self.enter()
            .is_ok_and(|pass| self.make_room(pass.journal.as_ref()))
    }

    /// A checkpoint is wanted now.
    pub(super) fn ask(&self) {
        let mut state = self.state.lock();
        if !state.checkpoint_asked {
            state.checkpoint_asked = true;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The checkpointer is to end after a last checkpoint.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// Makes checkpoints and opens a failed log again, until the store closes: the work of a
    /// supervised thread.
    pub(super) fn run<D: Disk<Handle = H>>(self: &Arc<Self>, context: &Arc<Context<D>>) {
        let guard = FailOnPanic(self);
        let mut pause = REOPEN_PAUSE;
        let mut again = clock::now();
        let mut begun = again;
        loop {
            match self.next(begun, again) {
                Next::Tell => {
                    self.tell();
                    continue;
                }
                Next::Checkpoint => {
                    self.recheck_suspects(context);
                    self.retry_stuck(context);
                    if let Err(error) = self.checkpoint(context) {
                        self.fail(error);
                        again = clock::now() + pause;
                    }
                }
                Next::Reopen => match self.open(context) {
                    Ok(report) => {
                        pause = REOPEN_PAUSE;
                        let report = report.map(|report| format!(": {report}"));
                        let report = report.unwrap_or_default();
                        tracing::info!("the delivery log is in service again{report}");
                    }
                    Err(error) => {
                        pause = (pause * 2).min(REOPEN_PAUSE_MAX);
                        again = clock::now() + pause;
                        tracing::error!(
                            %error,
                            retry_s = pause.as_secs_f64(),
                            "the delivery log cannot be opened again yet"
                        );
                        self.not_yet(error, again);
                    }
                },
                Next::End => {
                    self.recheck_suspects(context);
                    if let Err(error) = self.checkpoint(context) {
                        tracing::error!(%error, "the last checkpoint of the delivery log failed");
                    }
                    self.state.lock().journal = None;
                    drop(guard);
                    return;
                }
            }
            begun = clock::now();
        }
    }

    /// The log or the flush of the mailboxes failed: the log is taken out of service.
    fn fail(&self, error: LogError) {
        self.state.lock().fail(error);
        self.changed.notify_all();
    }

    /// Begins work on the file system that is mounted there, which may never end; `None` if such
    /// work is under way.
    fn work_on(
        self: &Arc<Self>,
        mount_point: PathBuf,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Option<Job>> {
        if !self.at_work.lock().insert(mount_point.clone()) {
            return Ok(None);
        }
        let end = EndOfWork {
            keeper: Arc::clone(self),
            mount_point,
        };
        let job = self.jobs.begin(move || {
            let _end = end;
            work();
        });
        job.map(Some)
    }

    /// Holds a message that a writer has which does not come back.
    pub(super) fn hold_in_hand(&self, mail: Stuck) {
        self.stuck.hold(vec![mail]);
    }

    /// Holds a delivery no more whose writer came back before it was answered.
    pub(super) fn let_go(&self, delivery: (DeliveryId, u32)) {
        self.stuck.forget(&HashSet::from([delivery]));
    }

    /// Returns what recovery works with.
    fn recovery<'a, D: Disk<Handle = H>>(
        &'a self,
        context: &'a Context<D>,
        journal: &'a dyn Journal,
        page_cache: PageCache,
    ) -> Recovery<'a, D> {
        Recovery {
            disk: &context.disk,
            settings: &context.settings,
            known: &context.known,
            journal,
            file_systems: &self.file_systems,
            domains: &self.domains,
            page_cache,
        }
    }

    /// Tells the log which replies were read; nobody waits for that.
    fn tell(&self) {
        let Ok(pass) = self.enter() else {
            return;
        };
        for record in confirmed_records(&self.doubts.take_confirmed()) {
            // What a failing log loses is told to the next one.
            drop(pass.journal.append_anyway(record));
        }
    }

    /// How long the log need not be told of replies that were read.
    fn news_wait(&self, journal: &dyn Journal, now: Instant) -> Duration {
        let due = self.doubts.news_since().map(|since| since + NEWS_WAIT);
        match due.map(|due| due.saturating_duration_since(now)) {
            // A full log is told with the checkpoint that frees some of it.
            Some(Duration::ZERO) if journal.usage().bytes_free == 0 => NEWS_WAIT,
            Some(left) => left,
            None => NEWS_WAIT,
        }
    }

    /// What is to be done next, with the last checkpoint done at `begun`.
    fn next(&self, begun: Instant, reopen_at: Instant) -> Next {
        let mut state = self.state.lock();
        loop {
            let now = clock::now();
            state.fail_if_poisoned();
            let Some(journal) = &state.journal else {
                if state.closing {
                    return Next::End;
                }
                if state.users > 0 {
                    state = wait(&self.changed, state);
                } else if now >= reopen_at {
                    return Next::Reopen;
                } else {
                    state = wait_timeout(&self.changed, state, reopen_at - now);
                }
                continue;
            };
            if state.closing {
                return Next::End;
            }
            let waited = now.saturating_duration_since(begun);
            let pause = match state.checkpoint_asked {
                true => CHECKPOINT_PAUSE_MIN.min(self.settings.checkpoint_interval),
                false => self.settings.checkpoint_interval,
            };
            let left = pause.saturating_sub(waited);
            let attempts = [
                self.file_systems.next_attempt(),
                self.stuck.next_attempt(now),
            ];
            let attempt = attempts.into_iter().flatten().min();
            let left = match attempt.map(|due| due.saturating_duration_since(now)) {
                Some(due) => left.min(due.max(CHECKPOINT_PAUSE_MIN.saturating_sub(waited))),
                None => left,
            };
            if left.is_zero() {
                state.checkpoint_asked = false;
                return Next::Checkpoint;
            }
            let news_wait = self.news_wait(journal.as_ref(), now);
            if news_wait.is_zero() {
                return Next::Tell;
            }
            state = wait_timeout(&self.changed, state, left.min(news_wait));
        }
    }
}
