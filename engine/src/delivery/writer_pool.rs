//! The queue and the writers of one file system; they write only to the mailboxes on it.
//!
//! A file system that does not answer blocks only its writers. Invariants: while a file system is
//! known not to answer, its deliveries are refused at once, except for an occasional trial; while
//! other deliveries still end, only the mailboxes of the blocked writers are refused.

use super::active_batch::ActiveBatch;
use super::capacity::Capacity;
use super::delivery::Delivery;
use super::queue::{Hold, Queue};
use crate::clock;
use crate::mailbox::MailboxError;
use crate::supervisor::SupervisedThread;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest pause between two trials.
const TRIAL_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The queue and the writers of a file system with mailboxes.
#[derive(Debug)]
pub(super) struct WriterPool {
    mount_point: PathBuf,
    pub(super) queue: Queue<Delivery>,
    /// A writer was given up, or too much waits for a flush: [`WriterPool::admits`] must check.
    is_impeded: AtomicBool,
    numbers: AtomicU64,
    state: Mutex<State>,
    threads: Mutex<Vec<SupervisedThread>>,
}

#[derive(Debug)]
struct State {
    active: Vec<Arc<ActiveBatch>>,
    /// The numbers of its writers.
    writers: BTreeSet<u64>,
    writers_wanted: usize,
    /// When the newest of the completed batches began.
    ended: Option<Instant>,
    hung: Option<Hung>,
    /// Its flush does not end, and the bound on mail that waits for the flush is reached.
    is_overfull: bool,
}

/// The state of a file system that does not answer.
#[derive(Clone, Copy, Debug)]
struct Hung {
    /// Since the UNIX epoch.
    since: Duration,
    trials: u32,
    next_trial: Instant,
}

/// A file system that does not answer, as operators know it.
#[derive(Clone, Debug)]
pub(super) struct HungFileSystem {
    pub(super) mount_point: PathBuf,
    pub(super) since: Duration,
    pub(super) trials: u32,
    pub(super) next_trial: Instant,
}

/// What the watchdog has to do for a file system.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Batches whose writers are given up.
    pub(super) given_up: Vec<Arc<ActiveBatch>>,
    /// Deliveries that no writer takes any more.
    pub(super) refused: Vec<Delivery>,
    /// How many writers are missing.
    pub(super) writers: usize,
}

impl State {
    /// Returns the numbers of the writers that were given up.
    fn given_up(&self) -> BTreeSet<u64> {
        let given_up = self.active.iter().filter(|active| active.is_given_up());
        given_up.map(|active| active.writer).collect()
    }

    /// Returns when the current step of a writer began; `None` while it waits for the log. A writer
    /// may have two batches, of which one waits for the other.
    fn at_work_since(&self, writer: u64) -> Option<Instant> {
        let active = self.active.iter();
        let steps = active.filter(|active| active.writer == writer);
        let steps: Option<Vec<Instant>> = steps.map(|active| active.since()).collect();
        steps?.into_iter().max()
    }

    /// Returns the most writers that may exist while some are given up.
    fn writers_max(&self) -> usize {
        self.writers_wanted * 2
    }

    /// Returns true if every batch that began after a delivery stopped is still unfinished.
    fn is_hung(&self) -> bool {
        let given_up = self.active.iter().filter(|active| active.is_given_up());
        let ended = self.ended;
        given_up
            .filter_map(|active| active.since())
            .any(|since| ended.is_none_or(|begun| begun < since))
    }
}

impl WriterPool {
    pub(super) fn new(
        mount_point: PathBuf,
        (capacity, batch): (Arc<Capacity>, usize),
        writers: usize,
    ) -> Self {
        Self {
            mount_point,
            queue: Queue::new(capacity, batch),
            is_impeded: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            state: Mutex::new(State {
                active: Vec::new(),
                writers: BTreeSet::new(),
                writers_wanted: writers,
                ended: None,
                hung: None,
                is_overfull: false,
            }),
            threads: Mutex::default(),
        }
    }

