//! The delivery log of accounts: mail that it accepted gets into their mailboxes, whatever the
//! settings are by then and wherever the log is.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use mailstow_engine::Engine;
use mailstow_engine::config::{Durability, Settings};
use std::fs;
use std::path::{Path, PathBuf};

const CONTENT: &[u8] = b"Subject: x\n\nbody of the message\n";

/// With a delivery log and local delivery.
fn settings(place: &Place) -> Settings {
    let mut settings = place.settings();
    settings.store.durability = Durability::Logged;
    settings.transport.enabled = true;
    settings.routing.local_transport = "local:host.example".into();
    settings
}

/// Leaves mail for accounts in their log, as a killed process does. Their mailboxes are in `homes`,
/// outside of the base.
fn leave_mail(place: &Place, settings: &Settings) -> PathBuf {
    let homes = place.outside().join("homes");
    fs::create_dir(&homes).unwrap();
    place.give(&homes);
    let accounts = Settings {
        state_directory: settings.state_directory.join("accounts"),
        ..settings.clone()
    };
    let at = |name: &str| {
        let path = homes.join(name).display().to_string();
        path.trim_start_matches('/').to_owned()
    };
    leave_a_log(&accounts, CONTENT, [&at("md"), &at("info")]);
    accounts.state_directory.join("delivery-log")
}

fn assert_delivered(place: &Place) {
    let homes = place.outside().join("homes");
    assert_eq!(names(&homes.join("md/new")).len(), 1);
    let text = fs::read_to_string(homes.join("info")).unwrap();
    assert_eq!(text.matches("body of the message\n\n").count(), 1);
    assert_eq!(names(&place.base()), [""; 0]);
}

#[test]
fn mail_in_it_is_delivered_when_the_log_or_local_delivery_is_in_use_no_more() {
    let changes: [fn(&mut Settings); 4] = [
        |_| {},
        |settings| settings.store.durability = Durability::Direct,
        |settings| settings.transport.enabled = false,
        |settings| {
            settings.store.durability = Durability::Direct;
            settings.transport.enabled = false;
        },
    ];
    for change in changes {
        let place = Place::new();
        let mut settings = settings(&place);
        leave_mail(&place, &settings);
        change(&mut settings);
        Engine::open(&settings).unwrap().close();
        assert_delivered(&place);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn it_is_known_wherever_it_is_and_no_other_log_is_taken_for_it() {
    const MARK: &str = "of-accounts";
    let other = Place::new();
    let marked = settings(&other);
    Engine::open(&marked).unwrap().close();
    let marked = marked.state_directory.join("accounts/delivery-log");
    let place = Place::new();
    let settings = settings(&place);
    let log = leave_mail(&place, &settings);
    fs::copy(marked.join(MARK), log.join(MARK)).unwrap();
    let moved = place.outside().join("saved/log");
    copy(&log, &moved);
    fs::remove_dir_all(log).unwrap();
    Engine::recover(&settings, &moved).unwrap();
    assert_delivered(&place);

    let place = Place::new();
    let settings = self::settings(&place);
    leave_a_log(&settings, CONTENT, ["md", "info"]);
    let misleading = place.outside().join("accounts/delivery-log");
    copy(&settings.state_directory.join("delivery-log"), &misleading);
    Engine::recover(&settings, &misleading).unwrap();
    assert_eq!(names(&place.base()), ["info", "md"]);
}

#[test]
fn mail_for_virtual_mailboxes_waits_until_their_directory_is_named_again() {
    let place = Place::new();
    let mut settings = settings(&place);
    leave_a_log(&settings, CONTENT, ["md", "info"]);
    settings.routing.virtual_mailbox_base = PathBuf::new();
    let refused = Engine::open(&settings).unwrap_err().to_string();
    assert!(
        refused.starts_with("virtual_mailbox_base is not set"),
        "{refused}"
    );
    settings.routing.virtual_mailbox_base = place.base();
    Engine::open(&settings).unwrap().close();
    assert_eq!(names(&place.base()), ["info", "md"]);
    settings.routing.virtual_mailbox_base = PathBuf::new();
    Engine::open(&settings).unwrap().close();
}
