//! The thread that talks to the database of one table.
//!
//! Each table has its own, so that a name server or a driver library that hangs holds up no other
//! table. Invariant: what runs here gives up by itself after a time.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Runtime};

use super::super::attempt::{Answer, Reply};
use super::hosts::{Hosts, Server};
use crate::supervisor::build_runtime;
use crate::sync::Arc;
use crate::thread::without_signals;

/// Threads for looking up host names, which the system does one at a time for each.
const NAME_THREADS_MAX: usize = 4;

/// Stack of each thread, in bytes: what the runtime gives them by itself.
const STACK_BYTES: usize = 2 << 20;

/// A thread that drives connections. Ends with its table.
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

    /// Asks one of `hosts`; returns at once. `then` makes the table's answer of what they said.
    pub(super) fn ask<S: Server>(
        &self,
        hosts: &Arc<Hosts<S>>,
        question: S::Question,
        reply: Reply,
        then: impl FnOnce(Result<S::Answer, String>) -> Answer + Send + 'static,
    ) {
        let hosts = Arc::clone(hosts);
        self.spawn(async move { reply.give(then(hosts.ask(&question).await)) });
    }

    /// Begins `work`. A panic in it, which may be one of a driver library, ends nothing else.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(work);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The table may be dropped by a task of another runtime, where waiting for this one
            // is not allowed; what still runs is of no use.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_and_a_panic_in_it_is_no_end_of_the_thread() {
        let driver = Driver::start().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let lost = tell.clone();
        driver.spawn(async move {
            let _tell = lost;
            panic!("lost");
        });
        driver.spawn(async move { tell.send(8).unwrap() });
        assert_eq!(told.recv().unwrap(), 8);
        assert!(told.recv().is_err());
    }
}
