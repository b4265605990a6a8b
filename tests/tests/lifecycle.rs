//! Start, idle, stop: ready at once, small while idle, and no mail dropped when it ends.

use std::time::{Duration, Instant};

use mailstow_tests::content::plain;
use mailstow_tests::mailboxes::{header, maildir};
use mailstow_tests::{Client, Mailstow, eventually, mailstow};
use nix::sys::signal::Signal;

/// Resident memory of a server that has nothing to do, with the delivery log's buffers.
const IDLE_MEMORY_LIMIT: u64 = 12 << 20;
/// From the start of the process to the greeting; the delivery log is recovered meanwhile.
const READY_LIMIT: Duration = Duration::from_secs(5);

#[test]
fn one_command_without_root_or_configuration_takes_mail_for_a_domain() {
    let server = Mailstow::domain("one-command").start();
    let mut client = server.client();
    let recipients = ["anybody@example.com", "Some.One+tag@example.com"];
    let replies = client.deliver("s@client.example", &recipients, &plain("hello"));
    assert_eq!(
        replies.iter().map(|r| r.code).collect::<Vec<_>>(),
        [250, 250]
    );
    let stored = maildir(&server.vhosts().join("example.com/anybody"));
    assert_eq!(stored.len(), 1);
    assert_eq!(header(&stored[0].bytes, "Subject"), ["hello"]);
    let said = server.daemon.output();
    assert!(said.contains("run/lmtp"), "where it listens: {said}");
    assert!(said.contains("vhosts"), "where mail goes: {said}");
    let refused = client.deliver("s@client.example", &["x@elsewhere.example"], &plain("no"));
    assert_eq!(refused[0].code, 550, "{}", refused[0]);
}

#[test]
fn a_local_part_that_looks_like_a_path_stays_below_the_domain() {
    let server = Mailstow::domain("safe-path").start();
    let mut client = server.client();
    let outside = server.scratch().join("outside");
    for local in [
        "\"../../outside\"",
        "\"/etc/x\"",
        "\"a/../../../outside\"",
        "..",
        "\"..\"",
        "\"\"",
    ] {
        let recipient = format!("{local}@example.com");
        let replies = client.deliver("s@client.example", &[&recipient], &plain("x"));
        assert!(
            [250, 451, 501, 550, 553].contains(&replies[0].code),
            "{recipient}: {}",
            replies[0]
        );
        assert_eq!(client.command("NOOP").code, 250);
    }
    assert!(!outside.exists());
    for path in mailstow_tests::mailboxes::list(&server.vhosts()) {
        assert!(
            path.ends_with("example.com"),
            "only the domain: {}",
            path.display()
        );
    }
    assert!(!server.vhosts().join("new").exists());
}

#[test]
fn an_idle_server_is_small() {
    let server = Mailstow::example("idle").start();
    let replies = server
        .client()
        .deliver("s@client.example", &["sales@example.com"], &plain("x"));
    assert_eq!(replies[0].code, 250);
    // Not the pages of the program's file: how many of those are resident is the machine's choice.
    let resident = server.daemon.memory_bytes("RssAnon");
    assert!(
        resident < IDLE_MEMORY_LIMIT,
        "{} KiB resident",
        resident >> 10
    );
}

#[test]
fn a_server_that_starts_waits_for_nothing() {
    let mut server = Mailstow::example("ready").start();
    // The machine may be busy. What would be waited for lasts longer: locks, names, time-outs.
    let fastest = (0..10)
        .map(|_| {
            server.kill();
            let start = Instant::now();
            server.restart();
            start.elapsed()
        })
        .min()
        .expect("ten starts");
    assert!(fastest < READY_LIMIT, "{fastest:?}");
}

