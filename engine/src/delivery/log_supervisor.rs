//! The supervisor of the delivery log: opens and recovers it, makes checkpoints, and opens it again
//! after it failed.
//!
//! Invariants: a log is recovered before it is used otherwise; a checkpoint covers only messages of
//! which every delivery ended before the flush of the file systems began.

mod checkpoint;
mod open;
mod recheck;
mod retry;
mod status;

use super::context::Context;
use super::jobs::{Job, Jobs};
use super::ledger::Ledger;
use super::ledger::handle::{Due, Task};
use super::ledger::journal::{Journal, JournalSource};
use super::ledger::lease_term::LeaseTerm;
use super::recovery::{PageCache, Recovery};
use super::writer_pools::WriterPools;
use crate::clock;
use crate::config::DeliveryLogSettings;
use crate::io::Disk;
use crate::log::LogError;
use crate::sync::{Arc, Mutex};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// First pause before a failed log is opened again; it doubles up to the longest.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shortest interval between two checkpoints, however full the log is.
const CHECKPOINT_PAUSE_MIN: Duration = Duration::from_millis(100);

/// How long a confirmation may be pending, unless a batch of deliveries appends it. If the process
/// is killed before that, it takes an equal message that was sent on purpose for a repetition.
const PENDING_WAIT: Duration = Duration::from_secs(1);

/// The supervisor of a store's log.
pub(super) struct LogSupervisor<H> {
    source: Box<dyn JournalSource>,
    settings: DeliveryLogSettings,
    ledger: Arc<Ledger<H>>,
    /// Serialises checkpoints: one would free what another reads.
    checkpointing: Mutex<()>,
    pools: Arc<WriterPools>,
    jobs: Jobs,
    /// Mount points of file systems whose mail is being tried again.
    at_work: Mutex<BTreeSet<PathBuf>>,
    /// The directory of the log has the note that a file system is suspect.
    noted_suspects: Mutex<bool>,
}

impl<H> fmt::Debug for LogSupervisor<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSupervisor")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// The supervisor may panic between a flush and its result. The log is then taken out of service,
/// and every file system becomes suspect.
struct FailOnPanic<'a, H>(&'a Ledger<H>);

impl<H> Drop for FailOnPanic<'_, H> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = LogError::Panicked {
                thread: "mailstow-check",
            };
            self.0
                .file_systems
                .all_fail(&Arc::new(io::Error::other(error.clone())));
            self.0.log.fail(error);
        }
    }
}

/// Work on a file system, until it ends.
struct EndOfWork<H> {
    supervisor: Arc<LogSupervisor<H>>,
    mount_point: PathBuf,
}

impl<H> Drop for EndOfWork<H> {
    fn drop(&mut self) {
        self.supervisor.at_work.lock().remove(&self.mount_point);
    }
}

/// Work on a file system that uses the log, and the term of its lease.
struct Work {
    job: Job,
    term: Arc<LeaseTerm>,
}

