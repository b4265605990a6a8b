//! Who does the work of an open log: two threads, or, in a simulation, its callers.

use super::committer::Committer;
use super::error::LogError;
use super::medium::LogMedium;
use super::preallocator::Preallocator;
use super::shared::Shared;
use crate::sync::Mutex;
use crate::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::Duration;

/// What cannot be started, and the remedy.
const THREADS: &str = "the log's threads (raise the limit on processes: TasksMax=, ulimit -u)";

/// Does the work of a log. Callers use the methods before they wait for it.
pub trait Workers: Send + Sync {
    /// A caller waits until the record is durable, or until nothing waits for its flush.
    fn commit(&self, until: Option<u64>);

    /// The preallocator has orders.
    fn preallocate(&self);

    /// How much of `most` to wait for what was asked for before.
    fn wait_limit(&self, most: Duration) -> Duration;

    /// The log takes no more records: finishes what is to be finished.
    fn end(&self);
}

/// The threads of a log. One commits batches, and one makes segments ready, so that no delivery
/// waits for zeros to be written.
#[derive(Debug, Default)]
pub struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Threads {
    pub(super) fn start<M: LogMedium>(
        shared: &Shared<M>,
        committer: Committer<M>,
        preallocator: Preallocator<M>,
    ) -> Result<Self, LogError> {
        let threads = Self::default();
        let started = threads
            .spawn(shared, "mailstow-log", || committer.run())
            .and_then(|()| threads.spawn(shared, "mailstow-spare", || preallocator.run()));
        if started.is_err() {
            shared.close();
            threads.end();
        }
        started.map(|()| threads)
    }

    /// Starts a thread of the log. Its panic poisons the log, which leaves no appender waiting; the
    /// log that is opened in its place has new threads.
    fn spawn<M: LogMedium>(
        &self,
        shared: &Shared<M>,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), LogError> {
        let shared = shared.clone();
        let supervised = move || {
            if catch_unwind(AssertUnwindSafe(body)).is_err() {
                let panicked = LogError::Panicked { thread: name };
                shared.fail(panicked, &mut Vec::new());
            }
        };
        let handle = thread::spawn(name, supervised)
            .map_err(|error| LogError::io("start", THREADS, error))?;
        self.0.lock().push(handle);
        Ok(())
    }
}

/// The threads do everything without being told.
impl Workers for Threads {
    fn commit(&self, _until: Option<u64>) {}

    fn preallocate(&self) {}

    fn wait_limit(&self, most: Duration) -> Duration {
        most
    }

    fn end(&self) {
        let threads = std::mem::take(&mut *self.0.lock());
        for thread in threads {
            // Panics end on the thread itself, and poison the log.
            drop(thread.join());
        }
    }
}
