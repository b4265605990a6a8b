//! The order of deliveries, with free and with held locks.

use super::super::taken::Hold;
use super::*;
use crate::sync::Mutex;
use std::cell::Cell;

const LOCK_WAIT: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

/// A delivery, to a Maildir or to an mbox.
#[derive(Debug)]
struct Item {
    number: usize,
    mbox: Option<String>,
    submitted: Instant,
    refused: Arc<Mutex<Vec<usize>>>,
    is_abandoned: bool,
}

impl Queued for Item {
    fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }

    fn mailbox(&self) -> &str {
        self.mbox.as_deref().unwrap_or("maildir/")
    }

    fn mbox(&self) -> Option<&str> {
        self.mbox.as_deref()
    }

    fn take(&mut self) {}

    fn bytes(&self) -> u64 {
        1
    }

    fn submitted(&self) -> Instant {
        self.submitted
    }

    fn refuse(self, _: &'static str) {
        self.refused.lock().push(self.number);
    }
}

/// Waiting deliveries with numbers, at a time that the test sets.
struct Tested {
    waiting: Waiting<Item>,
    capacity: Arc<Capacity>,
    now: Cell<Instant>,
    pushed: usize,
    refused: Arc<Mutex<Vec<usize>>>,
}

impl Tested {
    fn new(limit: usize) -> Self {
        let capacity = Arc::new(Capacity::new(limit));
        Self {
            waiting: Waiting::new(Arc::clone(&capacity)),
            capacity,
            now: Cell::new(Instant::now()),
            pushed: 0,
            refused: Arc::default(),
        }
    }

    fn push(&mut self, mbox: Option<&str>, count: usize) {
        for _ in 0..count {
            let item = Item {
                number: self.pushed,
                mbox: mbox.map(str::to_owned),
                submitted: self.now.get(),
                refused: Arc::clone(&self.refused),
                is_abandoned: false,
            };
            self.pushed += 1;
            self.capacity.take(self.waiting.push(std::iter::once(item)));
        }
    }

    /// Takes up to so many deliveries.
    fn take(&mut self, most: usize) -> Taken<Item> {
        let (mut batch, mut left_out) = (Taken::default(), LeftOut::default());
        let when = (self.now.get(), most);
        self.waiting.fill_attempt(when, &mut batch, &mut left_out);
        self.waiting.fill(most, &mut batch, &mut left_out);
        left_out.settle(&self.capacity);
        batch
    }

    fn give_back(&mut self, hold: Hold) {
        self.waiting.give_back(hold.mboxes);
        self.capacity.give_back(hold.jobs);
    }

    /// Makes one delivery, and returns its number.
    fn make_one(&mut self) -> Option<usize> {
        let Taken { jobs, hold } = self.take(1);
        self.give_back(hold);
        jobs.first().map(|job| job.number)
    }

    /// Takes what there is, and finds every mbox locked; returns their names, and the numbers of
    /// the deliveries that do not wait.
    fn find_locked(&mut self, most: usize) -> (Vec<String>, Vec<usize>) {
        let Taken { jobs, hold } = self.take(most);
        let mut by_mbox: HashMap<String, Vec<Item>> = HashMap::new();
        for job in jobs {
            by_mbox
                .entry(job.mbox.clone().unwrap())
                .or_default()
                .push(job);
        }
        let mut over = Vec::new();
        for jobs in by_mbox.into_values() {
            let when = (self.now.get(), LOCK_WAIT);
            let (refused, freed) = self.waiting.lock_is_held(jobs, "lock", when);
            self.capacity.give_back(freed);
            over.extend(refused.iter().map(|job| job.number));
        }
        let names = hold.mboxes.iter().map(|path| (**path).to_owned());
        let names = names.collect();
        self.give_back(hold);
        (names, over)
    }

    fn goes_on(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }
}

#[test]
fn an_mbox_that_much_waits_for_takes_turns_with_the_rest() {
    let mut tested = Tested::new(1000);
    tested.push(Some("hot"), 4);
    let hot = tested.take(1);
    tested.push(None, 3);
    // Deliveries for the mbox that a writer works on delay no other delivery.
    assert_eq!(tested.make_one(), Some(4));
    tested.give_back(hot.hold);
    let order: Vec<usize> = std::iter::from_fn(|| tested.make_one()).collect();
    assert_eq!(order, [5, 1, 6, 2, 3]);
    assert!(tested.waiting.is_empty());
    assert_eq!((tested.capacity.taken(), tested.capacity.parked()), (0, 0));
}

#[test]
fn mboxes_take_turns_and_each_keeps_its_order() {
    let mut tested = Tested::new(1000);
    for mbox in ["a", "b"] {
        tested.push(Some(mbox), 1);
    }
    let both = tested.take(2);
    for mbox in ["a", "a", "b", "a", "b"] {
        tested.push(Some(mbox), 1);
    }
    assert!(tested.take(10).jobs.is_empty());
    tested.give_back(both.hold);
    let order: Vec<usize> = std::iter::from_fn(|| tested.make_one()).collect();
    assert_eq!(order, [2, 4, 3, 6, 5]);
}

