//! Work that a file system with mailboxes may never let end.
//!
//! Imports `patience`, `thread`. Each job has a thread of its own, which is waited for as long as a
//! step in a mailbox may take, and then left to itself.

use super::patience::Patience;
use crate::clock;
use crate::sync::Arc;
use crate::thread;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

/// Begins jobs.
#[derive(Clone, Debug)]
pub(super) enum Jobs {
    /// On threads.
    Threads(Arc<Patience>),
    /// At once, on the thread of whoever begins them.
    AtOnce,
}

/// A job that was begun.
#[derive(Debug)]
pub(super) struct Job {
    /// Nothing is sent: it is closed when the job is over.
    end: Option<Receiver<()>>,
    until: Instant,
}

impl Jobs {
    /// Begins a job.
    ///
    /// # Errors
    /// The system gives no thread; nothing was done.
    pub(super) fn begin(&self, work: impl FnOnce() + Send + 'static) -> io::Result<Job> {
        let now = clock::now();
        let Self::Threads(patience) = self else {
            work();
            return Ok(Job {
                end: None,
                until: now,
            });
        };
        let (running, end) = channel();
        let thread = thread::spawn("mailstow-job", move || {
            let _running = running;
            work();
        });
        thread.map(|_| Job {
            end: Some(end),
            until: now + patience.limit(),
        })
    }

    /// Waits for a job as long as it goes on; `progress` says when it did so the last time. False
    /// if it does not.
    pub(super) fn wait_for(&self, mut job: Job, progress: impl Fn() -> Instant) -> bool {
        let Self::Threads(patience) = self else {
            return job.wait();
        };
        loop {
            job.until = progress() + patience.limit();
            if clock::now() >= job.until {
                return job.wait();
            }
            if job.wait_again() {
                return true;
            }
        }
    }
}

impl Job {
    /// Waits for the end of the job. False if it may never come.
    pub(super) fn wait(self) -> bool {
        self.wait_again()
    }

    fn wait_again(&self) -> bool {
        let Some(end) = &self.end else { return true };
        let left = self.until.saturating_duration_since(clock::now());
        !matches!(end.recv_timeout(left), Err(RecvTimeoutError::Timeout))
    }
}
