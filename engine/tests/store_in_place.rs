//! Long messages that are received in place, in their Maildir, on a real file system.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod common;

use common::*;
use mailstow_engine::address::{Address, parse_address};
use mailstow_engine::config::{Compress, Copies, Durability, Settings};
use mailstow_engine::route::MailboxTarget;
use mailstow_engine::sim::{Blocking, Disk, Fault, Faulty};
use mailstow_engine::sim::{Store, Ticket};
use mailstow_engine::{Mail, Outcome};
use mailstow_engine::{Message, Recipient, ReversePath};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

const HEADER: &str = "Return-Path: <s@ex.example>\nX-Original-To: orig@ex.example\n\
    Delivered-To: info@vm.example\n";

fn settings(place: &Place) -> Settings {
    let mut settings = place.settings();
    settings.limits.message_memory_bytes = 1000;
    settings.delivery_log.message_bytes_max = 3000;
    settings
}

fn open(settings: &Settings) -> Store<Faulty<Blocking>> {
    Store::open_on(Faulty::new(Blocking::new()), settings).unwrap()
}

fn sender() -> ReversePath {
    parse_address("s@ex.example").unwrap()
}

fn content(seed: u32) -> Vec<u8> {
    let lines = (0..60_000_u32).map(|n| format!("{:x}\n", n.wrapping_mul(2_654_435_761) ^ seed));
    format!("Subject: {seed}\n\n{}", lines.collect::<String>()).into_bytes()
}

/// Receives a message for one mailbox, as a session does.
fn arrive<D: Disk>(store: &Store<D>, content: &[u8], target: &MailboxTarget) -> Message {
    arrive_for(store, content, &[recipient()], target)
}

/// The same for several recipients of the mailbox.
fn arrive_for<D: Disk>(
    store: &Store<D>,
    content: &[u8],
    recipients: &[Recipient],
    target: &MailboxTarget,
) -> Message {
    let mut builder = store.new_message();
    let mut was_asked = false;
    for piece in content.chunks(900) {
        builder.write(piece).unwrap();
        if !was_asked && store.may_receive_in_place(builder.size()) {
            was_asked = true;
            store.receive_in_place(&mut builder, &sender(), (recipients, target));
        }
    }
    assert!(was_asked);
    builder.finish().unwrap()
}

/// Delivers a message that has arrived; status and tickets.
fn store_it<D: Disk>(
    store: &Store<D>,
    message: &Message,
    to: &[MailboxTarget],
) -> (Vec<String>, Vec<Ticket>) {
    let to = to.iter().map(|target| (recipient(), target.clone()));
    store_for(store, message, to.collect())
}

fn store_for<D: Disk>(
    store: &Store<D>,
    message: &Message,
    to: Vec<(Recipient, MailboxTarget)>,
) -> (Vec<String>, Vec<Ticket>) {
    let (sent, outcomes) = mpsc::channel();
    let report = move |index, outcome: Outcome| {
        let _ = sent.send((index, outcome.status.to_string()));
    };
    let mail = Mail {
        reverse_path: sender(),
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: message.clone(),
    };
    let mut statuses = vec![String::new(); to.len()];
    let tickets = store.submit(Arc::new(mail), to, Arc::new(report));
    for _ in 0..statuses.len() {
        let (index, status) = outcomes.recv_timeout(DEADLINE).unwrap();
        statuses[index] = status;
    }
    (statuses, tickets)
}

fn stored(maildir: &Path) -> Vec<PathBuf> {
    assert!(names(&maildir.join("tmp")).is_empty());
    let new = maildir.join("new");
    names(&new).iter().map(|name| new.join(name)).collect()
}

