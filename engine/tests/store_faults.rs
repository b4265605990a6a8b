//! Deliveries on a disk that fails or stops on order. Method: let every counted operation of a
//! delivery fail, one after the other, until a delivery goes through without meeting the fault.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use mailstow_engine::config::{FlushMethod, Settings};
use mailstow_engine::sim::Store;
use mailstow_engine::sim::{Blocking, Fault, Faulty};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

type FaultyStore = Store<Faulty<Blocking>>;

const CONTENT: &[u8] = b"Subject: x\n\nbody of the message\n";

fn open(settings: &Settings) -> FaultyStore {
    Store::open_on(Faulty::new(Blocking::new()), settings).unwrap()
}

fn fault(operation: &'static str, after: u64, errno: i32) -> Fault {
    Fault {
        operation,
        after,
        errno,
        bytes_written: 10,
        persists: false,
    }
}

/// No fault.
const NEVER: u64 = u64::MAX - 1;

fn settings(place: &Place, flush: FlushMethod) -> Settings {
    let mut settings = place.settings();
    settings.store.flush = flush;
    settings.store.writers = 1;
    settings
}

/// Every operation fails once, on a fresh place each time; `check` sees the status.
fn each_operation_fails(
    flush: FlushMethod,
    errno: i32,
    path: &str,
    prepare: impl Fn(&Place),
    check: impl Fn(&Place, &str),
) {
    for after in 0.. {
        let place = Place::new();
        prepare(&place);
        let store = open(&settings(&place, flush));
        store.disk().plan(fault("", after, errno));
        let status = deliver(&store, CONTENT, path);
        let trace = store.disk().take_trace();
        check(&place, &status);
        store.disk().plan(fault("", NEVER, errno));
        let again = deliver(&store, CONTENT, path);
        assert!(again.starts_with("250"), "after {trace:?}: {again}");
        if u64::try_from(trace.len()).unwrap() <= after {
            assert!(status.starts_with("250"), "no fault was met: {status}");
            assert!(after > 4, "too few operations were counted: {trace:?}");
            return;
        }
    }
}

#[test]
fn whichever_operation_fails_a_maildir_shows_the_message_whole_or_not_at_all() {
    for flush in [FlushMethod::Fsync, FlushMethod::Syncfs] {
        for (errno, code) in [(libc::EIO, "451 4.3.0"), (libc::ENOSPC, "452 4.3.1")] {
            let check = |place: &Place, status: &str| {
                let new = place.base().join("dom/md/new");
                let files = names(&new);
                if status.starts_with("250") {
                    assert_eq!(files.len(), 1);
                    assert!(fs::read(new.join(&files[0])).unwrap().ends_with(CONTENT));
                } else {
                    let is_flush = status.contains("flushing to disk failed");
                    let expected = if is_flush { "451 4.3.0" } else { code };
                    assert!(status.starts_with(expected), "{status}");
                    assert!(files.is_empty(), "{files:?} after {status}");
                }
            };
            each_operation_fails(flush, errno, "dom/md/", |_| {}, check);
        }
    }
}

#[test]
fn whichever_operation_fails_an_mbox_keeps_its_old_content() {
    let old = "From a\nold\n\n";
    for flush in [FlushMethod::Fsync, FlushMethod::Syncfs] {
        for errno in [libc::EIO, libc::ENOSPC, libc::EFBIG] {
            let prepare = |place: &Place| {
                place.make_file("info", old.as_bytes());
            };
            let check = |place: &Place, status: &str| {
                let text = fs::read_to_string(place.base().join("info")).unwrap();
                if status.starts_with("250") {
                    assert!(text.starts_with(old), "{text}");
                    assert!(text.ends_with("body of the message\n\n"), "{text}");
                } else {
                    assert_eq!(text, old, "{status}");
                }
                // A lock file that could not be removed is the one thing that may stay.
                let _ = fs::remove_file(place.base().join("info.lock"));
            };
            each_operation_fails(flush, errno, "info", prepare, check);
        }
    }
}

#[test]
fn what_can_be_seen_after_a_disk_has_died_is_never_said_not_to_appear() {
    let mut seen = [false; 2];
    for path in ["dom/md/", "info"] {
        for after in 0.. {
            let place = Place::new();
            let store = open(&settings(&place, FlushMethod::Fsync));
            place.make_file("info", b"");
            store.disk().plan(Fault {
                persists: true,
                ..fault("", after, libc::EIO)
            });
            let outcome = submit(&store, CONTENT, vec![target(path)])
                .outcomes()
                .remove(0);
            let is_there = match path {
                "info" => {
                    let text = fs::read_to_string(place.base().join("info")).unwrap();
                    text.contains("body of the message\n")
                }
                _ => !names(&place.base().join("dom/md/new")).is_empty(),
            };
            let is_success = outcome.status.is_success();
            let operations = store.disk().take_trace();
            if is_there && !is_success {
                seen[usize::from(path == "info")] = true;
                let last = operations.get(usize::try_from(after).unwrap());
                assert!(
                    outcome.may_appear,
                    "{path}: {last:?} failed: {}",
                    outcome.status
                );
            }
            assert!(!(is_success && outcome.may_appear), "{path}");
            if u64::try_from(operations.len()).unwrap() <= after {
                break;
            }
        }
    }
    assert_eq!(
        seen, [true; 2],
        "a message that was not acknowledged was seen"
    );
}

