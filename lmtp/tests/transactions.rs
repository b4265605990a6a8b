//! Whole transactions, pipelined or not: one reply per accepted recipient, in order, always.

mod support;

use std::net::Shutdown;
use support::TestServer;

#[test]
fn a_message_arrives_with_its_envelope() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.ask(
        "MAIL FROM:<sender@example.org> SIZE=100 BODY=8BITMIME",
        "250 2.1.0",
    );
    client.ask(
        "RCPT TO:<u1+ext@example.com> ORCPT=rfc822;info+2Bx@example.net",
        "250 2.1.5",
    );
    client.ask("DATA", "354 OK\r\n");
    client.send("Subject: x\r\n\r\n..dot\r\nno\u{fc}\r\n.\r\n");
    let reply = client.expect("250 2.0.0 <u1+ext@example.com> ");
    let words: Vec<_> = reply.split(' ').collect();
    assert_eq!(words[3].len(), 11, "an id stands in {reply}");
    let messages = server.messages("u1");
    assert_eq!(messages.len(), 1);
    let message = &messages[0];
    assert!(
        message.contains("Return-Path: <sender@example.org>\n"),
        "{message}"
    );
    assert!(
        message.contains("X-Original-To: info+x@example.net\n"),
        "{message}"
    );
    assert!(
        message.contains("Delivered-To: u1+ext@example.com\n"),
        "{message}"
    );
    assert!(
        message.ends_with("Subject: x\n\n.dot\nno\u{fc}\n"),
        "{message}"
    );
}

#[test]
fn a_pipeline_with_a_refused_recipient_gets_a_reply_for_each_accepted_one() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.send(
        "MAIL FROM:<a@example.org>\r\nRCPT TO:<u1@example.com>\r\n\
         RCPT TO:<nobody@example.com>\r\nRCPT TO:<u2@example.com>\r\nDATA\r\n",
    );
    for reply in ["250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.1.5", "354"] {
        client.expect(reply);
    }
    client.send("Subject: x\r\n\r\nbody\r\n.\r\n");
    client.expect("250 2.0.0 <u1@example.com> ");
    client.expect("250 2.0.0 <u2@example.com> ");
    client.expect_in_step();
    assert_eq!(server.message_count(), 2);
}

#[test]
fn a_recipient_given_twice_gets_one_copy_and_two_replies() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.ask("MAIL FROM:<a@example.org>", "250");
    client.ask(
        "RCPT TO:<u1@example.com> ORCPT=rfc822;first@example.net",
        "250",
    );
    client.ask(
        "RCPT TO:<u1@example.com> ORCPT=rfc822;second@example.net",
        "250",
    );
    client.ask("RCPT TO:<alias@example.com>", "250");
    client.ask("DATA", "354");
    client.send("x\r\n.\r\n");
    client.expect("250 2.0.0 <u1@example.com> ");
    client.expect("250 2.0.0 <u1@example.com> ");
    client.expect("250 2.0.0 <alias@example.com> ");
    client.expect_in_step();
    let messages = server.messages("u1");
    assert_eq!(messages.len(), 1);
    assert!(
        messages[0].contains("X-Original-To: first@example.net\n"),
        "{}",
        messages[0]
    );
}

#[test]
fn after_only_refused_recipients_the_next_message_needs_no_rset() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.send(
        "MAIL FROM:<a@example.org>\r\nRCPT TO:<nobody@example.com>\r\n\
         RCPT TO:<noone@example.com>\r\nDATA\r\n",
    );
    for reply in ["250 2.1.0", "550 5.1.1", "550 5.1.1", "503 5.5.1"] {
        client.expect(reply);
    }
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    client.send("x\r\n.\r\n");
    client.expect("250 2.0.0");
}

