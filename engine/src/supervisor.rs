//! Supervises threads that must run as long as what they belong to.
//!
//! A supervised thread is made once; when its work panics, the thread takes the identity of the
//! process back and begins the work again, so that a replacement needs no new thread where the
//! system gives none. Invariants: every panic is logged and shows in [`Supervisor::failures`]; work
//! that panics again and again is given up, and is reported as lost until the process ends. Threads
//! that end with their work (recovery, a message that arrives) are not supervised: their absence is
//! an error of that work.

use crate::clock;
use crate::io::Credentials;
use crate::sync::{Arc, Condvar, Mutex, wait_timeout};
use crate::thread;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// First pause before work that panicked begins again; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Work that ran this long has recovered from its last panic.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);
/// Panics in a row after which the work is given up: about half a minute.
const PANICS_MAX: u32 = 10;

/// The supervised threads of one owner; clones share them.
#[derive(Clone, Debug)]
pub struct Supervisor {
    watches: Arc<Mutex<Vec<Arc<Watch>>>>,
    first_pause: Duration,
}

/// A thread, or a task of a server, that panicked a short time ago, or is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadFailure {
    /// Its name, as the system shows it.
    pub name: String,
    /// Panics in a row.
    pub panics: u32,
    /// When the last one was, since the UNIX epoch.
    pub since: Duration,
    /// It does not begin again: the process should end, so that it is started anew.
    pub is_lost: bool,
}

/// Watches one piece of work that must go on.
#[derive(Debug)]
pub struct Watch {
    name: String,
    first_pause: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    panics: u32,
    last: Option<(Instant, Duration)>,
    is_lost: bool,
    /// Its owner waits for its end.
    is_ending: bool,
}

/// A supervised thread; dropping it does what [`SupervisedThread::join`] does.
#[derive(Debug)]
pub struct SupervisedThread {
    supervisor: Supervisor,
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            watches: Arc::default(),
            first_pause: PAUSE,
        }
    }
}

impl Supervisor {
    /// Starts a thread that does `work` until that returns. `stack_bytes` of 0 means the usual
    /// size.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(
        &self,
        name: &str,
        stack_bytes: usize,
        work: impl FnMut() + Send + 'static,
    ) -> io::Result<SupervisedThread> {
        let watch = self.watch(name);
        let supervised = {
            let watch = Arc::clone(&watch);
            move || watch.run(work)
        };
        let thread = match stack_bytes {
            0 => thread::spawn(name, supervised),
            bytes => thread::spawn_small(name, bytes, supervised),
        };
        let thread = thread.inspect_err(|_| self.forget(&watch))?;
        Ok(SupervisedThread {
            supervisor: self.clone(),
            watch,
            thread: Some(thread),
        })
    }

    /// Watches work that is not a thread: a task of an asynchronous runtime.
    pub fn watch(&self, name: &str) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            name: name.to_owned(),
            first_pause: self.first_pause,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        self.watches.lock().push(Arc::clone(&watch));
        watch
    }

    /// Watches no more: the work has ended as it should.
    pub fn forget(&self, watch: &Arc<Watch>) {
        self.watches.lock().retain(|kept| !Arc::ptr_eq(kept, watch));
    }

    /// What panicked within the last minute, or is lost.
    pub fn failures(&self) -> Vec<ThreadFailure> {
        let watches = self.watches.lock();
        watches.iter().filter_map(|watch| watch.failure()).collect()
    }
}

impl Watch {
    /// The work panicked. Returns how long it rests before it begins again; `None` when it does
    /// not.
    pub fn panicked(&self) -> Option<Duration> {
        let name = &self.name;
        let mut state = self.state.lock();
        let now = clock::now();
        let is_recovered = |(at, _)| now.saturating_duration_since(at) > RECOVERED_AFTER;
        if state.last.is_some_and(is_recovered) {
            state.panics = 0;
        }
        state.panics = state.panics.saturating_add(1);
        state.last = Some((now, clock::since_epoch()));
        let panics = state.panics;
        if panics >= PANICS_MAX {
            state.is_lost = true;
            tracing::error!(
                thread = name,
                panics,
                "this thread panics again and again and is given up; the process must be \
                 restarted; report the panic"
            );
            return None;
        }
        let pause = self.first_pause.saturating_mul(1 << (panics - 1));
        let pause = pause.min(PAUSE_MAX.max(self.first_pause));
        tracing::error!(
            thread = name,
            panics,
            "this thread panicked; its work begins again after {} s; report the panic",
            pause.as_secs_f64()
        );
        Some(pause)
    }

    fn failure(&self) -> Option<ThreadFailure> {
        let state = self.state.lock();
        let (at, since) = state.last?;
        let is_past = at.elapsed() > RECOVERED_AFTER;
        (state.is_lost || !is_past).then(|| ThreadFailure {
            name: self.name.clone(),
            panics: state.panics,
            since,
            is_lost: state.is_lost,
        })
    }

