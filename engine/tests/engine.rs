//! Goal: the engine's public face as an embedder sees it. Method: real directories, tables and
//! files; outcomes are compared with what stands in the mailboxes.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

use mailstow_engine::address::parse_mailbox;
use mailstow_engine::config::Settings;
use mailstow_engine::route::MailboxTarget;
use mailstow_engine::{Engine, Message, Recipient, ReversePath};
use mailstow_engine::{Mail, Outcome, Receipt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Settings for an engine in `directory`, owned by the user of the test (or by `nobody`, since mail
/// is never written as root).
fn settings(directory: &Path, maps: &str) -> Settings {
    let uid = match nix::unistd::geteuid().as_raw() {
        0 => 65534,
        uid => uid,
    };
    let mut settings = Settings::default();
    settings.routing.virtual_mailbox_domains = "example.com".into();
    settings.routing.virtual_mailbox_maps = maps.into();
    settings.routing.virtual_mailbox_base = directory.join("vhosts");
    settings.routing.virtual_uid_maps = format!("static:{uid}");
    settings.routing.virtual_gid_maps = format!("static:{uid}");
    settings.state_directory = directory.join("state");
    std::fs::create_dir(directory.join("vhosts")).unwrap();
    nix::unistd::chown(
        &directory.join("vhosts"),
        Some(uid.into()),
        Some(uid.into()),
    )
    .unwrap();
    settings
}

fn message(engine: &Engine, text: &str) -> Message {
    let mut builder = engine.new_message();
    builder.write(text.as_bytes()).unwrap();
    builder.finish().unwrap()
}

fn to(engine: &Engine, addresses: &[&str]) -> Vec<(Recipient, MailboxTarget)> {
    let router = engine.snapshot();
    let resolve = |text: &&str| {
        let address = parse_mailbox(text).unwrap();
        let target = router.mailbox(&address).unwrap();
        (
            Recipient {
                address,
                original: None,
            },
            target,
        )
    };
    addresses.iter().map(resolve).collect()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_message_reaches_a_maildir_and_an_mbox_and_both_outcomes_come_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let maps = "inline:{{info@example.com = info}, {sales@example.com = sales/}}";
    let engine = Engine::open(&settings(directory.path(), maps)).unwrap();
    let to = to(&engine, &["sales@example.com", "info@example.com"]);
    let mail = Mail {
        reverse_path: ReversePath::Null,
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: message(&engine, "Subject: hello\n\nbody\n"),
    };
    let outcomes = engine.deliver(Arc::new(mail), to);
    let statuses: Vec<String> = outcomes.iter().map(|o| o.status.to_string()).collect();
    assert_eq!(statuses.len(), 2);
    assert!(
        statuses.iter().all(|s| s.starts_with("250 2.0.0")),
        "{statuses:?}"
    );
    assert!(
        outcomes[0]
            .mailbox
            .as_ref()
            .is_some_and(|m| m.ends_with("vhosts/sales/")),
        "{:?}",
        outcomes[0]
    );
    assert!(
        outcomes[1]
            .mailbox
            .as_ref()
            .is_some_and(|m| m.ends_with("vhosts/info")),
        "{:?}",
        outcomes[1]
    );
    engine.close();

    let mbox = std::fs::read_to_string(directory.path().join("vhosts/info")).unwrap();
    assert!(mbox.starts_with("From MAILER-DAEMON  "), "{mbox}");
    assert!(mbox.ends_with("\n\nbody\n\n"), "{mbox}");
    let new = std::fs::read_dir(directory.path().join("vhosts/sales/new")).unwrap();
    let files: Vec<_> = new.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let stored = std::fs::read_to_string(&files[0]).unwrap();
    assert_eq!(
        stored,
        "Return-Path: <>\nDelivered-To: sales@example.com\nSubject: hello\n\nbody\n"
    );
}

#[test]
fn a_changed_table_is_in_force_soon_and_an_old_snapshot_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("vmailbox");
    std::fs::write(&table, "info@example.com info/\n").unwrap();
    let maps = format!("hash:{}", table.display());
    let engine = Engine::open(&settings(directory.path(), &maps)).unwrap();
    let old = engine.snapshot();
    let address = parse_mailbox("new@example.com").unwrap();
    assert!(old.mailbox(&address).is_err());
    std::fs::write(&table, "info@example.com info/\nnew@example.com new/\n").unwrap();
    until("the new recipient", || {
        engine.snapshot().mailbox(&address).is_ok()
    });
    assert!(
        old.mailbox(&address).is_err(),
        "a transaction sees one snapshot"
    );
    std::fs::write(&table, "new@example.com\n").unwrap();
    let complaints = engine.reload(&{
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_domains = "example.com".into();
        settings.routing.virtual_mailbox_maps = maps.clone();
        settings.routing.virtual_uid_maps = "static:5000".into();
        settings.routing.virtual_gid_maps = "static:5000".into();
        settings
    });
    let complaints = complaints.unwrap().join("\n");
    assert!(complaints.contains("vmailbox"), "{complaints}");
    assert!(
        engine.snapshot().mailbox(&address).is_ok(),
        "the old contents stay in force"
    );
}

#[test]
fn a_reload_that_names_a_missing_table_leaves_the_old_settings_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let first = settings(directory.path(), "inline:{{info@example.com = info/}}");
    let engine = Engine::open(&first).unwrap();
    let mut second = first.clone();
    second.routing.virtual_mailbox_maps = "hash:/nonexistent/vmailbox".into();
    let error = engine.reload(&second).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/vmailbox"), "{error}");
    let address = parse_mailbox("info@example.com").unwrap();
    assert!(engine.snapshot().mailbox(&address).is_ok());
}

