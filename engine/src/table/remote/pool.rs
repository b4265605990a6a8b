//! A few threads of one table, for lookups that may block.
//!
//! Threads are made when there is work and end when there is none. What was not begun in time is
//! dropped. A pool may refuse new jobs at once while all its threads hang. Invariant: a job that
//! never ends keeps one thread of its pool, and no other pool waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::clock;
use crate::sync::{Arc, Condvar, Mutex, wait_timeout};
use crate::table::TableError;
use crate::table::attempt::{Answer, Reply};
use crate::thread;

/// How long a thread without work stays.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Most jobs that wait for a thread.
const WAITING_MAX: usize = 20_000;

/// A lookup that waits for a thread.
struct Job {
    /// When the answer is no longer waited for.
    end: Instant,
    reply: Reply,
    work: Box<dyn FnOnce() -> Answer + Send>,
}

/// Which threads a pool has.
#[derive(Clone, Copy, Debug)]
pub(in crate::table) struct Threads {
    /// How many at once.
    pub(in crate::table) most: usize,
    /// They yield the processor to all others.
    pub(in crate::table) yielding: bool,
    /// They hang when each has been at one job for so long. Then new jobs are refused.
    pub(in crate::table) hang_after: Option<Duration>,
}

/// The threads and their work.
pub(in crate::table) struct Pool(Arc<Shared>);

struct Shared {
    threads: Threads,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// When each job was begun that a thread is at, by its number.
    begun: BTreeMap<u64, Instant>,
    last_begun: u64,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

impl Pool {
    pub(in crate::table) fn new(threads: Threads) -> Self {
        Self(Arc::new(Shared {
            threads,
            state: Mutex::default(),
            wake: Condvar::new(),
        }))
    }

    /// Has `work` done and its answer given to `reply`, unless it cannot be begun within
    /// `patience`. When there is no thread for it, or too much waits, the answer is the error that
    /// `refused` makes of the cause.
    pub(in crate::table) fn ask(
        &self,
        patience: Duration,
        reply: Reply,
        refused: impl FnOnce(String) -> TableError,
        work: impl FnOnce() -> Answer + Send + 'static,
    ) {
        let job = Job {
            end: clock::now() + patience,
            reply,
            work: Box::new(work),
        };
        if let Err((job, cause)) = self.put(job) {
            job.reply.give(Err(refused(cause)));
        }
    }

    /// Returns true when a thread is there that has work, or work waits for one.
    pub(in crate::table) fn is_at_work(&self) -> bool {
        let state = self.0.state.lock();
        !state.jobs.is_empty() || state.threads > state.idle
    }

    fn put(&self, job: Job) -> Result<(), (Job, String)> {
        let mut state = self.0.state.lock();
        if let Some(cause) = state.hung(self.0.threads) {
            return Err((job, cause));
        }
        if state.jobs.len() >= WAITING_MAX {
            let now = clock::now();
            let expired = |job: &Job| job.end <= now;
            let end = state.jobs.iter().take_while(|job| expired(job)).count();
            let expired: Vec<Job> = state.jobs.drain(..end).collect();
            drop(state);
            // Dropping them tells who asked, which must not happen under the lock.
            drop(expired);
            state = self.0.state.lock();
        }
        if state.jobs.len() >= WAITING_MAX {
            let cause = format!("{WAITING_MAX} lookups wait for it already");
            return Err((job, cause));
        }
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            self.0.wake.notify_one();
            return Ok(());
        }
        if state.threads >= self.0.threads.most {
            return Ok(());
        }
        state.threads += 1;
        let worker = Worker(Arc::clone(&self.0));
        drop(state);
        let Err(error) = thread::spawn("mailstow-table", move || worker.work()) else {
            return Ok(());
        };
        // The worker was dropped, and counts no more; another one may do the job.
        let mut state = self.0.state.lock();
        if state.threads > 0 {
            return Ok(());
        }
        match state.jobs.pop_back() {
            Some(job) => Err((
                job,
                format!("no thread for the lookup: {error}; raise the limit on processes"),
            )),
            None => Ok(()),
        }
    }
}

impl State {
    /// Why nothing new is begun soon.
    fn hung(&self, threads: Threads) -> Option<String> {
        let Threads {
            most, hang_after, ..
        } = threads;
        let limit = hang_after.filter(|_| self.begun.len() >= most)?;
        let newest = self.begun.values().max()?;
        let waited = clock::now().saturating_duration_since(*newest);
        (waited >= limit).then(|| {
            let seconds = waited.as_secs();
            format!("{most} lookups have had no answer for {seconds} s and longer")
        })
    }

    fn begin(&mut self) -> u64 {
        self.last_begun += 1;
        self.begun.insert(self.last_begun, clock::now());
        self.last_begun
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        self.0.wake.notify_all();
        drop(state);
        drop(jobs);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.0.threads)
            .finish_non_exhaustive()
    }
}

/// One thread; counted until it ends.
struct Worker(Arc<Shared>);