/// The one message of a Maildir, which must be this one.
#[track_caller]
fn assert_holds(maildir: &Path, content: &[u8]) -> PathBuf {
    let mut files = stored(maildir);
    assert_eq!(files.len(), 1);
    let file = files.remove(0);
    let expected = [HEADER.as_bytes(), content].concat();
    assert!(fs::read(&file).unwrap() == expected);
    let (stat, name) = (fs::metadata(&file).unwrap(), file.display().to_string());
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o777), {
        let (uid, gid) = owner();
        (uid, gid, 0o600)
    });
    let wire = expected.len() + expected.iter().filter(|b| **b == b'\n').count();
    assert!(name.ends_with(&format!(",S={},W={wire}", expected.len())));
    file
}

fn make_maildir<D: Disk>(store: &Store<D>, path: &str) {
    assert!(deliver(store, b"\nfirst\n", path).starts_with("250"));
}

fn empty(maildir: &Path) {
    for file in stored(maildir) {
        fs::remove_file(file).unwrap();
    }
}

fn is_copied(store: &Store<Faulty<Blocking>>) -> bool {
    store.disk().take_trace().contains(&"write_all")
}

#[test]
fn a_long_message_stands_whole_in_the_file_it_arrived_in() {
    for durability in [Durability::Direct, Durability::Logged] {
        let place = Place::new();
        let mut settings = settings(&place);
        settings.store.durability = durability;
        let store = open(&settings);
        let (md, maildir) = (target("dom/user/"), place.base().join("dom/user"));
        make_maildir(&store, "dom/user/");
        empty(&maildir);
        store.disk().take_trace();
        let message = arrive(&store, &content(1), &md);
        assert!(stored(&maildir).is_empty(), "nobody sees it yet");
        let (statuses, _) = store_it(&store, &message, &[md]);
        assert_eq!(statuses, ["250 2.0.0 delivered to maildir"]);
        assert!(!is_copied(&store), "{durability:?}");
        assert_holds(&maildir, &content(1));
    }
}

#[test]
fn a_long_message_for_several_recipients_of_a_mailbox_names_all_where_it_arrived() {
    let place = Place::new();
    let mut settings = settings(&place);
    settings.store.copies = Copies::Mailbox;
    let store = open(&settings);
    let (md, maildir) = (target("dom/user/"), place.base().join("dom/user"));
    make_maildir(&store, "dom/user/");
    empty(&maildir);
    let named = |name: &str| Recipient {
        address: Address::new(name, Some("vm.example")),
        ..recipient()
    };
    let recipients = [named("b"), named("a"), named("b")];
    store.disk().take_trace();
    let message = arrive_for(&store, &content(1), &recipients, &md);
    let to = recipients.map(|recipient| (recipient, md.clone()));
    let (statuses, _) = store_for(&store, &message, to.into());
    assert_eq!(statuses, ["250 2.0.0 delivered to maildir"; 3]);
    assert!(!is_copied(&store));
    let files = stored(&maildir);
    let header = "Return-Path: <s@ex.example>\n\
        X-Original-To: orig@ex.example\nDelivered-To: b@vm.example\n\
        X-Original-To: orig@ex.example\nDelivered-To: a@vm.example\n";
    let expected = [header.as_bytes(), &content(1)].concat();
    assert_eq!(files.len(), 1);
    assert!(fs::read(&files[0]).unwrap() == expected);
    let size = format!(",S={},", expected.len());
    assert!(files[0].display().to_string().contains(&size));
}

#[test]
fn a_message_for_a_maildir_that_is_missing_or_compressed_or_for_an_mbox_is_stored_as_ever() {
    let place = Place::new();
    let mut settings = settings(&place);
    let store = open(&settings);
    for path in ["dom/missing/", "mbox"] {
        let message = arrive(&store, &content(1), &target(path));
        assert!(!place.base().join(path).exists(), "made before its time");
        let (statuses, _) = store_it(&store, &message, &[target(path)]);
        assert!(statuses[0].starts_with("250"), "{statuses:?}");
        assert!(is_copied(&store));
    }
    assert_holds(&place.base().join("dom/missing"), &content(1));
    drop(store);
    empty(&place.base().join("dom/missing"));
    settings.store.compress = Compress::Zstd;
    let store = open(&settings);
    let md = target("dom/missing/");
    let message = arrive(&store, &content(1), &md);
    assert!(store_it(&store, &message, &[md]).0[0].starts_with("250"));
    let files = stored(&place.base().join("dom/missing"));
    assert!(
        fs::read(&files[0])
            .unwrap()
            .starts_with(b"\x28\xb5\x2f\xfd")
    );
}

