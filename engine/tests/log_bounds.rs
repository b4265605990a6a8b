//! Delivery logs at their bounds on a real file system: small ones, and more of everything than one
//! record holds. Mail goes on; nothing takes the log out of service permanently.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use mailstow_engine::config::{Durability, Settings};
use mailstow_engine::sim::Store;
use mailstow_engine::sim::{
    Accepted, AcceptedRecipient, CopyLocation, DeliveryId, LogWriter, LogWriterSettings, Record,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The smallest log that can be configured.
fn smallest(place: &Place) -> Settings {
    let mut settings = place.settings();
    settings.store.durability = Durability::Logged;
    settings.delivery_log.bytes_max = 1 << 20;
    settings.delivery_log.segment_bytes = 16 << 10;
    settings.delivery_log.full_wait = Duration::from_secs(30);
    settings
}

fn directory(settings: &Settings) -> PathBuf {
    settings.state_directory.join("delivery-log")
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|e| e.unwrap().metadata().unwrap().len()).sum()
}

fn content(number: usize, bytes: usize) -> Vec<u8> {
    let mut content = format!("Subject: {number}\n\n").into_bytes();
    content.resize(bytes.max(content.len()), b'x');
    content.push(b'\n');
    content
}

/// Messages `from..to` in a log, as a process leaves it that was killed before it wrote any of
/// them; one recipient each.
fn leave_a_log(directory: &Path, log: &LogWriterSettings, mails: &[(String, Vec<u8>)]) {
    fs::create_dir_all(directory).unwrap();
    let (log, _) = LogWriter::open(directory, log.clone()).unwrap();
    let (uid, gid) = owner();
    let mut last = None;
    for (number, (mailbox, content)) in mails.iter().enumerate() {
        let envelope = Accepted {
            id: DeliveryId(number as u128 + 1),
            accepted_at: SystemTime::UNIX_EPOCH.elapsed().unwrap(),
            reverse_path: "s@ex.example".into(),
            queue_id: String::new(),
            recipients: vec![AcceptedRecipient {
                address: "info@vm.example".into(),
                original: "orig@ex.example".into(),
                mailbox: mailbox.trim_end_matches('/').into(),
                uid,
                gid,
                location: match mailbox.ends_with('/') {
                    true => CopyLocation::Maildir {
                        file_name: format!("1000.M{number}P1.host.example,S=9"),
                    },
                    false => CopyLocation::Mbox {
                        size_before: 0,
                        without_status: false,
                    },
                },
            }],
        };
        let content = content.as_slice().into();
        last = Some(
            log.append(Record::Accepted { envelope, content }.encode(), None)
                .unwrap(),
        );
    }
    log.wait(last.unwrap()).unwrap();
    log.close().unwrap();
}

fn log_settings(settings: &Settings) -> LogWriterSettings {
    LogWriterSettings {
        segment_bytes: settings.delivery_log.segment_bytes,
        log_bytes_max: settings.delivery_log.bytes_max,
        record_bytes_max: 100 << 10,
        ..LogWriterSettings::default()
    }
}

/// How many blocks the same messages take depends on how many share a flush: up to one each.
fn with_room(settings: &Settings) -> LogWriterSettings {
    LogWriterSettings {
        log_bytes_max: 64 << 20,
        ..log_settings(settings)
    }
}

/// The log stays in service; the next process remembers what it can, and serves.
fn checkpoint_and_serve_again(store: Store, settings: &Settings) {
    store.checkpoint().unwrap();
    assert!(store.log_failure().is_none(), "{:?}", store.log_failure());
    drop(store);
    let store = Store::open(settings).unwrap();
    let status = deliver(&store, CONTENT, "md/");
    assert!(status.starts_with("250"), "{status}");
}

#[test]
fn more_deliveries_in_doubt_than_a_checkpoint_of_a_small_log_holds_do_not_stop_it() {
    let place = Place::new();
    let settings = smallest(&place);
    let store = Store::open(&settings).unwrap();
    for number in 0..600 {
        let pending = submit(&store, &content(number, 20), vec![target("md/")]);
        let tickets = pending.tickets.clone();
        assert!(pending.statuses()[0].starts_with("250"));
        store.doubt(&tickets);
    }
    checkpoint_and_serve_again(store, &settings);
}

const CONTENT: &[u8] = b"Subject: x\n\nbody of the message\n";

