//! Writers that do not come back from a mailbox: what becomes of their deliveries, and that no
//! other delivery waits for them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::*;
use mailstow_engine::LogState;
use mailstow_engine::config::{Durability, Settings};
use mailstow_engine::sim::{Blocking, Fault, Faulty, Store};
use std::time::Duration;

/// How long a step in a mailbox may take here.
const TIMEOUT: Duration = Duration::from_secs(1);

fn settings(place: &Place, durability: Durability) -> Settings {
    let mut settings = place.settings();
    settings.store.durability = durability;
    settings.store.writers = 2;
    settings.store.mailbox_timeout = TIMEOUT;
    settings.delivery_log.checkpoint_interval = Duration::from_millis(50);
    settings
}

fn content(number: usize) -> Vec<u8> {
    format!("Subject: {number}\n\nbody {number} of the message\n").into_bytes()
}

/// The numbers of the messages in a Maildir or an mbox, in order.
fn numbers(place: &Place, mailbox: &str) -> Vec<usize> {
    let path = place.base().join(mailbox);
    let text = match mailbox.strip_suffix('/') {
        Some(_) => names(&path.join("new"))
            .iter()
            .map(|name| std::fs::read_to_string(path.join("new").join(name)).unwrap())
            .collect(),
        None => std::fs::read_to_string(path).unwrap_or_default(),
    };
    let subjects = text
        .lines()
        .filter_map(|line| line.strip_prefix("Subject: "));
    let mut numbers: Vec<usize> = subjects.map(|number| number.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// Submits message 1 for a mailbox; its writer is held in the disk's `operation` until released.
fn submit_stuck(store: &FaultyStore, operation: &'static str, mailbox: &str) -> Pending {
    store.disk().hold_one(operation);
    let stuck = submit(store, &content(1), vec![target(mailbox)]);
    store.disk().wait_until_reached();
    stuck
}

fn is_idle(store: &FaultyStore) -> bool {
    store.health().waiting == 0 && store.health().file_systems.is_empty()
}

/// Whether the log serves and is less than half full. Segments that only hold deferred mail do not
/// count, so that it may also be empty.
fn has_capacity(store: &FaultyStore) -> bool {
    matches!(store.health().log, LogState::InService { bytes_used, .. } if bytes_used < 2 << 20)
}

/// How often message 0 stands in the log.
fn copies_in_log(settings: &Settings) -> usize {
    let directory = settings.state_directory.join("delivery-log");
    let body = b"body 0 of the message".as_slice();
    let files = std::fs::read_dir(directory).unwrap();
    let files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files
        .map(|file| {
            file.windows(body.len())
                .filter(|part| *part == body)
                .count()
        })
        .sum()
}

#[test]
fn a_delivery_whose_writer_is_stuck_before_it_publishes_is_refused_and_never_appears() {
    for (durability, operation) in [
        (Durability::Logged, "create_unnamed"),
        (Durability::Direct, "create_unnamed"),
        (Durability::Direct, "sync"),
    ] {
        let place = Place::new();
        let store = open_faulty(&settings(&place, durability));
        assert!(deliver(&store, &content(0), "one/").starts_with("250"));
        let stuck = submit_stuck(&store, operation, "one/");
        let statuses = stuck.statuses();
        assert!(statuses[0].starts_with("451 4.3.0"), "{statuses:?}");
        assert!(statuses[0].contains("does not answer"), "{statuses:?}");
        // Its mailbox is refused at once, whatever is tried.
        let status = deliver(&store, &content(2), "one/");
        assert!(status.contains("does not answer"), "{status}");
        // One delivery finds out that the others are well.
        wait_for(&store, "others are delivered", |store| {
            deliver(store, &content(3), "other/").starts_with("250")
        });
        wait_for(&store, "others are delivered", |store| {
            deliver(store, &content(4), "box").starts_with("250")
        });
        store.disk().release();
        wait_for(&store, "the mailbox is well again", |store| {
            deliver(store, &content(5), "one/").starts_with("250")
        });
        wait_for(&store, "all is well", is_idle);
        assert_eq!(numbers(&place, "one/"), [0, 5]);
    }
}

#[test]
fn a_delivery_that_is_being_published_is_accepted_once_the_log_has_it_and_is_made_once() {
    for (operation, mailbox) in [("name_unnamed", "one/"), ("write_all", "box")] {
        let place = Place::new();
        let settings = settings(&place, Durability::Logged);
        let store = open_faulty(&settings);
        let stuck = submit_stuck(&store, operation, mailbox);
        let statuses = stuck.statuses();
        assert!(statuses[0].starts_with("250 "), "{operation}: {statuses:?}");
        assert!(statuses[0].contains("does not answer"), "{statuses:?}");
        assert_eq!(store.health().waiting, 1);
        assert_eq!(numbers(&place, mailbox), [] as [usize; 0]);
        store.disk().release();
        wait_for(&store, "it is durable", is_idle);
        assert_eq!(numbers(&place, mailbox), [1]);
        drop(store);
        let store = open_faulty(&settings);
        assert_eq!(store.recovered().unwrap().rewritten, 0);
        assert_eq!(numbers(&place, mailbox), [1]);
    }
}

/// What is left of a store when its process is killed now: settings to open it with.
fn killed(place: &Place, settings: &Settings) -> Settings {
    let directory = place.outside().join("killed");
    let log = directory.join("delivery-log");
    std::fs::create_dir_all(&log).unwrap();
    let entries = std::fs::read_dir(settings.state_directory.join("delivery-log")).unwrap();
    for entry in entries {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), log.join(entry.file_name())).unwrap();
    }
    let mut settings = settings.clone();
    settings.state_directory = directory;
    settings
}

