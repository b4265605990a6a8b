//! Goal: the log with its threads keeps its promises to many callers: order, back-pressure,
//! poisoning, closing, the lock of the directory.

use super::super::record::{Checkpoint, Record, Sequence};
use super::super::sim::{SimFault, SimMedium};
use super::super::{
    BackendChoice, DirectoryMedium, LogError, LogMedium as _, LogWriter, LogWriterSettings, Pacing,
    scan,
};
use super::support::{Oracle, checkpoint, record, small};
use crate::sync::{Arc, Mutex};
use std::cell::Cell;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn open(medium: &SimMedium) -> LogWriter<SimMedium> {
    LogWriter::open_on(Arc::new(medium.clone()), small())
        .unwrap()
        .0
}

#[test]
fn many_appenders_are_told_in_the_order_of_the_log() {
    let medium = SimMedium::new(1);
    let settings = LogWriterSettings {
        log_bytes_max: 4 << 20,
        ..small()
    };
    let (log, _) = LogWriter::open_on(Arc::new(medium.clone()), settings).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for thread in 0..8u128 {
            let (log, told) = (&log, Arc::clone(&told));
            scope.spawn(move || {
                for id in 0..20 {
                    let told = Arc::clone(&told);
                    let call = Box::new(move |result: Result<Sequence, LogError>| {
                        told.lock().push(result.unwrap().0);
                    });
                    let record = record(thread * 100 + id, 200).encode();
                    let ticket = log.append(record, Some(call)).unwrap();
                    assert_eq!(log.wait(ticket).unwrap(), ticket.sequence());
                    assert!(log.durable_up_to() >= ticket.sequence());
                }
            });
        }
    });
    log.close().unwrap();
    let told = std::mem::take(&mut *told.lock());
    assert_eq!(told, (1..=160).collect::<Vec<u64>>());
    assert_eq!(scan(&medium, &mut |_| {}).unwrap().records, 160);
}

#[test]
fn a_full_log_refuses_mail_with_452_and_still_takes_its_checkpoint() {
    let medium = SimMedium::new(2);
    let settings = LogWriterSettings {
        full_wait_max: Duration::from_millis(20),
        ..small()
    };
    let (log, _) = LogWriter::open_on(Arc::new(medium.clone()), settings).unwrap();
    let mut taken = 0;
    let refused = loop {
        match log.append_and_wait(record(taken, 3000).encode()) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000, "the log has a bound");
    };
    assert!(matches!(refused, LogError::Full { .. }), "{refused}");
    assert_eq!(refused.status().code, 452);
    assert_eq!(refused.status().enhanced.to_string(), "4.3.1");
    let below = Sequence(log.durable_up_to().0 + 1);
    let checkpoint = Record::Checkpoint(Checkpoint {
        below,
        in_doubt: Vec::new(),
    });
    log.append_and_wait(checkpoint.encode()).unwrap();
    assert!(log.truncate_before(below).unwrap() > 0);
    log.append_and_wait(record(5000, 3000).encode()).unwrap();
    let usage = log.usage();
    assert!(usage.bytes_free > 0 && usage.segments_live < 6, "{usage:?}");
}

#[test]
fn an_append_waits_for_room_until_the_log_is_truncated() {
    let medium = SimMedium::new(3);
    let log = open(&medium);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let log = &log;
        scope.spawn(move || {
            for id in 0..60 {
                let sequence = log.append_and_wait(record(id, 3000).encode()).unwrap();
                sender.send(sequence).unwrap();
            }
        });
        // 60 records of a block each need more than the log holds at once.
        for sequence in receiver {
            if sequence.0 % 4 == 0 {
                log.truncate_before(sequence).unwrap();
            }
        }
    });
    assert_eq!(log.durable_up_to(), Sequence(60));
}

#[test]
fn after_a_failed_flush_nothing_more_is_acknowledged_until_reopened() {
    let medium = SimMedium::new(4);
    let log = open(&medium);
    log.append_and_wait(record(1, 100).encode()).unwrap();
    medium.set_fault(SimFault::FrameFlush {
        kind: io::ErrorKind::Other,
    });
    let (sender, receiver) = mpsc::channel();
    let call = Box::new(move |result: Result<Sequence, LogError>| drop(sender.send(result)));
    let ticket = log.append(record(2, 100).encode(), Some(call)).unwrap();
    let waited = log.wait(ticket).unwrap_err();
    assert!(matches!(waited, LogError::Poisoned { .. }), "{waited}");
    assert_eq!(waited.status().code, 451);
    assert_eq!(waited.status().enhanced.to_string(), "4.3.0");
    assert!(matches!(
        receiver.recv().unwrap(),
        Err(LogError::Poisoned { .. })
    ));
    for _ in 0..3 {
        let later = log.append_and_wait(record(3, 100).encode()).unwrap_err();
        assert!(matches!(later, LogError::Poisoned { .. }), "{later}");
    }
    assert!(log.truncate_before(Sequence(1)).is_err());
    assert_eq!(log.durable_up_to(), Sequence(1));
    assert!(log.close().is_err());
    medium.set_fault(SimFault::None);
    let log = open(&medium);
    assert_eq!(
        log.append_and_wait(record(4, 100).encode()).unwrap(),
        Sequence(2)
    );
}

