//! The delivery log of a store while it is in service, and the leases on it.
//!
//! Invariants: a failed log is opened again only when its last lease was given back or ended by the
//! watchdog; a log takes records only while it is in service.

use super::journal::Journal;
use super::lease_term::LeaseTerm;
use crate::clock;
use crate::log::{LogError, Sequence};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, wait, wait_timeout};
use std::fmt;
use std::sync::Weak;
use std::time::{Duration, Instant};

/// The log of a store.
pub(in crate::delivery) struct LogHandle {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    journal: Option<Arc<dyn Journal>>,
    /// Why it is out of service.
    failure: Option<Failure>,
    /// The log that failed: a lease that has ended may still hold it.
    failed: Option<Weak<dyn Journal>>,
    /// How many leases have not ended.
    leases: usize,
    checkpoint_asked: bool,
    is_closing: bool,
    /// The content of the log when the store was opened was recovered.
    is_recovered: bool,
    /// The record of the last checkpoint: without records after it, a checkpoint has nothing to do.
    checkpoint_at: Sequence,
}

/// Why the log is out of service.
#[derive(Clone, Debug)]
pub(in crate::delivery) struct Failure {
    /// The newest cause: the failure, or why the log could not be opened again.
    pub(in crate::delivery) cause: LogError,
    /// Since the UNIX epoch.
    pub(in crate::delivery) since: Duration,
    /// How many attempts to open it again failed.
    pub(in crate::delivery) attempts: u64,
    pub(in crate::delivery) next_attempt: Instant,
}

/// The right to use the log. A log is not opened again while a lease on it exists.
pub(in crate::delivery) struct LogLease<'a> {
    log: &'a LogHandle,
    pub(in crate::delivery) journal: Arc<dyn Journal>,
    term: Arc<LeaseTerm>,
}

/// The next task of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum Task {
    Checkpoint,
    /// Append which replies were read.
    Confirm,
    Reopen,
    End,
}

/// How long the next tasks may wait.
#[derive(Clone, Copy, Debug)]
pub(in crate::delivery) struct Due {
    pub(in crate::delivery) checkpoint: Duration,
    pub(in crate::delivery) confirmations: Duration,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").finish_non_exhaustive()
    }
}

