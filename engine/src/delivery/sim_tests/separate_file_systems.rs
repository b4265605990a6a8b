//! Goal: a file system whose flushes fail affects no other. Others take mail and make it durable
//! meanwhile; mail acknowledged for the failing one is there in the end; and without a crash no
//! message that a reader has removed is restored. Method: a simulated machine with two file
//! systems, one of which fails.

use super::poisoned::{answers, on_own_thread};
use super::world::World;
use crate::io::sim::{DiskFault, SimDisk, SimRandom};
use crate::log::sim::SimFault;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Returns the device of the file system below `base/dir`.
const OTHER: u64 = 2;

fn is_accepted(answers: &[String]) -> bool {
    answers.iter().all(|answer| answer.starts_with("250 "))
}

/// The bodies of the messages in a Maildir.
fn maildir(disk: &SimDisk, path: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    for directory in ["new", "cur"] {
        for name in disk.names(&format!("base/{path}/{directory}")) {
            let content = disk.content(&format!("base/{path}/{directory}/{name}"));
            bodies.push(body(&content.unwrap()));
        }
    }
    bodies.sort();
    bodies
}

fn body(message: &[u8]) -> String {
    // Some worlds compress what is in Maildirs.
    let plain = zstd::decode_all(message).unwrap_or_else(|_| message.to_vec());
    let text = String::from_utf8_lossy(&plain);
    let (_, body) = text.split_once("\n\n").unwrap_or(("", &text));
    body.trim().to_owned()
}

/// The bodies of the messages in an mbox, in order.
fn mbox(disk: &SimDisk, path: &str) -> Vec<String> {
    let content = disk.content(&format!("base/{path}")).unwrap();
    let text = String::from_utf8(content).unwrap();
    let messages = text.split("From sender").skip(1);
    messages.map(|message| body(message.as_bytes())).collect()
}

fn message(name: &str) -> Vec<u8> {
    format!("Subject: {name}\n\n{name}\n").into_bytes()
}

fn with_other_file_system(world: &World) {
    world.disk.mount_on("base/dir", OTHER);
}

#[test]
fn a_file_system_whose_flush_fails_concerns_no_other_and_loses_nothing() {
    on_own_thread(|world, credentials| {
        with_other_file_system(world);
        let store = world.open().unwrap().unwrap();
        let deliver = |name: &str, to: &[&str]| answers(&store, credentials, &message(name), to);
        let all = ["ann/", "box", "dir/eve/", "dir/box"];
        assert!(is_accepted(&deliver("one", &all)));
        world.disk.fail_flushes(OTHER, Some(libc::EDQUOT));
        store.maintain();
        // The log stays in service, and a first failure refuses nothing.
        assert!(store.log_failure().is_none());
        assert!(is_accepted(&deliver("two", &all)));
        let failing = store.health().file_systems;
        assert_eq!(failing.len(), 1, "{failing:?}");
        assert_eq!(failing[0].mount_point.to_str(), Some("/base/dir"));
        // After another failed flush, its mail alone is deferred.
        store.maintain();
        for name in ["three", "four"] {
            assert!(is_accepted(&deliver(name, &["ann/", "box"])));
            let refused = deliver(name, &["dir/eve/", "dir/box"]);
            assert!(
                refused.iter().all(|a| a.starts_with("451 4.3.0")),
                "{refused:?}"
            );
            store.maintain();
        }
        assert!(store.log_failure().is_none());
        world.disk.fail_flushes(OTHER, None);
        for _ in 0..3 {
            store.maintain();
        }
        assert!(store.health().file_systems.is_empty());
        assert_eq!(store.health().waiting, 0);
        assert!(is_accepted(&deliver("five", &all)));
        store.maintain();
        drop(store);
        // Everything is durable: a power loss does no harm.
        world.power_failure(&mut SimRandom::new(3));
        let store = world.open().unwrap().unwrap();
        assert_eq!(store.recovered().unwrap().rewritten, 0);
        for path in ["ann", "box"] {
            let bodies = match path {
                "ann" => maildir(&world.disk, path),
                _ => mbox(&world.disk, path),
            };
            let mut expected = ["one", "two", "three", "four", "five"];
            if path == "ann" {
                expected.sort_unstable();
            }
            assert_eq!(bodies, expected, "{path}");
        }
        assert_eq!(maildir(&world.disk, "dir/eve"), ["five", "one", "two"]);
        assert_eq!(mbox(&world.disk, "dir/box"), ["one", "two", "five"]);
    });
}

