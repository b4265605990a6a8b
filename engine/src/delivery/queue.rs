//! Deliveries waiting for a writer.
//!
//! Imports `room`, `sync`, `clock`, `limits`. Holds no I/O, and knows of deliveries only what
//! [`Queued`] says, so that a model checker can run it. Invariants: an mbox is in
//! the hands of one writer at most, and deliveries to it meanwhile wait beside it without
//! occupying a writer, to go out together next time.
//!
//! As few writers as will do are kept busy: one that has a batch in hand comes back for what came
//! meanwhile, all of it at once, and large batches cost far fewer flushes and changes of threads
//! than small ones. Another is woken when more than [`WAITING_MAX`] wait, when a writer says that
//! it will be long, and when none has come back for [`PATIENCE`]. Invariant: while something waits
//! for a writer at work and another sleeps, one of those that sleep watches.

use super::room::Room;
use crate::clock;
use crate::limits::BATCH_BYTES_MAX;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, wait, wait_timeout};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// So many deliveries may wait for a writer that has a batch in hand. Measured with 64 sessions on
/// two processors: with 0 and with 24 there were fewer messages a second, in Maildirs and mboxes.
const WAITING_MAX: usize = 12;
/// So long they do before another writer sees to them.
const PATIENCE: Duration = Duration::from_millis(10);

/// What the queue asks of a delivery.
pub(super) trait Queued {
    /// Nobody wants it any more.
    fn is_abandoned(&self) -> bool;
    /// The path of its mailbox, if that is an mbox.
    fn mbox(&self) -> Option<&str>;
    /// A writer begins to work on it.
    fn take(&mut self);
    /// How long its message is.
    fn bytes(&self) -> u64;
}

/// A queue of deliveries to one file system.
#[derive(Debug)]
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    work: Condvar,
    room: Arc<Room>,
    /// Most deliveries in a batch.
    batch: usize,
}

#[derive(Debug)]
struct State<J> {
    ready: VecDeque<J>,
    /// Waiting for a busy lock, with the time of the next attempt.
    delayed: Vec<(Instant, J)>,
    /// Paths of mboxes in a writer's hands, and what came for them since.
    in_hand: HashMap<String, VecDeque<J>>,
    /// Deliveries beside mboxes in hand.
    parked: usize,
    /// Batches in the hands of writers that will soon be back for more.
    batches: usize,
    /// Batches taken so far.
    takes: u64,
    /// A sleeping writer looks from time to time whether the others come back.
    is_watched: bool,
    /// One was woken to do that, and none has begun to.
    is_watch_wanted: bool,
    closing: bool,
    /// Writers that wait for work.
    asleep: usize,
    /// One of them was woken and is on its way.
    is_waking: bool,
    /// Mboxes in the hands of writers that do not come back.
    given_up: usize,
}

/// What one writer takes at once.
#[derive(Debug)]
pub(super) struct Taken<J> {
    pub(super) jobs: Vec<J>,
    /// What to give back with [`Queue::give_back`] when the writer is done.
    pub(super) hold: Hold,
}

/// What a batch occupies: room in the queue, and the mboxes that are in the writer's hands.
#[derive(Debug, Default)]
pub(super) struct Hold {
    jobs: usize,
    mboxes: Vec<String>,
    /// The writer will not be back soon.
    is_long: bool,
    /// Nobody waits for the writer any more.
    is_given_up: bool,
}

impl Hold {
    /// Notes that the queue was told to give up on its mboxes.
    pub(super) fn is_given_up(&mut self) {
        self.is_given_up = true;
    }
}