#[test]
fn a_message_given_up_while_it_arrives_or_waits_leaves_nothing() {
    let place = Place::new();
    let settings = settings(&place);
    let store = open(&settings);
    let (md, maildir) = (target("dom/user/"), place.base().join("dom/user"));
    make_maildir(&store, "dom/user/");
    empty(&maildir);
    drop(arrive(&store, &content(1), &md));
    store.disk().hold("sync");
    let message = arrive(&store, &content(2), &md);
    let mail = Mail {
        reverse_path: sender(),
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message,
    };
    let to = vec![(recipient(), md)];
    let tickets = store.submit(Arc::new(mail), to, Arc::new(|_, _| {}));
    store.disk().wait_until_reached();
    assert!(tickets[0].abandon());
    store.disk().release();
    store.close();
    assert!(stored(&maildir).is_empty());
    assert!(names(&settings.state_directory).is_empty());
}

#[test]
fn whatever_fails_before_the_message_is_whole_does_not_matter() {
    for errno in [libc::EDQUOT, libc::EACCES, libc::EIO] {
        let place = Place::new();
        let store = open(&settings(&place));
        let (md, maildir) = (target("dom/user/"), place.base().join("dom/user"));
        make_maildir(&store, "dom/user/");
        empty(&maildir);
        store.disk().plan(fault("create_unnamed", errno));
        let message = arrive(&store, &content(1), &md);
        let (statuses, _) = store_it(&store, &message, &[md]);
        assert_eq!(statuses, ["250 2.0.0 delivered to maildir"]);
        assert!(is_copied(&store));
        assert_holds(&maildir, &content(1));
    }
}

#[test]
fn a_file_that_cannot_get_its_name_is_copied_and_one_that_cannot_be_flushed_is_refused() {
    let place = Place::new();
    let store = open(&settings(&place));
    let (md, maildir) = (target("dom/user/"), place.base().join("dom/user"));
    make_maildir(&store, "dom/user/");
    empty(&maildir);
    let message = arrive(&store, &content(1), &md);
    store.disk().plan(fault("name_unnamed", libc::EXDEV));
    let to = std::slice::from_ref(&md);
    assert!(store_it(&store, &message, to).0[0].starts_with("250"));
    assert!(is_copied(&store));
    assert_holds(&maildir, &content(1));
    empty(&maildir);
    let message = arrive(&store, &content(2), &md);
    store.disk().plan(fault("sync", libc::EIO));
    assert!(store_it(&store, &message, to).0[0].starts_with("451 4.3.0"));
    assert!(stored(&maildir).is_empty());
}

#[test]
fn a_maildir_made_anew_while_the_message_came_gets_it_all_the_same() {
    let place = Place::new();
    let store = open(&settings(&place));
    let (md, maildir) = (target("dom/user/"), place.base().join("dom/user"));
    make_maildir(&store, "dom/user/");
    let message = arrive(&store, &content(1), &md);
    fs::rename(&maildir, place.base().join("dom/moved")).unwrap();
    let (statuses, _) = store_it(&store, &message, &[md]);
    assert!(statuses[0].starts_with("250"), "{statuses:?}");
    assert!(is_copied(&store));
    assert_holds(&maildir, &content(1));
    assert_eq!(stored(&place.base().join("dom/moved")).len(), 1);
}