#[test]
fn a_dot_between_bare_newlines_ends_nothing() {
    for disguise in [
        "body\n.\nMAIL FROM:<x@example.org>\r\n",
        "body\n.\r\nMAIL FROM:<x@example.org>\r\n",
        "body\r\n.\nMAIL FROM:<x@example.org>\r\n",
        "body\r\n.\rMAIL FROM:<x@example.org>\r\n",
        "body\r.\r\nMAIL FROM:<x@example.org>\r\n",
    ] {
        let server = TestServer::start();
        let mut client = server.greeted();
        client.envelope(&["u1"]);
        client.ask("DATA", "354");
        client.send(format!("Subject: x\r\n\r\n{disguise}.\r\n"));
        client.expect("250 2.0.0");
        client.expect_in_step();
        let messages = server.messages("u1");
        assert_eq!(messages.len(), 1);
        assert!(
            messages[0].ends_with("MAIL FROM:<x@example.org>\n"),
            "{:?}",
            messages[0]
        );
    }
}

#[test]
fn a_client_that_vanishes_at_any_byte_leaves_nothing_or_the_whole_message() {
    let server = TestServer::start();
    let dialogue = "LHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<u1@example.com>\r\nDATA\r\n\
                    Subject: x\r\n\r\nbody\r\n.\r\n";
    for end in 0..dialogue.len() {
        let mut client = server.connect();
        client.send(&dialogue[..end]);
        client.stream.shutdown(Shutdown::Write).unwrap();
        while client.reply().is_some() {}
        assert_eq!(server.message_count(), 0, "after {:?}", &dialogue[..end]);
    }
    let mut client = server.connect();
    client.send(dialogue);
    client.stream.shutdown(Shutdown::Write).unwrap();
    while client.reply().is_some() {}
    let messages = server.messages("u1");
    assert_eq!(messages.len(), 1);
    assert!(
        messages[0].ends_with("Subject: x\n\nbody\n"),
        "{:?}",
        messages[0]
    );
}

#[test]
fn a_dialogue_in_single_bytes_is_the_same_dialogue() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let dialogue = "MAIL FROM:<a@example.org>\r\nRCPT TO:<u1@example.com>\r\nDATA\r\n\
                    Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n";
    for byte in dialogue.as_bytes() {
        client.send([*byte]);
    }
    for reply in ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0", "221 2.0.0"] {
        client.expect(reply);
    }
    assert!(server.messages("u1")[0].ends_with("Subject: x\n\n.\n"));
}

#[test]
fn a_dialogue_sent_all_at_once_is_the_same_dialogue() {
    let server = TestServer::start();
    let mut client = server.connect();
    let one = "MAIL FROM:<a@example.org>\r\nRCPT TO:<u1@example.com>\r\nDATA\r\nx\r\n.\r\n";
    client.send(format!("LHLO c\r\n{}QUIT\r\n", one.repeat(20)));
    client.expect("250-mx.example.com");
    for _ in 0..20 {
        for reply in ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"] {
            client.expect(reply);
        }
    }
    client.expect("221 2.0.0");
    client.expect_closed();
    assert_eq!(server.messages("u1").len(), 20);
}

#[test]
fn a_cached_idle_session_answers_rset_and_takes_the_next_message() {
    let server = TestServer::start();
    let mut client = server.greeted();
    for _ in 0..3 {
        client.envelope(&["u1", "mbox"]);
        client.ask("DATA", "354");
        client.send("x\r\n.\r\n");
        client.expect("250 2.0.0");
        client.expect("250 2.0.0");
        client.ask("RSET", "250 2.0.0");
    }
    client.envelope(&["u1"]);
    client.ask("RSET", "250 2.0.0");
    client.ask("RCPT TO:<u1@example.com>", "503 5.5.1");
    assert_eq!(server.messages("u1").len(), 3);
}

#[test]
fn an_empty_message_is_a_message() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    client.send(".\r\n");
    client.expect("250 2.0.0");
    assert_eq!(server.messages("u1").len(), 1);
}

#[test]
fn two_hundred_recipients_of_a_pipeline_are_answered_in_order() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let mut pipeline = "MAIL FROM:<a@example.org>\r\n".to_owned();
    for n in 0..200 {
        pipeline += &format!("RCPT TO:<u{n}@example.com>\r\n");
    }
    client.send(pipeline + "DATA\r\n");
    client.expect("250 2.1.0");
    for _ in 0..200 {
        client.expect("250 2.1.5");
    }
    client.expect("354");
    client.send("x\r\n.\r\n");
    for n in 0..200 {
        client.expect(&format!("250 2.0.0 <u{n}@example.com> "));
    }
    client.expect_in_step();
}
