//! `expand_aliases`: the server applies `virtual_alias_maps` itself, for senders that have not.

mod support;

use support::TestServer;

const ALIASES: &str = "inline:{ {team@example.com = u1@example.com, u2+x@example.com, u1@example.com}, \
     {me@example.com = me@example.com}, {far@example.com = u3@example.com, x@far.example}, \
     {dead@example.com = u3@example.com, gone@example.com}, \
     {a@example.com = b@example.com}, {b@example.com = a@example.com} }";

fn server(expand: bool) -> TestServer {
    TestServer::with(|settings| {
        settings.routing.virtual_alias_maps = ALIASES.into();
        settings.lmtp.expand_aliases = expand;
    })
}

#[test]
fn one_reply_answers_for_all_mailboxes_an_alias_stands_for() {
    let server = server(true);
    let mut client = server.greeted();
    client.envelope(&["team", "u2"]);
    client.ask("DATA", "354");
    client.send("Subject: x\r\n\r\nx\r\n.\r\n");
    client.expect("250 2.0.0 <team@example.com> ");
    client.expect("250 2.0.0 <u2@example.com> ");
    assert_eq!(server.message_count(), 2);
    let text = &server.messages("u2")[0];
    let header = "Return-Path: <sender@example.org>\n\
        X-Original-To: team@example.com\nDelivered-To: u2+x@example.com\n\
        X-Original-To: u2@example.com\nDelivered-To: u2@example.com\nSubject: ";
    assert!(text.starts_with(header), "{text}");
}

#[test]
fn what_an_alias_and_a_recipient_have_in_common_is_named_once_for_each() {
    let server = server(true);
    let mut client = server.greeted();
    client.envelope(&["u1", "team", "u1"]);
    client.ask("DATA", "354");
    client.send("Subject: x\r\n\r\nx\r\n.\r\n");
    for name in ["u1", "team", "u1"] {
        client.expect(&format!("250 2.0.0 <{name}@example.com> "));
    }
    let texts = server.messages("u1");
    assert_eq!(texts.len(), 1);
    let header = "Return-Path: <sender@example.org>\n\
        X-Original-To: u1@example.com\nDelivered-To: u1@example.com\n\
        X-Original-To: team@example.com\nDelivered-To: u1@example.com\nSubject: ";
    assert!(texts[0].starts_with(header), "{}", texts[0]);
}

#[test]
fn an_alias_that_cannot_be_stored_as_a_whole_is_put_off() {
    let server = server(true);
    let mut client = server.greeted();
    client.ask("MAIL FROM:<s@example.org>", "250");
    client.ask("RCPT TO:<far@example.com>", "451 4.3.5");
    client.ask("RCPT TO:<dead@example.com>", "451 4.3.5");
    client.ask("RCPT TO:<a@example.com>", "451 4.6.0");
    client.ask("RCPT TO:<me@example.com>", "550 5.1.1");
    client.ask("RCPT TO:<nobody@example.com>", "550 5.1.1");
    client.ask("RCPT TO:<u1@example.com>", "250");
}

#[test]
fn aliases_are_left_to_postfix_unless_asked_for() {
    let server = server(false);
    let mut client = server.greeted();
    client.ask("MAIL FROM:<s@example.org>", "250");
    client.ask("RCPT TO:<team@example.com>", "550 5.1.1");
}
