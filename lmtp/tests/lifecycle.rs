//! Starting, stopping, reloading, and the limit on connections.

mod support;

use mailstow_engine::config::{ListenAddress, Settings};
use mailstow_lmtp::listener;
use mailstow_lmtp::server::Ended;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use support::{Client, TestServer, eventually};

#[test]
fn a_transaction_that_has_begun_is_finished_before_the_server_ends() {
    let mut server = TestServer::start();
    let mut idle = server.greeted();
    let mut busy = server.greeted();
    busy.envelope(&["u1"]);
    busy.ask("DATA", "354");
    server.handle.stop();
    idle.expect("421 4.3.2");
    idle.expect_closed();
    eventually("the socket is gone", || !server.socket().exists());
    busy.send("Subject: x\r\n\r\nbody\r\n.\r\n");
    busy.expect("250 2.0.0");
    busy.expect("421 4.3.2");
    busy.expect_closed();
    assert_eq!(server.stop(), Ended::Drained);
    assert_eq!(server.messages("u1").len(), 1);
}

#[test]
fn a_draining_server_begins_no_transaction() {
    let mut server = TestServer::start();
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    server.handle.stop();
    client.send("x\r\n.\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<u1@example.com>\r\n");
    client.expect("250 2.0.0");
    client.expect("421 4.3.2");
    client.expect_closed();
    assert_eq!(server.stop(), Ended::Drained);
}

/// Stops a server that waits for clients only, and expects it to end soon.
fn stop_soon(server: &mut TestServer) {
    let start = Instant::now();
    assert_eq!(server.stop(), Ended::Drained);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

/// Much less than `drain_timeout`.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_client_that_is_silent_within_a_transaction_is_told_and_not_waited_for() {
    for commands in [
        &["MAIL FROM:<a@example.org>"][..],
        &["MAIL FROM:<a@example.org>", "RCPT TO:<u1@example.com>"],
        &[
            "MAIL FROM:<a@example.org>",
            "RCPT TO:<u1@example.com>",
            "BDAT 3\r\nx",
        ],
    ] {
        let mut server = TestServer::start();
        let mut client = server.greeted();
        for command in commands {
            client.ask(command, "250");
        }
        // Half a command is no more than silence.
        client.send("RCP");
        server.handle.stop();
        client.expect("421 4.3.2");
        client.expect_closed();
        stop_soon(&mut server);
        assert_eq!(server.message_count(), 0);
    }
}

#[test]
fn a_client_that_is_silent_within_a_message_is_told_and_not_waited_for() {
    for command in ["DATA", "BDAT 100 LAST"] {
        let mut server = TestServer::start();
        let mut client = server.greeted();
        client.envelope(&["u1"]);
        client.send(format!("{command}\r\nSubject: x\r\n\r\nhalf"));
        if command == "DATA" {
            client.expect("354");
        }
        server.handle.stop();
        client.expect("421 4.3.2");
        client.expect_closed();
        stop_soon(&mut server);
        assert_eq!(server.message_count(), 0);
    }
}

#[test]
fn a_client_that_sends_a_message_too_slowly_is_not_waited_for() {
    let mut server = TestServer::start();
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    server.handle.stop();
    let start = Instant::now();
    while client.stream.write_all(b"x").is_ok() {
        assert!(start.elapsed() < SOON, "the server bears with it");
        std::thread::sleep(Duration::from_millis(20));
    }
    stop_soon(&mut server);
}

#[test]
fn a_message_that_keeps_coming_may_take_half_of_the_time() {
    let mut server = TestServer::with(|s| s.lmtp.drain_timeout = Duration::from_secs(4));
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    server.handle.stop();
    let lines = "line\r\n".repeat(500);
    while client.stream.write_all(lines.as_bytes()).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.stop(), Ended::Drained);
    assert_eq!(server.message_count(), 0);
}

#[test]
fn a_client_that_does_not_read_its_replies_is_not_waited_for() {
    let mut server = TestServer::start();
    let mut client = server.greeted();
    client.stream.set_nonblocking(true).unwrap();
    let commands = "VRFY x\r\n".repeat(1000);
    // Until the server does not read any more, because its replies are not read.
    eventually("the server does not read", || {
        client.stream.write(commands.as_bytes()).is_err()
    });
    stop_soon(&mut server);
}

#[test]
fn a_recipient_whose_table_does_not_answer_is_not_waited_for() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut server = TestServer::with(|s| {
        s.routing.virtual_mailbox_maps = format!("tcp:127.0.0.1:{port}");
    });
    let mut client = server.greeted();
    client.ask("MAIL FROM:<a@example.org>", "250");
    client.send("RCPT TO:<u1@example.com>\r\n");
    let _asked = silent.accept().unwrap();
    server.handle.stop();
    client.expect("451 4.3.0");
    client.expect("421 4.3.2");
    client.expect_closed();
    stop_soon(&mut server);
}

#[test]
fn a_delivery_under_way_is_waited_for() {
    let mut server = TestServer::start();
    let lock = server.directory.path().join("mail/example.com/mbox.lock");
    std::fs::write(&lock, b"").unwrap();
    let mut client = server.greeted();
    client.envelope(&["mbox"]);
    client.ask("DATA", "354");
    client.send("Subject: x\r\n\r\nbody\r\n.\r\n");
    let mut idle = server.greeted();
    server.handle.stop();
    idle.expect("421 4.3.2");
    std::fs::remove_file(&lock).unwrap();
    client.expect("250 2.0.0 <mbox@example.com> ");
    client.expect("421 4.3.2");
    stop_soon(&mut server);
}

