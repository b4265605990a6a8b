//! The log without threads: a caller does its work before it would wait for it, so that a
//! simulation repeats itself.
//!
//! Who waits for a record commits everything that was appended before as one batch. Who finds the
//! log full makes segments. Segments in advance are made by
//! [`LogWriter::preallocate`]. A log that is dropped commits nothing, as if its process had been
//! killed; one that is closed does.

use super::committer::Committer;
use super::error::LogError;
use super::log_scan::LogScan;
use super::medium::LogMedium;
use super::preallocator::Preallocator;
use super::settings::LogWriterSettings;
use super::shared::Shared;
use super::sim::SimMedium;
use super::workers::Workers;
use super::writer::LogWriter;
use crate::sync::{Arc, Mutex};
use std::time::Duration;

/// A log without threads.
pub type StepwiseLog<M = SimMedium> = LogWriter<M, Stepwise<M>>;

/// Does the work of a log on the thread of who asks for it.
pub struct Stepwise<M: LogMedium> {
    shared: Shared<M>,
    committer: Mutex<Committer<M>>,
    preallocator: Mutex<Preallocator<M>>,
}

impl<M: LogMedium> StepwiseLog<M> {
    /// As [`LogWriter::open_on`], without threads.
    ///
    /// # Errors
    /// As there.
    pub fn open_stepwise(
        medium: Arc<M>,
        settings: LogWriterSettings,
    ) -> Result<(Self, LogScan<M>), LogError> {
        Self::open_with(medium, settings, |shared, committer, preallocator| {
            Ok(Stepwise {
                shared: shared.clone(),
                committer: Mutex::new(committer),
                preallocator: Mutex::new(preallocator),
            })
        })
    }

    /// Makes segments as a thread does from time to time, if there is a reason.
    pub fn preallocate(&self) {
        self.workers().preallocate();
    }
}

impl<M: LogMedium> Workers for Stepwise<M> {
    fn commit(&self, until: Option<u64>) {
        let is_done = until.is_some_and(|until| until <= self.shared.commit.durable_up_to());
        if !is_done {
            self.committer.lock().commit_next(false);
        }
    }

    fn preallocate(&self) {
        self.preallocator.lock().carry_out_next(false);
    }

    /// No other thread does anything.
    fn wait_limit(&self, _most: Duration) -> Duration {
        Duration::ZERO
    }

    fn end(&self) {}
}
