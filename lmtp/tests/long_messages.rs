//! Messages so long that they go into their mailbox while they arrive.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use support::{Client, TestServer, eventually};

/// Longer than the delivery log takes.
fn content(seed: u32) -> String {
    let lines = (0..200_000_u32).map(|n| format!("{:08x}\r\n", n.wrapping_mul(40_503) ^ seed));
    format!("Subject: {seed}\r\n\r\n.{}", lines.collect::<String>())
}

/// With another message there before, so that the Maildir is.
fn server() -> TestServer {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    client.send("\r\nfirst\r\n.\r\n");
    client.expect("250 2.0.0");
    client.ask("QUIT", "221");
    remove_all(&server);
    server
}

fn new_directory(server: &TestServer) -> std::path::PathBuf {
    server.directory.path().join("mail/example.com/u1/new")
}

fn remove_all(server: &TestServer) {
    for entry in std::fs::read_dir(new_directory(server)).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

fn send(client: &mut Client, content: &str) {
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    client.send(content.replace("\r\n.", "\r\n.."));
    client.send(".\r\n");
}

fn stored(content: &str) -> String {
    let to = "u1@example.com";
    let lines = format!("Return-Path: <sender@example.org>\nDelivered-To: {to}\n");
    lines + &content.replace("\r\n", "\n")
}

/// Bytes of the files without a name that this process has open below `directory`.
fn unnamed_bytes(directory: &Path) -> u64 {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = files.filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_ours = std::fs::read_link(&path).ok()?.starts_with(directory);
        let stat = std::fs::metadata(&path).ok()?;
        (is_ours && stat.is_file() && stat.nlink() == 0).then(|| stat.size())
    });
    open.sum()
}

#[test]
fn a_long_message_is_found_whole_however_it_was_sent() {
    let server = server();
    let mut client = server.greeted();
    let content = content(1);
    send(&mut client, &content);
    client.expect("250 2.0.0 <u1@example.com> ");
    client.envelope(&["u1"]);
    let (first, second) = content.split_at(1_500_000);
    client.send(format!("BDAT {}\r\n{first}", first.len()));
    client.expect("250 2.0.0 ");
    client.send(format!("BDAT {} LAST\r\n{second}", second.len()));
    client.expect("250 2.0.0 <u1@example.com> ");
    client.ask("QUIT", "221");
    let messages = server.messages("u1");
    assert_eq!(messages.len(), 2);
    let expected = stored(&content);
    for found in messages {
        assert_eq!(found[..200], expected[..200]);
        assert!(found == expected);
    }
}

#[test]
fn a_long_message_goes_into_its_mailbox_as_it_arrives_and_a_lost_connection_leaves_nothing() {
    let server = server();
    let mailbox = new_directory(&server);
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    client.send(content(1));
    eventually("the message's way into its mailbox", || {
        unnamed_bytes(&mailbox) > 1_500_000
    });
    assert_eq!(unnamed_bytes(&server.settings.state_directory), 0);
    drop(client);
    eventually("the end of the file", || unnamed_bytes(&mailbox) == 0);
    assert_eq!(server.message_count(), 0);
    let tmp = server.directory.path().join("mail/example.com/u1/tmp");
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
}

#[test]
fn a_long_message_for_two_mailboxes_is_stored_in_both() {
    let server = server();
    let mut client = server.greeted();
    client.envelope(&["u1", "u2"]);
    client.ask("DATA", "354");
    client.send(content(1).replace("\r\n.", "\r\n..") + ".\r\n");
    client.expect("250 2.0.0 <u1@example.com> ");
    client.expect("250 2.0.0 <u2@example.com> ");
    // Two addresses of one mailbox are one delivery.
    client.envelope(&["alias", "u1"]);
    client.ask("DATA", "354");
    client.send(content(2).replace("\r\n.", "\r\n..") + ".\r\n");
    client.expect("250 2.0.0 <alias@example.com> ");
    client.expect("250 2.0.0 <u1@example.com> ");
    client.ask("QUIT", "221");
    for (name, count) in [("u1", 2), ("u2", 1)] {
        let messages = server.messages(name);
        assert_eq!(messages.len(), count);
        for found in messages {
            let seed = if found.contains("Subject: 1\n") { 1 } else { 2 };
            assert!(found.ends_with(&content(seed).replace("\r\n", "\n")));
        }
    }
}

#[test]
fn a_long_message_sent_again_after_a_lost_reply_is_stored_once() {
    let server = server();
    for _ in 0..2 {
        let mut client = server.greeted();
        send(&mut client, &content(1));
        eventually("the message", || server.message_count() == 1);
        // Gone over the unread reply: what was answered is in doubt.
        drop(client);
        eventually("the end of the session", || {
            unnamed_bytes(server.directory.path()) == 0 && open_mailbox_files(&server) == 0
        });
    }
    assert_eq!(server.message_count(), 1);
}

/// Files of the mailbox that are open: a session that may have to tell of its content holds one.
fn open_mailbox_files(server: &TestServer) -> usize {
    let mailbox = new_directory(server);
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = files.filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_in_there = std::fs::read_link(&path).ok()?.starts_with(&mailbox);
        (is_in_there && std::fs::metadata(&path).ok()?.is_file()).then_some(())
    });
    open.count()
}