#[test]
fn without_unnamed_files_tmp_is_used_and_nothing_is_left_there() {
    let place = Place::new();
    let store = open(&settings(&place, FlushMethod::Auto));
    let unsupported = || {
        store.disk().plan(Fault {
            persists: true,
            ..fault("create_unnamed", 0, libc::EOPNOTSUPP)
        });
    };
    unsupported();
    assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    let trace = store.disk().take_trace();
    assert!(trace.contains(&"rename_new"), "{trace:?}");
    let new = place.base().join("md/new");
    assert!(
        fs::read(new.join(&names(&new)[0]))
            .unwrap()
            .ends_with(CONTENT)
    );
    assert!(names(&place.base().join("md/tmp")).is_empty());
}

#[test]
fn the_order_is_write_flush_publish_flush() {
    let place = Place::new();
    let store = open(&settings(&place, FlushMethod::Fsync));
    assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    store.disk().take_trace();
    assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    assert_eq!(
        store.disk().take_trace(),
        [
            "create_unnamed",
            "write_all",
            "sync",
            "name_unnamed",
            "sync"
        ]
    );
}

#[test]
fn a_batch_is_flushed_by_two_syncfs_and_one_error_fails_all_of_it() {
    let place = Place::new();
    let store = open(&settings(&place, FlushMethod::Auto));
    let targets: Vec<_> = (0..8).map(|n| target(&format!("u{n}/"))).collect();
    let all = submit(&store, CONTENT, targets.clone()).statuses();
    assert!(all.iter().all(|status| status.starts_with("250")));
    store.disk().take_trace();
    let all = submit(&store, CONTENT, targets.clone()).statuses();
    assert!(all.iter().all(|status| status.starts_with("250")));
    let trace = store.disk().take_trace();
    let flushes = |name| trace.iter().filter(|op| **op == name).count();
    // On other file systems than ext4 and XFS each is flushed alone.
    let (whole, single) = (flushes("sync_filesystem"), flushes("sync"));
    assert!(
        (whole, single) == (2, 0) || (whole, single) == (0, 16),
        "{trace:?}"
    );
    for after in 0..2 {
        let operation = if whole == 2 {
            "sync_filesystem"
        } else {
            "sync"
        };
        let after = if whole == 2 { after } else { after * 8 };
        store.disk().plan(fault(operation, after, libc::EIO));
        let all = submit(&store, CONTENT, targets.clone()).statuses();
        let failed = all.iter().filter(|s| s.starts_with("451 4.3.0")).count();
        assert_eq!(failed, if whole == 2 { 8 } else { 1 }, "{all:?}");
    }
    store.disk().plan(fault("", NEVER, libc::EIO));
    let count = |n| names(&place.base().join(format!("u{n}/new"))).len();
    let files: usize = (0..8).map(count).sum();
    assert_eq!(files, if whole == 2 { 16 } else { 30 });
}

#[test]
fn a_failed_append_is_tried_again_one_message_at_a_time() {
    let place = Place::new();
    let store = open(&settings(&place, FlushMethod::Fsync));
    store.disk().hold("write_all");
    let first = submit(&store, CONTENT, vec![target("md/")]);
    store.disk().wait_until_reached();
    let group = submit(&store, CONTENT, vec![target("info"); 5]);
    // The first write is the Maildir's, the second the common append, the third is of the first
    // message alone: it fails for its own sake.
    store.disk().plan(fault("write_all", 1, libc::EFBIG));
    store.disk().release();
    assert!(first.statuses()[0].starts_with("250"));
    let all = group.statuses();
    assert!(all.iter().all(|s| s.starts_with("250")), "{all:?}");
    store.disk().hold("write_all");
    let first = submit(&store, CONTENT, vec![target("md/")]);
    store.disk().wait_until_reached();
    let group = submit(&store, CONTENT, vec![target("info"); 5]);
    store.disk().plan(Fault {
        persists: true,
        ..fault("write_all", 1, libc::EDQUOT)
    });
    store.disk().release();
    assert!(first.statuses()[0].starts_with("250"));
    let all = group.statuses();
    assert!(all.iter().all(|s| s.starts_with("552 5.2.2")), "{all:?}");
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    assert_eq!(text.matches("\nReturn-Path: ").count(), 5);
}