#[test]
fn an_accepted_delivery_that_fails_in_the_end_is_made_even_if_the_process_is_killed() {
    for (operation, mailbox) in [("name_unnamed", "one/"), ("write_all", "box")] {
        let place = Place::new();
        let mut settings = settings(&place, Durability::Logged);
        settings.delivery_log.checkpoint_interval = Duration::from_secs(3600);
        let store = open_faulty(&settings);
        let stuck = submit_stuck(&store, operation, mailbox);
        assert!(stuck.statuses()[0].starts_with("250 "));
        store.disk().plan(Fault {
            operation,
            after: 0,
            errno: libc::EIO,
            bytes_written: 0,
            persists: mailbox == "box",
        });
        store.disk().release();
        wait_for(&store, "its writer is back", |store| {
            store.health().file_systems.is_empty()
        });
        store.disk().plan_all(&[]);
        wait_for(&store, "others are delivered", |store| {
            deliver(store, &content(2), "other/").starts_with("250")
        });
        assert_eq!(numbers(&place, mailbox), [] as [usize; 0]);
        let after = open_faulty(&killed(&place, &settings));
        assert_eq!(numbers(&place, mailbox), [1], "{operation}");
        drop((after, store));
    }
}

#[test]
fn what_recovery_could_not_make_waits_even_if_its_file_system_does_not_answer_after_that() {
    let place = Place::new();
    let settings = settings(&place, Durability::Logged);
    leave_a_log(&settings, &content(1), ["one/", "box"]);
    let in_the_way = place.make_file("one", b"");
    let disk = Faulty::new(Blocking::new());
    disk.hold_one("write_all");
    let store: FaultyStore = Store::open_on(disk, &settings).unwrap();
    assert_eq!(store.recovered().unwrap().waiting, 2);
    std::fs::remove_file(in_the_way).unwrap();
    store.disk().release();
    wait_for(&store, "both are made", is_idle);
    for mailbox in ["one/", "box"] {
        assert_eq!(numbers(&place, mailbox), [1], "{mailbox}");
    }
}

