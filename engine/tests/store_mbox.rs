//! mbox delivery on a real file system: content, locks, concurrency, checks, limits.

mod common;

use common::*;
use mailstow_engine::config::MboxLock;
use mailstow_engine::sim::Store;
use mailstow_engine::sim::{Blocking, Disk, LockKind};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant};

const CONTENT: &[u8] = b"Subject: hello\nFrom x in the header\n\nFrom here\n>From there\nlast line";

/// Messages of an mbox: what stands between `From ` lines, each checked for its blank line.
fn parse(text: &str) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let mut after_blank = true;
    for line in text.split_inclusive('\n') {
        if line.starts_with("From ") {
            assert!(after_blank, "no blank line before {line:?}");
            messages.push(String::new());
        }
        assert!(!messages.is_empty(), "does not begin with a From line");
        messages
            .iter_mut()
            .last()
            .into_iter()
            .for_each(|message| message.push_str(line));
        after_blank = line == "\n";
    }
    assert!(
        text.is_empty() || text.ends_with("\n\n"),
        "no blank line at the end"
    );
    messages
}

#[test]
fn messages_are_appended_quoted_completed_and_separated() {
    let place = Place::new();
    let store = Store::open(&place.settings()).unwrap();
    for _ in 0..2 {
        let status = deliver(&store, CONTENT, "info");
        assert_eq!(status, "250 2.0.0 delivered to mailbox");
    }
    assert!(deliver(&store, b"", "info").starts_with("250"));
    let path = place.base().join("info");
    let messages = parse(&fs::read_to_string(&path).unwrap());
    let header = "Return-Path: <s@ex.example>\nX-Original-To: orig@ex.example\n\
        Delivered-To: info@vm.example\n";
    let body = "Subject: hello\n>From x in the header\n\n>From here\n>From there\nlast line\n\n";
    assert_eq!(messages.len(), 3);
    for message in &messages[..2] {
        let (from, rest) = message.split_once('\n').unwrap();
        assert!(from.starts_with("From s@ex.example  "), "{from}");
        assert_eq!(rest, format!("{header}{body}"));
    }
    // An empty line ends the header of a message that brings none.
    assert!(
        messages[2].ends_with(&format!("{header}\n\n")),
        "{}",
        messages[2]
    );
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o777), {
        let (uid, gid) = owner();
        (uid, gid, 0o600)
    });
    assert_eq!(names(&place.base()), ["info"], "no lock file is left");
}

#[test]
fn the_directory_of_an_mbox_is_never_made() {
    let place = Place::new();
    let store = Store::open(&place.settings()).unwrap();
    let status = deliver(&store, CONTENT, "dom/info");
    assert!(status.starts_with("451 4.2.0"), "{status}");
    assert!(status.contains(&format!(
        "directory {}/dom does not exist",
        place.base().display()
    )));
    assert!(names(&place.base()).is_empty());
}

#[test]
fn many_threads_append_to_one_mbox_and_every_message_is_whole() {
    use MboxLock::{Dotlock, Fcntl, Flock};
    for locks in [
        vec![Fcntl, Dotlock],
        vec![Dotlock],
        vec![Flock],
        vec![Fcntl, Flock],
    ] {
        let place = Place::new();
        let mut settings = place.settings();
        settings.routing.virtual_mailbox_lock = locks;
        settings.routing.deliver_lock_delay = Duration::from_secs(1);
        // Two stores, as two processes would be: they share no table of busy mailboxes.
        let stores = [(); 2].map(|()| Store::open(&settings).unwrap());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let store = &stores[thread % 2];
                scope.spawn(move || {
                    for number in 0..10 {
                        let content = format!("\n{thread}-{number}\n");
                        let status = deliver(store, content.as_bytes(), "hot");
                        assert!(status.starts_with("250 2.0.0"), "{status}");
                    }
                });
            }
        });
        let messages = parse(&fs::read_to_string(place.base().join("hot")).unwrap());
        let mut bodies: Vec<&str> = messages
            .iter()
            .map(|message| message.split("\n\n").nth(1).unwrap())
            .collect();
        bodies.sort_unstable();
        bodies.dedup();
        assert_eq!((messages.len(), bodies.len()), (80, 80));
    }
}

