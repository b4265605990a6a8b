//! Goal: when a client sends a message again because its replies were lost, each recipient that has
//! the message is answered from its first delivery, whichever recipients shared a copy then and
//! share one now; each recipient that does not have it gets it. Method: a few messages for the
//! users of one mailbox, with the log kept, recovered, or written by an earlier version.

use super::super::ledger::fingerprint::{BaseDigest, DuplicateKey, digest_of};
use super::super::store::Store;
use super::super::types::{Mail, Outcome};
use super::content::LOGGED_BYTES_MAX;
use super::source::log_settings;
use super::state_directory;
use super::world::{MAILBOXES, World, recipient, sender};
use crate::io::Credentials;
use crate::io::sim::{SimDisk, SimRandom};
use crate::log::{DeliveryId, InDoubt, Record, RecordKind, StepwiseLog};
use crate::sync::{Arc, Mutex};
use crate::target::{Format, MailboxTarget};
use std::cell::RefCell;
use std::path::Path;

const CONTENT: &[u8] = b"Message-Id: <0>\n\ntext\n";

/// Too long for the log.
fn long_content() -> Vec<u8> {
    let lines = "a line of a long message\n".repeat(1000);
    assert!(lines.len() as u64 > LOGGED_BYTES_MAX);
    format!("Message-Id: <1>\n\n{lines}").into_bytes()
}

fn world() -> World {
    World::new(0, None, state_directory())
}

/// Sends the message to users of a mailbox and returns the answers. Its replies are lost.
fn send(
    world: &World,
    store: &Store<SimDisk>,
    credentials: &RefCell<Credentials>,
    mailbox: usize,
    users: &[usize],
) -> Vec<String> {
    send_content(world, (store, credentials), CONTENT, mailbox, users)
}

/// As [`send`], with this content.
fn send_content(
    world: &World,
    (store, credentials): (&Store<SimDisk>, &RefCell<Credentials>),
    content: &[u8],
    mailbox: usize,
    users: &[usize],
) -> Vec<String> {
    let mut message = store.new_message();
    message.write(content).unwrap();
    let mail = Arc::new(Mail {
        reverse_path: sender(),
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: message.finish().unwrap(),
    });
    let name = MAILBOXES[mailbox];
    let target = {
        let (uid, gid) = world.owner;
        MailboxTarget::new(name, Format::of(name), uid, gid).unwrap()
    };
    let to = users
        .iter()
        .map(|user| (recipient((mailbox, *user)), target.clone()));
    let answers = Arc::new(Mutex::new(vec![String::new(); users.len()]));
    let report = Arc::clone(&answers);
    let on_outcome = move |at: usize, outcome: Outcome| {
        report.lock()[at] = outcome.status.text.into_owned();
    };
    let tickets = store.submit(mail, to.collect(), Arc::new(on_outcome));
    while answers.lock().iter().any(String::is_empty) {
        store.step(credentials);
    }
    store.doubt(&tickets);
    answers.lock().clone()
}

/// Which users the copies in a mailbox name, copy by copy, in the order of the users. Names of
/// files sort by time only while their numbers have as many digits.
fn named(world: &World, mailbox: usize) -> Vec<Vec<usize>> {
    let name = MAILBOXES[mailbox];
    let copies: Vec<Vec<u8>> = match name.strip_suffix('/') {
        Some(name) => {
            let files = world.disk.names(&format!("base/{name}/new")).into_iter();
            let read = |file| {
                world
                    .disk
                    .content(&format!("base/{name}/new/{file}"))
                    .unwrap()
            };
            files.map(read).collect()
        }
        None => {
            let bytes = world.disk.content(&format!("base/{name}")).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            let copies = text.split("\n\nFrom ");
            copies.map(|copy| copy.as_bytes().to_vec()).collect()
        }
    };
    let users = |copy: &Vec<u8>| {
        let text = String::from_utf8(copy.clone()).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("Delivered-To: user"));
        lines
            .map(|line| line.split('@').next().unwrap().parse().unwrap())
            .collect()
    };
    let mut all: Vec<Vec<usize>> = copies.iter().map(users).collect();
    all.sort();
    all
}