#[test]
fn a_file_that_cannot_be_flushed_puts_off_no_other_mail_of_its_file_system() {
    on_own_thread(|world, credentials| {
        with_other_file_system(world);
        let store = world.open().unwrap().unwrap();
        let deliver = |name: &str, to: &[&str]| answers(&store, credentials, &message(name), to);
        assert!(is_accepted(&deliver("one", &["dir/eve/", "dir/box"])));
        let errno = Some(libc::EDQUOT);
        world.disk.fail_flushes_of("base/dir/box", errno);
        for _ in 0..6 {
            store.maintain();
        }
        for name in ["two", "three", "four"] {
            assert!(is_accepted(&deliver(name, &["dir/eve/", "ann/"])));
            store.maintain();
            store.maintain();
        }
        world.disk.fail_flushes_of("base/dir/box", None);
        for _ in 0..3 {
            store.maintain();
        }
        assert!(store.health().file_systems.is_empty());
        drop(store);
        world.power_failure(&mut SimRandom::new(4));
        let store = world.open().unwrap().unwrap();
        assert_eq!(store.recovered().unwrap().rewritten, 0);
        assert_eq!(mbox(&world.disk, "dir/box"), ["one"]);
        let expected = ["four", "one", "three", "two"];
        assert_eq!(maildir(&world.disk, "dir/eve"), expected);
    });
}

#[test]
fn power_lost_while_a_file_system_cannot_be_flushed_loses_nothing() {
    for rounds in 0..5 {
        on_own_thread(|world, credentials| {
            with_other_file_system(world);
            let store = world.open().unwrap().unwrap();
            let deliver =
                |name: &str, to: &[&str]| answers(&store, credentials, &message(name), to);
            assert!(is_accepted(&deliver("one", &["dir/eve/", "dir/box"])));
            world.disk.fail_flushes(OTHER, Some(libc::EIO));
            store.maintain();
            assert!(is_accepted(&deliver("two", &["dir/eve/", "dir/box"])));
            for _ in 0..rounds {
                store.maintain();
                assert!(is_accepted(&deliver("other", &["ann/"])));
            }
            drop(store);
            world.power_failure(&mut SimRandom::new(rounds));
            let _store = world.open().unwrap().unwrap();
            assert_eq!(maildir(&world.disk, "dir/eve"), ["one", "two"]);
            assert_eq!(mbox(&world.disk, "dir/box"), ["one", "two"]);
        });
    }
}

#[test]
fn a_restart_does_not_believe_what_the_kernel_shows_of_a_suspect_file_system() {
    on_own_thread(|world, credentials| {
        with_other_file_system(world);
        let store = world.open().unwrap().unwrap();
        let to = ["dir/eve/", "dir/box"];
        assert!(is_accepted(&answers(
            &store,
            credentials,
            &message("one"),
            &to
        )));
        world.disk.fail_flushes(OTHER, Some(libc::EIO));
        store.maintain();
        store.maintain();
        drop(store);
        world.kill();
        world.disk.fail_flushes(OTHER, None);
        drop(world.open().unwrap().unwrap());
        world.power_failure(&mut SimRandom::new(5));
        let _store = world.open().unwrap().unwrap();
        assert_eq!(maildir(&world.disk, "dir/eve"), ["one"]);
        assert_eq!(mbox(&world.disk, "dir/box"), ["one"]);
    });
}

#[test]
fn what_a_restart_could_not_write_again_is_not_believed_later_either() {
    // Each operation of the recovery fails in turn, until there are no more.
    for nth in 0.. {
        let is_over = AtomicBool::new(false);
        on_own_thread(|world, credentials| {
            with_other_file_system(world);
            let store = world.open().unwrap().unwrap();
            let to = ["dir/eve/", "dir/box"];
            let accepted = answers(&store, credentials, &message("one"), &to);
            assert!(is_accepted(&accepted));
            world.disk.fail_flushes(OTHER, Some(libc::EIO));
            store.maintain();
            store.maintain();
            drop(store);
            world.kill();
            world.disk.fail_flushes(OTHER, None);
            let at = world.disk.operations() + nth;
            world.disk.set_fault(DiskFault::Error {
                at,
                errno: libc::EIO,
            });
            if let Ok(Some(store)) = world.open() {
                store.maintain();
                store.maintain();
            }
            is_over.store(world.disk.operations() <= at, Ordering::Relaxed);
            world.disk.set_fault(DiskFault::None);
            world.power_failure(&mut SimRandom::new(5));
            let _store = world.open().unwrap().unwrap();
            assert_eq!(maildir(&world.disk, "dir/eve"), ["one"], "{nth}");
            assert_eq!(mbox(&world.disk, "dir/box"), ["one"], "{nth}");
        });
        if is_over.into_inner() {
            assert!(nth > 8, "only {nth} operations");
            break;
        }
    }
}