impl<J: Queued> Queue<J> {
    /// A writer takes up to `batch` deliveries at once.
    pub(super) fn new(room: Arc<Room>, batch: usize) -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                delayed: Vec::new(),
                in_hand: HashMap::new(),
                parked: 0,
                batches: 0,
                takes: 0,
                is_watched: false,
                is_watch_wanted: false,
                closing: false,
                asleep: 0,
                is_waking: false,
                given_up: 0,
            }),
            work: Condvar::new(),
            room,
            batch: batch.max(1),
        }
    }

    /// Adds deliveries, whether there is room or not.
    pub(super) fn push(&self, jobs: impl Iterator<Item = J>) {
        let mut state = self.state.lock();
        let before = state.ready.len();
        state.ready.extend(jobs);
        self.room.take(state.ready.len() - before);
        let is_much = state.batches == 0 || state.ready.len() > WAITING_MAX;
        let is_wanted = match is_much {
            true => state.wake_one(),
            false => state.wake_watcher(),
        };
        drop(state);
        if is_wanted {
            self.work.notify_one();
        }
    }

    /// A delivery whose mailbox was busy waits until `due`.
    pub(super) fn push_delayed(&self, due: Instant, job: J) {
        self.room.take(1);
        let mut state = self.state.lock();
        state.delayed.push((due, job));
        // Another writer may sleep past that time.
        let is_wanted = state.wake_one();
        drop(state);
        if is_wanted {
            self.work.notify_one();
        }
    }

    /// Takes out everything that waits, for no writer will come for it.
    pub(super) fn take_out(&self) -> Vec<J> {
        let mut state = self.state.lock();
        let mut jobs: Vec<J> = state.ready.drain(..).collect();
        jobs.extend(state.delayed.drain(..).map(|(_, job)| job));
        jobs.extend(
            state
                .in_hand
                .values_mut()
                .flat_map(|parked| parked.drain(..)),
        );
        state.parked = 0;
        self.took_out(state, jobs)
    }

    /// Gives up on so many mboxes, whose writer does not come back.
    pub(super) fn give_up(&self, mboxes: usize) {
        self.state.lock().given_up += mboxes;
    }

    /// Takes out what waits for mboxes that were given up: also what was on its way to them then.
    pub(super) fn take_out_of(&self, mboxes: &[&str]) -> Vec<J> {
        let mut state = self.state.lock();
        let mut jobs = Vec::new();
        for path in mboxes {
            let parked = state.in_hand.get_mut(*path);
            jobs.extend(parked.into_iter().flat_map(|parked| parked.drain(..)));
        }
        state.parked -= jobs.len();
        self.took_out(state, jobs)
    }

    fn took_out(&self, state: MutexGuard<'_, State<J>>, jobs: Vec<J>) -> Vec<J> {
        let is_end = state.closing && state.is_done();
        drop(state);
        if is_end {
            self.work.notify_all();
        }
        self.room.give_back(jobs.len());
        jobs
    }

    /// No more deliveries will come; writers end when all are done.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_all();
    }

    /// Waits for work and takes a batch of it; `None` when closed and empty.
    pub(super) fn take(&self) -> Option<Taken<J>> {
        self.take_or(|state| {
            let is_over = state.closing && state.is_done();
            (!is_over).then(|| self.sleep(state))
        })
    }

    /// A batch of what is there now.
    pub(super) fn take_waiting(&self) -> Option<Taken<J>> {
        self.take_or(|_| None)
    }

    /// `idle` is asked what to do when there is no work: `None` for nothing.
    fn take_or<'a>(
        &'a self,
        idle: impl Fn(MutexGuard<'a, State<J>>) -> Option<MutexGuard<'a, State<J>>>,
    ) -> Option<Taken<J>> {
        let mut batch = Taken {
            jobs: Vec::new(),
            hold: Hold::default(),
        };
        let mut abandoned = Vec::new();
        let mut state = self.state.lock();
        loop {
            state.wake_delayed();
            state.fill(self.batch, &mut batch, &mut abandoned);
            if !batch.jobs.is_empty() {
                break;
            }
            if !abandoned.is_empty() {
                drop(state);
                self.room.give_back(abandoned.len());
                abandoned.clear();
                state = self.state.lock();
                continue;
            }
            state = idle(state)?;
        }
        let gone = abandoned.len();
        let is_wanted = match state.ready.is_empty() {
            false => state.wake_one(),
            // This writer may have been the one that knew when they are due.
            true => !state.delayed.is_empty() && state.wake_watcher(),
        };
        drop(state);
        if is_wanted {
            self.work.notify_one();
        }
        if gone > 0 {
            self.room.give_back(gone);
        }
        Some(batch)
    }

    /// Sleeps until there may be work for this writer.
    fn sleep<'a>(&'a self, mut state: MutexGuard<'a, State<J>>) -> MutexGuard<'a, State<J>> {
        loop {
            let now = clock::now();
            let next_due = state.delayed.iter().map(|(due, _)| *due).min();
            let is_wanted = std::mem::take(&mut state.is_watch_wanted);
            let watches = is_wanted || state.batches > 0 && !state.is_watched;
            let takes = state.takes;
            let until = next_due
                .into_iter()
                .chain(watches.then(|| now + PATIENCE))
                .min();
            state.asleep += 1;
            state.is_watched |= watches;
            state = match until {
                Some(until) => {
                    let pause = until.saturating_duration_since(now);
                    wait_timeout(&self.work, state, pause)
                }
                None => wait(&self.work, state),
            };
            state.asleep -= 1;
            if watches {
                state.is_watched = false;
            }
            let is_called = std::mem::take(&mut state.is_waking);
            let is_due = next_due.is_some_and(|due| due <= clock::now());
            let is_stuck = state.batches == 0 || watches && state.takes == takes;
            if is_called || is_due || is_stuck || state.closing {
                return state;
            }
        }
    }

    /// The writer that has this batch will not be back soon: others are to do what comes.
    pub(super) fn leave_to_others(&self, hold: &mut Hold) {
        if std::mem::replace(&mut hold.is_long, true) {
            return;
        }
        let mut state = self.state.lock();
        state.batches -= 1;
        let is_wanted = !state.ready.is_empty() && state.wake_one();
        drop(state);
        if is_wanted {
            self.work.notify_one();
        }
    }

    /// A writer is done with a batch: its room and its mboxes are free again, and what waited
    /// beside these goes first.
    pub(super) fn give_back(&self, hold: Hold) {
        let mut state = self.state.lock();
        if hold.is_given_up {
            state.given_up -= hold.mboxes.len();
        }
        if !hold.is_long {
            state.batches -= 1;
        }
        for path in hold.mboxes {
            let parked = state.in_hand.remove(&path).unwrap_or_default();
            state.parked -= parked.len();
            for job in parked.into_iter().rev() {
                state.ready.push_front(job);
            }
        }
        let is_end = state.closing && state.is_done();
        // This writer takes next what was parked, unless it has another batch to finish.
        let is_wanted = !state.ready.is_empty() && state.wake_watcher();
        drop(state);
        if is_end {
            self.work.notify_all();
        } else if is_wanted {
            self.work.notify_one();
        }
        self.room.give_back(hold.jobs);
    }
}

