//! Deliveries through the delivery log on a real file system: what they leave in the mailboxes,
//! and what a log found by the next process brings back.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use mailstow_engine::config::{Durability, Settings};
use mailstow_engine::delivery::Store;
use mailstow_engine::log::{
    Accepted, AcceptedRecipient, DeliveryId, LogSettings, LogWriter, Plan, Record,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

const CONTENT: &[u8] = b"Subject: x\n\nbody of the message\n";

fn settings(place: &Place) -> Settings {
    let mut settings = place.settings();
    settings.store.durability = Durability::Logged;
    settings.store.writers = 1;
    settings
}

/// A log with one acknowledged message for a Maildir and an mbox, as a killed process leaves it.
fn leave_a_log(settings: &Settings) {
    let directory = settings.state_directory.join("delivery-log");
    fs::create_dir_all(&directory).unwrap();
    let (log, _) = LogWriter::open(&directory, LogSettings::default()).unwrap();
    let (uid, gid) = owner();
    let to = |mailbox: &str, plan| AcceptedRecipient {
        address: "info@vm.example".into(),
        original: "orig@ex.example".into(),
        mailbox: mailbox.into(),
        uid,
        gid,
        plan,
    };
    let file_name = "1000.M1P1.host.example,S=9".to_owned();
    let envelope = Accepted {
        id: DeliveryId(7),
        accepted_at: SystemTime::UNIX_EPOCH.elapsed().unwrap(),
        reverse_path: "s@ex.example".into(),
        queue_id: String::new(),
        content_digest: [0; 32],
        recipients: vec![
            to("md", Plan::Maildir { file_name }),
            to("info", Plan::Mbox { size_before: 0 }),
        ],
    };
    let content = CONTENT.into();
    let record = Record::Accepted { envelope, content };
    log.append_and_wait(record.encode()).unwrap();
    log.close().unwrap();
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
    leave_a_log(&settings);
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
