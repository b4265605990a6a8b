//! What proves that the client has read its replies: a delivery whose replies it may have missed
//! answers for one repetition, any other for none.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use mailstow_lmtp::server::Ended;
use nix::sys::socket::{MsgFlags, recv};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use support::{Client, TestServer, eventually};

const MESSAGE: &str = "Subject: x\r\n\r\nbody\r\n.\r\n";
const BEFORE: &str = "250 2.0.0 <u1@example.com> ";

/// Serves one client at a time: the next one is greeted when the session before has ended.
fn server() -> TestServer {
    TestServer::with(|s| s.limits.connections = 1)
}

/// A client that is about to send its message for `u1`.
fn about_to_send(server: &TestServer) -> Client {
    about_to_send_to(server, "u1")
}

/// The same, for another mailbox.
fn about_to_send_to(server: &TestServer, name: &str) -> Client {
    let mut found = None;
    eventually("the end of the session before", || {
        let mut client = Client::new(UnixStream::connect(server.socket()).unwrap());
        let greeting = client.reply();
        found = greeting.filter(|g| g.starts_with("220 ")).map(|_| client);
        found.is_some()
    });
    let mut client = found.unwrap();
    client.ask("LHLO client.example", "250");
    client.envelope(&[name]);
    client.ask("DATA", "354");
    client
}

/// Waits until `reply` has arrived, and reads nothing.
fn await_unread(client: &Client, reply: &str) {
    let mut bytes = [0; 4096];
    eventually("the reply", || {
        let count = recv(client.stream.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK).unwrap();
        String::from_utf8_lossy(&bytes[..count]).contains(reply)
    });
}

/// Sends `message` once more and expects so many copies of it.
fn send_again(server: &TestServer, message: &str, copies: usize) {
    let mut client = about_to_send(server);
    client.send(message);
    client.expect(BEFORE);
    client.ask("QUIT", "221");
    assert_eq!(server.message_count(), copies);
}

#[test]
fn a_quit_sent_with_the_message_does_not_prove_that_the_replies_were_read() {
    let server = server();
    let mut client = about_to_send(&server);
    client.send(format!("{MESSAGE}QUIT\r\n"));
    await_unread(&client, "221 ");
    drop(client);
    send_again(&server, MESSAGE, 1);
}

#[test]
fn nor_does_one_that_waits_in_the_socket_while_the_message_is_delivered() {
    let server = server();
    let mut client = about_to_send(&server);
    // The first read ends with the message.
    let line = "x".repeat(16_384 - MESSAGE.len() - 2);
    let message = format!("Subject: x\r\n\r\n{line}\r\nbody\r\n.\r\n");
    assert_eq!(message.len(), 16_384);
    client.send(format!("{message}QUIT\r\n"));
    await_unread(&client, "221 ");
    drop(client);
    send_again(&server, &message, 1);
}

#[test]
fn other_commands_sent_with_the_message_do_not_prove_it_either() {
    let server = server();
    let mut client = about_to_send(&server);
    client.send(format!("{MESSAGE}RSET\r\nMAIL FROM:<a@example.org>\r\n"));
    await_unread(&client, "250 2.1.0");
    drop(client);
    send_again(&server, MESSAGE, 1);
}

#[test]
fn a_client_that_sends_quit_with_the_message_and_closes_after_the_replies_has_read_them() {
    let server = server();
    let mut client = about_to_send(&server);
    client.send(format!("{MESSAGE}QUIT\r\n"));
    client.expect(BEFORE);
    client.expect("221 ");
    client.expect_closed();
    drop(client);
    send_again(&server, MESSAGE, 2);
}

#[test]
fn a_quit_sent_after_the_replies_proves_that_they_were_read() {
    let server = server();
    let mut client = about_to_send(&server);
    client.send(MESSAGE);
    client.expect(BEFORE);
    client.send("QUIT\r\n");
    await_unread(&client, "221 ");
    drop(client);
    send_again(&server, MESSAGE, 2);
}

#[test]
fn a_side_that_was_closed_before_the_replies_proves_nothing() {
    let server = server();
    let mailbox = server.directory.path().join("mail/example.com/mbox");
    let lock = mailbox.with_extension("lock");
    let mut client = about_to_send_to(&server, "mbox");
    std::fs::write(&lock, b"").unwrap();
    client.send(format!("{MESSAGE}QUIT\r\n"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    std::fs::remove_file(&lock).unwrap();
    await_unread(&client, "221 ");
    drop(client);
    let mut client = about_to_send_to(&server, "mbox");
    client.send(MESSAGE);
    client.expect("250 2.0.0 <mbox@example.com> ");
    client.ask("QUIT", "221");
    let stored = std::fs::read_to_string(&mailbox).unwrap();
    assert_eq!(stored.matches("Subject: x").count(), 1, "{stored}");
}

#[test]
fn a_client_that_does_not_close_after_quit_does_not_keep_the_server_from_ending() {
    let mut server = server();
    let mut client = about_to_send(&server);
    client.send(format!("{MESSAGE}QUIT\r\n"));
    await_unread(&client, "221 ");
    assert_eq!(server.stop(), Ended::Drained);
    client.expect(BEFORE);
}
