//! Threads of the store that panic: their work goes on, the failure shows, and nothing that was
//! acknowledged is lost.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::*;
use mailstow_engine::LogState;
use mailstow_engine::config::{Durability, Settings};
use mailstow_engine::sim::{Blocking, Faulty, Store};
use std::time::Duration;

const CONTENT: &[u8] = b"Subject: x\n\nbody of the message\n";

fn settings(place: &Place, durability: Durability) -> Settings {
    let mut settings = place.settings();
    settings.store.durability = durability;
    settings.store.writers = 1;
    settings.delivery_log.checkpoint_interval = Duration::from_millis(50);
    settings
}

fn is_in_service(store: &FaultyStore) -> bool {
    matches!(store.health().log, LogState::InService { .. })
}

#[test]
fn a_flush_that_panics_counts_as_failed_and_is_made_again() {
    let place = Place::new();
    let store = open_faulty(&settings(&place, Durability::Logged));
    store.disk().panic_at("sync_filesystem");
    assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    // The message is written again before it is flushed again.
    for operation in ["sync_filesystem", "write_at", "sync_filesystem"] {
        wait_for(&store, operation, |store| {
            store.disk().take_trace_up_to(operation)
        });
    }
    wait_for(&store, "it is durable", |store| {
        store.health().file_systems.is_empty() && store.health().waiting == 0
    });
    assert!(is_in_service(&store));
    assert!(deliver(&store, b"Subject: y\n\nbody\n", "md/").starts_with("250"));
    assert_eq!(names(&place.base().join("md/new")).len(), 2);
}

#[test]
fn a_writer_that_panics_costs_its_own_delivery_only() {
    for durability in [Durability::Logged, Durability::Direct] {
        let place = Place::new();
        let store = open_faulty(&settings(&place, durability));
        store.disk().panic_at("create_unnamed");
        let status = deliver(&store, CONTENT, "md/");
        assert!(status.starts_with("451 4.3.0"), "{status}");
        assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    }
}

#[test]
fn a_recovery_that_panics_is_an_error_and_loses_nothing() {
    let place = Place::new();
    let settings = settings(&place, Durability::Logged);
    leave_a_log(&settings, CONTENT, ["md", "info"]);
    let disk = Faulty::new(Blocking::new());
    disk.panic_at("create_unnamed");
    let error = Store::open_on(disk, &settings).unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
    let store = open_faulty(&settings);
    let report = store.recovered().unwrap().to_string();
    assert_eq!(report, "recovered 1 messages, rewrote 2, 0 lost");
}

#[test]
fn mail_whose_second_attempt_panics_still_waits_and_is_delivered_later() {
    let place = Place::new();
    let settings = settings(&place, Durability::Logged);
    leave_a_log(&settings, CONTENT, ["md", "later/info"]);
    let store = open_faulty(&settings);
    assert_eq!(store.health().waiting, 1);
    store.disk().panic_at("create_new");
    place.make_dir("later");
    wait_for(&store, "the waiting mail is delivered", |store| {
        store.health().waiting == 0
    });
    let text = std::fs::read_to_string(place.base().join("later/info")).unwrap();
    assert_eq!(text.matches("body of the message\n\n").count(), 1);
}
