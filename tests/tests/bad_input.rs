//! Rude, broken and vanishing clients get a clear answer or none, and the server goes on.

use std::time::Duration;

use mailstow_tests::client::dot_stuffed;
use mailstow_tests::content::{plain, sized};
use mailstow_tests::mailboxes::{header, maildir, mbox};
use mailstow_tests::{Client, Mailstow};

/// The server still takes mail.
fn goes_on(server: &Mailstow, subject: &str) {
    let replies =
        server
            .client()
            .deliver("s@client.example", &["sales@example.com"], &plain(subject));
    assert_eq!(replies[0].code, 250, "{}", replies[0]);
    let stored = maildir(&server.mailbox("example.com/sales"));
    let found = stored
        .iter()
        .filter(|m| header(&m.bytes, "Subject") == [subject])
        .count();
    assert_eq!(found, 1);
}

#[test]
fn garbage_is_answered_500_and_too_much_of_it_ends_the_session() {
    let server = Mailstow::example("garbage").start();
    let mut client = server.client();
    for line in [
        &b"XYZZY"[..],
        b"\xff\xfe\xfd",
        b"MAIL\0FROM:<a@b>",
        b"",
        b"EHLO client.example",
    ] {
        let reply = client.command(line);
        assert_eq!(reply.code / 100, 5, "{}: {reply}", line.escape_ascii());
    }
    assert_eq!(client.command("NOOP").code, 250);
    let closed = (0..50).any(|_| {
        client.send(b"RUBBISH\r\n").is_err()
            || client.read_reply().map_or(true, |reply| reply.code == 421)
    });
    assert!(closed, "fifty bad commands are too many");
    goes_on(&server, "after-garbage");
}

#[test]
fn an_oversize_command_line_is_refused_and_the_session_continues() {
    let server = Mailstow::example("long-command").start();
    let mut client = server.client();
    for bytes in [13_000, 100_000, 3_000_000] {
        let line = format!("MAIL FROM:<{}@client.example>", "a".repeat(bytes));
        let reply = client.command(line);
        assert_eq!(reply.codes(), "500 5.5.2", "{bytes} bytes: {reply}");
        assert_eq!(client.command("NOOP").code, 250);
    }
    goes_on(&server, "after-long-command");
}

#[test]
fn malformed_paths_and_parameters_are_refused_one_by_one() {
    let server = Mailstow::example("malformed").start();
    let mut client = server.client();
    for line in [
        "MAIL",
        "MAIL FROM:",
        "MAIL FROM:<a@b",
        "MAIL FROM:a@b",
        "MAIL TO:<a@b>",
    ] {
        assert_eq!(client.command(line).code, 501, "{line}");
    }
    assert_eq!(
        client.command("MAIL FROM:<a@b> NONSENSE=1").codes(),
        "555 5.5.4"
    );
    assert_eq!(
        client.command("RCPT TO:<sales@example.com>").codes(),
        "503 5.5.1"
    );
    assert_eq!(client.command("DATA").codes(), "503 5.5.1");
    assert_eq!(client.command("MAIL FROM:<a@b>").code, 250);
    assert_eq!(client.command("MAIL FROM:<a@b>").codes(), "503 5.5.1");
    for line in [
        "RCPT",
        "RCPT TO:",
        "RCPT TO:<>",
        "RCPT TO:<sales@example.com",
        "RCPT TO:<a@b@>",
    ] {
        let reply = client.command(line);
        assert!([501, 550, 553].contains(&reply.code), "{line}: {reply}");
    }
    assert_eq!(client.command("DATA").codes(), "503 5.5.1");
    goes_on(&server, "after-malformed");
}

#[test]
fn a_message_with_nul_and_other_control_bytes_is_stored_unchanged() {
    let server = Mailstow::example("nul").start();
    let content = b"Subject: nul\n\na\0b\x01\x7f\xff\n";
    let replies = server
        .client()
        .deliver("s@client.example", &["sales@example.com"], content);
    assert_eq!(replies[0].code, 250, "{}", replies[0]);
    let stored = maildir(&server.mailbox("example.com/sales"));
    assert!(stored[0].bytes.ends_with(content));
}

#[test]
fn a_line_of_three_megabytes_is_stored_unchanged() {
    let server = Mailstow::example("long-line").start();
    let content = [&b"Subject: long\n\n"[..], &vec![b'x'; 3_000_000], b"\n"].concat();
    let replies = server
        .client()
        .deliver("s@client.example", &["sales@example.com"], &content);
    assert_eq!(replies[0].code, 250, "{}", replies[0]);
    let stored = maildir(&server.mailbox("example.com/sales"));
    assert!(stored[0].bytes.ends_with(&content));
}