/// Runs work that takes the identity of a mailbox owner on a thread that ends with it.
fn on_thread(run: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn each_recipient_finds_its_first_delivery_whoever_shares_its_copy() {
    for mailbox in [0, 2] {
        for is_recovered in [false, true] {
            on_thread(|| {
                let mut world = world();
                let credentials = RefCell::new(Credentials::of_this_thread());
                let mut store = world.open().unwrap().unwrap();
                let first = send(&world, &store, &credentials, mailbox, &[1, 0, 1]);
                assert!(first.iter().all(|text| text.starts_with("delivered to")));
                assert_eq!(named(&world, mailbox), [[1, 0]]);
                if is_recovered {
                    drop(store);
                    world.kill();
                    store = world.open().unwrap().unwrap();
                }
                // Fewer, others, in another order: only new users get a copy.
                let again = send(&world, &store, &credentials, mailbox, &[2, 0]);
                assert!(again[0].starts_with("delivered to"), "{again:?}");
                assert_eq!(again[1], "delivered before");
                assert_eq!(named(&world, mailbox), [vec![1, 0], vec![2]]);
                let again = send(&world, &store, &credentials, mailbox, &[0, 1, 2, 0]);
                assert_eq!(again, ["delivered before"; 4]);
                assert_eq!(named(&world, mailbox).len(), 2);
            });
        }
    }
}

#[test]
fn a_delivery_in_doubt_is_known_after_a_crash_although_a_checkpoint_came_behind_its_record() {
    for seed in 0..8 {
        on_thread(move || {
            let mut world = world();
            let credentials = RefCell::new(Credentials::of_this_thread());
            let store = world.open().unwrap().unwrap();
            // This one is in the log, and the checkpoint has something to cover.
            send(&world, &store, &credentials, 0, &[0]);
            let running = Arc::clone(&world.running);
            running.behind_next(RecordKind::InDoubt, store.checkpointer());
            let long = long_content();
            let with = (&store, &credentials);
            let first = send_content(&world, with, &long, 0, &[1]);
            assert!(first[0].starts_with("delivered to"), "{first:?}");
            drop(store);
            world.power_failure(&mut SimRandom::new(seed));
            let store = world.open().unwrap().unwrap();
            let with = (&store, &credentials);
            let again = send_content(&world, with, &long, 0, &[1]);
            assert_eq!(again, ["delivered before"]);
            assert_eq!(named(&world, 0).len(), 2);
        });
    }
}

#[test]
fn a_delivery_in_doubt_since_a_log_of_version_1_answers_for_its_repetition() {
    on_thread(|| {
        let world = world();
        let medium = Arc::new(world.medium.clone());
        let (log, _) = StepwiseLog::open_stepwise(medium, log_settings()).unwrap();
        let to = recipient((0, 1));
        let key = DuplicateKey {
            base: BaseDigest::of(Path::new("/base")),
            reverse_path: &sender().external(),
            queue_id: "",
            original: to.original.as_deref().unwrap(),
            address: "",
            mailbox: "ann",
        };
        let entry = InDoubt {
            id: DeliveryId(7),
            recipient: 0,
            key: key.key_of_version_1(&digest_of(CONTENT)),
            since: crate::clock::since_epoch(),
        };
        let ticket = log
            .append(Record::InDoubt(vec![entry]).encode(), None)
            .unwrap();
        log.wait(ticket).unwrap();
        drop(log);
        let credentials = RefCell::new(Credentials::of_this_thread());
        let store = world.open().unwrap().unwrap();
        assert_eq!(
            send(&world, &store, &credentials, 0, &[1]),
            ["delivered before"]
        );
        let other = send(&world, &store, &credentials, 0, &[0]);
        assert!(other[0].starts_with("delivered to"), "{other:?}");
    });
}