#[test]
fn a_torn_message_is_cut_off_even_if_its_file_system_did_not_answer_during_recovery() {
    let place = Place::new();
    let settings = settings(&place, Durability::Logged);
    leave_a_log(&settings, &content(1), ["one/", "box"]);
    // A message of which only the log's sums are known, and whose first two sectors were written.
    let whole = sectors(1, "From a@ex.example\n\nwhole", "\n\n");
    let torn = sectors(6, "From b@ex.example\n\ntorn", "\n\n");
    leave_an_extent(&settings, "torn", (whole.len() as u64, &torn));
    let written = [whole.as_slice(), &torn[..2 * SECTOR]].concat();
    place.make_file("torn", &written);
    let disk = Faulty::new(Blocking::new());
    // Of the Maildir, which recovery looks at before the mboxes.
    disk.hold_one("write_all");
    let store: FaultyStore = Store::open_on(disk, &settings).unwrap();
    assert_eq!(std::fs::read(place.base().join("torn")).unwrap(), written);
    store.disk().release();
    wait_for(&store, "it is cut off", |_| {
        std::fs::read(place.base().join("torn")).unwrap() == whole
    });
    wait_for(&store, "the rest is made", is_idle);
    assert_eq!(numbers(&place, "box"), [1]);
}

/// Bytes of a sector.
const SECTOR: usize = 512;

/// Text that fills so many sectors.
fn sectors(count: usize, begin: &str, end: &str) -> Vec<u8> {
    let filler = count * SECTOR - begin.len() - end.len();
    format!("{begin}{}{end}", "x".repeat(filler)).into_bytes()
}

#[test]
fn an_accepted_delivery_that_a_failed_flush_may_have_dropped_is_written_again() {
    let place = Place::new();
    let store = open_faulty(&settings(&place, Durability::Logged));
    let stuck = submit_stuck(&store, "name_unnamed", "one/");
    assert!(stuck.statuses()[0].starts_with("250 "));
    store.disk().plan(Fault {
        operation: "sync_filesystem",
        after: 0,
        errno: libc::EIO,
        bytes_written: 0,
        persists: false,
    });
    store.disk().release();
    wait_for(&store, "it is written again", |store| {
        store.disk().take_trace_up_to("write_at")
    });
    wait_for(&store, "it is durable", is_idle);
    assert_eq!(numbers(&place, "one/"), [1]);
}

#[test]
fn a_delivery_that_ended_before_its_writer_got_stuck_is_not_held() {
    let place = Place::new();
    let store = open_faulty(&settings(&place, Durability::Logged));
    store.disk().hold_one_after(1, "name_unnamed");
    let stuck = submit(&store, &content(1), vec![target("one/"), target("two/")]);
    store.disk().wait_until_reached();
    let statuses = stuck.statuses();
    let is_early = |status: &&String| status.contains("does not answer");
    assert!(statuses.iter().all(|status| status.starts_with("250 ")));
    assert_eq!(statuses.iter().filter(is_early).count(), 1, "{statuses:?}");
    store.disk().release();
    wait_for(&store, "both are durable", is_idle);
    for mailbox in ["one/", "two/"] {
        assert_eq!(numbers(&place, mailbox), [1], "{mailbox}");
    }
}

#[test]
fn a_stuck_writer_does_not_keep_the_log_from_being_freed() {
    let place = Place::new();
    let mut settings = settings(&place, Durability::Logged);
    settings.delivery_log.bytes_max = 4 << 20;
    settings.delivery_log.segment_bytes = 256 << 10;
    let store = open_faulty(&settings);
    let stuck = submit_stuck(&store, "name_unnamed", "one/");
    assert!(stuck.statuses()[0].starts_with("250 "));
    wait_for(&store, "others are delivered", |store| {
        deliver(store, &content(2), "other/").starts_with("250")
    });
    // Four times what the log may hold.
    let mut long = content(3);
    long.resize(64 << 10, b'x');
    for _ in 0..256 {
        // On a slow machine a step may take so long that it is given up.
        wait_for(&store, "others are delivered", |store| {
            deliver(store, &long, "other/").starts_with("250")
        });
    }
    wait_for(&store, "the log is freed", has_capacity);
    assert_eq!(store.health().waiting, 1);
    store.disk().release();
    wait_for(&store, "it is durable", is_idle);
    assert_eq!(numbers(&place, "one/"), [1]);
}