#[test]
fn a_hundred_thousand_deliveries_in_doubt_do_not_stop_a_log_of_the_usual_size() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.store.durability = Durability::Logged;
    settings.delivery_log.checkpoint_interval = Duration::from_secs(3600);
    let store = Store::open(&settings).unwrap();
    // One message for a few mailboxes again and again: each delivery in doubt counts.
    for round in 0..56 {
        let pending = submit(&store, &content(round, 20), vec![target("info"); 1800]);
        let tickets = pending.tickets.clone();
        assert!(pending.statuses().iter().all(|s| s.starts_with("250")));
        store.doubt(&tickets);
    }
    checkpoint_and_serve_again(store, &settings);
}

#[test]
fn many_confirmations_at_once_do_not_stop_a_small_log() {
    let place = Place::new();
    let settings = smallest(&place);
    let store = Store::open(&settings).unwrap();
    let mut unread = Vec::new();
    for number in 0..1000 {
        let pending = submit(&store, &content(number, 20), vec![target("md/")]);
        unread.push(pending.tickets.clone());
        assert!(pending.statuses()[0].starts_with("250"));
    }
    // All clients say QUIT at the same time.
    for tickets in &unread {
        store.confirm(tickets);
    }
    store.checkpoint().unwrap();
    assert!(store.log_failure().is_none(), "{:?}", store.log_failure());
}

#[test]
fn messages_that_a_small_log_cannot_take_are_flushed_in_their_mailboxes() {
    let place = Place::new();
    let store = Store::open(&smallest(&place)).unwrap();
    for bytes in [1000, 100_000, 370_000, 380_000, 382_000, 500_000, 900_000] {
        for path in ["md/", "info"] {
            let status = deliver(&store, &content(bytes, bytes), path);
            assert!(status.starts_with("250"), "{bytes} bytes: {status}");
        }
    }
    assert_eq!(names(&place.base().join("md/new")).len(), 7);
    let many: Vec<_> = (0..1900)
        .map(|n| target(&format!("a-rather-long-name-of-a-directory-{}-md/", n % 40)))
        .collect();
    let all = submit(&store, CONTENT, many).statuses();
    assert!(all.iter().all(|s| s.starts_with("250")), "{all:?}");
}

#[test]
fn a_message_for_an_mbox_may_be_longer_than_the_sums_of_it_that_a_small_log_takes() {
    let place = Place::new();
    let store = Store::open(&smallest(&place)).unwrap();
    let status = deliver(&store, &content(1, 45 << 20), "info");
    assert!(status.starts_with("250"), "{status}");
    assert!(store.log_failure().is_none());
}

#[test]
fn the_bound_of_the_log_counts_even_when_its_segments_would_not_fit() {
    let place = Place::new();
    let mut settings = smallest(&place);
    settings.delivery_log.segment_bytes = 16 << 20;
    let store = Store::open(&settings).unwrap();
    for number in 0..100 {
        assert!(deliver(&store, &content(number, 3000), "md/").starts_with("250"));
    }
    let bytes = bytes_in(&directory(&settings));
    assert!(bytes <= (1 << 20) + 4096, "{bytes} bytes");
}

#[test]
fn a_small_log_full_of_mail_for_many_mboxes_is_recovered_at_once() {
    let place = Place::new();
    let settings = smallest(&place);
    let mails: Vec<_> = (0..1000)
        .map(|n| (format!("box{}", n % 250), content(n, 400)))
        .collect();
    leave_a_log(&directory(&settings), &with_room(&settings), &mails);
    let store = Store::open(&settings).unwrap();
    let report = store.recovered().unwrap();
    assert_eq!((report.rewritten, report.waiting), (1000, 0), "{report}");
    let status = deliver(&store, CONTENT, "md/");
    assert!(status.starts_with("250"), "{status}");
}

#[test]
fn a_log_full_of_mail_whose_mailboxes_are_away_serves_the_others_and_keeps_its_size() {
    let place = Place::new();
    let mut settings = smallest(&place);
    settings.delivery_log.segment_bytes = 64 << 10;
    let mails: Vec<_> = (0..75)
        .map(|n| ("away/md/".to_owned(), content(n, 10_000)))
        .collect();
    leave_a_log(&directory(&settings), &log_settings(&settings), &mails);
    // No user can make the mailboxes now.
    let obstacle = place.make_file("away", b"");
    for _ in 0..4 {
        let store = Store::open(&settings).unwrap();
        assert_eq!(store.recovered().unwrap().waiting, 75);
        for round in 0..3 {
            let status = deliver(&store, &content(round, 500), "md/");
            assert!(status.starts_with("250"), "{status}");
            store.checkpoint().unwrap();
        }
        drop(store);
        let bytes = bytes_in(&directory(&settings));
        assert!(bytes < 3 << 20, "{bytes} bytes");
    }
    fs::remove_file(obstacle).unwrap();
    let store = Store::open(&settings).unwrap();
    assert_eq!(store.recovered().unwrap().rewritten, 75);
    drop(store);
    assert_eq!(names(&place.base().join("away/md/new")).len(), 75);
    drop(Store::open(&settings).unwrap());
    let bytes = bytes_in(&directory(&settings));
    assert!(bytes <= (1 << 20) + (128 << 10), "{bytes} bytes");
}