#[test]
fn a_delivery_that_does_not_end_is_not_waited_for_for_ever() {
    let mut server = TestServer::with(|s| s.lmtp.drain_timeout = Duration::from_millis(200));
    let lock = server.directory.path().join("mail/example.com/mbox.lock");
    std::fs::write(&lock, b"").unwrap();
    let mut client = server.greeted();
    client.envelope(&["mbox"]);
    client.ask("DATA", "354");
    client.send("Subject: x\r\n\r\nbody\r\n.\r\n");
    assert_eq!(server.stop(), Ended::TimedOut(1));
    client.expect_closed();
    assert_eq!(server.message_count(), 0);
}

#[test]
fn a_reload_drops_no_session_and_changes_the_next_transaction() {
    // The table counts at once, however short ago it was written.
    let server = TestServer::with(|s| s.routing.table_hold_time = Duration::ZERO);
    let mut client = server.greeted();
    client.ask("MAIL FROM:<a@example.org>", "250");
    client.ask("RCPT TO:<new@example.com>", "550 5.1.1");
    let table = server.directory.path().join("vmailbox");
    let mut lines = std::fs::read_to_string(&table).unwrap();
    lines += "new@example.com example.com/new/\n";
    std::fs::write(&table, lines).unwrap();
    let mut settings = server.settings.clone();
    settings.routing.message_size_limit = 500;
    settings.lmtp.listen = vec![ListenAddress::Unix("/elsewhere".into())];
    let warnings = server.handle.reload(settings).unwrap();
    assert!(
        warnings.iter().any(|w| w.starts_with("listen was changed")),
        "{warnings:?}"
    );
    // The transaction that has begun sees the tables as they were.
    client.ask("RCPT TO:<new@example.com>", "550 5.1.1");
    client.ask("RSET", "250");
    client.ask("MAIL FROM:<a@example.org> SIZE=501", "552 5.3.4");
    client.ask("MAIL FROM:<a@example.org>", "250");
    client.ask("RCPT TO:<new@example.com>", "250 2.1.5");
}

#[test]
fn what_waits_for_a_restart_is_told_as_long_as_it_differs_from_what_runs() {
    let server = TestServer::start();
    let waits = |settings: &Settings| {
        let warnings = server.handle.reload(settings.clone()).unwrap();
        warnings.iter().any(|w| w.starts_with("listen was changed"))
    };
    let mut settings = server.settings.clone();
    settings.lmtp.listen = vec![ListenAddress::Unix("/elsewhere".into())];
    assert!(waits(&settings));
    assert!(waits(&settings), "it still waits");
    assert!(!waits(&server.settings), "it was taken back");
}

#[test]
fn settings_that_cannot_be_used_leave_everything_as_it_was() {
    let server = TestServer::start();
    let mut settings = server.settings.clone();
    settings.routing.virtual_mailbox_maps = "nonsense:/nowhere".into();
    settings.routing.message_size_limit = 1;
    assert!(server.handle.reload(settings).is_err());
    let mut client = server.greeted();
    client.ask("MAIL FROM:<a@example.org> SIZE=100", "250");
    client.ask("RCPT TO:<u1@example.com>", "250");
}

#[test]
fn settings_that_lose_the_tables_of_mailboxes_are_not_taken_into_use() {
    let server = TestServer::start();
    for lose in [
        |settings: &mut Settings| settings.routing.virtual_mailbox_maps.clear(),
        |settings: &mut Settings| settings.routing.virtual_mailbox_domains.clear(),
    ] {
        let mut settings = server.settings.clone();
        lose(&mut settings);
        let error = server.handle.reload(settings).unwrap_err();
        assert!(error.to_string().contains("is empty now"), "{error}");
    }
    let mut client = server.greeted();
    client.ask("MAIL FROM:<a@example.org>", "250");
    client.ask("RCPT TO:<u1@example.com>", "250");
}

#[test]
fn connections_past_the_limit_are_told_so() {
    let server = TestServer::with(|s| s.limits.connections = 2);
    let (one, _two) = (server.connect(), server.connect());
    let mut refused = Client::new(UnixStream::connect(server.socket()).unwrap());
    refused.expect("421 4.3.2");
    refused.expect_closed();
    drop(one);
    eventually("a freed place is given away", || {
        let mut client = Client::new(UnixStream::connect(server.socket()).unwrap());
        client
            .reply()
            .is_some_and(|greeting| greeting.starts_with("220"))
    });
}

#[test]
fn several_listeners_serve_side_by_side() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let server = TestServer::with(|s| {
        let host = "127.0.0.1".into();
        s.lmtp.listen.push(ListenAddress::Inet { host, port });
    });
    server.greeted();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"LHLO c\r\nQUIT\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(
        text.starts_with("220 ") && text.ends_with("221 2.0.0 Bye\r\n"),
        "{text}"
    );
}

#[test]
fn the_socket_of_a_running_server_is_not_taken() {
    let server = TestServer::start();
    let refused = listener::open_all(&server.settings.lmtp, Vec::new())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("another server is listening"), "{refused}");
    server.greeted();
}