/// Appenders, a truncating thread, the log's own threads; the power goes at operation `at`.
fn crash_under_load(seed: u64, at: u64) -> Result<(), String> {
    let medium = SimMedium::new(seed);
    let log = open(&medium);
    medium.set_fault(SimFault::Crash {
        at: medium.operations() + at,
    });
    let oracle = Mutex::new(Oracle::default());
    thread::scope(|scope| {
        for number in 0..3u128 {
            let (log, oracle) = (&log, &oracle);
            scope.spawn(move || {
                for id in 0..12 {
                    let record = record(number * 100 + id, 1500).encode();
                    let Ok(ticket) = log.append(record.clone(), None) else {
                        return;
                    };
                    let sequence = ticket.sequence().0;
                    oracle.lock().handed_over(sequence, &record);
                    if log.wait(ticket).is_err() {
                        return;
                    }
                    oracle.lock().reported_durable(sequence, &record);
                    if sequence.is_multiple_of(9) {
                        let checkpoint = checkpoint(sequence);
                        let Ok(ticket) = log.append_anyway(checkpoint.clone()) else {
                            return;
                        };
                        let at = ticket.sequence().0;
                        oracle.lock().handed_over(at, &checkpoint);
                        if log.wait(ticket).is_err() {
                            return;
                        }
                        // Other threads may report earlier ones late; those are gone then.
                        oracle.lock().truncated_for_good(sequence);
                        if log.truncate_before(Sequence(sequence)).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    drop(log);
    let medium = medium.after_crash(seed);
    let (_, found) = LogWriter::open_on(Arc::new(medium), small()).map_err(|e| e.to_string())?;
    oracle.lock().check(&found)
}

#[test]
fn what_threads_were_told_before_a_crash_is_read_back_after_it() {
    for seed in 0..120 {
        let at = seed * 7 % 80;
        crash_under_load(seed, at)
            .unwrap_or_else(|failure| panic!("seed {seed} at {at}: {failure}"));
    }
}

#[test]
fn closing_flushes_what_waits() {
    let medium = SimMedium::new(5);
    let log = open(&medium);
    for id in 0..10 {
        log.append(record(id, 50).encode(), None).unwrap();
    }
    log.close().unwrap();
    assert_eq!(scan(&medium, &mut |_| {}).unwrap().records, 10);
}

#[test]
fn a_record_over_the_limit_is_refused_before_it_waits() {
    let log = open(&SimMedium::new(6));
    let refused = log.append(record(1, 30_000).encode(), None).unwrap_err();
    assert!(matches!(refused, LogError::TooLong { .. }), "{refused}");
}

#[test]
fn a_panicking_callback_poisons_the_log_and_leaves_nobody_waiting() {
    let log = open(&SimMedium::new(7));
    let call = Box::new(|_: Result<Sequence, LogError>| panic!("planted"));
    let _ = log.append(record(1, 10).encode(), Some(call));
    let error = loop {
        if let Err(error) = log.append_and_wait(record(2, 10).encode()) {
            break error;
        }
    };
    assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
}

#[test]
fn a_panic_of_the_thread_that_makes_segments_poisons_the_log() {
    let medium = SimMedium::new(8);
    let log = open(&medium);
    medium.set_fault(SimFault::PanicInCreate);
    let error = (0..)
        .map(|id| log.append_and_wait(record(id, 3000).encode()))
        .find_map(Result::err)
        .unwrap();
    let LogError::Poisoned { cause } = error else {
        panic!("{error}");
    };
    assert!(cause.to_string().contains("mailstow-spare"), "{cause}");
    drop(log);
    open(&medium)
        .append_and_wait(record(1, 10).encode())
        .unwrap();
}

#[test]
fn each_way_to_the_disk_writes_the_same_log() {
    for backend in [
        BackendChoice::Auto,
        BackendChoice::Plain,
        BackendChoice::PlainDsync,
        BackendChoice::Uring,
    ] {
        let directory = tempfile::tempdir().unwrap();
        let settings = LogWriterSettings { backend, ..small() };
        let (log, _) = LogWriter::open(directory.path(), settings.clone()).unwrap();
        for id in 0..12 {
            log.append_and_wait(record(id, 2000).encode()).unwrap();
        }
        assert!(!log.backend().is_empty());
        log.close().unwrap();
        let (_, found) = LogWriter::open(directory.path(), settings).unwrap();
        let mut expected = (2..12).map(|id| record(id, 2000));
        found
            .for_each(Sequence(3), |entry| {
                assert_eq!(
                    entry.record().unwrap(),
                    expected.next().unwrap(),
                    "{backend:?}"
                );
            })
            .unwrap();
        assert!(expected.next().is_none(), "{backend:?}");
    }
}

#[test]
fn a_second_writer_is_told_who_has_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = LogWriter::open(directory.path(), small()).unwrap();
    let refused = LogWriter::open(directory.path(), small())
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&format!("process {}", std::process::id())),
        "{refused}"
    );
    drop(log);
    LogWriter::open(directory.path(), small()).unwrap();
}

#[test]
fn a_segment_file_that_is_needed_no_more_is_not_finished_and_does_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    let medium = DirectoryMedium::open(dir.path(), BackendChoice::Plain).unwrap();
    let asked = Cell::new(0);
    let pacing = || {
        asked.set(asked.get() + 1);
        match asked.get() {
            1 => Pacing::Rest,
            2 => Pacing::Hurry,
            _ => Pacing::Stop,
        }
    };
    let failed = medium
        .create("spare-n0.log", 64 << 20, &pacing)
        .unwrap_err();
    assert_eq!(failed.kind(), std::io::ErrorKind::Interrupted);
    assert_eq!(asked.get(), 3);
    assert!(!dir.path().join("spare-n0.log").exists());
}

#[test]
fn a_log_in_use_is_refused_although_its_lock_file_was_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = LogWriter::open(directory.path(), small()).unwrap();
    std::fs::remove_file(directory.path().join("lock")).unwrap();
    let refused = LogWriter::open(directory.path(), small()).err();
    let is_told = matches!(refused, Some(LogError::Locked { .. }));
    assert!(is_told, "{refused:?}");
    log.close().unwrap();
    LogWriter::open(directory.path(), small()).unwrap();
}