#[test]
fn nothing_is_appended_behind_what_could_not_be_cut_off() {
    let place = Place::new();
    let store = open(&settings(&place, FlushMethod::Fsync));
    store.disk().hold("write_all");
    let first = submit(&store, CONTENT, vec![target("md/")]);
    store.disk().wait_until_reached();
    let group = submit(&store, CONTENT, vec![target("info"); 3]);
    // The common append fails and is cut off; so does the first message alone, and stays.
    store.disk().plan_all(&[
        fault("write_all", 1, libc::EIO),
        fault("write_all", 2, libc::EIO),
        fault("truncate", 1, libc::EIO),
    ]);
    store.disk().release();
    assert!(first.statuses()[0].starts_with("250"));
    let all = group.statuses();
    assert!(all.iter().all(|s| s.starts_with("451 4.3.0")), "{all:?}");
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    assert_eq!(text, "From s@ex.");
    // The next delivery cuts it off first; while that fails, it waits for better times.
    store.disk().plan_all(&[fault("truncate", 0, libc::EDQUOT)]);
    let status = deliver(&store, CONTENT, "info");
    assert!(!status.starts_with("250"), "{status}");
    assert!(deliver(&store, CONTENT, "info").starts_with("250"));
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    assert!(text.starts_with("From s@ex.example "), "{text}");
    assert_eq!(text.matches("\nReturn-Path: ").count(), 1);
}

#[test]
fn what_could_not_be_cut_off_stays_when_another_program_appended_behind_it() {
    let place = Place::new();
    let store = open(&settings(&place, FlushMethod::Fsync));
    store.disk().plan_all(&[
        fault("write_all", 0, libc::EIO),
        fault("truncate", 0, libc::EIO),
    ]);
    let status = deliver(&store, CONTENT, "info");
    assert!(status.starts_with("451 4.3.0"), "{status}");
    let path = place.base().join("info");
    let mut text = fs::read_to_string(&path).unwrap();
    text += "\n\nFrom other@ex.example  Sun Nov 22 12:00:00 2026\n\nkept\n\n";
    fs::write(&path, &text).unwrap();
    assert!(deliver(&store, CONTENT, "info").starts_with("250"));
    assert!(fs::read_to_string(&path).unwrap().starts_with(&text));
}

#[test]
fn an_abandoned_delivery_never_appears_and_a_published_one_cannot_be_abandoned() {
    for path in ["md/", "info"] {
        let place = Place::new();
        let store = open(&settings(&place, FlushMethod::Fsync));
        assert!(deliver(&store, CONTENT, path).starts_with("250"));
        let seen = || match path {
            "info" => fs::read_to_string(place.base().join("info"))
                .unwrap()
                .matches("\nReturn-Path: ")
                .count(),
            _ => names(&place.base().join("md/new")).len(),
        };
        // Waiting in the queue, behind one that is being written.
        store.disk().hold("write_all");
        let first = submit(&store, CONTENT, vec![target("other/")]);
        store.disk().wait_until_reached();
        let second = submit(&store, CONTENT, vec![target(path)]);
        assert!(second.tickets[0].abandon());
        assert!(second.tickets[0].abandon(), "it stays given up");
        store.disk().release();
        assert!(first.statuses()[0].starts_with("250"));
        assert!(second.is_silent_for(Duration::from_millis(20)));
        assert_eq!(seen(), 1);
        // Beginning to be published.
        let point = if path == "info" {
            "write_all"
        } else {
            "name_unnamed"
        };
        store.disk().hold(point);
        let third = submit(&store, CONTENT, vec![target(path)]);
        store.disk().wait_until_reached();
        assert!(!third.tickets[0].abandon());
        store.disk().release();
        assert!(third.statuses()[0].starts_with("250"));
        assert_eq!(seen(), 2);
    }
}

#[test]
fn a_delivery_abandoned_between_writing_and_publishing_leaves_nothing() {
    for errno in [0, libc::EOPNOTSUPP] {
        let place = Place::new();
        let store = open(&settings(&place, FlushMethod::Fsync));
        if errno != 0 {
            store.disk().plan(Fault {
                persists: true,
                ..fault("create_unnamed", 0, errno)
            });
        }
        store.disk().hold("sync");
        let delivery = submit(&store, CONTENT, vec![target("md/")]);
        store.disk().wait_until_reached();
        assert!(delivery.tickets[0].abandon());
        store.disk().release();
        store.close();
        assert!(delivery.is_silent_for(Duration::ZERO));
        assert!(names(&place.base().join("md/new")).is_empty());
        assert!(names(&place.base().join("md/tmp")).is_empty());
    }
}

