//! Goal: when the log cannot be written mail is put off, nobody is told a lie, and the store says
//! so until the log is in service again; a mailbox that cannot be written puts off its own mail
//! only. Method: one failing operation of the simulated machine.

use super::super::store::Store;
use super::super::types::{Mail, Outcome};
use super::state_directory;
use super::world::{World, recipient, sender};
use crate::io::Credentials;
use crate::io::sim::{DiskFault, SimDisk};
use crate::log::sim::SimFault;
use crate::route::{Format, MailboxTarget};
use crate::sync::{Arc, Mutex};
use std::cell::RefCell;
use std::io;

/// Delivers and waits; the answers.
fn answers(
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
        message: message.finish().unwrap(),
    });
    let is_root = nix::unistd::geteuid().is_root();
    let own = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let (uid, gid) = if is_root { (5000, 5000) } else { own };
    let targets = to.iter().enumerate().map(|(index, name)| {
        let target = MailboxTarget {
            path: name.trim_end_matches('/').to_owned(),
            format: match name.ends_with('/') {
                true => Format::Maildir,
                false => Format::Mbox,
            },
            uid,
            gid,
        };
        (recipient((index, 1)), target)
    });
    let answers = Arc::new(Mutex::new(vec![String::new(); to.len()]));
    let report = Arc::clone(&answers);
    let on_outcome = move |at: usize, outcome: Outcome| {
        report.lock()[at] = outcome.status.to_string();
    };
    let tickets = store.submit(mail, targets.collect(), Arc::new(on_outcome));
    while answers.lock().iter().any(String::is_empty) {
        store.step(credentials);
    }
    // The client goes on.
    store.confirm(&tickets);
    answers.lock().clone()
}

/// Mailbox owners' identities are taken on a thread that ends with the test.
fn on_own_thread(test: impl FnOnce(&mut World, &RefCell<Credentials>) + Send) {
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
        let all_are = |answers: Vec<String>, code: &str| {
            let all = answers.iter().all(|answer| answer.starts_with(code));
            assert!(all, "not {code}: {answers:?}");
        };
        all_are(answers(&store, credentials, b"first\n", &to), "250 ");
        assert!(store.log_failure().is_none());
        world.medium.set_fault(SimFault::Error {
            at: world.medium.operations(),
            kind: io::ErrorKind::Other,
        });
        all_are(answers(&store, credentials, b"second\n", &to), "451 4.3.0");
        let failure = store.log_failure().expect("the store says so");
        assert!(failure.to_string().contains("log"), "{failure}");
        // The fault is gone, and still nothing is believed.
        world.medium.set_fault(SimFault::None);
        all_are(answers(&store, credentials, b"third\n", &to), "451 4.3.0");
        store.reopen().unwrap();
        assert!(store.log_failure().is_none());
        for content in [&b"second\n"[..], b"third\n"] {
            all_are(answers(&store, credentials, content, &to), "250 ");
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
