//! Mboxes whose locks other programs hold: deliveries to them wait, and delay no others.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::*;
use mailstow_engine::config::{Durability, MboxLock, Settings};
use mailstow_engine::sim::{Blocking, Disk, LockKind};
use std::fs;
use std::time::Duration;

const CONTENT: &[u8] = b"Subject: hello\n\nhello\n";

fn settings(place: &Place, durability: Durability) -> Settings {
    let mut settings = place.settings();
    settings.store.durability = durability;
    settings.store.writers = 2;
    // Longer than any test waits.
    settings.routing.deliver_lock_delay = Duration::from_secs(6);
    settings
}

fn is_busy(status: &str) -> bool {
    status.starts_with("451 4.2.0") && status.contains("is held by another program")
}

/// Delivers to Maildirs and an mbox as sessions do, which wait for room before each message.
fn others_are_delivered(store: &FaultyStore) {
    for number in 0..30 {
        wait_for(store, "there is room", FaultyStore::has_capacity);
        let to = ["free1/", "free2/", "free"].map(target);
        for status in submit(store, CONTENT, to.into()).statuses() {
            assert!(status.starts_with("250"), "{number}: {status}");
        }
    }
}

/// How many of these deliveries were made; the others found the lock held.
fn made(pending: Vec<Pending>) -> usize {
    let statuses: Vec<String> = pending.into_iter().flat_map(Pending::statuses).collect();
    for status in &statuses {
        assert!(status.starts_with("250") || is_busy(status), "{status}");
    }
    let made = statuses.iter().filter(|status| status.starts_with("250"));
    made.count()
}

fn messages(place: &Place, mbox: &str) -> usize {
    let text = fs::read_to_string(place.base().join(mbox)).unwrap_or_default();
    text.matches("Subject: hello\n").count()
}

#[test]
fn thousands_that_wait_for_one_locked_mbox_delay_nobody_else() {
    for durability in [Durability::Direct, Durability::Logged] {
        let place = Place::new();
        let mut settings = settings(&place, durability);
        settings.routing.virtual_mailbox_lock = vec![MboxLock::Fcntl];
        settings.limits.queued_deliveries = 2048;
        place.make_file("locked", b"");
        let disk = Blocking::new();
        let base = disk.open_root(&place.base()).unwrap();
        let held = disk.open_append(&base, "locked").unwrap();
        assert!(disk.try_lock(&held, LockKind::Fcntl).unwrap());
        let store = open_faulty(&settings);
        let many = || submit(&store, CONTENT, vec![target("locked"); 1000]);
        let waiting = vec![many(), many(), many()];
        others_are_delivered(&store);
        assert_eq!(messages(&place, "locked"), 0, "it is locked still");
        drop(held);
        let made = made(waiting);
        assert!((1..3000).contains(&made), "{made}");
        assert_eq!(messages(&place, "locked"), made);
    }
}

#[test]
fn messages_for_a_thousand_locked_mboxes_each_delay_nobody_else() {
    for durability in [Durability::Direct, Durability::Logged] {
        let place = Place::new();
        let settings = settings(&place, durability);
        let mboxes: Vec<String> = (0..1000).map(|number| format!("box{number}")).collect();
        let lock = |mbox: &String| place.make_file(&format!("{mbox}.lock"), b"");
        let locks: Vec<_> = mboxes.iter().map(lock).collect();
        let store = open_faulty(&settings);
        let to = |mbox: &String| target(mbox);
        let to_all = || submit(&store, CONTENT, mboxes.iter().map(to).collect());
        let waiting: Vec<Pending> = (0..5).map(|_| to_all()).collect();
        others_are_delivered(&store);
        let is_empty = |mbox: &String| messages(&place, mbox) == 0;
        assert!(mboxes.iter().all(is_empty), "they are locked still");
        for lock in locks {
            fs::remove_file(lock).unwrap();
        }
        let made = made(waiting);
        assert!((1..5000).contains(&made), "{made}");
        let stored: usize = mboxes.iter().map(|mbox| messages(&place, mbox)).sum();
        assert_eq!(stored, made);
    }
}

#[test]
fn a_message_for_a_locked_mbox_that_no_more_may_wait_for_is_refused_at_once() {
    let place = Place::new();
    let mut settings = settings(&place, Durability::Logged);
    // One delivery may wait for a lock.
    settings.limits.queued_deliveries = 4;
    let lock = place.make_file("locked.lock", b"");
    let store = open_faulty(&settings);
    let waiting = submit(&store, CONTENT, vec![target("locked")]);
    wait_for(&store, "the other is refused", |store| {
        let both = vec![target("locked"), target("free")];
        let late = submit(store, CONTENT, both);
        assert!(store.has_capacity());
        let [locked, free] = &late.statuses()[..] else {
            return false;
        };
        assert!(free.starts_with("250"), "{free}");
        assert!(is_busy(locked), "{locked}");
        true
    });
    fs::remove_file(lock).unwrap();
    assert_eq!(made(vec![waiting]), 1);
    drop(store);
    // No client read that the other one is stored.
    let store = open_faulty(&settings);
    assert_eq!(store.recovered().unwrap().rewritten, 0);
    assert_eq!(messages(&place, "locked"), 1);
}