    /// Returns how many writers it has when none was given up.
    pub(super) fn writers_wanted(&self) -> usize {
        self.state.lock().writers_wanted
    }

    pub(super) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Returns the error of a delivery that is not made because the file system does not answer.
    pub(super) fn error(&self, mailbox: &str) -> MailboxError {
        MailboxError::Hung {
            mailbox: mailbox.to_owned(),
            mount_point: self.mount_point.clone(),
        }
    }

    /// Returns true if a delivery to this mailbox, relative to the base, may be made now. `limit`
    /// is how long a step may take.
    pub(super) fn admits(&self, mailbox: &str, limit: Duration) -> bool {
        if !self.is_impeded.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.state.lock();
        if state.is_overfull {
            return false;
        }
        let may_try = state.given_up().len() < state.writers_max();
        let mut given_up = state.active.iter().filter(|active| active.is_given_up());
        let is_blocked = given_up.any(|active| active.blocks(mailbox));
        let Some(hung) = &mut state.hung else {
            return !is_blocked;
        };
        let now = clock::now();
        let is_trial = !is_blocked && may_try && now >= hung.next_trial;
        if is_trial {
            hung.trials = hung.trials.saturating_add(1);
            let pause = limit.max(Duration::from_secs(1)) * (1 << hung.trials.min(6));
            hung.next_trial = now + pause.min(TRIAL_PAUSE_MAX).max(limit);
        }
        is_trial
    }

    /// Registers a writer, and returns its number.
    pub(super) fn writer_begins(&self) -> u64 {
        // Relaxed: only the numbers must differ.
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.state.lock().writers.insert(number);
        number
    }

    pub(super) fn writer_ends(&self, number: u64) {
        self.state.lock().writers.remove(&number);
    }

    /// Returns true if there is one writer too many, because a replaced writer came back.
    pub(super) fn is_surplus(&self) -> bool {
        let state = self.state.lock();
        state.writers.len() - state.given_up().len() > state.writers_wanted
    }

    /// Registers the deliveries that a writer begins to work on.
    pub(super) fn begin(&self, writer: u64, deliveries: &mut [Delivery]) -> Arc<ActiveBatch> {
        let active = Arc::new(ActiveBatch::new(writer, deliveries));
        self.state.lock().active.push(Arc::clone(&active));
        active
    }

    /// Leaves new deliveries to other writers, because a writer will not soon be done with a batch.
    pub(super) fn leave_to_others(&self, active: &ActiveBatch) {
        if active.leave_to_others() {
            self.queue.leave_to_others();
        }
    }

    /// Registers that a writer is done with a batch.
    pub(super) fn end(&self, active: &Arc<ActiveBatch>, mut hold: Hold) {
        let mut state = self.state.lock();
        state.active.retain(|kept| !Arc::ptr_eq(kept, active));
        state.ended = state.ended.max(Some(active.begun()));
        if active.is_given_up() {
            hold.is_given_up();
        }
        if !active.leave_to_others() {
            hold.is_left_to_others();
        }
        if self.is_impeded.load(Ordering::Acquire) {
            self.update(&mut state);
        }
        drop(state);
        self.queue.give_back(hold);
    }

    /// Finds steps that began more than `limit` ago, and gives up their writers.
    pub(super) fn look(&self, limit: Duration) -> Look {
        let now = clock::now();
        let mut look = Look::default();
        let mut state = self.state.lock();
        for active in &state.active {
            let since = state.at_work_since(active.writer);
            let is_late = since.is_some_and(|since| now.saturating_duration_since(since) > limit);
            if is_late && active.give_up() {
                self.queue.give_up(active.mboxes().len());
                self.leave_to_others(active);
                look.given_up.push(Arc::clone(active));
            }
            // Checked each time: more deliveries may have arrived for its mboxes.
            if active.is_given_up() {
                look.refused
                    .extend(self.queue.take_out_of(&active.mboxes()));
            }
        }
        self.update(&mut state);
        if state.hung.is_some() {
            look.refused.extend(self.queue.take_out());
        }
        let at_work = state.writers.len() - state.given_up().len();
        let missing = state.writers_wanted.saturating_sub(at_work);
        let most = state.writers_max().saturating_sub(state.writers.len());
        look.writers = missing.min(most);
        look
    }