impl Worker {
    fn work(self) {
        if self.0.threads.yielding {
            // The sessions go on while a pattern takes all of a processor. Where that is not
            // permitted, they share it.
            let _ = rustix::process::setpriority_process(None, 19);
        }
        while let Some((number, Job { reply, work, .. })) = self.next() {
            let answer = catch_unwind(AssertUnwindSafe(work));
            self.0.state.lock().begun.remove(&number);
            // A reply that is dropped says that the answer was lost.
            if let Ok(answer) = answer {
                reply.give(answer);
            }
        }
    }

    /// The next job with its number among those begun.
    fn next(&self) -> Option<(u64, Job)> {
        let mut state = self.0.state.lock();
        let mut has_rested = false;
        loop {
            while let Some(job) = state.jobs.pop_front() {
                if job.end > clock::now() {
                    return Some((state.begin(), job));
                }
                // Dropping it tells who asked, which must not happen under the lock.
                drop(state);
                drop(job);
                state = self.0.state.lock();
            }
            if state.is_closed || has_rested {
                return None;
            }
            state.idle += 1;
            let asleep = clock::now();
            state = wait_timeout(&self.0.wake, state, IDLE_MAX);
            state.idle -= 1;
            has_rested = clock::now().saturating_duration_since(asleep) >= IDLE_MAX;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.state.lock().threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::attempt::test_reply;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(60);
    const TWO: Threads = Threads {
        most: 2,
        yielding: true,
        hang_after: None,
    };

    fn value(text: &str) -> Answer {
        Ok(Some(text.to_owned()))
    }

    fn refused(cause: String) -> TableError {
        let name = "t".to_owned();
        TableError::Unavailable { name, cause }
    }

    #[test]
    fn as_many_lookups_are_done_at_once_as_there_are_threads_and_the_rest_later() {
        let pool = Pool::new(TWO);
        let (begun, begins) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let mut told = Vec::new();
        for number in 0..4 {
            let (begun, gate) = (begun.clone(), Arc::clone(&gate));
            let (reply, answer) = test_reply();
            told.push(answer);
            pool.ask(PATIENCE, reply, refused, move || {
                begun.send(()).unwrap();
                gate.lock().recv().unwrap();
                value(&number.to_string())
            });
        }
        begins.recv().unwrap();
        begins.recv().unwrap();
        assert!(begins.try_recv().is_err());
        for _ in 0..4 {
            go.send(()).unwrap();
        }
        for (number, told) in told.iter().enumerate() {
            assert_eq!(told.recv().unwrap(), value(&number.to_string()));
        }
        assert!(pool.0.state.lock().threads <= 2);
    }

    #[test]
    fn a_lookup_that_waited_too_long_is_dropped_and_a_panic_costs_no_thread() {
        let pool = Pool::new(Threads { most: 1, ..TWO });
        let (go, gate) = mpsc::channel::<()>();
        let ask = |patience, work: Box<dyn FnOnce() -> Answer + Send>| {
            let (reply, told) = test_reply();
            pool.ask(patience, reply, refused, work);
            told
        };
        let first = ask(
            PATIENCE,
            Box::new(move || {
                gate.recv().unwrap();
                value("first")
            }),
        );
        let late = ask(Duration::ZERO, Box::new(|| value("late")));
        let lost = ask(PATIENCE, Box::new(|| panic!("lost")));
        let last = ask(PATIENCE, Box::new(|| value("last")));
        go.send(()).unwrap();
        assert_eq!(first.recv().unwrap(), value("first"));
        assert!(late.recv().unwrap().is_err());
        assert!(lost.recv().unwrap().is_err());
        assert_eq!(last.recv().unwrap(), value("last"));
        assert_eq!(pool.0.state.lock().threads, 1);
    }

    #[test]
    fn a_lookup_is_refused_at_once_while_all_threads_hang() {
        let pool = Pool::new(Threads {
            hang_after: Some(Duration::ZERO),
            ..TWO
        });
        let (begun, begins) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let hang = || {
            let (begun, gate) = (begun.clone(), Arc::clone(&gate));
            let (reply, answer) = test_reply();
            pool.ask(PATIENCE, reply, refused, move || {
                begun.send(()).unwrap();
                gate.lock().recv().unwrap();
                value("late")
            });
            begins.recv().unwrap();
            answer
        };
        let ask = || {
            let (reply, answer) = test_reply();
            pool.ask(PATIENCE, reply, refused, || value("new"));
            answer.recv().unwrap()
        };
        let first = hang();
        assert_eq!(ask(), value("new"), "one thread is left");
        let second = hang();
        let text = ask().unwrap_err().to_string();
        assert!(text.contains("2 lookups have had no answer"), "{text}");
        for _ in 0..2 {
            go.send(()).unwrap();
        }
        for answer in [first, second] {
            assert_eq!(answer.recv().unwrap(), value("late"));
        }
        assert_eq!(ask(), value("new"));
    }

    #[test]
    fn threads_end_with_their_pool() {
        let pool = Pool::new(TWO);
        let (reply, told) = test_reply();
        pool.ask(PATIENCE, reply, refused, || value("done"));
        told.recv().unwrap().unwrap();
        let shared = Arc::clone(&pool.0);
        drop(pool);
        while shared.state.lock().threads > 0 {
            std::thread::yield_now();
        }
    }
}