#[test]
fn a_torn_end_is_completed_so_that_the_next_message_stands_alone() {
    let place = Place::new();
    let store = Store::open(&place.settings()).unwrap();
    for (name, old, kept) in [
        ("torn", "From a\nx", "From a\nx\n\n"),
        ("line", "From a\nx\n", "From a\nx\n\n"),
        ("whole", "From a\nx\n\n", "From a\nx\n\n"),
    ] {
        let path = place.make_file(name, old.as_bytes());
        assert!(deliver(&store, CONTENT, name).starts_with("250"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with(&format!("{kept}From s@ex.example  ")),
            "{text}"
        );
        assert_eq!(parse(&text).len(), 2);
    }
}

#[test]
fn what_is_not_a_plain_file_of_the_owner_is_refused() {
    let place = Place::new();
    let base = place.base();
    place.make_file("real", b"");
    symlink("real", base.join("symlink")).unwrap();
    place.make_file("twice", b"");
    fs::hard_link(base.join("twice"), base.join("again")).unwrap();
    place.make_dir("directory");
    nix::unistd::mkfifo(&base.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    place.give(&base.join("pipe"));
    let mut cases = vec![
        ("symlink", "is a symbolic link"),
        ("twice", "file has 2 hard links"),
        ("directory", "is a directory"),
        ("pipe", "is not a regular file"),
    ];
    if is_root() {
        let foreign = place.make_file("foreign", b"");
        std::os::unix::fs::chown(&foreign, Some(5999), None).unwrap();
        fs::set_permissions(
            &foreign,
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        )
        .unwrap();
        cases.push(("foreign", "not owned by recipient: it belongs to uid 5999"));
    }
    let store = Store::open(&place.settings()).unwrap();
    for (name, cause) in cases {
        let status = deliver(&store, CONTENT, name);
        assert!(status.starts_with("451 4.2.0"), "{name}: {status}");
        assert!(status.contains(cause), "{name}: {status}");
        assert!(
            !base.join(format!("{name}.lock")).exists(),
            "{name} stays locked"
        );
    }
    assert!(fs::read(base.join("real")).unwrap().is_empty());
    assert!(fs::read(base.join("twice")).unwrap().is_empty());
    let mut lax = place.settings();
    lax.routing.strict_mailbox_ownership = false;
    if is_root() {
        let status = deliver(&Store::open(&lax).unwrap(), CONTENT, "foreign");
        assert!(status.starts_with("250"), "{status}");
    }
}

#[test]
fn a_busy_lock_is_waited_for_without_holding_up_other_deliveries() {
    for kind in [LockKind::Fcntl, LockKind::Flock] {
        let place = Place::new();
        let mut settings = place.settings();
        settings.store.writers = 1;
        settings.routing.deliver_lock_delay = Duration::from_secs(10);
        settings.routing.virtual_mailbox_lock = vec![MboxLock::Fcntl, MboxLock::Flock];
        place.make_file("busy", b"");
        let disk = Blocking::new();
        let base = disk.open_root(&place.base()).unwrap();
        let held = disk.open_append(&base, "busy").unwrap();
        assert!(disk.try_lock(&held, kind).unwrap());
        let store = Store::open(&settings).unwrap();
        let both = vec![target("busy"), target("md/")];
        let waiting = submit(&store, CONTENT, both);
        for path in ["free", "md/", "free"] {
            assert!(deliver(&store, CONTENT, path).starts_with("250"));
        }
        assert!(fs::read(place.base().join("busy")).unwrap().is_empty());
        drop(held);
        for status in waiting.statuses() {
            assert!(status.starts_with("250"), "{status}");
        }
        assert_eq!(names(&place.base().join("md/new")).len(), 2);
    }
}

#[test]
fn a_lock_that_stays_busy_defers_the_delivery_when_the_time_for_it_is_over() {
    let place = Place::new();
    let lock = place.make_file("info.lock", b"");
    let store = Store::open(&place.settings()).unwrap();
    let begun = Instant::now();
    let status = deliver(&store, CONTENT, "info");
    assert!(status.starts_with("451 4.2.0"), "{status}");
    assert!(
        status.contains("its lock file is held by another program"),
        "{status}"
    );
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert!(lock.exists());
    assert_eq!(names(&place.base()), ["info.lock"]);
}

#[test]
fn a_stale_lock_file_is_taken_away() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.routing.stale_lock_time = Duration::from_millis(50);
    settings.routing.deliver_lock_delay = Duration::from_secs(1);
    place.make_file("info.lock", b"");
    let store = Store::open(&settings).unwrap();
    assert!(deliver(&store, CONTENT, "info").starts_with("250"));
    assert_eq!(names(&place.base()), ["info"]);
}

#[test]
fn a_mailbox_replaced_while_locked_is_opened_anew() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.routing.virtual_mailbox_lock = vec![MboxLock::Fcntl];
    settings.routing.deliver_lock_delay = Duration::from_secs(10);
    let path = place.make_file("info", b"From old\nx\n\n");
    let disk = Blocking::new();
    let base = disk.open_root(&place.base()).unwrap();
    let held = disk.open_append(&base, "info").unwrap();
    assert!(disk.try_lock(&held, LockKind::Fcntl).unwrap());
    let store = Store::open(&settings).unwrap();
    let waiting = submit(&store, CONTENT, vec![target("info")]);
    let rewritten = place.make_file("rewritten", b"From new\nx\n\n");
    fs::rename(&rewritten, &path).unwrap();
    drop(held);
    assert!(waiting.statuses()[0].starts_with("250"));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("From new\n"), "{text}");
    assert_eq!(parse(&text).len(), 2);
}

#[test]
fn a_message_that_would_exceed_the_limit_is_refused_and_others_of_its_batch_are_not() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.routing.virtual_mailbox_limit = 2000;
    settings.store.writers = 1;
    let path = place.make_file("info", &[b'x'; 998]);
    let store = Store::open(&settings).unwrap();
    let status = deliver(&store, &[b'y'; 1000], "info");
    assert!(status.starts_with("552 5.2.2"), "{status}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 998);
    // Fits by its size, but not with its lines quoted.
    let status = deliver(&store, "From \n".repeat(130).as_bytes(), "info");
    assert!(status.starts_with("552 5.2.2"), "{status}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 998);
    assert!(deliver(&store, CONTENT, "info").starts_with("250"));
}

#[test]
fn a_large_message_over_the_limit_by_its_quotes_is_cut_off_again() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.routing.virtual_mailbox_limit = 3_100_000;
    let store = Store::open(&settings).unwrap();
    let old = parse(&{
        assert!(deliver(&store, CONTENT, "info").starts_with("250"));
        fs::read_to_string(place.base().join("info")).unwrap()
    });
    let lines = |count| ["Subject: many\n\n", &"From \n".repeat(count)].concat();
    let status = deliver(&store, lines(500_000).as_bytes(), "info");
    assert!(status.starts_with("552 5.2.2"), "{status}");
    let now = parse(&fs::read_to_string(place.base().join("info")).unwrap());
    assert_eq!(now, old);
    let status = deliver(&store, lines(400_000).as_bytes(), "info");
    assert!(status.starts_with("250"), "{status}");
}
