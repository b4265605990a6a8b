//! A mailbox that another program has locked delays only its own mail.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use mailstow_engine::config::{MboxLock, Settings};
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::{Client, TestServer, eventually};

/// A server whose `mbox@example.com` is locked by another program, and the lock.
fn locked(deadline: Duration, change: impl FnOnce(&mut Settings)) -> (TestServer, PathBuf) {
    let server = TestServer::with(|settings| {
        settings.routing.virtual_mailbox_lock = vec![MboxLock::Dotlock];
        settings.routing.deliver_lock_attempts = 10_000;
        settings.routing.deliver_lock_delay = Duration::from_millis(20);
        settings.lmtp.delivery_deadline = deadline;
        change(settings);
    });
    // The first delivery makes the mailbox, with its directory and owner.
    let mut client = server.greeted();
    client.envelope(&["mbox"]);
    client.ask("DATA", "354");
    client.send("Subject: first\r\n\r\n.\r\n");
    client.expect("250 2.0.0");
    let lock = server.directory.path().join("mail/example.com/mbox.lock");
    std::fs::write(&lock, "1").unwrap();
    (server, lock)
}

fn mbox(server: &TestServer) -> String {
    std::fs::read_to_string(server.directory.path().join("mail/example.com/mbox")).unwrap()
}

#[test]
fn a_late_recipient_is_put_off_alone_and_its_message_never_appears() {
    let deadline = Duration::from_millis(500);
    let (server, lock) = locked(deadline, |_| {});
    let mut client = server.greeted();
    client.envelope(&["u1", "mbox", "u2"]);
    client.ask("DATA", "354");
    let start = Instant::now();
    client.send("Subject: late\r\n\r\n.\r\n");
    client.expect("250 2.0.0 <u1@example.com>");
    let first = start.elapsed();
    client.expect("451 4.2.1 <mbox@example.com>");
    client.expect("250 2.0.0 <u2@example.com>");
    assert!(start.elapsed() >= deadline);
    assert!(
        first < start.elapsed(),
        "the first reply does not wait for the second"
    );
    client.expect_in_step();
    std::fs::remove_file(lock).unwrap();
    client.envelope(&["mbox"]);
    client.ask("DATA", "354");
    client.send("Subject: next\r\n\r\n.\r\n");
    client.expect("250 2.0.0");
    let text = mbox(&server);
    assert!(
        text.contains("Subject: next") && !text.contains("Subject: late"),
        "{text}"
    );
}

#[test]
fn a_reply_is_sent_as_soon_as_it_is_known() {
    let (server, lock) = locked(Duration::from_secs(60), |_| {});
    let mut client = server.greeted();
    client.envelope(&["u1", "mbox", "u2"]);
    client.ask("DATA", "354");
    client.send("x\r\n.\r\n");
    client.expect("250 2.0.0 <u1@example.com>");
    // The second is waiting for the lock now, the third is stored but not its turn.
    eventually("the third is stored", || server.messages("u2").len() == 1);
    client.stream.set_nonblocking(true).unwrap();
    let nothing = client.stream.read(&mut [0; 100]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    client.stream.set_nonblocking(false).unwrap();
    std::fs::remove_file(lock).unwrap();
    client.expect("250 2.0.0 <mbox@example.com>");
    client.expect("250 2.0.0 <u2@example.com>");
}

#[test]
fn a_full_queue_holds_a_message_back_until_its_deadline() {
    let server = TestServer::with(|settings| {
        settings.limits.queued_deliveries = 0;
        settings.lmtp.delivery_deadline = Duration::from_millis(100);
    });
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.ask("DATA", "451 4.3.2");
    client.expect_in_step();
    assert!(server.messages("u1").is_empty());
}

#[test]
fn a_delivery_that_waits_for_a_lock_holds_no_other_message_back() {
    let one = |settings: &mut Settings| settings.limits.queued_deliveries = 1;
    let (server, lock) = locked(Duration::from_secs(60), one);
    let mut first = server.greeted();
    first.envelope(&["mbox"]);
    first.ask("DATA", "354");
    first.send("x\r\n.\r\n");
    let mut second = server.greeted();
    for _ in 0..3 {
        second.envelope(&["u1"]);
        second.ask("DATA", "354");
        second.send("x\r\n.\r\n");
        second.expect("250 2.0.0 <u1@example.com>");
    }
    // No more than one may wait for a lock here.
    second.envelope(&["mbox"]);
    second.ask("DATA", "354");
    second.send("x\r\n.\r\n");
    second.expect("451 4.2.0 <mbox@example.com>");
    std::fs::remove_file(lock).unwrap();
    first.expect("250 2.0.0 <mbox@example.com>");
}

#[test]
fn what_has_not_begun_when_its_client_is_gone_is_given_up_and_stored_once_when_it_comes_again() {
    let (server, lock) = locked(Duration::from_secs(60), |settings| {
        settings.limits.connections = 1;
    });
    let send = |client: &mut Client| {
        client.envelope(&["mbox"]);
        client.ask("DATA", "354");
        client.send("Subject: left\r\n\r\n.\r\n");
    };
    // A place is free when the session of another client is over.
    let connected = || {
        let mut found = None;
        eventually("a place is free", || {
            let mut client = Client::new(UnixStream::connect(server.socket()).unwrap());
            let greeting = client.reply();
            found = greeting
                .filter(|greeting| greeting.starts_with("220"))
                .map(|_| client);
            found.is_some()
        });
        let mut client = found.unwrap();
        client.ask("LHLO client.example", "250");
        client
    };
    for _ in 0..3 {
        let mut client = connected();
        send(&mut client);
    }
    let mut client = connected();
    send(&mut client);
    std::fs::remove_file(lock).unwrap();
    client.expect("250 2.0.0");
    assert_eq!(mbox(&server).matches("Subject: left").count(), 1);
}

#[test]
fn a_client_that_only_has_nothing_more_to_say_is_waited_for() {
    let (server, lock) = locked(Duration::from_secs(60), |_| {});
    let mut client = server.greeted();
    client.envelope(&["mbox"]);
    client.ask("DATA", "354");
    client.send("Subject: half\r\n\r\n.\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    // Longer than it takes to look whether the client is gone.
    std::thread::sleep(Duration::from_millis(2500));
    std::fs::remove_file(lock).unwrap();
    client.expect("250 2.0.0");
    assert!(mbox(&server).contains("Subject: half"));
}
