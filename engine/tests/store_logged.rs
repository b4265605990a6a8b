//! Deliveries through the delivery log on a real file system: what they leave in the mailboxes,
//! and what a log found by the next process brings back.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::*;
use mailstow_engine::config::{Durability, Settings};
use mailstow_engine::sim::Store;
use mailstow_engine::sim::{Blocking, Fault, Faulty};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONTENT: &[u8] = b"Subject: x\n\nbody of the message\n";

fn settings(place: &Place) -> Settings {
    let mut settings = place.settings();
    settings.store.durability = Durability::Logged;
    settings.store.writers = 1;
    settings
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

#[test]
fn the_base_is_found_by_the_server_even_where_owners_may_not_search_the_way_to_it() {
    let place = Place::new();
    let settings = settings(&place);
    fs::set_permissions(place.outside(), PermissionsExt::from_mode(0o700)).unwrap();
    let store = Store::open(&settings).unwrap();
    for path in ["md/", "info"] {
        let status = deliver(&store, CONTENT, path);
        assert!(status.starts_with("250"), "{status}");
    }
}

#[test]
fn recovery_finds_a_base_whose_owners_may_not_search_the_way_to_it() {
    let place = Place::new();
    let settings = settings(&place);
    leave_a_log(&settings, CONTENT, ["md", "info"]);
    fs::set_permissions(place.outside(), PermissionsExt::from_mode(0o700)).unwrap();
    let store = Store::open(&settings).unwrap();
    let report = store.recovered().unwrap();
    assert_eq!(
        report.to_string(),
        "recovered 1 messages, rewrote 2, 0 lost"
    );
    assert_eq!(names(&place.base().join("md/new")).len(), 1);
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    assert_eq!(text.matches("body of the message\n\n").count(), 1);
}

#[test]
fn a_log_recovered_by_hand_is_empty_and_recovering_it_again_does_nothing() {
    let place = Place::new();
    let settings = settings(&place);
    leave_a_log(&settings, CONTENT, ["md", "info"]);
    let directory = settings.state_directory.join("delivery-log");
    for expected in [
        "recovered 1 messages, rewrote 2, 0 lost",
        "recovered 0 messages, rewrote 0, 0 lost",
    ] {
        let report = Store::recover(&settings, &directory).unwrap();
        assert_eq!(report.to_string(), expected);
        assert_eq!(names(&place.base().join("md/new")).len(), 1);
        let text = fs::read_to_string(place.base().join("info")).unwrap();
        assert_eq!(text.matches("body of the message\n\n").count(), 1);
    }
    let _running = Store::open(&settings).unwrap();
    let refused = Store::recover(&settings, &directory)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&std::process::id().to_string()),
        "{refused}"
    );
}

#[test]
fn mail_for_a_mailbox_that_stands_in_the_way_stays_in_the_log_until_it_does_not() {
    let place = Place::new();
    let settings = settings(&place);
    leave_a_log(&settings, CONTENT, ["md", "info"]);
    let directory = settings.state_directory.join("delivery-log");
    let obstacle = place.make_dir("info");
    for _ in 0..2 {
        let report = Store::recover(&settings, &directory).unwrap();
        assert_eq!((report.messages, report.waiting), (1, 1));
        assert!(
            report
                .to_string()
                .ends_with("; 1 copies wait for their mailboxes")
        );
    }
    fs::remove_dir(obstacle).unwrap();
    let report = Store::recover(&settings, &directory).unwrap();
    assert_eq!((report.rewritten, report.waiting), (1, 0));
    assert_eq!(names(&place.base().join("md/new")).len(), 1);
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    assert_eq!(text.matches("body of the message\n\n").count(), 1);
}