#[test]
fn places_that_one_does_not_need_are_for_who_wants_them() {
    let mut tested = Tested::new(1000);
    tested.push(Some("hot"), 1);
    let hot = tested.take(64);
    tested.push(Some("hot"), 50);
    assert!(tested.take(64).jobs.is_empty());
    tested.give_back(hot.hold);
    tested.push(None, 2);
    tested.push(Some("hot"), 2);
    let Taken { jobs, hold } = tested.take(64);
    assert_eq!(jobs.len(), 54);
    tested.give_back(hold);
    assert_eq!((tested.capacity.taken(), tested.capacity.parked()), (0, 0));
}

#[test]
fn few_locks_are_tried_however_many_are_held_and_each_in_its_turn() {
    let mut tested = Tested::new(4096);
    for number in 0..100 {
        tested.push(Some(&format!("box{number}")), 2);
    }
    while !tested.find_locked(64).0.is_empty() {}
    let mut tried = Vec::new();
    tested.goes_on(10 * MS);
    for _ in 0..100 {
        let (mboxes, over) = tested.find_locked(64);
        assert_eq!((mboxes.len(), over.len()), (1, 0));
        tried.extend(mboxes);
        assert!(tested.find_locked(64).0.is_empty(), "too early");
        tested.goes_on(ATTEMPT_PAUSE);
    }
    tried.sort_unstable();
    tried.dedup();
    assert_eq!(tried.len(), 100);
}

#[test]
fn one_attempt_serves_all_that_wait_for_the_lock_and_takes_up_one_place() {
    let mut tested = Tested::new(4096);
    tested.push(Some("box"), 5);
    assert_eq!(tested.find_locked(64).0, ["box"]);
    tested.push(None, 5);
    tested.goes_on(10 * MS);
    let Taken { jobs, hold } = tested.take(5);
    let numbers: Vec<usize> = jobs.iter().map(|job| job.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    // The lock is free: new deliveries need not wait for another attempt.
    tested.push(Some("box"), 2);
    assert_eq!(tested.make_one(), Some(9));
    tested.give_back(hold);
    assert_eq!(tested.make_one(), Some(10));
    assert_eq!(tested.make_one(), Some(11));
    assert_eq!((tested.capacity.taken(), tested.capacity.parked()), (0, 0));
}

#[test]
fn what_waits_for_a_lock_takes_up_no_room_of_others_and_more_is_refused() {
    let mut tested = Tested::new(64);
    tested.push(Some("box"), 10);
    let (_, over) = tested.find_locked(64);
    assert_eq!(over, [4, 5, 6, 7, 8, 9], "the newest of them");
    assert_eq!((tested.capacity.taken(), tested.capacity.parked()), (0, 4));
    tested.push(Some("box"), 1);
    assert!(tested.take(64).jobs.is_empty());
    assert_eq!(*tested.refused.lock(), [10]);
    // The other mboxes have reserved places until these are used up.
    for number in 0..4 {
        tested.push(Some(&format!("other{number}")), 5);
        let (_, over) = tested.find_locked(64);
        assert_eq!(over.len(), if number < 3 { 1 } else { 5 });
    }
    assert_eq!((tested.capacity.taken(), tested.capacity.parked()), (0, 16));
    assert_eq!(tested.waiting.take_out().0.len(), 16);
    assert_eq!((tested.capacity.taken(), tested.capacity.parked()), (0, 0));
}

#[test]
fn the_time_is_over_for_all_that_wait_with_one_attempt() {
    let mut tested = Tested::new(4096);
    tested.push(Some("box"), 100);
    while !tested.find_locked(64).0.is_empty() {}
    tested.goes_on(LOCK_WAIT / 2);
    tested.push(Some("box"), 1);
    assert_eq!(tested.find_locked(64).1, [] as [usize; 0]);
    tested.goes_on(LOCK_WAIT / 2);
    let (_, mut over) = tested.find_locked(64);
    over.sort_unstable();
    assert_eq!(over, (0..100).collect::<Vec<usize>>());
    assert_eq!((tested.capacity.taken(), tested.capacity.parked()), (0, 1));
}

#[test]
fn what_was_abandoned_waits_for_no_lock() {
    let mut tested = Tested::new(4096);
    tested.push(Some("box"), 3);
    let Taken { mut jobs, hold } = tested.take(64);
    jobs.iter_mut()
        .for_each(|job| job.is_abandoned = job.number == 1);
    let when = (tested.now.get(), LOCK_WAIT);
    let (over, freed) = tested.waiting.lock_is_held(jobs, "lock", when);
    assert_eq!((over.len(), freed), (1, 0));
    tested.give_back(hold);
    assert_eq!((tested.capacity.taken(), tested.capacity.parked()), (0, 2));
}