#[test]
fn only_crlf_dot_crlf_ends_the_data() {
    let server = Mailstow::example("smuggling").start();
    let mut client = server.client();
    for line in [
        "MAIL FROM:<s@client.example>",
        "RCPT TO:<sales@example.com>",
    ] {
        assert_eq!(client.command(line).code, 250);
    }
    assert_eq!(client.command("DATA").code, 354);
    let smuggled = b"Subject: one\r\n\r\ntext\n.\nMAIL FROM:<evil@client.example>\r\n\
                     \n.\r\nRCPT TO:<info@example.com>\r\n.\nDATA\r\n.\r\n";
    client.send(smuggled).expect("the server reads");
    let reply = client.reply();
    assert!([250, 554].contains(&reply.code), "{reply}");
    assert_eq!(
        client.command("NOOP").code,
        250,
        "nothing of it was a command"
    );
    let stored = maildir(&server.mailbox("example.com/sales"));
    assert_eq!(stored.len(), usize::from(reply.code == 250));
    assert!(mbox(&server.mailbox("example.com/info")).is_empty());
}

#[test]
fn an_oversize_message_is_refused_for_each_recipient_and_the_session_continues() {
    let server = Mailstow::example("oversize")
        .main_cf("message_size_limit = 100000")
        .start();
    let mut client = server.client();
    let announced = client.command("MAIL FROM:<s@client.example> SIZE=200000");
    assert_eq!(announced.codes(), "552 5.3.4", "{announced}");
    let recipients = [
        "info@example.com",
        "sales@example.com",
        "sales+x@example.com",
    ];
    let replies = client.deliver("s@client.example", &recipients, &sized("large", 300_000));
    let codes: Vec<_> = replies.iter().map(|r| r.codes()).collect();
    assert_eq!(codes, ["552 5.3.4"; 3]);
    let replies = client.deliver("s@client.example", &recipients, &plain("small"));
    assert!(replies.iter().all(|r| r.code == 250), "{replies:?}");
    assert_eq!(
        maildir(&server.mailbox("example.com/sales")).len(),
        1,
        "one copy a mailbox"
    );
    assert_eq!(mbox(&server.mailbox("example.com/info")).len(), 1);
}

/// Runs a transaction up to `bytes` bytes of what the client has to say, then vanishes; true when
/// all was said, and answered.
fn vanish_after(server: &Mailstow, bytes: usize, content: &[u8]) -> bool {
    let commands = b"LHLO client.example\r\nMAIL FROM:<s@client.example>\r\n\
                     RCPT TO:<sales@example.com>\r\nRCPT TO:<info@example.com>\r\nDATA\r\n";
    let mut client = Client::dial(&server.unix()).expect("the server is there");
    if bytes < commands.len() {
        client.send(&commands[..bytes]).expect("the server reads");
        return false;
    }
    client.send(commands).expect("the server reads");
    while client.reply().code != 354 {}
    let wire = dot_stuffed(content);
    let end = (bytes - commands.len()).min(wire.len());
    client.send(&wire[..end]).expect("the server reads");
    let whole = end == wire.len();
    for _ in 0..if whole { 2 } else { 0 } {
        assert_eq!(client.reply().code, 250);
    }
    whole
}

#[test]
fn a_client_that_vanishes_at_any_byte_leaves_nothing_behind() {
    let server = Mailstow::example("vanish").start();
    let content = b"Subject: vanish\n\nFrom here\n.dot\nend\n";
    let mut bytes = 0;
    while !vanish_after(&server, bytes, content) {
        bytes += 1;
    }
    assert!(bytes > 150, "every offset was tried");
    let stored = maildir(&server.mailbox("example.com/sales"));
    assert_eq!(stored.len(), 1);
    assert!(stored[0].bytes.ends_with(content));
    goes_on(&server, "after-vanishing");
    assert_eq!(maildir(&server.mailbox("example.com/sales")).len(), 2);
    assert_eq!(mbox(&server.mailbox("example.com/info")).len(), 1);
}

#[test]
fn a_slow_client_delays_nobody_else_and_gets_its_mail_stored() {
    let server = Mailstow::example("slow").start();
    let mut slow = Client::dial(&server.unix()).expect("the server is there");
    assert_eq!(slow.reply().code, 220);
    let content = b"Subject: slow\n\ntext\n";
    let mut say = |text: &[u8], replies: usize| {
        for byte in text {
            slow.send(&[*byte]).expect("the server reads");
            std::thread::sleep(Duration::from_millis(2));
        }
        (0..replies).map(|_| slow.reply().code).collect::<Vec<_>>()
    };
    assert_eq!(say(b"LHLO client.example\r\n", 1), [250]);
    assert_eq!(say(b"MAIL FROM:<s@client.example>\r\n", 1), [250]);
    goes_on(&server, "meanwhile");
    assert_eq!(
        say(b"RCPT TO:<sales@example.com>\r\nDATA\r\n", 2),
        [250, 354]
    );
    goes_on(&server, "meanwhile-too");
    assert_eq!(say(&dot_stuffed(content), 1), [250]);
    let stored = maildir(&server.mailbox("example.com/sales"));
    assert_eq!(
        stored.iter().filter(|m| m.bytes.ends_with(content)).count(),
        1
    );
}

#[test]
fn hundreds_of_silent_connections_keep_nobody_out() {
    let server = Mailstow::example("silent").start();
    let silent: Vec<_> = (0..300)
        .map(|_| Client::dial(&server.unix()).expect("the server is there"))
        .collect();
    goes_on(&server, "between-the-silent");
    drop(silent);
    goes_on(&server, "after-the-silent");
}