/// The log as a process leaves it that is killed now.
fn left_by_a_kill(place: &Place, settings: &Settings) -> PathBuf {
    let (log, left) = (
        settings.state_directory.join("delivery-log"),
        place.outside().join("left"),
    );
    fs::create_dir(&left).unwrap();
    for name in names(&log) {
        // Spares get other names in the background.
        match fs::copy(log.join(&name), left.join(&name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
    left
}

#[test]
fn an_mbox_that_its_owner_made_endless_holds_up_no_recovery() {
    let place = Place::new();
    let settings = settings(&place);
    let store = Store::open(&settings).unwrap();
    for mailbox in ["info", "md/"] {
        assert!(deliver(&store, CONTENT, mailbox).starts_with("250"));
    }
    let left = left_by_a_kill(&place, &settings);
    drop(store);
    let mbox = fs::File::options()
        .write(true)
        .open(place.base().join("info"))
        .unwrap();
    let bytes = mbox.metadata().unwrap().len();
    // To read it would take hours.
    mbox.set_len(8 << 40).unwrap();
    let report = Store::recover(&settings, &left).unwrap();
    assert_eq!((report.messages, report.waiting), (2, 1));
    mbox.set_len(bytes).unwrap();
    let report = Store::recover(&settings, &left).unwrap();
    assert_eq!((report.rewritten, report.waiting), (0, 0));
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    assert_eq!(text.matches("body of the message\n\n").count(), 1);
}

#[test]
fn a_message_that_stands_in_a_locked_mbox_is_not_appended_again_when_the_lock_is_gone() {
    let place = Place::new();
    let settings = settings(&place);
    let store = Store::open(&settings).unwrap();
    assert!(deliver(&store, CONTENT, "info").starts_with("250"));
    let left = left_by_a_kill(&place, &settings);
    drop(store);
    let before = fs::read(place.base().join("info")).unwrap();
    // Another program has the mailbox.
    let lock = place.make_file("info.lock", b"1:elsewhere");
    for _ in 0..2 {
        assert_eq!(Store::recover(&settings, &left).unwrap().waiting, 1);
    }
    fs::remove_file(lock).unwrap();
    let report = Store::recover(&settings, &left).unwrap();
    assert_eq!((report.rewritten, report.waiting), (0, 0));
    assert_eq!(fs::read(place.base().join("info")).unwrap(), before);
}

#[test]
fn a_log_that_names_mailboxes_outside_the_base_puts_nothing_there() {
    let place = Place::new();
    let settings = settings(&place);
    let outside = place.outside().join("outside");
    fs::create_dir(&outside).unwrap();
    place.give(&outside);
    leave_a_log(&settings, CONTENT, ["../outside/md", "../outside/box"]);
    let store = Store::open(&settings).unwrap();
    let report = store.recovered().unwrap();
    assert_eq!(
        (report.messages, report.rewritten, report.waiting),
        (1, 0, 2)
    );
    assert!(names(&outside).is_empty());
    assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
}

#[test]
fn nothing_is_appended_behind_what_could_not_be_cut_off() {
    let place = Place::new();
    let store = Store::open_on(Faulty::new(Blocking::new()), &settings(&place)).unwrap();
    assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    store.disk().hold("write_all");
    let first = submit(&store, CONTENT, vec![target("md/")]);
    store.disk().wait_until_reached();
    let group = submit(&store, CONTENT, vec![target("info"); 3]);
    // The common append fails and cannot be cut off.
    store.disk().plan_all(&[
        fault("write_all", 1, libc::EIO),
        fault("truncate", 0, libc::EIO),
    ]);
    store.disk().release();
    assert!(first.statuses()[0].starts_with("250"));
    let all = group.statuses();
    assert!(all.iter().all(|s| s.starts_with("451 4.3.0")), "{all:?}");
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    assert_eq!(text, "From s@ex.");
    assert!(deliver(&store, CONTENT, "info").starts_with("250"));
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    // The delivery cut it off first.
    assert!(text.starts_with("From s@ex.example "), "{text}");
}

#[test]
fn a_damaged_log_is_recovered_in_part_only_when_its_loss_is_accepted() {
    use std::os::unix::fs::FileExt;
    // Of the header alone nothing is lost; without frames the segment is set aside.
    for (damaged_bytes, messages) in [(64, 1), (1 << 20, 0)] {
        let place = Place::new();
        let settings = settings(&place);
        leave_a_log(&settings, CONTENT, ["md", "info"]);
        let directory = settings.state_directory.join("delivery-log");
        let segment = directory.join("segment-0000000000000001.log");
        let file = fs::File::options().write(true).open(segment).unwrap();
        file.write_all_at(&vec![0; damaged_bytes], 0).unwrap();
        let refused = Store::recover(&settings, &directory).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("recover --accept-damage"), "{refused}");
        let report = Store::recover_in_part(&settings, &directory).unwrap();
        assert_eq!(report.messages, messages);
        let is_set_aside = names(&directory).contains(&"damaged-0000000000000001.log".to_owned());
        assert_eq!(is_set_aside, messages == 0);
        let store = Store::open(&settings).unwrap();
        assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    }
}

/// Gives the records with these bytes a kind that no version of the log has.
fn make_unreadable(log: &Path, content: &[u8]) {
    for name in names(log) {
        if !name.starts_with("segment-") {
            continue;
        }
        let path = log.join(name);
        let mut bytes = fs::read(&path).unwrap();
        // Identity and number of the segment.
        let epoch = bytes[16..32].to_vec();
        let checksum = |frame: &[u8]| crc32fast::hash(&[&epoch, &frame[4..32]].concat());
        for at in (4096..bytes.len() - 32).step_by(8) {
            let frame = &bytes[at..at + 32];
            let payload_bytes = u32::from_le_bytes(*frame[16..].first_chunk().unwrap());
            if frame[..4] != checksum(frame).to_le_bytes() {
                continue;
            }
            let payload = &bytes[at + 32..][..payload_bytes as usize];
            if payload.windows(content.len()).any(|part| part == content) {
                bytes[at + 28] = 99;
                let checksum = checksum(&bytes[at..at + 32]);
                bytes[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
            }
        }
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn mail_beside_a_record_that_cannot_be_read_is_recovered_when_that_is_accepted() {
    let place = Place::new();
    let settings = settings(&place);
    let store = Store::open(&settings).unwrap();
    assert!(deliver(&store, b"Subject: x\n\nthe first\n", "md/").starts_with("250"));
    assert!(deliver(&store, b"Subject: x\n\nthe second\n", "info").starts_with("250"));
    let left = left_by_a_kill(&place, &settings);
    drop(store);
    fs::remove_dir_all(place.base().join("md")).unwrap();
    fs::remove_file(place.base().join("info")).unwrap();
    make_unreadable(&left, b"the first\n");
    let refused = Store::recover(&settings, &left).unwrap_err().to_string();
    assert!(refused.contains("recover --accept-damage"), "{refused}");
    let report = Store::recover_in_part(&settings, &left).unwrap();
    let counts = (report.messages, report.rewritten, report.waiting);
    assert_eq!(counts, (1, 1, 0));
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    assert!(text.contains("the second\n"), "{text}");
    assert!(!place.base().join("md").exists());
    let copies = names(&left).into_iter();
    let copies: Vec<String> = copies.filter(|n| n.starts_with("unreadable-")).collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert!(copies[0].ends_with(".kind-99"), "{copies:?}");
    let copy = fs::read(left.join(&copies[0])).unwrap();
    assert!(copy.ends_with(b"Subject: x\n\nthe first\n"));
    assert_eq!(Store::recover(&settings, &left).unwrap().messages, 0);
}

#[test]
fn a_message_in_doubt_in_one_base_is_stored_in_another_and_not_again_in_the_first() {
    let place = Place::new();
    let mut settings = settings(&place);
    let (one, two) = (place.base(), place.outside().join("two"));
    fs::create_dir(&two).unwrap();
    place.give(&two);
    let store = Store::open(&settings).unwrap();
    let pending = submit(&store, CONTENT, vec![target("md/")]);
    let tickets = pending.tickets.clone();
    assert_eq!(pending.statuses(), ["250 2.0.0 delivered to maildir"]);
    store.doubt(&tickets);
    drop(store);
    for (base, expected) in [
        (&two, "250 2.0.0 delivered to maildir"),
        (&one, "250 2.0.0 delivered before"),
    ] {
        settings.routing.virtual_mailbox_base = base.clone();
        let store = Store::open(&settings).unwrap();
        assert_eq!(deliver(&store, CONTENT, "md/"), expected);
        drop(store);
        assert_eq!(names(&base.join("md/new")).len(), 1);
    }
}

#[test]
fn a_message_that_comes_again_while_its_delivery_is_under_way_is_not_stored_twice() {
    for content in [CONTENT.to_vec(), [CONTENT, &vec![b'x'; 3_000_000]].concat()] {
        let place = Place::new();
        let mut settings = settings(&place);
        settings.routing.deliver_lock_delay = Duration::from_secs(10);
        let store = Store::open(&settings).unwrap();
        // Another program has the mbox.
        let lock = place.make_file("info.lock", b"");
        let named = |id: &str| {
            let mut mail = mail(&store, &content);
            Arc::make_mut(&mut mail).queue_id = Some(id.to_owned());
            mail
        };
        let to = || vec![target("info"), target("md/")];
        let first = submit_mail(&store, named("1"), to());
        let tickets = first.tickets.clone();
        let again = submit_mail(&store, named("1"), to()).outcomes();
        assert_eq!(again[0].status.code, 451);
        assert_eq!(again[0].status.enhanced.to_string(), "4.4.2");
        assert!(
            again
                .iter()
                .all(|outcome| outcome.may_appear || outcome.status.is_success())
        );
        // Another message, and one without a name, are not held up.
        let others = [
            submit_mail(&store, named("2"), to()),
            submit(&store, &content, to()),
        ];
        fs::remove_file(&lock).unwrap();
        let stored = [
            "250 2.0.0 delivered to mailbox",
            "250 2.0.0 delivered to maildir",
        ];
        assert_eq!(first.statuses(), stored);
        // Its client may have read the replies, or not.
        let again = submit_mail(&store, named("1"), to()).outcomes();
        assert!(again.iter().all(|outcome| outcome.may_appear));
        store.doubt(&tickets);
        for other in others {
            assert_eq!(other.statuses(), stored);
        }
        let again = submit_mail(&store, named("1"), to()).statuses();
        assert_eq!(again, ["250 2.0.0 delivered before"; 2]);
        let text = fs::read_to_string(place.base().join("info")).unwrap();
        assert_eq!(text.matches("body of the message\n").count(), 3);
        assert_eq!(names(&place.base().join("md/new")).len(), 3);
    }
}

#[test]
fn that_a_reply_was_read_is_known_after_a_kill_in_a_quiet_time() {
    let place = Place::new();
    let mut settings = settings(&place);
    settings.delivery_log.checkpoint_interval = Duration::from_secs(3600);
    let store = Store::open(&settings).unwrap();
    let pending = submit(&store, CONTENT, vec![target("md/")]);
    let tickets = pending.tickets.clone();
    assert_eq!(pending.statuses(), ["250 2.0.0 delivered to maildir"]);
    store.confirm(&tickets);
    // The log as a process leaves it that is killed now, until it says so.
    let log = settings.state_directory.join("delivery-log");
    let begun = Instant::now();
    for number in 0.. {
        assert!(begun.elapsed() < DEADLINE, "the log is told");
        let mut copied = settings.clone();
        copied.state_directory = place.outside().join(format!("state{number}"));
        let copy = copied.state_directory.join("delivery-log");
        fs::create_dir_all(&copy).unwrap();
        for name in names(&log) {
            // Spares get other names in the background.
            match fs::copy(log.join(&name), copy.join(&name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => drop(result.unwrap()),
            }
        }
        let killed = Store::open(&copied).unwrap();
        let status = deliver(&killed, CONTENT, "md/");
        drop(killed);
        fs::remove_dir_all(&copied.state_directory).unwrap();
        if status == "250 2.0.0 delivered to maildir" {
            break;
        }
        assert_eq!(status, "250 2.0.0 delivered before");
        std::thread::sleep(Duration::from_millis(100));
    }
}
