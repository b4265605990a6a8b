//! Maildir delivery on a real file system: content, names, creation, concurrency, permissions,
//! leftovers.

mod common;

use common::*;
use mailstow_engine::config::{Durability, FlushMethod};
use mailstow_engine::sim::Store;
use mailstow_engine::{Format, MailboxTarget};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant, SystemTime};

const CONTENT: &[u8] = b"Subject: hello\n\nFrom here\nlast line";

#[test]
fn a_message_lands_in_a_maildir_made_for_it_and_owned_by_its_owner() {
    let place = Place::new();
    let store = Store::open(&place.settings()).unwrap();
    let status = deliver(&store, CONTENT, "no/such/deep/md/");
    assert_eq!(status, "250 2.0.0 delivered to maildir");
    let maildir = place.base().join("no/such/deep/md");
    assert_eq!(names(&maildir), ["cur", "new", "tmp"]);
    assert!(names(&maildir.join("tmp")).is_empty());
    let new = names(&maildir.join("new"));
    assert_eq!(new.len(), 1);
    let file = maildir.join("new").join(&new[0]);
    let expected = b"Return-Path: <s@ex.example>\nX-Original-To: orig@ex.example\n\
        Delivered-To: info@vm.example\nSubject: hello\n\nFrom here\nlast line\n";
    let stored = fs::read(&file).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&stored),
        String::from_utf8_lossy(expected)
    );
    let sizes = format!(".host.example,S={},W={}", stored.len(), stored.len() + 7);
    assert!(
        new[0].ends_with(&sizes),
        "{} does not end in {sizes}",
        new[0]
    );
    for (path, mode) in [(&file, 0o600), (&maildir.join("new"), 0o700)] {
        let stat = fs::metadata(path).unwrap();
        assert_eq!(stat.mode() & 0o777, mode);
        assert_eq!((stat.uid(), stat.gid()), owner());
    }
    let parent = fs::metadata(place.base().join("no")).unwrap();
    assert_eq!((parent.mode() & 0o777, parent.uid()), (0o700, owner().0));
}

#[test]
fn many_threads_deliver_into_one_new_maildir_and_nothing_is_lost() {
    for flush in [FlushMethod::Auto, FlushMethod::Fsync, FlushMethod::Syncfs] {
        let place = Place::new();
        let mut settings = place.settings();
        settings.store.flush = flush;
        let store = Store::open(&settings).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..10 {
                        let content = format!("\n{thread}-{number}\n");
                        let status = deliver(store, content.as_bytes(), "dom/user/");
                        assert!(status.starts_with("250 2.0.0"), "{status}");
                    }
                });
            }
        });
        let new = place.base().join("dom/user/new");
        let mut bodies: Vec<String> = names(&new)
            .iter()
            .map(|name| fs::read_to_string(new.join(name)).unwrap())
            .map(|text| text.rsplit("\n\n").next().unwrap().to_owned())
            .collect();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), 80, "{flush:?}");
    }
}

#[test]
fn several_stores_make_the_same_maildir_at_the_same_time() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(&place.settings()).unwrap();
                for number in 0..10 {
                    let path = format!("d{number}/sub/md/");
                    let status = deliver(&store, CONTENT, &path);
                    assert!(status.starts_with("250 2.0.0"), "{status}");
                }
            });
        }
    });
    for number in 0..10 {
        let new = place.base().join(format!("d{number}/sub/md/new"));
        assert_eq!(names(&new).len(), 4);
    }
}

#[test]
fn a_path_never_leads_out_of_the_base() {
    let place = Place::new();
    let outside = place.outside().join("outside");
    fs::create_dir(&outside).unwrap();
    place.give(&outside);
    place.make_dir("real");
    let base = place.base();
    symlink(&outside, base.join("absolute")).unwrap();
    symlink("../outside", base.join("relative")).unwrap();
    symlink("/proc/self/cwd", base.join("magic")).unwrap();
    symlink("real", base.join("inside")).unwrap();
    let store = Store::open(&place.settings()).unwrap();
    for path in ["../outside/md/", "real/../../outside/md/", ".."] {
        let refused = MailboxTarget::new(path, Format::of(path), 5000, 5000);
        assert!(refused.is_err(), "{path}");
    }
    for path in ["absolute/md/", "relative/md/", "relative/mbox", "magic/md/"] {
        let status = deliver(&store, CONTENT, path);
        assert!(status.starts_with("451 4.3.5 mailbox "), "{path}: {status}");
    }
    assert!(names(&outside).is_empty());
    let status = deliver(&store, CONTENT, "inside/md/");
    assert!(
        status.starts_with("250"),
        "a link that stays beneath is fine: {status}"
    );
    assert_eq!(names(&base.join("real/md/new")).len(), 1);
}

