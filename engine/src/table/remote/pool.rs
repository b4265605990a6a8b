//! A few threads of one table, for lookups that may block.
//!
//! Threads are made when there is work and end when there is none. What was not begun in time is
//! answered with an error. A pool may refuse new jobs at once while all its threads hang, or those
//! that one user may have. Invariant: a job that never ends keeps one thread of its pool, and no
//! other pool waits for it.

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
    /// For whom it is, where one may not take all threads.
    user: Option<u32>,
    timeout: Duration,
    /// When the answer is no longer waited for.
    end: Instant,
    reply: Reply,
    /// Makes an error of why there is no answer.
    refused: Box<dyn FnOnce(String) -> TableError + Send>,
    work: Box<dyn FnOnce() -> Answer + Send>,
}

impl Job {
    fn refuse(self, cause: String) {
        self.reply.give(Err((self.refused)(cause)));
    }

    /// Answers one that was not begun in time.
    fn expire(self) {
        let cause = format!("no answer within {} s", self.timeout.as_secs_f32());
        self.refuse(cause);
    }
}

/// Which threads a pool has.
#[derive(Clone, Copy, Debug)]
pub(in crate::table) struct Threads {
    /// How many at once.
    pub(in crate::table) most: usize,
    /// They yield the processor to all others.
    pub(in crate::table) yielding: bool,
    /// Of these, how many for one user.
    pub(in crate::table) most_of_user: usize,
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
    /// When each job was begun that a thread is at, and for whom, by its number.
    begun: BTreeMap<u64, (Instant, Option<u32>)>,
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
    /// `timeout`. When there is no thread for it, or too much waits, the answer is the error that
    /// `refused` makes of the cause.
    pub(in crate::table) fn ask(
        &self,
        timeout: Duration,
        reply: Reply,
        refused: impl FnOnce(String) -> TableError + Send + 'static,
        work: impl FnOnce() -> Answer + Send + 'static,
    ) {
        self.ask_for(None, timeout, reply, refused, work);
    }

    /// As [`ask`](Self::ask), for a user, who gets a part of the threads.
    pub(in crate::table) fn ask_for(
        &self,
        user: Option<u32>,
        timeout: Duration,
        reply: Reply,
        refused: impl FnOnce(String) -> TableError + Send + 'static,
        work: impl FnOnce() -> Answer + Send + 'static,
    ) {
        let job = Job {
            user,
            timeout,
            end: clock::now() + timeout,
            reply,
            refused: Box::new(refused),
            work: Box::new(work),
        };
        if let Err((job, cause)) = self.put(job) {
            job.refuse(cause);
        }
    }

    /// Returns true when a thread is there that has work, or work waits for one.
    pub(in crate::table) fn is_at_work(&self) -> bool {
        let state = self.0.state.lock();
        !state.jobs.is_empty() || state.threads > state.idle
    }