    fn update(&self, state: &mut State) {
        let is_hung = state.is_hung();
        let is_given_up = state.active.iter().any(|active| active.is_given_up());
        let mount_point = self.mount_point.display();
        match (is_hung, state.hung) {
            (true, None) => {
                tracing::error!(
                    %mount_point,
                    "a file system does not answer; its mail is deferred: check its server and \
                     its disk"
                );
                state.hung = Some(Hung {
                    since: clock::since_epoch(),
                    trials: 0,
                    next_trial: clock::now() + Duration::from_secs(1),
                });
            }
            (false, Some(_)) => {
                tracing::info!(%mount_point, "a file system answers again");
                state.hung = None;
            }
            _ => {}
        }
        let is_impeded = is_given_up || state.is_overfull;
        self.is_impeded.store(is_impeded, Ordering::Release);
    }

    /// Notes whether the bound on mail that waits for a flush is reached.
    pub(super) fn is_overfull(&self, is_overfull: bool) {
        let mut state = self.state.lock();
        if state.is_overfull != is_overfull {
            state.is_overfull = is_overfull;
            self.update(&mut state);
        }
    }

    /// Returns what operators see of it, if it does not answer.
    pub(super) fn hung(&self) -> Option<HungFileSystem> {
        let hung = self.state.lock().hung?;
        Some(HungFileSystem {
            mount_point: self.mount_point.clone(),
            since: hung.since,
            trials: hung.trials,
            next_trial: hung.next_trial,
        })
    }

    /// Returns true once no writer is left that may come back.
    pub(super) fn is_left(&self) -> bool {
        let state = self.state.lock();
        state.writers.len() <= state.given_up().len()
    }

    /// Keeps a thread of this file system, and those before it that have not ended.
    pub(super) fn keep(&self, thread: SupervisedThread) {
        let mut threads = self.threads.lock();
        let ended: Vec<SupervisedThread> =
            threads.extract_if(.., |kept| kept.has_ended()).collect();
        threads.push(thread);
        drop(threads);
        ended.into_iter().for_each(SupervisedThread::join);
    }

    /// Joins the threads that end, and detaches those that do not.
    pub(super) fn join(&self) {
        let is_over = self.state.lock().writers.is_empty();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            match is_over {
                true => thread.join(),
                false => thread.detach(),
            }
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::queue::Taken;
    use super::*;
    use crate::supervisor::Supervisor;

    fn pool() -> WriterPool {
        WriterPool::new("/".into(), (Arc::new(Capacity::new(10)), 8), 2)
    }

    #[test]
    fn nobody_leaves_deliveries_to_a_writer_that_does_not_come_back() {
        let pool = pool();
        let delivery = Delivery::of_nothing(Arc::new(|_, _| {}));
        pool.queue.push(std::iter::once(delivery));
        let Taken { mut jobs, hold } = pool.queue.take_waiting().unwrap();
        let active = pool.begin(pool.writer_begins(), &mut jobs);
        assert_eq!(pool.queue.batches(), 1);
        // The clock may not advance between two reads.
        while pool.look(Duration::ZERO).given_up.is_empty() {}
        assert_eq!(pool.queue.batches(), 0);
        pool.end(&active, hold);
        assert_eq!(pool.queue.batches(), 0, "it is counted once");
    }

    #[test]
    fn threads_that_have_ended_are_kept_no_more() {
        let (pool, supervisor) = (pool(), Supervisor::default());
        for _ in 0..3 {
            pool.keep(supervisor.spawn("writer", 0, || {}).unwrap());
            let have_ended = || pool.threads.lock().iter().all(|kept| kept.has_ended());
            while !have_ended() {
                std::thread::yield_now();
            }
        }
        assert_eq!(pool.threads.lock().len(), 1);
    }
}