#[test]
fn a_directory_writable_by_everyone_is_refused_unless_sticky() {
    let place = Place::new();
    let open = place.make_dir("open");
    fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let store = Store::open(&place.settings()).unwrap();
    for path in ["open/md/", "open/mbox"] {
        let status = deliver(&store, CONTENT, path);
        let remedy = format!("run: chmod o-w {}", open.display());
        assert!(status.starts_with("451 4.2.0"), "{status}");
        assert!(status.contains(&remedy), "{status}");
    }
    fs::set_permissions(&open, PermissionsExt::from_mode(0o1777)).unwrap();
    for path in ["open/md/", "open/mbox"] {
        let status = deliver(&store, CONTENT, path);
        assert!(status.starts_with("250"), "{status}");
    }
}

#[test]
fn each_delivery_runs_as_its_owner_and_foreign_directories_stay_closed() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.make_dir("dom");
    fs::set_permissions(place.base(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(place.base().join("dom"), PermissionsExt::from_mode(0o1777)).unwrap();
    let store = Store::open(&place.settings()).unwrap();
    let targets: Vec<_> = (0..6)
        .map(|n| {
            let mut target = target(&format!("dom/u{n}/"));
            (target.uid, target.gid) = (5010 + n, 6010 + n);
            target
        })
        .collect();
    for status in submit(&store, CONTENT, targets).statuses() {
        assert!(status.starts_with("250"), "{status}");
    }
    for n in 0..6 {
        let new = place.base().join(format!("dom/u{n}/new"));
        let file = fs::metadata(new.join(&names(&new)[0])).unwrap();
        assert_eq!((file.uid(), file.gid()), (5010 + n, 6010 + n));
    }
    let mut other = target("dom/u0/");
    (other.uid, other.gid) = (5011, 6011);
    let status = submit(&store, CONTENT, vec![other]).statuses().remove(0);
    assert!(status.starts_with("451 4.2.0"), "{status}");
    assert!(status.contains("Permission denied"), "{status}");
    let mut root = target("dom/root/");
    (root.uid, root.gid) = (0, 0);
    let status = submit(&store, CONTENT, vec![root]).statuses().remove(0);
    assert!(status.starts_with("451 4.3.5"), "{status}");
}

#[test]
fn a_message_over_the_limit_is_refused_before_anything_is_written() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.routing.virtual_mailbox_limit = 1000;
    let store = Store::open(&settings).unwrap();
    let status = deliver(&store, &[b'x'; 1000], "md/");
    assert!(status.starts_with("552 5.2.2"), "{status}");
    assert!(names(&place.base()).is_empty());
    assert!(deliver(&store, &[b'x'; 500], "md/").starts_with("250"));
}

#[test]
fn a_large_message_from_a_file_is_stored_byte_for_byte() {
    let place = Place::new();
    let store = Store::open(&place.settings()).unwrap();
    let content: Vec<u8> = (0..=3_000_074u32)
        .map(|n| {
            if n % 77 == 0 {
                b'\n'
            } else {
                u8::try_from(n % 251).unwrap() | 1
            }
        })
        .collect();
    assert!(deliver(&store, &content, "md/").starts_with("250"));
    let new = place.base().join("md/new");
    let stored = fs::read(new.join(&names(&new)[0])).unwrap();
    assert!(stored.ends_with(&content));
}

#[test]
fn old_leftovers_in_tmp_go_when_a_maildir_is_used_and_young_ones_stay() {
    let place = Place::new();
    place.make_dir("md");
    for name in ["tmp", "new", "cur"] {
        place.make_dir(&format!("md/{name}"));
    }
    let old = place.make_file("md/tmp/old", b"half a mess");
    place.make_file("md/tmp/young", b"half a mess");
    place.make_dir("md/tmp/directory");
    let age = Duration::from_secs(37 * 3600);
    let file = fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
    let store = Store::open(&place.settings()).unwrap();
    assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    let deadline = Instant::now() + DEADLINE;
    while old.exists() {
        assert!(Instant::now() < deadline, "the old file was never removed");
        std::thread::yield_now();
    }
    store.close();
    assert_eq!(names(&place.base().join("md/tmp")), ["directory", "young"]);
}

