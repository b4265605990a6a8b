//! Models of group commit, run over every interleaving (up to the bound loom is given).
//!
//! Run with `tests/loom`. The main thread is the log thread; a flush is a store to `flushed` before
//! the completion.

use super::group_commit::{Bounds, Class, GroupCommit, Refused, Weight};
use crate::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

type Commit = GroupCommit<u64, &'static str>;

const WEIGHT: Weight = Weight {
    class: Class::Content,
    bytes: 10,
    charge: 10,
};

fn commit(in_flight_bytes_max: usize, room: u64) -> Arc<Commit> {
    let bounds = Bounds {
        in_flight_bytes_max,
        reserve: 0,
    };
    Arc::new(GroupCommit::new(1, room, bounds))
}

/// Takes batches until `records` were flushed; the order must hold.
fn flush_until(commit: &Commit, flushed: &AtomicU64, records: u64) {
    let mut batch = Vec::new();
    while flushed.load(Ordering::Relaxed) < records {
        assert!(commit.take(&mut batch, true), "records are missing");
        let mut last = flushed.load(Ordering::Relaxed);
        for (sequence, _) in batch.drain(..) {
            assert_eq!(
                sequence,
                last + 1,
                "sequences come in order and without gaps"
            );
            last = sequence;
        }
        flushed.store(last, Ordering::Relaxed);
        commit.complete(last, 0);
    }
}

fn appender(commit: &Arc<Commit>, flushed: &Arc<AtomicU64>) -> thread::JoinHandle<()> {
    let (commit, flushed) = (Arc::clone(commit), Arc::clone(flushed));
    thread::spawn(move || {
        let ticket = commit.append(7, WEIGHT, None).unwrap();
        commit.wait(ticket).unwrap();
        let sequence = ticket.sequence().0;
        assert!(
            flushed.load(Ordering::Relaxed) >= sequence,
            "told before the flush"
        );
        assert!(commit.durable_up_to() >= sequence);
    })
}

#[test]
fn loom_a_waiter_is_told_only_after_its_batch_was_flushed() {
    loom::model(|| {
        let (commit, flushed) = (commit(100, 100), Arc::new(AtomicU64::new(0)));
        let threads = [appender(&commit, &flushed), appender(&commit, &flushed)];
        flush_until(&commit, &flushed, 2);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn loom_the_watermark_is_never_ahead_of_the_flush() {
    loom::model(|| {
        let (commit, flushed) = (commit(100, 100), Arc::new(AtomicU64::new(0)));
        let ticket = commit.append(7, WEIGHT, None).unwrap();
        let reader = {
            let (commit, flushed) = (Arc::clone(&commit), Arc::clone(&flushed));
            thread::spawn(move || {
                let durable = commit.durable_up_to();
                assert!(flushed.load(Ordering::Relaxed) >= durable);
            })
        };
        flush_until(&commit, &flushed, ticket.sequence().0);
        reader.join().unwrap();
    });
}

#[test]
fn loom_an_appender_held_back_goes_on_when_a_batch_was_flushed() {
    loom::model(|| {
        // Room in flight for one record of two.
        let (commit, flushed) = (commit(15, 100), Arc::new(AtomicU64::new(0)));
        let threads = [appender(&commit, &flushed), appender(&commit, &flushed)];
        flush_until(&commit, &flushed, 2);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(!commit.is_held_back());
    });
}

#[test]
fn loom_an_appender_to_a_full_log_goes_on_when_room_is_made() {
    loom::model(|| {
        let (commit, flushed) = (commit(100, 0), Arc::new(AtomicU64::new(0)));
        let waiting = appender(&commit, &flushed);
        let freeing = {
            let commit = Arc::clone(&commit);
            thread::spawn(move || commit.add_room(10))
        };
        flush_until(&commit, &flushed, 1);
        waiting.join().unwrap();
        freeing.join().unwrap();
    });
}

#[test]
fn loom_after_a_failure_everybody_is_told_and_nobody_succeeds() {
    loom::model(|| {
        let commit = commit(15, 100);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let commit = Arc::clone(&commit);
                thread::spawn(move || match commit.append(7, WEIGHT, None) {
                    Ok(ticket) => assert_eq!(commit.wait(ticket), Err("disk")),
                    Err((_, refused)) => assert_eq!(refused, Refused::Poisoned("disk")),
                })
            })
            .collect();
        let mut batch = Vec::new();
        assert!(commit.take(&mut batch, true));
        drop(commit.poison("disk"));
        batch.clear();
        assert!(
            !commit.take(&mut batch, true),
            "nothing is taken after a failure"
        );
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(commit.durable_up_to(), 0);
    });
}

#[test]
fn loom_closing_flushes_what_was_taken_in_and_refuses_the_rest() {
    loom::model(|| {
        let commit = commit(100, 100);
        let appending = {
            let commit = Arc::clone(&commit);
            thread::spawn(move || match commit.append(7, WEIGHT, None) {
                Ok(ticket) => commit.wait(ticket).map(|()| true).unwrap(),
                Err((_, refused)) => {
                    assert_eq!(refused, Refused::Closed);
                    false
                }
            })
        };
        let closing = {
            let commit = Arc::clone(&commit);
            thread::spawn(move || commit.close())
        };
        let (mut batch, mut taken) = (Vec::new(), 0);
        while commit.take(&mut batch, true) {
            taken += batch.drain(..).count() as u64;
            commit.complete(taken, 0);
        }
        let accepted = appending.join().unwrap();
        closing.join().unwrap();
        assert_eq!(taken, u64::from(accepted), "what was accepted was flushed");
    });
}
