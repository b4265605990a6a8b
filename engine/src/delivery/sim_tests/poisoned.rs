//! Goal: while the log cannot be written mail is deferred, no answer is wrong, and the store
//! reports the failure until the log is in service again; a mailbox that cannot be written defers
//! only its own mail. Method: one failing operation of the simulated machine.

use super::super::store::Store;
use super::super::types::{Mail, Outcome};
use super::source::SEGMENT_BYTES;
use super::state_directory;
use super::world::{World, recipient, sender};
use crate::io::Credentials;
use crate::io::sim::{DiskFault, SimDisk, SimRandom};
use crate::log::sim::SimFault;
use crate::sync::{Arc, Mutex};
use crate::target::{Format, MailboxTarget};
use std::cell::RefCell;
use std::io;

/// Delivers and waits; returns the answers.
pub(super) fn answers(
    store: &Store<SimDisk>,
    credentials: &RefCell<Credentials>,
    content: &[u8],
    to: &[&str],
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
    let is_root = nix::unistd::geteuid().is_root();
    let own = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let (uid, gid) = if is_root { (5000, 5000) } else { own };
    let targets = to.iter().enumerate().map(|(index, name)| {
        let target = MailboxTarget::new(*name, Format::of(name), uid, gid).unwrap();
        (recipient((index, 1)), target)
    });
    let answers = Arc::new(Mutex::new(vec![String::new(); to.len()]));
    let report = Arc::clone(&answers);
    let on_outcome = move |at: usize, outcome: Outcome| {
        let doubt = if outcome.may_appear {
            "; may appear"
        } else {
            ""
        };
        report.lock()[at] = format!("{}{doubt}", outcome.status);
    };
    let tickets = store.submit(mail, targets.collect(), Arc::new(on_outcome));
    while answers.lock().iter().any(String::is_empty) {
        store.step(credentials);
    }
    // The client disconnects.
    store.confirm(&tickets);
    answers.lock().clone()
}