#[test]
fn mail_that_a_reader_removed_does_not_come_back_with_a_failed_flush() {
    on_own_thread(|world, credentials| {
        with_other_file_system(world);
        let store = world.open().unwrap().unwrap();
        for name in ["one", "two", "three"] {
            let answers = answers(&store, credentials, &message(name), &["dir/eve/"]);
            assert!(is_accepted(&answers));
        }
        world.disk.fail_flushes(OTHER, Some(libc::EIO));
        store.maintain();
        let new = world.disk.names("base/dir/eve/new");
        let content = |name: &str| world.disk.content(&format!("base/dir/eve/new/{name}"));
        let is = |wanted: &'static str| {
            let mut names = new.iter();
            let found = names.find(|name| content(name).is_some_and(|c| body(&c) == wanted));
            found.unwrap().clone()
        };
        let (removed, read) = (is("one"), is("two"));
        world
            .disk
            .remove_by_reader(&format!("base/dir/eve/new/{removed}"));
        world.disk.rename_by_reader(
            &format!("base/dir/eve/new/{read}"),
            &format!("base/dir/eve/cur/{read}:2,S"),
        );
        store.maintain();
        store.maintain();
        assert_eq!(maildir(&world.disk, "dir/eve"), ["three", "two"]);
        world.disk.fail_flushes(OTHER, None);
        for _ in 0..3 {
            store.maintain();
        }
        assert!(store.health().file_systems.is_empty());
        assert_eq!(maildir(&world.disk, "dir/eve"), ["three", "two"]);
        assert_eq!(world.disk.names("base/dir/eve/cur").len(), 1);
        drop(store);
        world.power_failure(&mut SimRandom::new(9));
        let _store = world.open().unwrap().unwrap();
        assert_eq!(maildir(&world.disk, "dir/eve"), ["three", "two"]);
    });
}

#[test]
fn mail_whose_removal_is_not_durable_either_comes_back_whole_after_a_crash_or_not_at_all() {
    for seed in 0..20 {
        on_own_thread(|world, credentials| {
            with_other_file_system(world);
            let store = world.open().unwrap().unwrap();
            let to = ["dir/eve/", "dir/box"];
            let answers = answers(&store, credentials, &message("one"), &to);
            assert!(is_accepted(&answers));
            world.disk.fail_flushes(OTHER, Some(libc::EDQUOT));
            store.maintain();
            let new = world.disk.names("base/dir/eve/new").remove(0);
            world
                .disk
                .remove_by_reader(&format!("base/dir/eve/new/{new}"));
            world.disk.remove_by_reader("base/dir/box");
            for _ in 0..4 {
                store.maintain();
            }
            drop(store);
            world.power_failure(&mut SimRandom::new(seed));
            let _store = world.open().unwrap().unwrap();
            assert!(
                maildir(&world.disk, "dir/eve")
                    .iter()
                    .all(|body| body == "one")
            );
            let text = world.disk.content("base/dir/box").unwrap_or_default();
            assert!(text.is_empty() || text.starts_with(b"From sender"));
            assert!(!text.contains(&0), "no part of it is missing");
        });
    }
}

#[test]
fn a_file_system_that_was_mounted_again_is_recovered_as_after_a_crash() {
    for seed in 0..20 {
        on_own_thread(|world, credentials| {
            with_other_file_system(world);
            let store = world.open().unwrap().unwrap();
            let deliver =
                |name: &str, to: &[&str]| answers(&store, credentials, &message(name), to);
            let to = ["dir/eve/", "dir/box"];
            assert!(is_accepted(&deliver("one", &to)));
            store.maintain();
            assert!(is_accepted(&deliver("two", &to)));
            world.disk.fail_flushes(OTHER, Some(libc::EIO));
            store.maintain();
            store.maintain();
            world.disk.remount(OTHER, seed);
            for _ in 0..3 {
                store.maintain();
            }
            assert!(store.health().file_systems.is_empty());
            assert_eq!(maildir(&world.disk, "dir/eve"), ["one", "two"]);
            assert_eq!(mbox(&world.disk, "dir/box"), ["one", "two"]);
            assert!(is_accepted(&deliver("three", &to)));
            assert_eq!(mbox(&world.disk, "dir/box"), ["one", "two", "three"]);
        });
    }
}

