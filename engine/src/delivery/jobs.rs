//! Jobs on file systems with mailboxes, which may never end.
//!
//! Each job has a thread. The caller waits for a job as long as a step in a mailbox may take; after
//! that the job continues without it.

use super::step_limit::StepLimit;
use crate::clock;
use crate::sync::Arc;
use crate::thread;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The interval between two checks of how long to wait for a job.
const LOOK: Duration = Duration::from_millis(50);

/// Begins jobs.
#[derive(Clone, Debug)]
pub(super) enum Jobs {
    /// On threads.
    Threads(Arc<StepLimit>),
    /// On the caller's thread, before `begin` returns.
    AtOnce,
}

/// A job that was begun; `None` if it has ended.
#[derive(Debug)]
pub(super) struct Job(Option<Running>);

#[derive(Debug)]
struct Running {
    /// Carries no messages: it is closed when the job has ended.
    end: Receiver<()>,
    step_limit: Arc<StepLimit>,
    begun: Instant,
}

impl Jobs {
    /// Returns the time limit of a job.
    pub(super) fn limit(&self) -> Duration {
        match self {
            Self::Threads(step_limit) => step_limit.limit(),
            Self::AtOnce => Duration::MAX,
        }
    }

    /// Returns true once the store is about to close.
    pub(super) fn is_hurried(&self) -> bool {
        match self {
            Self::Threads(step_limit) => step_limit.is_hurried(),
            Self::AtOnce => false,
        }
    }

    /// Begins a job.
    ///
    /// # Errors
    /// The system cannot start a thread; nothing was done.
    pub(super) fn begin(&self, work: impl FnOnce() + Send + 'static) -> io::Result<Job> {
        let Self::Threads(step_limit) = self else {
            work();
            return Ok(Job(None));
        };
        let begun = clock::now();
        let (running, end) = channel();
        let thread = thread::spawn("mailstow-job", move || {
            let _running = running;
            work();
        });
        let step_limit = Arc::clone(step_limit);
        thread.map(|_| {
            Job(Some(Running {
                end,
                step_limit,
                begun,
            }))
        })
    }
}

impl Job {
    /// Waits for the end of the job. Returns false when the time limit passed.
    pub(super) fn wait(self) -> bool {
        let begun = self.0.as_ref().map(|running| running.begun);
        self.wait_while(|| begun.unwrap_or_else(clock::now))
    }

    /// As [`Job::wait`], as long as the job makes progress; `progress` returns the time of the
    /// latest.
    pub(super) fn wait_while(self, progress: impl Fn() -> Instant) -> bool {
        let Some(Running {
            end, step_limit, ..
        }) = self.0
        else {
            return true;
        };
        loop {
            // Both may change during the wait.
            let left = (progress() + step_limit.limit()).saturating_duration_since(clock::now());
            match end.recv_timeout(left.min(LOOK)) {
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return false,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }
}
