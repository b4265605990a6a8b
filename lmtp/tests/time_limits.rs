//! Clients that are silent, slow, or do not listen.

mod support;

use std::time::{Duration, Instant};
use support::{Client, TIMEOUT, TestServer, eventually};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_silent_session_is_ended_with_a_word() {
    let server = TestServer::with(|s| s.lmtp.idle_timeout = SHORT);
    let mut client = server.greeted();
    client.expect("421 4.4.2");
    client.expect_closed();
}

#[test]
fn a_session_that_is_used_outlives_the_idle_timeout() {
    let server = TestServer::with(|s| s.lmtp.idle_timeout = Duration::from_secs(2));
    let mut client = server.greeted();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        client.ask("NOOP", "250 2.0.0");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Sends `piece` again and again, slower than the server bears; returns when it hangs up.
fn trickle(client: &mut Client, piece: &str) {
    use std::io::Write;
    let start = Instant::now();
    while client.stream.write_all(piece.as_bytes()).is_ok() {
        assert!(
            start.elapsed() < TIMEOUT,
            "the server bears with it for ever"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_command_that_never_ends_is_not_waited_for() {
    let server = TestServer::with(|s| s.lmtp.idle_timeout = SHORT);
    let mut client = server.greeted();
    trickle(&mut client, "N");
}

#[test]
fn a_message_that_trickles_is_not_waited_for_and_leaves_nothing() {
    let server = TestServer::with(|s| s.lmtp.idle_timeout = SHORT);
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    trickle(&mut client, "x");
    assert_eq!(server.message_count(), 0);
}

#[test]
fn a_client_that_does_not_read_its_replies_is_cut() {
    use std::io::Write;
    let server = TestServer::with(|s| s.lmtp.idle_timeout = SHORT);
    let mut client = server.greeted();
    let commands = "VRFY x\r\n".repeat(1000);
    let start = Instant::now();
    while client.stream.write_all(commands.as_bytes()).is_ok() {
        assert!(
            start.elapsed() < TIMEOUT,
            "the server bears with it for ever"
        );
    }
    eventually("another client is served", || {
        server.greeted();
        true
    });
}