#[test]
fn recovery_appends_more_messages_to_one_mbox_than_one_record_names() {
    let place = Place::new();
    let mut settings = smallest(&place);
    settings.delivery_log.bytes_max = 4 << 20;
    let mails: Vec<_> = (0..12_000)
        .map(|n| ("info".to_owned(), content(n, 30)))
        .collect();
    leave_a_log(&directory(&settings), &with_room(&settings), &mails);
    let store = Store::open(&settings).unwrap();
    assert_eq!(store.recovered().unwrap().rewritten, 12_000);
    let text = fs::read_to_string(place.base().join("info")).unwrap();
    assert_eq!(text.matches("\nSubject: ").count(), 12_000);
}

#[test]
fn mboxes_that_stay_locked_keep_no_checkpoint_from_being_made() {
    let place = Place::new();
    let mut settings = smallest(&place);
    settings.delivery_log.checkpoint_interval = Duration::from_millis(50);
    // Long enough to show if each of them were waited for.
    settings.routing.deliver_lock_attempts = 1;
    settings.routing.deliver_lock_delay = Duration::from_secs(3);
    let mails: Vec<_> = (0..40)
        .map(|n| (format!("box{n}"), content(n, 100)))
        .collect();
    leave_a_log(&directory(&settings), &log_settings(&settings), &mails);
    for number in 0..40 {
        place.make_file(&format!("box{number}.lock"), b"1:elsewhere");
    }
    let begun = std::time::Instant::now();
    let store = Store::open(&settings).unwrap();
    assert_eq!(store.recovered().unwrap().waiting, 40);
    // Several times as much as the log holds.
    for number in 0..1500 {
        let status = deliver(&store, &content(number, 3000), "md/");
        assert!(status.starts_with("250"), "{status}");
    }
    for number in 0..40 {
        fs::remove_file(place.base().join(format!("box{number}.lock"))).unwrap();
    }
    let is_there = |number: usize| place.base().join(format!("box{number}")).exists();
    while !(0..40).all(is_there) {
        assert!(begun.elapsed() < DEADLINE, "they are delivered in the end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_message_that_waits_for_its_mailbox_does_not_answer_for_one_sent_on_purpose() {
    let place = Place::new();
    let settings = smallest(&place);
    let store = Store::open(&settings).unwrap();
    // Its client has read the reply: it is not in doubt.
    let pending = submit(&store, CONTENT, vec![target("away/md/")]);
    let tickets = pending.tickets.clone();
    assert!(pending.statuses()[0].starts_with("250"));
    store.confirm(&tickets);
    // The first one appends that behind its own record and does not wait for it; the record of the
    // second one is behind both.
    for number in 0..2 {
        assert!(deliver(&store, &content(number, 100), "other/").starts_with("250"));
    }
    // The log as a process leaves it that is killed now, and its mail is lost with a volume.
    let left = place.outside().join("left");
    fs::create_dir(&left).unwrap();
    for name in names(&directory(&settings)) {
        // Spares get other names in the background.
        match fs::copy(directory(&settings).join(&name), left.join(&name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
    drop(store);
    fs::remove_dir_all(directory(&settings)).unwrap();
    fs::rename(left, directory(&settings)).unwrap();
    fs::remove_dir_all(place.base().join("away")).unwrap();
    let obstacle = place.make_file("away", b"");
    for _ in 0..3 {
        let store = Store::open(&settings).unwrap();
        assert_eq!(store.recovered().unwrap().waiting, 1);
    }
    fs::remove_file(obstacle).unwrap();
    let store = Store::open(&settings).unwrap();
    assert_eq!(store.recovered().unwrap().rewritten, 1);
    let status = deliver(&store, CONTENT, "away/md/");
    assert_eq!(status, "250 2.0.0 delivered to maildir");
    assert_eq!(names(&place.base().join("away/md/new")).len(), 2);
}