impl<H: fmt::Debug + Send + Sync + 'static> LogSupervisor<H> {
    pub(super) fn new(
        source: Box<dyn JournalSource>,
        settings: DeliveryLogSettings,
        (pools, jobs): (Arc<WriterPools>, Jobs),
    ) -> Self {
        Self {
            source,
            ledger: Arc::new(Ledger::new(&settings)),
            settings,
            checkpointing: Mutex::default(),
            pools,
            jobs,
            at_work: Mutex::default(),
            noted_suspects: Mutex::default(),
        }
    }

    /// Returns the ledger.
    pub(super) fn ledger(&self) -> &Arc<Ledger<H>> {
        &self.ledger
    }

    /// Makes every attempt due now.
    #[cfg(test)]
    pub(super) fn hurry(&self) {
        self.ledger.file_systems.hurry();
        self.ledger.deferred.hurry();
    }

    /// Handles a checkpoint that fails, as the checkpoint thread does.
    #[cfg(test)]
    pub(super) fn checkpoint_or_fail<D: Disk<Handle = H>>(
        self: &Arc<Self>,
        context: &Arc<Context<D>>,
    ) {
        if let Err(error) = self.checkpoint(context) {
            self.ledger.log.fail(error);
        }
    }

    /// Makes checkpoints and opens a failed log again, until the store closes: the work of a
    /// supervised thread.
    pub(super) fn run<D: Disk<Handle = H>>(self: &Arc<Self>, context: &Arc<Context<D>>) {
        let log = &self.ledger.log;
        let guard = FailOnPanic(&self.ledger);
        let mut pause = REOPEN_PAUSE;
        let mut again = clock::now();
        let mut begun = again;
        loop {
            match self.next_task(begun, again) {
                Task::Confirm => {
                    self.ledger.append_confirmations();
                    continue;
                }
                Task::Checkpoint => {
                    self.recheck_suspects(context);
                    self.retry_deferred(context);
                    if let Err(error) = self.checkpoint(context) {
                        log.fail(error);
                        again = clock::now() + pause;
                    }
                }
                Task::Reopen => match self.open(context) {
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
                        log.reopen_failed(error, again);
                    }
                },
                Task::End => {
                    self.recheck_suspects(context);
                    if let Err(error) = self.checkpoint(context) {
                        tracing::error!(%error, "the last checkpoint of the delivery log failed");
                    }
                    log.forget();
                    drop(guard);
                    return;
                }
            }
            begun = clock::now();
        }
    }

    /// Waits for the next task. The last task ended at `begun`.
    fn next_task(&self, begun: Instant, reopen_at: Instant) -> Task {
        self.ledger
            .log
            .next_task(reopen_at, |journal, is_asked, now| {
                let waited = now.saturating_duration_since(begun);
                let pause = match is_asked {
                    true => CHECKPOINT_PAUSE_MIN.min(self.settings.checkpoint_interval),
                    false => self.settings.checkpoint_interval,
                };
                let left = pause.saturating_sub(waited);
                let attempts = [
                    self.ledger.file_systems.next_attempt(),
                    self.ledger.deferred.next_attempt(now),
                ];
                let attempt = attempts.into_iter().flatten().min();
                let left = match attempt.map(|due| due.saturating_duration_since(now)) {
                    Some(due) => left.min(due.max(CHECKPOINT_PAUSE_MIN.saturating_sub(waited))),
                    None => left,
                };
                Due {
                    checkpoint: left,
                    confirmations: self.confirmations_due(journal, now),
                }
            })
    }

    /// Returns how long pending confirmations may wait.
    fn confirmations_due(&self, journal: &dyn Journal, now: Instant) -> Duration {
        let since = self.ledger.unconfirmed.pending_since();
        let due = since.map(|since| since + PENDING_WAIT);
        match due.map(|due| due.saturating_duration_since(now)) {
            // The checkpoint that frees part of a full log appends them.
            Some(Duration::ZERO) if journal.usage().bytes_free == 0 => PENDING_WAIT,
            Some(left) => left,
            None => PENDING_WAIT,
        }
    }

    /// Begins work on the file system at that mount point, which may never end; `None` if earlier
    /// work there is still in progress.
    fn work_on(
        self: &Arc<Self>,
        mount_point: PathBuf,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Option<Job>> {
        if !self.at_work.lock().insert(mount_point.clone()) {
            return Ok(None);
        }
        let end = EndOfWork {
            supervisor: Arc::clone(self),
            mount_point,
        };
        let job = self.jobs.begin(move || {
            let _end = end;
            work();
        });
        job.map(Some)
    }

    /// As [`Self::work_on`], for work that uses the log.
    fn work_with_log(
        self: &Arc<Self>,
        mount_point: PathBuf,
        work: impl FnOnce(Arc<LeaseTerm>) + Send + 'static,
    ) -> io::Result<Option<Work>> {
        let term = Arc::<LeaseTerm>::default();
        let of_work = Arc::clone(&term);
        let job = self.work_on(mount_point, move || work(of_work))?;
        Ok(job.map(|job| Work { job, term }))
    }

    /// Waits for work. Work that does not end does not keep the log from being opened again.
    fn wait_for(&self, begun: Vec<Work>) {
        for Work { job, term } in begun {
            if !job.wait() {
                self.ledger.log.end_lease(&term);
            }
        }
    }

    /// Returns the context of a recovery.
    fn recovery<'a, D: Disk<Handle = H>>(
        &'a self,
        context: &'a Context<D>,
        journal: &'a dyn Journal,
        page_cache: PageCache,
    ) -> Recovery<'a, D> {
        Recovery {
            disk: &context.disk,
            settings: &context.settings,
            durable_dirs: &context.durable_dirs,
            journal,
            file_systems: &self.ledger.file_systems,
            pools: &self.pools,
            page_cache,
        }
    }
}