impl State {
    /// Takes a failed log out of service, even if nothing uses it now.
    fn fail_if_poisoned(&mut self) {
        if let Some(error) = self.journal.as_ref().and_then(|journal| journal.poisoned()) {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: LogError) {
        if let Some(journal) = self.journal.take() {
            self.failed = Some(Arc::downgrade(&journal));
            self.is_out_of_service(error);
        }
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

impl Drop for LogLease<'_> {
    fn drop(&mut self) {
        let poisoned = self.journal.poisoned();
        let mut state = self.log.state.lock();
        let is_it = |journal: &Arc<dyn Journal>| Arc::ptr_eq(journal, &self.journal);
        if let Some(error) = poisoned
            // Another log may be in service by now.
            && state.journal.as_ref().is_some_and(is_it)
        {
            state.fail(error);
        }
        self.log.end(state, &self.term);
    }
}

impl LogLease<'_> {
    /// Returns its term.
    pub(in crate::delivery) fn term(&self) -> &Arc<LeaseTerm> {
        &self.term
    }

    /// Returns true if it was ended while it is held: another log may be in service.
    pub(in crate::delivery) fn is_over(&self) -> bool {
        self.term.is_over()
    }
}

impl LogHandle {
    /// Returns the handle of a log that is not open yet.
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                journal: None,
                failure: None,
                failed: None,
                leases: 0,
                checkpoint_asked: false,
                is_closing: false,
                is_recovered: false,
                checkpoint_at: Sequence(0),
            }),
            changed: Condvar::new(),
        }
    }

    /// Returns the right to use the log. Asks for a checkpoint when the log is half full.
    ///
    /// # Errors
    /// Why the log is out of service.
    pub(in crate::delivery) fn lease(&self) -> Result<LogLease<'_>, LogError> {
        self.lease_for(Arc::default())
    }

    /// As [`Self::lease`], for a term that other threads may end, or have ended.
    ///
    /// # Errors
    /// As there.
    pub(in crate::delivery) fn lease_for(
        &self,
        term: Arc<LeaseTerm>,
    ) -> Result<LogLease<'_>, LogError> {
        let mut state = self.state.lock();
        let Some(journal) = state.journal.clone() else {
            let cause = state.failure.as_ref().map(|failure| failure.cause.clone());
            return Err(cause.unwrap_or(LogError::Closed));
        };
        if !term.begin() {
            return Err(LogError::Closed);
        }
        state.leases += 1;
        drop(state);
        let lease = LogLease {
            log: self,
            journal,
            term,
        };
        if is_half_full(lease.journal.as_ref()) {
            self.ask_checkpoint();
        }
        Ok(lease)
    }

    /// Ends a lease whose holder does not come back.
    pub(in crate::delivery) fn end_lease(&self, term: &LeaseTerm) {
        self.end(self.state.lock(), term);
    }

    fn end(&self, mut state: MutexGuard<'_, State>, term: &LeaseTerm) {
        if !term.end() {
            return;
        }
        state.leases -= 1;
        // The supervisor waits only for the last lease of a failed log.
        let is_last = state.journal.is_none() && state.leases == 0;
        drop(state);
        if is_last {
            self.changed.notify_all();
        }
    }

    /// Stops a failed log and lets another be opened, although a thread may still hold the failed
    /// one.
    pub(in crate::delivery) fn let_go_of_failed(&self) {
        let failed = self.state.lock().failed.take();
        if let Some(journal) = failed.and_then(|failed| failed.upgrade()) {
            journal.let_go();
        }
    }

    /// Asks for a checkpoint soon.
    pub(in crate::delivery) fn ask_checkpoint(&self) {
        let mut state = self.state.lock();
        if !state.checkpoint_asked {
            state.checkpoint_asked = true;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Asks the supervisor to end after a last checkpoint.
    pub(in crate::delivery) fn close(&self) {
        self.state.lock().is_closing = true;
        self.changed.notify_all();
    }

    /// Puts the log into service.
    pub(in crate::delivery) fn is_in_service(
        &self,
        journal: Arc<dyn Journal>,
        checkpoint_at: Sequence,
    ) {
        let mut state = self.state.lock();
        state.is_recovered = true;
        state.checkpoint_at = checkpoint_at;
        state.journal = Some(journal);
        state.failure = None;
    }

    /// Takes the log out of service.
    pub(in crate::delivery) fn fail(&self, error: LogError) {
        self.state.lock().fail(error);
        self.changed.notify_all();
    }

    /// Notes that the log cannot be opened now: attempts follow as after a failure.
    pub(in crate::delivery) fn open_later(&self, error: LogError) {
        self.state.lock().is_out_of_service(error);
    }

    /// Notes that an attempt to open the log again failed.
    pub(in crate::delivery) fn reopen_failed(&self, error: LogError, next_attempt: Instant) {
        if let Some(failure) = &mut self.state.lock().failure {
            failure.cause = error;
            failure.attempts += 1;
            failure.next_attempt = next_attempt;
        }
    }

    /// Closes the log without a failure, although a thread may still hold it.
    pub(in crate::delivery) fn forget(&self) {
        let journal = self.state.lock().journal.take();
        if let Some(journal) = journal {
            journal.let_go();
        }
    }

    /// Returns true once the log was recovered.
    pub(in crate::delivery) fn is_recovered(&self) -> bool {
        self.state.lock().is_recovered
    }

    /// Returns the record of the last checkpoint.
    pub(in crate::delivery) fn checkpoint_at(&self) -> Sequence {
        self.state.lock().checkpoint_at
    }

    /// Notes the record of a checkpoint.
    pub(in crate::delivery) fn is_checkpointed(&self, at: Sequence) {
        self.state.lock().checkpoint_at = at;
    }

    /// Returns the log while it is in service, otherwise why it is not.
    pub(in crate::delivery) fn status(&self) -> Result<Arc<dyn Journal>, Option<Failure>> {
        let mut state = self.state.lock();
        state.fail_if_poisoned();
        match (&state.failure, &state.journal) {
            (None, Some(journal)) => Ok(Arc::clone(journal)),
            (failure, _) => Err(failure.clone()),
        }
    }

    /// Returns why the log is out of service; `None` while it is in service.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::delivery) fn failure(&self) -> Option<LogError> {
        let state = self.state.lock();
        state.failure.as_ref().map(|failure| failure.cause.clone())
    }

    /// Waits for the next task of the supervisor. A failed log is opened again at `reopen_at` at
    /// the earliest. `due` returns how long the other tasks may wait, given whether a checkpoint
    /// was asked for.
    pub(in crate::delivery) fn next_task(
        &self,
        reopen_at: Instant,
        due: impl Fn(&dyn Journal, bool, Instant) -> Due,
    ) -> Task {
        let mut state = self.state.lock();
        loop {
            let now = clock::now();
            state.fail_if_poisoned();
            if state.is_closing {
                return Task::End;
            }
            let Some(journal) = &state.journal else {
                match self.until_reopen(state, reopen_at, now) {
                    Some(waited) => state = waited,
                    None => return Task::Reopen,
                }
                continue;
            };
            let due = due(journal.as_ref(), state.checkpoint_asked, now);
            if due.checkpoint.is_zero() {
                state.checkpoint_asked = false;
                return Task::Checkpoint;
            }
            if due.confirmations.is_zero() {
                return Task::Confirm;
            }
            let left = due.checkpoint.min(due.confirmations);
            state = wait_timeout(&self.changed, state, left);
        }
    }

    /// Waits for a change; `None` when the log may be opened again.
    fn until_reopen<'s>(
        &'s self,
        state: MutexGuard<'s, State>,
        reopen_at: Instant,
        now: Instant,
    ) -> Option<MutexGuard<'s, State>> {
        if state.leases > 0 {
            return Some(wait(&self.changed, state));
        }
        (now < reopen_at).then(|| wait_timeout(&self.changed, state, reopen_at - now))
    }
}

/// Returns true when part of the log should be freed, so that no delivery waits for room.
pub(in crate::delivery) fn is_half_full(journal: &dyn Journal) -> bool {
    let usage = journal.usage();
    usage.segments_live * usage.segment_bytes > usage.log_bytes_max / 2
}