impl<J: Queued> State<J> {
    /// True when a writer is to be woken. One that is on its way takes everything that comes
    /// before it has the lock, which makes batches larger and saves the others their wakes.
    fn wake_one(&mut self) -> bool {
        let is_wanted = !self.is_waking && self.asleep > 0;
        self.is_waking |= is_wanted;
        is_wanted
    }

    /// True when a writer is to be woken, to see from now on whether the others come back. One
    /// that went to sleep when nobody was at work does not look by itself.
    fn wake_watcher(&mut self) -> bool {
        let is_wanted = !self.is_watched && !self.is_waking && self.asleep > 0;
        self.is_watched |= is_wanted;
        self.is_watch_wanted |= is_wanted;
        is_wanted
    }

    fn waiting(&self) -> usize {
        self.ready.len() + self.delayed.len() + self.parked
    }

    /// True when nothing waits, and no writer can give anything back any more.
    fn is_done(&self) -> bool {
        self.waiting() == 0 && self.in_hand.len() <= self.given_up
    }

    /// Makes ready what is due.
    fn wake_delayed(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = clock::now();
        let (due, later) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|(due, job)| *due <= now || job.is_abandoned());
        self.delayed = later;
        let due: Vec<(Instant, J)> = due;
        for (_, job) in due.into_iter().rev() {
            self.ready.push_front(job);
        }
    }

    /// Moves deliveries into the batch; abandoned ones aside, to be dropped without the lock.
    fn fill(&mut self, most: usize, batch: &mut Taken<J>, abandoned: &mut Vec<J>) {
        let mut bytes = 0;
        while batch.jobs.len() < most && bytes < BATCH_BYTES_MAX {
            let Some(mut job) = self.ready.pop_front() else {
                break;
            };
            if job.is_abandoned() {
                abandoned.push(job);
                continue;
            }
            if let Some(path) = job.mbox()
                && !batch.hold.mboxes.iter().any(|held| held == path)
            {
                if let Some(parked) = self.in_hand.get_mut(path) {
                    parked.push_back(job);
                    self.parked += 1;
                    continue;
                }
                self.in_hand.insert(path.to_owned(), VecDeque::new());
                batch.hold.mboxes.push(path.to_owned());
            }
            job.take();
            bytes += job.bytes();
            batch.jobs.push(job);
        }
        batch.hold.jobs = batch.jobs.len();
        if !batch.jobs.is_empty() {
            self.batches += 1;
            self.takes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

    #[derive(Debug)]
    struct Item;

    impl Queued for Item {
        fn is_abandoned(&self) -> bool {
            false
        }

        fn mbox(&self) -> Option<&str> {
            None
        }

        fn take(&mut self) {}

        fn bytes(&self) -> u64 {
            1
        }
    }

    /// Another writer: tells how many deliveries it took each time.
    fn writer(queue: &Arc<Queue<Item>>) -> Receiver<usize> {
        let (tell, told) = channel();
        let queue = Arc::clone(queue);
        thread::spawn(move || {
            while let Some(Taken { jobs, hold }) = queue.take() {
                let _ = tell.send(jobs.len());
                queue.give_back(hold);
            }
        });
        told
    }

    fn push(queue: &Queue<Item>, count: usize) {
        queue.push((0..count).map(|_| Item));
    }

    /// A queue, a batch in this thread's hands, and another writer that sleeps.
    fn one_at_work() -> (Arc<Queue<Item>>, Hold, Receiver<usize>) {
        let queue = Arc::new(Queue::new(Arc::new(Room::new(1000)), 64));
        push(&queue, 1);
        let Taken { hold, .. } = queue.take().unwrap();
        let other = writer(&queue);
        while queue.state.lock().asleep == 0 {
            thread::yield_now();
        }
        (queue, hold, other)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[derive(Debug)]
    struct ToBox;

    impl Queued for ToBox {
        fn is_abandoned(&self) -> bool {
            false
        }

        fn mbox(&self) -> Option<&str> {
            Some("box")
        }

        fn take(&mut self) {}

        fn bytes(&self) -> u64 {
            1
        }
    }

    #[test]
    fn what_was_on_its_way_to_an_mbox_that_is_given_up_is_taken_out_and_nobody_waits_for_it() {
        let queue = Queue::new(Arc::new(Room::new(1000)), 64);
        queue.push(std::iter::once(ToBox));
        let Taken { mut hold, .. } = queue.take().unwrap();
        queue.push(std::iter::once(ToBox));
        queue.give_up(1);
        assert!(queue.take_out_of(&["box"]).is_empty());
        assert!(queue.take_waiting().is_none(), "it waits beside the mbox");
        assert_eq!(queue.take_out_of(&["box"]).len(), 1);
        queue.close();
        assert!(queue.take().is_none());
        hold.is_given_up();
        queue.give_back(hold);
        assert!(queue.take_out().is_empty());
    }

    #[test]
    fn a_writer_at_work_comes_back_for_a_few_and_nobody_is_woken_for_them() {
        let (queue, hold, _other) = one_at_work();
        push(&queue, WAITING_MAX);
        assert!(!queue.state.lock().is_waking);
        // The other one may have lost its patience meanwhile, on a slow machine.
        let taken = queue.take_waiting().map_or(WAITING_MAX, |batch| {
            queue.give_back(batch.hold);
            batch.jobs.len()
        });
        assert_eq!(taken, WAITING_MAX);
        assert!(queue.take_waiting().is_none());
        queue.give_back(hold);
        queue.close();
    }

    #[test]
    fn another_writer_is_woken_for_many() {
        let (queue, hold, other) = one_at_work();
        push(&queue, WAITING_MAX + 1);
        assert_eq!(other.recv_timeout(LONG), Ok(WAITING_MAX + 1));
        queue.give_back(hold);
        queue.close();
    }

    #[test]
    fn another_writer_is_woken_for_one_when_the_first_will_be_long() {
        let (queue, mut hold, other) = one_at_work();
        push(&queue, 1);
        queue.leave_to_others(&mut hold);
        assert_eq!(other.recv_timeout(LONG), Ok(1));
        push(&queue, 1);
        assert_eq!(other.recv_timeout(LONG), Ok(1));
        queue.give_back(hold);
        queue.close();
    }

    #[test]
    fn nobody_waits_for_ever_for_a_writer_that_does_not_come_back() {
        let (queue, _hold, other) = one_at_work();
        push(&queue, 1);
        assert_eq!(other.recv_timeout(LONG), Ok(1));
        queue.close();
    }

    #[test]
    fn a_writer_that_went_to_sleep_before_the_first_got_stuck_does_what_comes() {
        let queue = Arc::new(Queue::new(Arc::new(Room::new(1000)), 64));
        let (tell, told) = channel();
        for _ in 0..2 {
            let (queue, tell) = (Arc::clone(&queue), tell.clone());
            thread::spawn(move || {
                // Never given back: the file system hangs.
                let taken = queue.take().map(|batch| batch.jobs.len());
                let _ = tell.send(taken);
            });
        }
        while queue.state.lock().asleep < 2 {
            thread::yield_now();
        }
        push(&queue, 1);
        assert_eq!(told.recv_timeout(LONG), Ok(Some(1)));
        push(&queue, 1);
        assert_eq!(told.recv_timeout(LONG), Ok(Some(1)));
    }
}
