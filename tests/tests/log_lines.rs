//! One log line for each recipient, as a mail operator reads in a Postfix log, or as JSON.

use mailstow_tests::content::plain;
use mailstow_tests::site::{Handover, Site};
use mailstow_tests::{Client, Mailstow, Postfix};

/// One mail to a known and an unknown recipient, with what Postfix says about itself.
fn send(server: &Mailstow) -> Client {
    let mut client = server.client();
    for (line, code) in [
        ("XFORWARD NAME=mx.client.example IDENT=4Q1TJ53kz9zKq", 250),
        ("MAIL FROM:<s@client.example>", 250),
        (
            "RCPT TO:<sales@example.com> ORCPT=rfc822;shop@example.com",
            250,
        ),
        ("RCPT TO:<nobody@example.com>", 550),
        ("DATA", 354),
    ] {
        let reply = client.command(line);
        assert_eq!(reply.code, code, "{line}: {reply}");
    }
    client
        .send(b"Subject: x\r\n\r\ntext\r\n.\r\n")
        .expect("the server reads");
    assert_eq!(client.reply().code, 250);
    client
}

#[test]
fn a_line_of_text_tells_what_became_of_each_recipient() {
    let server = Mailstow::example("log-text").start();
    send(&server);
    let line = server.log_line("to=<sales@example.com>");
    for field in [
        "4Q1TJ53kz9zKq: ",
        "from=<s@client.example>",
        "orig_to=<shop@example.com>",
        "vhosts/example.com/sales",
        "size=",
        "delay=",
        "delays=",
        "dsn=2.0.0",
        "status=sent",
    ] {
        assert!(line.contains(field), "{field} is missing in: {line}");
    }
    let line = server.log_line("to=<nobody@example.com>");
    for field in ["4Q1TJ53kz9zKq", "dsn=5.1.1"] {
        assert!(line.contains(field), "{field} is missing in: {line}");
    }
}

#[test]
fn every_line_is_an_object_when_json_is_asked_for() {
    let server = Mailstow::example("log-json")
        .toml("[log]\nformat = \"json\"\n")
        .start();
    send(&server);
    server.log_line("sales@example.com");
    server.log_line("nobody@example.com");
    let mut told = 0;
    for line in server.log().lines() {
        let object: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
        assert!(object.is_object(), "{line}");
        told += usize::from(line.contains("4Q1TJ53kz9zKq") && line.contains("sales@example.com"));
    }
    assert_eq!(told, 1, "one line for the recipient:\n{}", server.log());
}

#[test]
fn text_from_a_client_cannot_forge_a_log_line() {
    let server = Mailstow::example("log-forge").start();
    let mut client = server.client();
    client.command(b"MAIL FROM:<a@b>\rforged: status=sent");
    client.command(b"XFORWARD IDENT=one\x0btwo+0Aforged:+20status=sent");
    client.command("MAIL FROM:<\"a\\\x1b[2Jb\"@client.example>");
    client.command("RCPT TO:<\"\x1b]0;x\x07\"@example.com>");
    client.command("QUIT");
    let replies = server
        .client()
        .deliver("s@client.example", &["sales@example.com"], &plain("x"));
    assert_eq!(replies[0].code, 250);
    server.log_line("to=<sales@example.com>");
    let log = server.log();
    assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
    assert!(
        !log.contains('\x1b') && !log.contains('\x07'),
        "{}",
        log.escape_debug()
    );
}

#[test]
fn the_queue_id_of_postfix_stands_in_the_log() {
    let postfix = Postfix::build("log-queue-id").main_cf(
        "virtual_mailbox_domains = example.com\n\
         virtual_mailbox_base = @ROOT@/vhosts\n\
         virtual_mailbox_maps = inline:{sales@example.com=example.com/sales/}\n\
         virtual_uid_maps = static:5000\n\
         virtual_gid_maps = static:5000\n\
         lmtp_send_xforward_command = yes\n",
    );
    let site = Site::start(postfix, Handover::LmtpUnix, None);
    let reply = site
        .postfix
        .submit("s@client.example", &["sales@example.com"], &plain("x"));
    assert_eq!(reply.code, 250, "{reply}");
    let queue_id = reply
        .text
        .rsplit(' ')
        .next()
        .expect("queued as ID")
        .to_owned();
    site.postfix.drain();
    let store = site.store.as_ref().expect("LMTP");
    let line = store.log_line("to=<sales@example.com>");
    assert!(line.contains(&queue_id), "{queue_id} is missing in: {line}");
    let log = store.scratch().join("state/delivery-log");
    let output = mailstow_tests::mailstow::run(&["log", "inspect", log.to_str().expect("UTF-8")]);
    let records = String::from_utf8_lossy(&output.stdout);
    let named = format!("queue_id={queue_id} ");
    assert!(records.contains(&named), "{named} is missing in: {records}");
}