#[test]
fn a_writer_that_is_stuck_with_a_long_message_does_not_keep_the_log_from_being_freed() {
    let place = Place::new();
    let mut settings = settings(&place, Durability::Logged);
    settings.delivery_log.bytes_max = 4 << 20;
    settings.delivery_log.segment_bytes = 256 << 10;
    let store = open_faulty(&settings);
    assert!(deliver(&store, &content(0), "box").starts_with("250"));
    // Too long for the log: it is written to the mbox at once.
    let mut long = content(1);
    long.resize(4 << 20, b'x');
    store.disk().hold_one("write_all");
    let stuck = submit(&store, &long, vec![target("box")]);
    store.disk().wait_until_reached();
    let mut other = content(2);
    other.resize(64 << 10, b'x');
    for _ in 0..256 {
        wait_for(&store, "others are delivered", |store| {
            deliver(store, &other, "other/").starts_with("250")
        });
    }
    wait_for(&store, "the log is freed", has_capacity);
    store.disk().release();
    assert_eq!(stuck.statuses().len(), 1);
    wait_for(&store, "another message is delivered", |store| {
        deliver(store, &content(3), "box").starts_with("250")
    });
    let numbers = numbers(&place, "box");
    assert!(numbers == [0, 1, 3] || numbers == [0, 3], "{numbers:?}");
}

#[test]
fn a_flush_that_does_not_end_holds_its_mail_and_frees_the_log_for_others() {
    let place = Place::new();
    let mut settings = settings(&place, Durability::Logged);
    settings.delivery_log.bytes_max = 4 << 20;
    settings.delivery_log.segment_bytes = 256 << 10;
    let store = open_faulty(&settings);
    assert!(deliver(&store, &content(0), "one/").starts_with("250"));
    store.disk().hold_one("sync_filesystem");
    store.disk().wait_until_reached();
    assert!(deliver(&store, &content(1), "one/").starts_with("250"));
    wait_for(&store, "it shows", |store| {
        let failures = store.health().file_systems;
        failures.len() == 1 && failures[0].cause.to_string().contains("does not answer")
    });
    store.disk().release();
    wait_for(&store, "it is durable", is_idle);
    assert_eq!(numbers(&place, "one/"), [0, 1]);
}

#[test]
fn a_flush_that_does_not_end_puts_off_mail_once_much_is_held() {
    let place = Place::new();
    let mut settings = settings(&place, Durability::Logged);
    settings.delivery_log.bytes_max = 4 << 20;
    settings.delivery_log.segment_bytes = 256 << 10;
    let store = open_faulty(&settings);
    let mut stored = vec![0];
    assert!(deliver(&store, &content(0), "one/").starts_with("250"));
    store.disk().hold_one("sync_filesystem");
    store.disk().wait_until_reached();
    let mut number = 0;
    wait_for(&store, "mail is put off", |store| {
        number += 1;
        let mut long = content(number);
        long.resize(64 << 10, b'x');
        let status = deliver(store, &long, "one/");
        if status.starts_with("250") {
            stored.push(number);
        }
        status.starts_with("451 4.3.0")
    });
    wait_for(&store, "the log has room for others", has_capacity);
    store.disk().release();
    wait_for(&store, "mail is taken again", |store| {
        number += 1;
        let is_taken = deliver(store, &content(number), "one/").starts_with("250");
        if is_taken {
            stored.push(number);
        }
        is_taken
    });
    wait_for(&store, "it is durable", is_idle);
    assert_eq!(numbers(&place, "one/"), stored);
}

#[test]
fn a_store_that_closes_during_a_flush_leaves_its_mail_in_the_log_where_it_stands() {
    let place = Place::new();
    let mut settings = settings(&place, Durability::Logged);
    settings.delivery_log.checkpoint_interval = Duration::from_secs(3600);
    let store = open_faulty(&settings);
    assert!(deliver(&store, &content(0), "one/").starts_with("250"));
    assert_eq!(copies_in_log(&settings), 1);
    store.disk().hold_one("sync_filesystem");
    drop(store);
    assert_eq!(copies_in_log(&settings), 1, "it is not written again");
    let store = open_faulty(&settings);
    assert_eq!(store.recovered().unwrap().rewritten, 0);
    assert_eq!(numbers(&place, "one/"), [0]);
}

#[test]
fn a_store_is_closed_although_writers_are_stuck() {
    for durability in [Durability::Logged, Durability::Direct] {
        let place = Place::new();
        let mut settings = settings(&place, durability);
        settings.store.mailbox_timeout = Duration::from_secs(3600);
        let store = open_faulty(&settings);
        let stuck = submit_stuck(&store, "create_unnamed", "one/");
        drop(store);
        let statuses = stuck.statuses();
        assert!(statuses[0].starts_with("451 4.3.0"), "{statuses:?}");
    }
}

