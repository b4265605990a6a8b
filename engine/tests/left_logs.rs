//! Goal: what an earlier version of mailstow acknowledged is delivered by this one. Method: the log
//! that a killed server of format 2 left stands in `fixtures/log-format-2`, with every kind of
//! record; it is recovered into an empty base, by itself and with a segment of this version behind
//! it.
//!
//! One message was in doubt when that server was started. Then came messages for Maildirs
//! (`files`), for an mbox (`mbox`) and for both (`doubt`, in doubt), some of them for two
//! recipients that share a mailbox, and one that was too long for the log (`long`, in doubt).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::*;
use mailstow_engine::config::{Durability, Settings};
use mailstow_engine::sim::{
    Accepted, AcceptedRecipient, CopyLocation, DeliveryId, DirectoryMedium, LogWriter,
    LogWriterSettings, Record, Store, scan,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The owner of the mailboxes in the log.
const OWNER: (u32, u32) = (5000, 5001);

fn settings(place: &Place) -> Settings {
    let mut settings = place.settings();
    settings.store.durability = Durability::Logged;
    settings
}

/// A copy of the log, which recovery changes.
fn left(place: &Place) -> PathBuf {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/log-format-2");
    let left = place.outside().join("left");
    fs::create_dir(&left).unwrap();
    for name in names(Path::new(fixture)) {
        fs::copy(Path::new(fixture).join(&name), left.join(&name)).unwrap();
    }
    left
}

fn kinds(log: &Path) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    let medium = DirectoryMedium::open_read_only(log).unwrap();
    let report = scan(&medium, &mut |entry| {
        kinds.insert(entry.record().unwrap().kind().to_string());
    });
    assert_eq!(report.unwrap().damage, []);
    kinds
}

fn format_versions(log: &Path) -> BTreeSet<u8> {
    let segments = names(log).into_iter().filter(|n| n.starts_with("segment-"));
    let version = |name: String| fs::read(log.join(name)).unwrap()[8];
    segments.map(version).collect()
}

fn messages(base: &Path, maildir: &str) -> Vec<String> {
    let new = base.join(maildir).join("new");
    let files = names(&new).into_iter();
    let mut texts: Vec<String> = files
        .map(|name| fs::read_to_string(new.join(name)).unwrap())
        .collect();
    texts.sort_by_key(|text| text.contains("Subject: files"));
    texts
}

/// The mail that the fixture holds.
fn assert_delivered(base: &Path) {
    let ann = messages(base, "ann");
    assert_eq!(ann.len(), 1);
    for line in [
        "Return-Path: <s@ex.example>\n",
        "Delivered-To: ann@vm.example\n",
        "Delivered-To: anna@vm.example\n",
    ] {
        assert!(ann[0].contains(line), "{}", ann[0]);
    }
    assert!(
        ann[0].ends_with("Subject: files\n\nbody of files\n"),
        "{}",
        ann[0]
    );
    let bob = messages(base, "bob");
    assert_eq!(bob.len(), 2);
    assert!(
        bob[0].ends_with("Subject: doubt\n\nbody of doubt\n"),
        "{}",
        bob[0]
    );
    assert!(
        bob[1].ends_with("Subject: files\n\nbody of files\n"),
        "{}",
        bob[1]
    );
    let text = fs::read_to_string(base.join("box")).unwrap();
    let in_order: Vec<&str> = text.lines().filter(|l| l.starts_with("body of")).collect();
    assert_eq!(in_order, ["body of mbox", "body of doubt"]);
    assert_eq!(text.matches("From s@ex.example ").count(), 2);
    assert!(text.contains("Delivered-To: boxer@vm.example\n"), "{text}");
}

#[test]
fn a_log_of_format_2_is_recovered_with_all_the_mail_that_it_holds() {
    // Mail is written as the user that the log names.
    if !is_root() {
        return;
    }
    assert_eq!(owner(), OWNER);
    let place = Place::new();
    let log = left(&place);
    let every = [
        "accepted",
        "checkpoint",
        "confirmed",
        "done",
        "extent",
        "in_doubt",
    ];
    assert_eq!(kinds(&log), every.map(str::to_owned).into());
    assert_eq!(format_versions(&log), [2].into());
    for (messages, rewritten) in [(3, 5), (0, 0)] {
        let report = Store::recover(&settings(&place), &log).unwrap();
        let counts = (report.messages, report.rewritten, report.waiting);
        assert_eq!(counts, (messages, rewritten, 0));
        assert_delivered(&place.base());
    }
}

#[test]
fn a_log_with_segments_of_an_old_and_the_new_format_is_recovered_as_a_whole() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let directory = left(&place);
    let log_settings = LogWriterSettings {
        segment_bytes: 16 << 10,
        log_bytes_max: 1 << 20,
        record_bytes_max: 100 << 10,
        ..LogWriterSettings::default()
    };
    let (log, _) = LogWriter::open(&directory, log_settings).unwrap();
    let envelope = Accepted {
        id: DeliveryId(1),
        accepted_at: Duration::from_secs(1_800_000_000),
        reverse_path: "s@ex.example".into(),
        queue_id: String::new(),
        recipients: vec![AcceptedRecipient {
            address: "eve@vm.example".into(),
            original: String::new(),
            mailbox: "eve".into(),
            uid: OWNER.0,
            gid: OWNER.1,
            location: CopyLocation::Maildir {
                file_name: "1800000000.M1P1.host.example,S=9".into(),
            },
        }],
    };
    let content = b"Subject: new\n\nbody of new\n".into();
    let record = Record::Accepted { envelope, content };
    log.append_and_wait(record.encode()).unwrap();
    log.close().unwrap();
    assert_eq!(format_versions(&directory), [2, 3].into());
    let report = Store::recover(&settings(&place), &directory).unwrap();
    let counts = (report.messages, report.rewritten, report.waiting);
    assert_eq!(counts, (4, 6, 0));
    assert_delivered(&place.base());
    let eve = messages(&place.base(), "eve");
    assert!(eve[0].ends_with("Subject: new\n\nbody of new\n"), "{eve:?}");
}