#[test]
fn power_lost_while_a_flush_does_not_end_loses_nothing_also_of_what_was_unmounted() {
    for seed in 0..20 {
        on_own_thread(|world, credentials| {
            with_other_file_system(world);
            let store = world.open().unwrap().unwrap();
            let to = ["dir/eve/", "dir/box", "ann/"];
            let accepted = answers(&store, credentials, &message("one"), &to);
            assert!(is_accepted(&accepted));
            world.disk.unmount_lazily(OTHER);
            store.look_at_mounts();
            store.maintain_beside_flush(OTHER);
            assert!(store.log_failure().is_none());
            drop(store);
            world.power_failure(&mut SimRandom::new(seed));
            world.disk.mount_on("base/dir", OTHER);
            let _store = world.open().unwrap().unwrap();
            assert_eq!(maildir(&world.disk, "dir/eve"), ["one"], "{seed}");
            assert_eq!(mbox(&world.disk, "dir/box"), ["one"], "{seed}");
        });
    }
}

#[test]
fn a_log_that_fills_up_while_a_flush_does_not_end_gets_room_for_other_file_systems() {
    on_own_thread(|world, credentials| {
        with_other_file_system(world);
        let store = world.open().unwrap().unwrap();
        store.look_at_mounts();
        let deliver = |content: &[u8], to: &str| answers(&store, credentials, content, &[to]);
        assert!(is_accepted(&deliver(&message("first"), "dir/eve/")));
        store.maintain_beside_flush(OTHER);
        let long = |number: usize| {
            let mut long = message(&number.to_string());
            long.resize(2000, b'x');
            long
        };
        // No checkpoint comes in between: mail arrives faster.
        let mut stored = 0;
        let full = loop {
            let answer = deliver(&long(stored), "dir/eve/").remove(0);
            if !answer.starts_with("250") {
                break answer;
            }
            stored += 1;
        };
        assert!(full.starts_with("452 4.3.1"), "{full}");
        store.maintain_beside_flush(OTHER);
        assert!(is_accepted(&deliver(&message("other"), "ann/")));
        drop(store);
        world.power_failure(&mut SimRandom::new(1));
        let _store = world.open().unwrap().unwrap();
        assert_eq!(maildir(&world.disk, "dir/eve").len(), 1 + stored);
        assert_eq!(maildir(&world.disk, "ann"), ["other"]);
    });
}

#[test]
fn a_log_that_was_opened_again_brings_nothing_back_and_makes_no_refused_delivery() {
    on_own_thread(|world, credentials| {
        let store = world.open().unwrap().unwrap();
        let deliver = |name: &str| answers(&store, credentials, &message(name), &["ann/", "box"]);
        assert!(is_accepted(&deliver("one")));
        assert!(is_accepted(&deliver("two")));
        for name in world.disk.names("base/ann/new") {
            world.disk.remove_by_reader(&format!("base/ann/new/{name}"));
        }
        // The record is written, and its flush fails.
        for after in 0..3 {
            world.medium.set_fault(SimFault::Error {
                at: world.medium.operations() + after,
                kind: io::ErrorKind::Other,
            });
            let name = format!("refused{after}");
            let refused = deliver(&name);
            world.medium.set_fault(SimFault::None);
            if store.log_failure().is_some() {
                assert!(refused.iter().all(|a| a.starts_with("451")), "{refused:?}");
                store.reopen().unwrap();
                assert!(is_accepted(&deliver(&name)), "its client tries again");
            }
        }
        let only_once = |bodies: Vec<String>, name: &str| {
            let count = bodies.iter().filter(|body| *body == name).count();
            assert_eq!(count, 1, "{name}: {bodies:?}");
        };
        let check = |disk: &SimDisk| {
            let in_maildir = maildir(disk, "ann");
            assert!(!in_maildir.contains(&"one".to_owned()), "{in_maildir:?}");
            for after in 0..3 {
                only_once(in_maildir.clone(), &format!("refused{after}"));
                only_once(mbox(disk, "box"), &format!("refused{after}"));
            }
        };
        check(&world.disk);
        store.maintain();
        drop(store);
        world.power_failure(&mut SimRandom::new(2));
        let _store = world.open().unwrap().unwrap();
        check(&world.disk);
    });
}