    /// The body of a supervised thread.
    fn run(&self, mut work: impl FnMut()) {
        while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
            Credentials::restore_this_thread();
            match self.panicked() {
                Some(pause) => self.rest(pause),
                None => return,
            }
        }
    }

    /// Rests, unless the owner waits for the end.
    fn rest(&self, pause: Duration) {
        let until = clock::now() + pause;
        let mut state = self.state.lock();
        while !state.is_ending {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                return;
            }
            state = wait_timeout(&self.changed, state, left);
        }
    }
}

impl SupervisedThread {
    /// Waits for the end of the work, which its owner has ordered.
    pub fn join(self) {
        drop(self);
    }

    /// Returns true if the work has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the work go on until the process ends.
    pub fn detach(mut self) {
        self.thread = None;
    }
}

impl Drop for SupervisedThread {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.watch.state.lock().is_ending = true;
        self.watch.changed.notify_all();
        // Panics of the work end on the thread itself.
        let _ = thread.join();
        if !self.watch.state.lock().is_lost {
            self.supervisor.forget(&self.watch);
        }
    }
}

/// Sees that the system gives `count` threads of `stack_bytes` at once, for runtimes that panic
/// where it does not.
///
/// # Errors
/// It does not.
pub fn probe(count: usize, stack_bytes: usize) -> io::Result<()> {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let mut threads = Vec::with_capacity(count);
    let mut given = Ok(());
    for _ in 0..count {
        let gate = Arc::clone(&gate);
        let wait = move || drop(gate.lock());
        match thread::spawn_small("mailstow-probe", stack_bytes, wait) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                given = Err(error);
                break;
            }
        }
    }
    drop(closed);
    for thread in threads {
        // It does nothing that could panic.
        let _ = thread.join();
    }
    given
}

/// Builds a runtime that panics where the system gives it no threads.
///
/// # Errors
/// What `build` says, or it panicked.
pub fn build_runtime<R>(
    (threads, stack_bytes): (usize, usize),
    build: impl FnOnce() -> io::Result<R>,
) -> io::Result<R> {
    probe(threads, stack_bytes)?;
    let panicked = |_| Err(io::Error::other("the runtime panicked while it was built"));
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn supervisor() -> Supervisor {
        Supervisor {
            first_pause: Duration::from_millis(1),
            ..Supervisor::default()
        }
    }

    #[test]
    fn work_that_panics_begins_again_on_its_thread_and_the_failure_shows() {
        let supervisor = supervisor();
        let (tell, told) = mpsc::channel();
        let mut runs = 0;
        let thread = supervisor
            .spawn("worker", 0, move || {
                runs += 1;
                tell.send(std::thread::current().id()).unwrap();
                assert!(runs > 2, "planted");
            })
            .unwrap();
        let ids: Vec<_> = told.iter().collect();
        assert_eq!(ids.len(), 3);
        assert!(ids.iter().all(|id| *id == ids[0]));
        let failures = supervisor.failures();
        assert_eq!(failures.len(), 1);
        assert_eq!(
            (failures[0].name.as_str(), failures[0].panics),
            ("worker", 2)
        );
        assert!(!failures[0].is_lost);
        thread.join();
        assert_eq!(supervisor.failures(), []);
    }

    #[test]
    fn work_that_never_stops_panicking_is_given_up_and_stays_reported() {
        let supervisor = supervisor();
        let thread = supervisor.spawn("worker", 0, || panic!("planted"));
        let thread = thread.unwrap();
        let lost = || supervisor.failures().iter().any(|f| f.is_lost);
        while !lost() {
            std::thread::yield_now();
        }
        thread.join();
        assert!(lost());
    }

    #[test]
    fn the_owner_does_not_wait_for_the_pause_after_a_panic() {
        let supervisor = Supervisor {
            first_pause: Duration::from_secs(3600),
            ..Supervisor::default()
        };
        let (tell, told) = mpsc::channel();
        let mut runs = 0;
        let thread = supervisor
            .spawn("worker", 0, move || {
                runs += 1;
                tell.send(runs).unwrap();
                assert!(runs > 1, "planted");
            })
            .unwrap();
        assert_eq!(told.recv(), Ok(1));
        thread.join();
        assert_eq!(told.recv(), Ok(2));
    }

    #[test]
    fn a_thread_that_panics_as_a_mailbox_owner_goes_on_as_the_server() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (tell, told) = mpsc::channel();
        let mut runs = 0;
        let thread = supervisor().spawn("worker", 0, move || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let is_fs = |line: &&str| line.starts_with("Uid:");
            let line = status.lines().find(is_fs).unwrap().to_owned();
            tell.send(line).unwrap();
            runs += 1;
            if runs < 2 {
                let mut credentials = Credentials::of_this_thread();
                credentials.become_user(5000, 5000).unwrap();
                panic!("planted");
            }
        });
        let lines: Vec<String> = told.iter().collect();
        thread.unwrap().join();
        assert_eq!(lines[0], lines[1]);
    }
}