#[test]
fn a_callback_that_panics_costs_nobody_else_anything() {
    let place = Place::new();
    let store = open(&settings(&place, FlushMethod::Fsync));
    let mail = mail(&store, CONTENT);
    let to = vec![(recipient(), target("md/")), (recipient(), target("info"))];
    store.submit(mail, to, Arc::new(|_, _| panic!("on purpose")));
    assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    assert_eq!(names(&place.base().join("md/new")).len(), 2);
    assert!(deliver(&store, CONTENT, "info").starts_with("250"));
}

#[test]
fn closing_finishes_what_was_submitted() {
    let place = Place::new();
    let store = open(&settings(&place, FlushMethod::Auto));
    let targets = (0..40).map(|n| target(&format!("u{}/", n % 7))).collect();
    let all = submit(&store, CONTENT, targets);
    let mboxes = submit(&store, CONTENT, vec![target("info"); 20]);
    store.close();
    assert!(all.statuses().iter().all(|s| s.starts_with("250")));
    assert!(mboxes.statuses().iter().all(|s| s.starts_with("250")));
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_full_queue_holds_callers_back_and_wakes_them_when_there_is_room() {
    let place = Place::new();
    let mut settings = settings(&place, FlushMethod::Fsync);
    settings.limits.queued_deliveries = 2;
    let store = open(&settings);
    store.disk().hold("write_all");
    let first = submit(&store, CONTENT, vec![target("md/")]);
    store.disk().wait_until_reached();
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    assert!(store.has_capacity());
    assert_eq!(store.poll_capacity(&mut context), Poll::Ready(()));
    let others = submit(&store, CONTENT, vec![target("md/"), target("info")]);
    assert!(!store.has_capacity());
    assert_eq!(store.poll_capacity(&mut context), Poll::Pending);
    store.disk().release();
    let deadline = Instant::now() + DEADLINE;
    while !flag.0.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "never woken");
        std::thread::yield_now();
    }
    assert!(store.has_capacity());
    assert!(first.statuses()[0].starts_with("250"));
    assert!(others.statuses().iter().all(|s| s.starts_with("250")));
}

#[test]
fn directories_made_anew_are_flushed_before_their_first_message_counts() {
    let place = Place::new();
    let store = open(&settings(&place, FlushMethod::Fsync));
    let mut expected = Vec::new();
    for round in 0..3 {
        store.disk().take_trace();
        assert!(deliver(&store, CONTENT, "dom/md/").starts_with("250"));
        let trace = store.disk().take_trace();
        let from_file = trace.iter().position(|op| *op == "create_unnamed").unwrap();
        let flushes = &trace[from_file..];
        // The base, dom and md, then the file; published; then new/.
        let whole = [
            "create_unnamed",
            "write_all",
            "sync",
            "sync",
            "sync",
            "sync",
        ];
        expected.clear();
        expected.extend(whole);
        expected.extend(["name_unnamed", "sync"]);
        assert_eq!(flushes, expected, "round {round}");
        fs::remove_dir_all(place.base().join("dom")).unwrap();
    }
}

/// Two mailboxes in one batch, the second of them used before; in the order of the flushes, those
/// with these numbers fail.
fn second_mailbox_after_failed_flushes(mailboxes: [&str; 2], failed: [u64; 2]) -> [String; 2] {
    let place = Place::new();
    place.make_dir("dom");
    let store = open(&settings(&place, FlushMethod::Fsync));
    assert!(deliver(&store, CONTENT, mailboxes[1]).starts_with("250"));
    store.disk().take_trace();
    let faults = failed.map(|after| fault("sync", after, libc::EIO));
    store.disk().plan_all(&faults);
    let to = mailboxes.map(target).into();
    let statuses = submit(&store, CONTENT, to).statuses();
    let trace = store.disk().take_trace();
    let flushes = trace.iter().filter(|operation| **operation == "sync");
    assert!(flushes.count() as u64 > failed[1], "{trace:?}");
    statuses.try_into().unwrap()
}

#[test]
fn a_mailbox_whose_flush_failed_is_refused_after_another_one_whose_directories_failed_too() {
    // The base, dom and dom/md of the first, then the two files.
    let [first, second] = second_mailbox_after_failed_flushes(["dom/md/", "md/"], [0, 4]);
    assert!(first.starts_with("451 4.3.0"), "{first}");
    assert!(second.starts_with("451 4.3.0"), "{second}");
    // The first file, the base and dom, then the second file.
    let [first, second] = second_mailbox_after_failed_flushes(["dom/box", "box"], [0, 3]);
    assert!(first.starts_with("451 4.3.0"), "{first}");
    assert!(second.starts_with("451 4.3.0"), "{second}");
}