/// Has the log fail: the segments that it has made ready are gone.
fn fail_log(store: &FaultyStore, settings: &Settings) {
    let directory = settings.state_directory.join("delivery-log");
    let mut long = content(9);
    long.resize(64 << 10, b'x');
    wait_for(store, "the log fails", |store| {
        for name in names(&directory) {
            if name.starts_with("spare-") {
                // The log may have used it just now.
                let _ = std::fs::remove_file(directory.join(name));
            }
        }
        let status = deliver(store, &long, "filler/");
        status.contains("log") && !status.starts_with("250")
    });
}

#[test]
fn a_log_that_fails_is_opened_again_although_a_writer_is_stuck() {
    for (operation, mailbox, is_held) in [
        ("create_unnamed", "one/", false),
        ("name_unnamed", "one/", true),
        ("write_all", "box", true),
    ] {
        let place = Place::new();
        let mut settings = settings(&place, Durability::Logged);
        settings.delivery_log.bytes_max = 4 << 20;
        settings.delivery_log.segment_bytes = 256 << 10;
        let store = open_faulty(&settings);
        let stuck = submit_stuck(&store, operation, mailbox);
        let status = stuck.statuses().remove(0);
        assert_eq!(status.starts_with("250"), is_held, "{operation}: {status}");
        fail_log(&store, &settings);
        wait_for(&store, "others are delivered", |store| {
            deliver(store, &content(2), "other/").starts_with("250")
        });
        assert_eq!(numbers(&place, mailbox), [], "it is stuck still");
        store.disk().release();
        wait_for(&store, "its writer is back", is_idle);
        let expected: &[usize] = if is_held { &[1] } else { &[] };
        assert_eq!(numbers(&place, mailbox), expected, "{operation}");
        // What the writer had of the old log does the new one no harm.
        assert!(deliver(&store, &content(3), "other/").starts_with("250"));
        assert!(store.log_failure().is_none());
        drop(store);
        let store = open_faulty(&settings);
        assert_eq!(store.recovered().unwrap().rewritten, 0);
        assert_eq!(numbers(&place, mailbox), expected, "{operation}");
        assert_eq!(numbers(&place, "other/"), [2, 3]);
    }
}

#[test]
fn an_accepted_delivery_that_fails_after_the_log_was_opened_again_is_made_once() {
    for (operation, mailbox) in [("name_unnamed", "one/"), ("write_all", "box")] {
        let place = Place::new();
        let mut settings = settings(&place, Durability::Logged);
        settings.delivery_log.bytes_max = 4 << 20;
        settings.delivery_log.segment_bytes = 256 << 10;
        let store = open_faulty(&settings);
        let stuck = submit_stuck(&store, operation, mailbox);
        assert!(stuck.statuses()[0].starts_with("250 "));
        fail_log(&store, &settings);
        wait_for(&store, "others are delivered", |store| {
            deliver(store, &content(2), "other/").starts_with("250")
        });
        store.disk().plan(Fault {
            operation,
            after: 0,
            errno: libc::EIO,
            bytes_written: 0,
            persists: false,
        });
        store.disk().release();
        wait_for(&store, "it is made", is_idle);
        assert_eq!(numbers(&place, mailbox), [1], "{operation}");
        drop(store);
        let store = open_faulty(&settings);
        assert_eq!(store.recovered().unwrap().rewritten, 0);
        assert_eq!(numbers(&place, mailbox), [1], "{operation}");
    }
}

#[test]
fn a_store_is_opened_again_although_a_writer_of_the_one_before_is_stuck() {
    let place = Place::new();
    let settings = settings(&place, Durability::Logged);
    let store = open_faulty(&settings);
    let stuck = submit_stuck(&store, "name_unnamed", "one/");
    assert!(stuck.statuses()[0].starts_with("250 "));
    drop(store);
    let store = open_faulty(&settings);
    assert_eq!(numbers(&place, "one/"), [1]);
    assert!(deliver(&store, &content(2), "one/").starts_with("250"));
}
