//! Models of what writers share, run over every interleaving (up to loom's bound): the mboxes that
//! writers hold, and how far back the log is needed.
//!
//! Run with `tests/loom`.

use super::capacity::Capacity;
use super::ledger::retention::Retention;
use super::queue::{Queue, Queued, Taken};
use crate::log::Sequence;
use crate::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;
use std::time::Instant;

/// A delivery to the one mbox, or to a Maildir.
#[derive(Debug)]
struct Item(bool);

impl Queued for Item {
    fn is_abandoned(&self) -> bool {
        false
    }

    fn mailbox(&self) -> &str {
        match self.0 {
            true => "box",
            false => "maildir/",
        }
    }

    fn mbox(&self) -> Option<&str> {
        self.0.then_some("box")
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

/// A writer: takes one delivery at a time until the queue is closed; returns the count.
fn write(queue: &Queue<Item>, in_use: &AtomicBool) -> u64 {
    let mut done = 0;
    while let Some(Taken { jobs, hold }) = queue.take() {
        for Item(is_mbox) in jobs {
            if is_mbox {
                assert!(!in_use.swap(true, Ordering::Relaxed), "two writers");
                thread::yield_now();
                in_use.store(false, Ordering::Relaxed);
            }
            done += 1;
        }
        queue.give_back(hold);
    }
    done
}

#[test]
fn loom_an_mbox_is_in_the_hands_of_one_writer_and_no_delivery_is_left() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(Arc::new(Capacity::new(10)), 1));
        let in_use = Arc::new(AtomicBool::new(false));
        let other = {
            let (queue, in_use) = (Arc::clone(&queue), Arc::clone(&in_use));
            thread::spawn(move || write(&queue, &in_use))
        };
        queue.push([Item(true), Item(false)].into_iter());
        queue.push([Item(true)].into_iter());
        queue.close();
        let done = write(&queue, &in_use);
        assert_eq!(done + other.join().unwrap(), 3);
    });
}

#[test]
fn loom_sleeping_writers_are_woken_for_every_delivery() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(Arc::new(Capacity::new(10)), 1));
        let done = Arc::new(AtomicU64::new(0));
        let writer = || {
            let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
            thread::spawn(move || {
                while let Some(Taken { jobs, hold }) = queue.take() {
                    queue.give_back(hold);
                    let before = done.fetch_add(jobs.len() as u64, Ordering::AcqRel);
                    // No other thread wakes them.
                    if before + jobs.len() as u64 == 2 {
                        queue.close();
                    }
                }
            })
        };
        let writers = [writer(), writer()];
        queue.push([Item(true)].into_iter());
        queue.push([Item(true)].into_iter());
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(done.load(Ordering::Acquire), 2);
    });
}

/// A log: records appended, and durable with the next flush.
#[derive(Debug)]
struct Log {
    appended: AtomicU64,
    durable: AtomicU64,
    settled: [AtomicBool; 2],
}

impl Log {
    fn durable(&self) -> Sequence {
        Sequence(self.durable.load(Ordering::Acquire))
    }

    fn flush(&self) {
        let appended = self.appended.load(Ordering::Acquire);
        self.durable.fetch_max(appended, Ordering::AcqRel);
    }
}

fn deliver(log: &Log, retention: &Retention) {
    let mark = retention.take(|| log.durable());
    let record = log.appended.fetch_add(1, Ordering::AcqRel);
    log.flush();
    log.settled[record as usize].store(true, Ordering::Release);
    drop(mark);
}

#[test]
fn loom_a_checkpoint_covers_only_deliveries_that_are_settled() {
    loom::model(|| {
        let retention = Retention::default();
        let log = Arc::new(Log {
            appended: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            settled: [AtomicBool::new(false), AtomicBool::new(false)],
        });
        let deliveries: Vec<_> = (0..2)
            .map(|_| {
                let (log, retention) = (Arc::clone(&log), retention.clone());
                thread::spawn(move || deliver(&log, &retention))
            })
            .collect();
        let below = retention.low_water_mark(|| log.durable());
        for record in log.settled.iter().take(below.0 as usize - 1) {
            assert!(record.load(Ordering::Acquire), "under way, below {below}");
        }
        for delivery in deliveries {
            delivery.join().unwrap();
        }
        assert_eq!(retention.low_water_mark(|| log.durable()), Sequence(3));
    });
}