    fn put(&self, job: Job) -> Result<(), (Job, String)> {
        let mut state = self.0.state.lock();
        if let Some(cause) = state.hung(self.0.threads, job.user) {
            return Err((job, cause));
        }
        if state.jobs.len() >= WAITING_MAX {
            let now = clock::now();
            let expired = |job: &Job| job.end <= now;
            let end = state.jobs.iter().take_while(|job| expired(job)).count();
            let expired: Vec<Job> = state.jobs.drain(..end).collect();
            drop(state);
            // Who asked is answered, which must not happen under the lock.
            expired.into_iter().for_each(Job::expire);
            state = self.0.state.lock();
        }
        if state.jobs.len() >= WAITING_MAX {
            let cause = format!("{WAITING_MAX} lookups wait for it already");
            return Err((job, cause));
        }
        state.jobs.push_back(job);
        self.0.wake.notify_one();
        if state.idle >= state.jobs.len() || state.threads >= self.0.threads.most {
            return Ok(());
        }
        state.threads += 1;
        let mut worker = Worker {
            shared: Arc::clone(&self.0),
            is_counted: true,
        };
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
    /// Why nothing new is begun soon for this user.
    fn hung(&self, threads: Threads, user: Option<u32>) -> Option<String> {
        let limit = threads.hang_after?;
        let now = clock::now();
        let hung = |begun: Vec<Instant>, most: usize| {
            let newest = begun.iter().max().filter(|_| begun.len() >= most)?;
            let waited = now.saturating_duration_since(*newest);
            (waited >= limit).then(|| {
                let seconds = waited.as_secs();
                format!("{most} lookups have had no answer for {seconds} s and longer")
            })
        };
        let all = self.begun.values().map(|(at, _)| *at).collect();
        hung(all, threads.most).or_else(|| {
            user?;
            let of_user = self.begun.values().filter(|(_, whose)| *whose == user);
            let cause = hung(of_user.map(|(at, _)| *at).collect(), threads.most_of_user)?;
            Some(format!("{cause} for user id {}", user.unwrap_or_default()))
        })
    }

    fn may_begin(&self, job: &Job, most: usize) -> bool {
        let of_user = || self.begun.values().filter(|(_, whose)| *whose == job.user);
        job.user.is_none() || of_user().count() < most
    }

    fn begin(&mut self, user: Option<u32>) -> u64 {
        self.last_begun += 1;
        self.begun.insert(self.last_begun, (clock::now(), user));
        self.last_begun
    }

    /// Takes the first job that may be begun, or that is too late for it.
    fn take(&mut self, most_of_user: usize) -> Option<Job> {
        let now = clock::now();
        let can_go = |job: &Job| job.end <= now || self.may_begin(job, most_of_user);
        let at = self.jobs.iter().position(can_go)?;
        self.jobs.remove(at)
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
struct Worker {
    shared: Arc<Shared>,
    is_counted: bool,
}

impl Worker {
    fn work(&mut self) {
        if self.shared.threads.yielding {
            // The sessions go on while a pattern takes all of a processor. Where that is not
            // permitted, they share it.
            let _ = rustix::process::setpriority_process(None, 19);
        }
        while let Some((number, Job { reply, work, .. })) = self.next() {
            let answer = catch_unwind(AssertUnwindSafe(work));
            self.shared.state.lock().begun.remove(&number);
            // A reply that is dropped says that the answer was lost.
            if let Ok(answer) = answer {
                reply.give(answer);
            }
        }
    }

    /// The next job with its number among those begun.
    fn next(&mut self) -> Option<(u64, Job)> {
        let mut state = self.shared.state.lock();
        let mut has_rested = false;
        loop {
            while let Some(job) = state.take(self.shared.threads.most_of_user) {
                if job.end > clock::now() {
                    return Some((state.begin(job.user), job));
                }
                // Who asked is answered, which must not happen under the lock.
                drop(state);
                job.expire();
                state = self.shared.state.lock();
            }
            if state.is_closed || has_rested {
                // Before the lock is given up, so that the next job gets a thread.
                state.threads -= 1;
                self.is_counted = false;
                return None;
            }
            state.idle += 1;
            let asleep = clock::now();
            state = wait_timeout(&self.shared.wake, state, IDLE_MAX);
            state.idle -= 1;
            has_rested = clock::now().saturating_duration_since(asleep) >= IDLE_MAX;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.is_counted {
            self.shared.state.lock().threads -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::attempt::test_reply;
    use std::sync::mpsc::{self, Receiver};

    const TIMEOUT: Duration = Duration::from_secs(60);
    const TWO: Threads = Threads {
        most: 2,
        most_of_user: 1,
        yielding: true,
        hang_after: None,
    };

    fn value(text: &str) -> Answer {
        Ok(Some(text.to_owned()))
    }

    fn ask_for(
        pool: &Pool,
        user: u32,
        work: Box<dyn FnOnce() -> Answer + Send>,
    ) -> Receiver<Answer> {
        let (reply, answer) = test_reply();
        pool.ask_for(Some(user), TIMEOUT, reply, refused, work);
        answer
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
            pool.ask(TIMEOUT, reply, refused, move || {
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
        let ask = |timeout, work: Box<dyn FnOnce() -> Answer + Send>| {
            let (reply, told) = test_reply();
            pool.ask(timeout, reply, refused, work);
            told
        };
        let first = ask(
            TIMEOUT,
            Box::new(move || {
                gate.recv().unwrap();
                value("first")
            }),
        );
        let late = ask(Duration::ZERO, Box::new(|| value("late")));
        let lost = ask(TIMEOUT, Box::new(|| panic!("lost")));
        let last = ask(TIMEOUT, Box::new(|| value("last")));
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
            pool.ask(TIMEOUT, reply, refused, move || {
                begun.send(()).unwrap();
                gate.lock().recv().unwrap();
                value("late")
            });
            begins.recv().unwrap();
            answer
        };
        let ask = || {
            let (reply, answer) = test_reply();
            pool.ask(TIMEOUT, reply, refused, || value("new"));
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
    fn the_lookups_of_one_user_leave_threads_to_all_others() {
        let pool = Pool::new(Threads {
            hang_after: Some(Duration::ZERO),
            ..TWO
        });
        let ask = |user, work| ask_for(&pool, user, work);
        let (begun, begins) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let hung = ask(
            7,
            Box::new(move || {
                begun.send(()).unwrap();
                gate.recv().unwrap();
                value("hung")
            }),
        );
        begins.recv().unwrap();
        let more = ask(7, Box::new(|| value("more"))).recv().unwrap();
        let text = more.unwrap_err().to_string();
        assert!(text.ends_with("for user id 7"), "{text}");
        for user in [8, 9] {
            let answer = ask(user, Box::new(|| value("other"))).recv().unwrap();
            assert_eq!(answer, value("other"));
        }
        go.send(()).unwrap();
        assert_eq!(hung.recv().unwrap(), value("hung"));
        assert_eq!(
            ask(7, Box::new(|| value("more"))).recv().unwrap(),
            value("more")
        );
    }

    #[test]
    fn a_lookup_of_a_user_waits_for_those_that_are_begun() {
        let pool = Pool::new(TWO);
        let ask = |user, work| ask_for(&pool, user, work);
        let (go, gate) = mpsc::channel::<()>();
        let wait = move || {
            gate.recv().unwrap();
            value("first")
        };
        let first = ask(7, Box::new(wait));
        let second = ask(7, Box::new(|| value("second")));
        // A thread that rests behind a job it may not take is woken for another one.
        while pool.0.state.lock().idle == 0 {
            std::thread::yield_now();
        }
        let other = ask(8, Box::new(|| value("other")));
        assert_eq!(other.recv_timeout(IDLE_MAX / 2).unwrap(), value("other"));
        assert!(second.try_recv().is_err());
        go.send(()).unwrap();
        assert_eq!(first.recv().unwrap(), value("first"));
        assert_eq!(second.recv().unwrap(), value("second"));
    }

    #[test]
    fn threads_end_with_their_pool() {
        let pool = Pool::new(TWO);
        let (reply, told) = test_reply();
        pool.ask(TIMEOUT, reply, refused, || value("done"));
        told.recv().unwrap().unwrap();
        let shared = Arc::clone(&pool.0);
        drop(pool);
        while shared.state.lock().threads > 0 {
            std::thread::yield_now();
        }
    }
}