#[test]
fn one_file_is_given_to_one_delivery_whoever_else_is_to_have_the_message() {
    let place = Place::new();
    let store = open(&settings(&place));
    let to = ["dom/one/", "dom/two/"].map(target);
    for path in ["dom/one/", "dom/two/"] {
        make_maildir(&store, path);
        empty(&place.base().join(path));
    }
    let message = arrive(&store, &content(1), &to[0]);
    assert!(
        store_it(&store, &message, &to)
            .0
            .iter()
            .all(|s| s.starts_with("250"))
    );
    let files =
        ["dom/one", "dom/two"].map(|path| assert_holds(&place.base().join(path), &content(1)));
    let inodes = files.map(|file| fs::metadata(file).unwrap().ino());
    assert_ne!(inodes[0], inodes[1]);
    // Once more into the same mailbox: a second file.
    assert!(store_it(&store, &message, &to[..1]).0[0].starts_with("250"));
    let files = stored(&place.base().join("dom/one"));
    assert_eq!(files.len(), 2);
    assert!(
        files
            .iter()
            .all(|file| fs::metadata(file).unwrap().nlink() == 1)
    );
}

#[test]
fn every_message_belongs_to_the_owner_of_its_mailbox() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = open(&settings(&place));
    for id in [5100, 5200] {
        let path = format!("own{id}");
        let maildir = place.make_dir(&path);
        std::os::unix::fs::chown(&maildir, Some(id), Some(id + 1)).unwrap();
        let mut md = target(&format!("{path}/"));
        (md.uid, md.gid) = (id, id + 1);
        // The first makes the Maildir, the second goes there as it arrives.
        for seed in 0..2 {
            let message = arrive(&store, &content(seed), &md);
            store.disk().take_trace();
            let (statuses, _) = store_it(&store, &message, std::slice::from_ref(&md));
            assert!(statuses[0].starts_with("250"), "{statuses:?}");
            assert_eq!(is_copied(&store), seed == 0);
        }
        let files = stored(&maildir);
        assert_eq!(files.len(), 2);
        for file in files {
            let stat = fs::metadata(file).unwrap();
            assert_eq!((stat.uid(), stat.gid()), (id, id + 1));
        }
        // Another user opens nothing there.
        (md.uid, md.gid) = owner();
        let message = arrive(&store, &content(3), &md);
        let (statuses, _) = store_it(&store, &message, &[md]);
        assert!(statuses[0].starts_with("451 4.2.0"), "{statuses:?}");
    }
}

#[test]
fn a_long_message_in_doubt_is_stored_once_unless_its_file_was_changed() {
    let place = Place::new();
    let mut settings = settings(&place);
    settings.store.durability = Durability::Logged;
    let store = open(&settings);
    let (md, maildir) = (target("dom/user/"), place.base().join("dom/user"));
    make_maildir(&store, "dom/user/");
    empty(&maildir);
    let to = std::slice::from_ref(&md);
    for (seed, is_changed) in [(1, false), (2, true)] {
        let again = || {
            let message = arrive(&store, &content(seed), &md);
            store_it(&store, &message, to)
        };
        let (statuses, tickets) = again();
        assert_eq!(statuses, ["250 2.0.0 delivered to maildir"]);
        let file = assert_holds(&maildir, &content(seed));
        if is_changed {
            fs::write(&file, [HEADER.as_bytes(), &content(3)].concat()).unwrap();
        } else {
            fs::remove_file(&file).unwrap();
        }
        store.doubt(&tickets);
        let expected = match is_changed {
            true => "250 2.0.0 delivered to maildir",
            false => "250 2.0.0 delivered before",
        };
        assert_eq!(again().0, [expected]);
        empty(&maildir);
    }
    // What it was changed to was never received.
    let message = arrive(&store, &content(3), &md);
    assert_eq!(
        store_it(&store, &message, to).0,
        ["250 2.0.0 delivered to maildir"]
    );
}

fn fault(operation: &'static str, errno: i32) -> Fault {
    Fault {
        operation,
        after: 0,
        errno,
        bytes_written: 0,
        persists: false,
    }
}