#[test]
fn sigterm_finishes_what_runs_and_takes_nothing_new() {
    let mut server = Mailstow::example("drain").start();
    let mut running = server.client();
    assert_eq!(running.command("MAIL FROM:<s@client.example>").code, 250);
    assert_eq!(running.command("RCPT TO:<sales@example.com>").code, 250);
    assert_eq!(running.command("DATA").code, 354);
    running
        .send(b"Subject: drained\r\n\r\nfirst half\r\n")
        .expect("the server reads");
    let mut idle = server.client();

    server.daemon.signal(Signal::SIGTERM);
    let refused = || {
        let reply = Client::dial(&server.unix()).and_then(|mut late| late.read_reply());
        // No listener, or a word of refusal: both say that nothing new is taken.
        reply
            .map_or(true, |r| r.codes() == "421 4.3.2")
            .then_some(())
    };
    eventually(
        "new sessions to be refused",
        Duration::from_secs(10),
        refused,
    );
    // The idle session is answered, at once or at its next command, and closed.
    let _ = idle.send(b"MAIL FROM:<s@client.example>\r\n");
    let said = idle.rest();
    assert!(said.starts_with("421 4.3.2"), "{said:?}");
    running
        .send(b"second half\r\n.\r\n")
        .expect("the server still reads");
    assert_eq!(running.reply().code, 250);
    let status = server.daemon.wait();
    assert!(status.success(), "{status}");
    let stored = maildir(&server.mailbox("example.com/sales"));
    assert_eq!(stored.len(), 1);
    assert!(stored[0].bytes.ends_with(b"first half\nsecond half\n"));
}

#[test]
fn sigterm_waits_for_no_client_and_ends_with_success() {
    let mut server = Mailstow::example("clients-that-wait").start();
    let mut clients = Vec::new();
    for address in [server.unix(), server.inet()] {
        let steps = [
            "MAIL FROM:<s@client.example>",
            "RCPT TO:<sales@example.com>",
            "DATA",
        ];
        for reached in 0..=steps.len() {
            let mut client = Client::lmtp(&address);
            for step in &steps[..reached] {
                assert!(client.command(step).code < 400, "{step}");
            }
            clients.push(client);
        }
    }
    let mut deaf = server.client();
    let commands = "VRFY x\r\n".repeat(1000);
    deaf.set_timeouts(Duration::from_millis(200));
    while deaf.send(commands.as_bytes()).is_ok() {}

    let start = Instant::now();
    server.daemon.signal(Signal::SIGTERM);
    for client in &mut clients {
        let said = client.rest();
        assert!(said.starts_with("421 4.3.2"), "{said:?}");
    }
    let status = server.daemon.wait();
    assert!(status.success(), "{status}");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?} is no short while");
    let log = server.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_client_that_read_its_reply_before_the_server_ended_may_send_the_same_again() {
    let mut server = Mailstow::example("read-before-the-end").start();
    let mut sent = 0;
    for address in [server.unix(), server.inet()] {
        let mut client = Client::lmtp(&address);
        let replies = client.deliver("s@client.example", &["sales@example.com"], &plain("x"));
        assert_eq!(replies[0].code, 250);
        sent += 1;
        server.daemon.signal(Signal::SIGTERM);
        assert!(server.daemon.wait().success());
        server.restart();
        drop(client);
        let mut client = Client::lmtp(&address);
        let replies = client.deliver("s@client.example", &["sales@example.com"], &plain("x"));
        assert_eq!(replies[0].code, 250);
        sent += 1;
        let stored = maildir(&server.mailbox("example.com/sales"));
        assert_eq!(stored.len(), sent, "over {address:?}");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_refused() {
    let mut server = Mailstow::example("socket").start();
    let socket = server.unix().spelled();
    let state = server.scratch().join("second-state").display().to_string();
    let mut arguments = vec!["serve".to_owned()];
    arguments.extend(server.configuration());
    arguments.extend(["--listen".into(), socket, "--state-directory".into(), state]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let second = mailstow::run(&arguments);
    assert!(!second.status.success(), "a second server on a live socket");
    let said = String::from_utf8_lossy(&second.stderr) + String::from_utf8_lossy(&second.stdout);
    assert!(said.contains("run/lmtp"), "it names the socket: {said}");

    assert_eq!(
        server.client().command("NOOP").code,
        250,
        "the first is unharmed"
    );
    server.kill();
    assert!(
        server.scratch().join("run/lmtp").exists(),
        "SIGKILL leaves the socket file"
    );
    server.restart();
    assert_eq!(server.client().command("NOOP").code, 250);
}