#[test]
fn an_engine_that_cannot_open_says_which_directory_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path(), "inline:{{info@example.com = info/}}");
    settings.routing.virtual_mailbox_base = directory.path().join("no/such/base");
    let error = Engine::open(&settings).unwrap_err().to_string();
    assert!(
        error.contains("no/such/base") && error.contains("create"),
        "{error}"
    );
}

#[test]
fn the_directories_above_the_base_need_not_be_open_to_the_mailbox_owner() {
    let directory = tempfile::tempdir().unwrap();
    let maps = "inline:{{sales@example.com = sales/}}";
    let engine = Engine::open(&settings(directory.path(), maps)).unwrap();
    // As in /root: only the one who started the server may search it.
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(directory.path(), closed).unwrap();
    for _ in 0..2 {
        let to = to(&engine, &["sales@example.com"]);
        let mail = Mail {
            reverse_path: ReversePath::Null,
            queue_id: None,
            client: Default::default(),
            dsn: Default::default(),
            message: message(&engine, "\nbody\n"),
        };
        let outcomes = engine.deliver(Arc::new(mail), to);
        assert!(outcomes[0].status.is_success(), "{}", outcomes[0].status);
    }
    let owner = std::fs::metadata(directory.path().join("vhosts/sales/new")).unwrap();
    assert_ne!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
}

/// Delivers `mail` and gives the receipt back through `settle` once the outcome is known.
fn submit_and(engine: &Engine, text: &str, settle: impl FnOnce(Receipt)) -> String {
    let mail = Mail {
        reverse_path: ReversePath::Null,
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: message(engine, text),
    };
    let (sender, outcome) = std::sync::mpsc::channel();
    let report = move |_, outcome: Outcome| {
        let _ = sender.send(outcome.status.to_string());
    };
    let to = to(engine, &["sales@example.com"]);
    let receipt = engine.submit(Arc::new(mail), to, Arc::new(report));
    let status = outcome.recv_timeout(Duration::from_secs(30)).unwrap();
    settle(receipt);
    status
}

#[test]
fn a_message_whose_receipt_was_dropped_is_stored_once_when_it_is_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(&settings(
        directory.path(),
        "inline:{{sales@example.com = sales/}}",
    ))
    .unwrap();
    let stored = || {
        let new = directory.path().join("vhosts/sales/new");
        std::fs::read_dir(new).unwrap().count()
    };
    let first = submit_and(&engine, "Subject: a\n\nbody\n", drop);
    assert_eq!(first, "250 2.0.0 delivered to maildir");
    let again = submit_and(&engine, "Subject: a\n\nbody\n", Receipt::confirm);
    assert_eq!(again, "250 2.0.0 delivered before");
    assert_eq!(stored(), 1);
    // Its replies were read: the same is another message.
    submit_and(&engine, "Subject: a\n\nbody\n", Receipt::confirm);
    assert_eq!(stored(), 2);
    submit_and(&engine, "Subject: a\n\nbody\n", Receipt::confirm);
    assert_eq!(stored(), 3);
}