/// A thread that ends with the test takes the identities of mailbox owners.
pub(super) fn on_own_thread(test: impl FnOnce(&mut World, &RefCell<Credentials>) + Send) {
    std::thread::scope(|scope| {
        let run = || {
            let mut world = World::new(1, None, state_directory());
            test(&mut world, &RefCell::new(Credentials::of_this_thread()));
        };
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_log_that_fails_puts_all_mail_off_until_it_is_opened_again_and_recovered() {
    on_own_thread(|world, credentials| {
        let store = world.open().unwrap().unwrap();
        let to = ["ann/", "box"];
        let all_are = |answers: Vec<String>, code: &str, may_appear: bool| {
            let is_so = |answer: &String| {
                answer.starts_with(code) && answer.ends_with("; may appear") == may_appear
            };
            assert!(answers.iter().all(is_so), "not {code}: {answers:?}");
        };
        all_are(answers(&store, credentials, b"first\n", &to), "250 ", false);
        assert!(store.log_failure().is_none());
        world.medium.set_fault(SimFault::Error {
            at: world.medium.operations(),
            kind: io::ErrorKind::Other,
        });
        let second = answers(&store, credentials, b"second\n", &to);
        all_are(second, "451 4.3.0", true);
        let failure = store.log_failure().expect("the store says so");
        assert!(failure.to_string().contains("log"), "{failure}");
        // The disk works again, but nothing read from it is trusted yet.
        world.medium.set_fault(SimFault::None);
        // It was not appended.
        let third = answers(&store, credentials, b"third\n", &to);
        all_are(third, "451 4.3.0", false);
        store.reopen().unwrap();
        assert!(store.log_failure().is_none());
        for content in [&b"second\n"[..], b"third\n"] {
            all_are(answers(&store, credentials, content, &to), "250 ", false);
        }
        let files = world.disk.names("base/ann/new");
        assert_eq!(files.len(), 3, "each message once: {files:?}");
        let mbox = world.disk.content("base/box").unwrap();
        let messages = memchr::memmem::find_iter(&mbox, "Return-Path: ").count();
        assert_eq!(messages, 3);
    });
}

#[test]
fn a_full_log_puts_mail_off_until_a_checkpoint_has_made_room() {
    on_own_thread(|world, credentials| {
        let store = world.open().unwrap().unwrap();
        let content = [b'x'; 4000];
        let mut stored = 0;
        let refused = loop {
            let answer = answers(&store, credentials, &content, &["ann/"]).remove(0);
            if !answer.starts_with("250 ") {
                break answer;
            }
            stored += 1;
            assert!(stored < 1000, "the log is bounded");
        };
        assert!(refused.starts_with("452 4.3.1"), "{refused}");
        assert!(store.log_failure().is_none(), "full is no failure");
        store.checkpoint().unwrap();
        let answer = answers(&store, credentials, &content, &["ann/"]).remove(0);
        assert!(answer.starts_with("250 "), "{answer}");
        assert_eq!(world.disk.names("base/ann/new").len(), stored + 1);
    });
}

#[test]
fn a_disk_without_room_for_the_log_puts_mail_off_from_the_start_until_there_is_some() {
    on_own_thread(|world, credentials| {
        world.medium.set_capacity(Some(1000));
        let store = world.open().unwrap().unwrap();
        let deliver = || answers(&store, credentials, b"content\n", &["ann/"]).remove(0);
        let answer = deliver();
        assert!(answer.starts_with("451 4.3.0"), "{answer}");
        assert!(store.log_failure().is_some());
        assert!(store.reopen().is_err(), "it is still full");
        world.medium.set_capacity(None);
        store.reopen().unwrap();
        let answer = deliver();
        assert!(answer.starts_with("250 "), "{answer}");
        assert_eq!(world.disk.names("base/ann/new").len(), 1);
    });
}

/// Text that compresses by few bytes.
fn incompressible(bytes: usize) -> Vec<u8> {
    let mut random = SimRandom::new(1);
    let mut letter = || b'!' + u8::try_from(random.below(90)).unwrap();
    std::iter::repeat_with(&mut letter).take(bytes).collect()
}

#[test]
fn on_a_full_disk_spare_segments_are_given_back_before_mail_is_put_off() {
    on_own_thread(|world, credentials| {
        let store = world.open().unwrap().unwrap();
        let content = incompressible(4000);
        let deliver = || answers(&store, credentials, &content, &["ann/"]).remove(0);
        // The log grows, and a checkpoint makes spare segments of the freed ones.
        let deliver_some = |count| {
            for number in 0..count {
                let answer = deliver();
                assert!(answer.starts_with("250 "), "{number}: {answer}");
            }
        };
        deliver_some(16);
        store.checkpoint().unwrap();
        let with_spares = world.medium.used();
        assert!(with_spares >= 5 * SEGMENT_BYTES, "{with_spares}");
        let mailboxes = || {
            let names = world.disk.names("base/ann/new");
            let paths = names.iter().map(|name| format!("base/ann/new/{name}"));
            paths
                .map(|path| world.disk.content(&path).unwrap().len() as u64)
                .sum::<u64>()
        };
        // There is space for one or two messages more, as long as the log keeps its segments.
        world
            .medium
            .set_capacity(Some(with_spares + mailboxes() + 9000));
        // A log without spares soon needs the checkpoint that a server makes then.
        let (mut stored, mut is_fresh) = (0, false);
        let refused = loop {
            let answer = deliver();
            match (answer.starts_with("250 "), is_fresh) {
                (true, _) => (stored, is_fresh) = (stored + 1, false),
                (false, true) => break answer,
                (false, false) => {
                    store.checkpoint().unwrap();
                    is_fresh = true;
                }
            }
            assert!(stored < 1000, "the disk is bounded");
        };
        assert!(refused.starts_with("452 4.3.1"), "{refused}");
        assert!(store.log_failure().is_none(), "full is no failure");
        let given = with_spares - world.medium.used();
        assert!(given >= 2 * SEGMENT_BYTES, "{given} bytes were given back");
        assert!(
            stored * 4000 > given / 2,
            "{stored} messages took their place"
        );
        // The rest of the log still works.
        store.checkpoint().unwrap();
        let used = world.medium.used();
        assert!(used <= 4 * SEGMENT_BYTES, "{used}");
        world.medium.set_capacity(None);
        deliver_some(16);
    });
}

#[test]
fn recovery_on_a_full_disk_has_the_log_give_space_back_first() {
    on_own_thread(|world, credentials| {
        let content = incompressible(4000);
        let store = world.open().unwrap().unwrap();
        let deliver =
            |store: &Store<SimDisk>| answers(store, credentials, &content, &["ann/"]).remove(0);
        for number in 0..16 {
            let answer = deliver(&store);
            assert!(answer.starts_with("250 "), "{number}: {answer}");
        }
        store.checkpoint().unwrap();
        // Durable in the log only.
        for number in 0..10 {
            let answer = deliver(&store);
            assert!(answer.starts_with("250 "), "{number}: {answer}");
        }
        drop(store);
        let mut random = SimRandom::new(7);
        world.power_failure(&mut random);
        let taken = |world: &World| {
            let names = world.disk.names("base/ann/new");
            let paths = names.iter().map(|name| format!("base/ann/new/{name}"));
            paths
                .map(|path| world.disk.content(&path).map_or(0, |c| c.len() as u64))
                .sum::<u64>()
        };
        // There is space for hardly one message beside the log and the mailboxes.
        let capacity = world.medium.used() + taken(world) + 5000;
        world.medium.set_capacity(Some(capacity));
        let store = world.open().unwrap().unwrap();
        let report = store.recovered().unwrap();
        assert_eq!(report.waiting, 0, "{report}");
        assert_eq!(store.health().waiting, 0);
        assert!(report.rewritten > 1, "{report}");
        assert_eq!(world.disk.names("base/ann/new").len(), 26);
    });
}

#[test]
fn a_mailbox_that_cannot_be_written_puts_off_its_own_mail_only() {
    on_own_thread(|world, credentials| {
        let store = world.open().unwrap().unwrap();
        let to = ["ann/", "bob/", "box"];
        let first = answers(&store, credentials, b"first\n", &to);
        assert!(first.iter().all(|answer| answer.starts_with("250 ")));
        let mut refusals = 0;
        for after in 0.. {
            let at = world.disk.operations() + after;
            let errno = libc::EIO;
            world.disk.set_fault(DiskFault::Error { at, errno });
            let content = format!("{after}\n");
            let answers = answers(&store, credentials, content.as_bytes(), &to);
            let refused: Vec<&String> = answers.iter().filter(|a| !a.starts_with("250 ")).collect();
            assert!(refused.len() <= 1, "{answers:?}");
            assert!(
                refused.iter().all(|a| a.starts_with("451 4.")),
                "{answers:?}"
            );
            assert!(store.log_failure().is_none());
            refusals += refused.len();
            if world.disk.operations() <= at {
                break;
            }
        }
        assert!(refusals >= 3, "each of the mailboxes failed: {refusals}");
    });
}
