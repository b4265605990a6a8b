//! How writers take turns, sleep and are woken.

use super::*;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

/// A delivery, to a Maildir or to an mbox.
#[derive(Debug)]
struct Item {
    mbox: Option<&'static str>,
}

const TO_MAILDIR: Item = Item { mbox: None };
const TO_BOX: Item = Item { mbox: Some("box") };

impl Queued for Item {
    fn is_abandoned(&self) -> bool {
        false
    }

    fn mailbox(&self) -> &str {
        self.mbox.unwrap_or("maildir/")
    }

    fn mbox(&self) -> Option<&str> {
        self.mbox
    }

    fn take(&mut self) {}

    fn bytes(&self) -> u64 {
        1
    }

    fn submitted(&self) -> Instant {
        Instant::now()
    }

    fn refuse(self, _: &'static str) {}
}

/// Another writer; reports how many deliveries it took each time.
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
    queue.push((0..count).map(|_| TO_MAILDIR));
}

/// A queue, a batch held by this thread, and another writer that sleeps.
fn one_at_work() -> (Arc<Queue<Item>>, Hold, Receiver<usize>) {
    let queue = Arc::new(Queue::new(Arc::new(Capacity::new(1000)), 64));
    push(&queue, 1);
    let Taken { hold, .. } = queue.take().unwrap();
    let other = writer(&queue);
    while queue.state.lock().asleep == 0 {
        thread::yield_now();
    }
    (queue, hold, other)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_was_on_its_way_to_an_mbox_that_is_given_up_is_taken_out_and_nobody_waits_for_it() {
    let queue = Queue::new(Arc::new(Capacity::new(1000)), 64);
    queue.push(std::iter::once(TO_BOX));
    let Taken { mut hold, .. } = queue.take().unwrap();
    queue.push(std::iter::once(TO_BOX));
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
    // The other writer may have timed out meanwhile, on a slow machine.
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
    queue.leave_to_others();
    hold.is_left_to_others();
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
    let queue = Arc::new(Queue::new(Arc::new(Capacity::new(1000)), 64));
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

#[test]
fn a_sleeping_writer_tries_a_lock_again_that_another_program_held() {
    let queue = Arc::new(Queue::new(Arc::new(Capacity::new(1000)), 64));
    queue.push(std::iter::once(TO_BOX));
    let Taken { jobs, hold } = queue.take().unwrap();
    let other = writer(&queue);
    while queue.state.lock().asleep == 0 {
        thread::yield_now();
    }
    assert!(queue.lock_is_held(jobs, "lock", LONG).is_empty());
    queue.give_back(hold);
    assert_eq!(other.recv_timeout(LONG), Ok(1));
    queue.close();
}