#[test]
fn a_maildir_removed_and_made_anew_while_the_store_is_open_is_used_again() {
    let place = Place::new();
    let store = Store::open(&place.settings()).unwrap();
    for _ in 0..3 {
        assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
        assert_eq!(names(&place.base().join("md/new")).len(), 1);
        fs::remove_dir_all(place.base().join("md")).unwrap();
    }
}

#[test]
fn a_missing_base_is_made_only_when_asked_and_if_the_directory_above_is_there() {
    let place = Place::new();
    let mut settings = place.settings();
    let (uid, gid) = owner();
    settings.routing.virtual_mailbox_base = place.base().join("made");
    let error = Store::open(&settings).unwrap_err().to_string();
    assert!(error.contains("made") && error.contains("mount"), "{error}");
    settings.store.make_base = true;
    settings.routing.virtual_uid_maps = format!("static:{uid}");
    settings.routing.virtual_gid_maps = format!("static:{gid}");
    let store = Store::open(&settings).unwrap();
    assert!(deliver(&store, CONTENT, "md/").starts_with("250"));
    settings.routing.virtual_mailbox_base = place.base().join("not/made");
    let error = Store::open(&settings).unwrap_err().to_string();
    assert!(error.contains("not/made"), "{error}");
    settings.routing.virtual_mailbox_base = "relative".into();
    let error = Store::open(&settings).unwrap_err().to_string();
    assert!(error.contains("not an absolute path"), "{error}");
}

#[test]
fn a_file_in_the_way_is_told_apart_from_a_broken_disk() {
    let place = Place::new();
    place.make_file("file", b"x");
    let store = Store::open(&place.settings()).unwrap();
    for path in ["file/md/", "file/mbox", "file/"] {
        let status = deliver(&store, CONTENT, path);
        assert!(status.starts_with("451 4.2.0"), "{status}");
        assert!(status.contains("a file is in the place of a directory of its path"));
    }
}

#[test]
fn a_mailbox_in_a_part_of_another_is_deferred_and_nothing_is_made() {
    for durability in [Durability::Direct, Durability::Logged] {
        let place = Place::new();
        let mut settings = place.settings();
        settings.store.durability = durability;
        let store = Store::open(&settings).unwrap();
        for legal in [
            "d/x/",
            "d/x/.Sent/",
            "d/x/folder/",
            "d/new/",
            "d/tmp/",
            "d/cur/",
            "d/y.lock/",
        ] {
            for _ in 0..2 {
                let status = deliver(&store, CONTENT, legal);
                assert!(status.starts_with("250"), "{legal}: {status}");
            }
        }
        place.make_file("d/mbox", b"");
        for (path, cause) in [
            ("d/x/new/", "a part of the Maildir d/x"),
            ("d/x/cur/y/", "a part of the Maildir d/x"),
            ("d/x/tmp/y", "a part of the Maildir d/x"),
            ("d/x/new", "a part of the Maildir d/x"),
            ("d/x/.Sent/new/", "a part of the Maildir d/x/.Sent"),
            ("d/x/subscriptions", "subscriptions"),
            ("d/mbox.lock/", "the lock file of the mbox d/mbox"),
        ] {
            let before = names(&place.base().join("d/x/new"));
            let status = deliver(&store, CONTENT, path);
            assert!(status.starts_with("451 4.3.5"), "{path}: {status}");
            assert!(status.contains(cause), "{path}: {status}");
            assert_eq!(names(&place.base().join("d/x/new")), before, "{path}");
        }
        assert!(!place.base().join("d/x/cur/y").exists());
        assert!(!place.base().join("d/mbox.lock").exists());
        assert!(deliver(&store, CONTENT, "d/mbox").starts_with("250"));
    }
}

#[test]
fn a_link_to_a_maildir_hides_none_of_its_parts() {
    let place = Place::new();
    let store = Store::open(&place.settings()).unwrap();
    assert!(deliver(&store, CONTENT, "d/x/").starts_with("250"));
    symlink("x", place.base().join("d/link")).unwrap();
    assert!(deliver(&store, CONTENT, "d/link/").starts_with("250"));
    let status = deliver(&store, CONTENT, "d/link/new/");
    assert!(status.contains("a part of the Maildir d/link"), "{status}");
}
