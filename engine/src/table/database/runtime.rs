//! The thread that talks to databases, and the way to it for callers who may wait.
//!
//! Imports `sync`, `supervisor`. Invariant: what runs here gives up by itself after a time, so
//! a caller never waits for ever.

use std::future::Future;
use std::io;
use std::sync::mpsc;

use tokio::runtime::{Builder, Runtime};

use super::hosts::{Hosts, Server};
use crate::supervisor::build_runtime;
use crate::sync::Arc;
use crate::thread::without_signals;

/// Threads for looking up host names, which the system does one at a time for each.
const NAME_THREADS_MAX: usize = 4;

/// Stack of each thread, in bytes: what the runtime gives them by itself.
const STACK_BYTES: usize = 2 << 20;

/// A thread that drives connections. Ends with its last table.
#[derive(Debug)]
pub(super) struct Driver(Option<Runtime>);

impl Driver {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread or event queue.
    pub(super) fn start() -> io::Result<Self> {
        let build = || {
            Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(NAME_THREADS_MAX)
                .thread_name("mailstow-ask")
                .thread_stack_size(STACK_BYTES)
                .enable_all()
                .build()
        };
        let runtime = build_runtime((1, STACK_BYTES), || without_signals(build))?;
        Ok(Self(Some(runtime)))
    }

    /// Asks one of `hosts` and waits for the answer.
    ///
    /// # Errors
    /// What each of them said.
    pub(super) fn ask<S: Server>(
        &self,
        hosts: &Arc<Hosts<S>>,
        question: S::Question,
    ) -> Result<S::Answer, String> {
        let hosts = Arc::clone(hosts);
        let asked = self.run(async move { hosts.ask(&question).await });
        asked.unwrap_or_else(|| Err("the database driver failed".to_owned()))
    }

    /// Runs `work` and waits for its result; `None` when it was lost, which a panic of a driver
    /// library would do. Not to be called by a thread that must not block.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = mpsc::sync_channel(1);
        let runtime = self.0.as_ref()?;
        runtime.spawn(async move {
            // Nobody listens when the caller's thread was ended, which concerns nobody then.
            let _ = tell.send(work.await);
        });
        told.recv().ok()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The last table may be dropped by a task of another runtime, where waiting for this
            // one is not allowed; nobody needs what still runs.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_and_a_panic_in_it_is_no_answer() {
        let driver = Driver::start().unwrap();
        assert_eq!(driver.run(async { 7 }), Some(7));
        assert_eq!(driver.run(async { panic!("lost") }), None::<u8>);
        assert_eq!(driver.run(async { 8 }), Some(8));
    }
}