#[test]
fn a_receipt_given_back_before_the_outcome_is_known_counts_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(&settings(
        directory.path(),
        "inline:{{sales@example.com = sales/}}",
    ))
    .unwrap();
    let early = |text: &str, settle: fn(Receipt)| {
        let mail = Mail {
            reverse_path: ReversePath::Null,
            queue_id: None,
            client: Default::default(),
            dsn: Default::default(),
            message: message(&engine, text),
        };
        let (sender, outcome) = std::sync::mpsc::channel();
        let report = move |_, outcome: Outcome| {
            let _ = sender.send(outcome.status.to_string());
        };
        let to = to(&engine, &["sales@example.com"]);
        settle(engine.submit(Arc::new(mail), to, Arc::new(report)));
        outcome.recv_timeout(Duration::from_secs(30)).unwrap()
    };
    for round in 0..20 {
        let text = format!("Subject: {round}\n\nbody\n");
        assert!(early(&text, drop).contains("delivered to maildir"));
        assert!(early(&text, Receipt::confirm).contains("delivered before"));
        assert!(early(&text, Receipt::confirm).contains("delivered to maildir"));
        assert!(early(&text, Receipt::confirm).contains("delivered to maildir"));
    }
}

#[test]
fn a_receipt_may_outlive_its_engine() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), "inline:{{sales@example.com = sales/}}");
    let engine = Engine::open(&settings).unwrap();
    let mut kept = None;
    submit_and(&engine, "Subject: a\n\nbody\n", |receipt| {
        kept = Some(receipt)
    });
    engine.close();
    kept.take().unwrap().confirm();
    let engine = Engine::open(&settings).unwrap();
    let again = submit_and(&engine, "Subject: a\n\nbody\n", Receipt::confirm);
    assert_eq!(again, "250 2.0.0 delivered before");
}

#[test]
fn a_recipient_that_is_told_to_try_again_stays_in_doubt_and_the_others_do_not() {
    let directory = tempfile::tempdir().unwrap();
    // The last two share a mailbox with the first.
    let maps = "inline:{{sales@example.com = sales/}, {info@example.com = info/}, \
                {shop@example.com = sales/}, {desk@example.com = sales/}}";
    let addresses = ["sales", "info", "shop", "desk"].map(|user| format!("{user}@example.com"));
    let addresses = addresses.each_ref().map(String::as_str);
    let settings = settings(directory.path(), maps);
    let mut engine = Engine::open(&settings).unwrap();
    let submit = |engine: &Engine, text: &str| {
        let mail = Mail {
            reverse_path: ReversePath::Null,
            queue_id: None,
            client: Default::default(),
            dsn: Default::default(),
            message: message(engine, text),
        };
        let (sender, outcomes) = std::sync::mpsc::channel();
        let report = move |index, outcome: Outcome| {
            let _ = sender.send((index, outcome.status.to_string()));
        };
        let receipt = engine.submit(Arc::new(mail), to(engine, &addresses), Arc::new(report));
        let mut before = [false; 4];
        for _ in addresses {
            let limit = Duration::from_secs(30);
            let (index, text): (usize, String) = outcomes.recv_timeout(limit).unwrap();
            before[index] = text == "250 2.0.0 delivered before";
        }
        (receipt, before)
    };
    // A short one goes through the log, a long one is flushed in its mailboxes.
    for text in [
        "Subject: a\n\nbody\n".to_owned(),
        "x".repeat(3_000_000) + "\n",
    ] {
        for doubtful in 0..addresses.len() {
            let mut expected = [false; 4];
            expected[doubtful] = true;
            let (mut receipt, before) = submit(&engine, &text);
            assert_eq!(before, [false; 4], "{doubtful}");
            receipt.doubt(doubtful);
            receipt.confirm();
            for reopens in [false, true] {
                if reopens {
                    engine.close();
                    engine = Engine::open(&settings).unwrap();
                }
                let (mut receipt, before) = submit(&engine, &text);
                assert_eq!(before, expected, "{doubtful} {reopens}");
                receipt.doubt(doubtful);
                receipt.confirm();
            }
            let (receipt, before) = submit(&engine, &text);
            assert_eq!(before, expected, "{doubtful}");
            receipt.confirm();
        }
    }
}
