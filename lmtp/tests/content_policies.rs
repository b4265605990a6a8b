//! Messages that are refused for what is in them: all of it is read, every recipient answered.

mod support;

use mailstow_engine::config::{BareNewline, NulPolicy, Settings};
use support::TestServer;

#[track_caller]
fn refused(change: impl FnOnce(&mut Settings), content: &str, reply: &str) {
    let server = TestServer::with(change);
    let mut client = server.greeted();
    client.envelope(&["u1", "u2", "u3"]);
    client.ask("DATA", "354");
    client.send(format!("Subject: x\r\n\r\n{content}\r\n.\r\n"));
    for n in 1..=3 {
        client.expect(&format!("{reply} <u{n}@example.com> "));
    }
    client.expect_in_step();
    assert_eq!(server.message_count(), 0);
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    client.send("fine\r\n.\r\n");
    client.expect("250 2.0.0");
}

#[test]
fn an_oversize_message_is_refused_for_each_recipient_and_the_session_goes_on() {
    let long = "0123456789\r\n".repeat(200_000);
    refused(
        |s| s.routing.message_size_limit = 100_000,
        &long,
        "552 5.3.4",
    );
}

#[test]
fn a_message_may_have_the_size_allowed_and_a_part_in_256_for_line_breaks_that_postfix_adds() {
    let server = TestServer::with(|s| s.routing.message_size_limit = 1000);
    let mut client = server.greeted();
    for (bytes, reply) in [(1002, "250 2.0.0"), (1003, "552 5.3.4")] {
        client.envelope(&["u1"]);
        client.ask("DATA", "354");
        client.send(format!("{}\r\n.\r\n", "x".repeat(bytes)));
        client.expect(reply);
    }
}

#[test]
fn a_bare_newline_is_refused_where_that_is_wanted() {
    let reject = |s: &mut Settings| s.lmtp.bare_newline = BareNewline::Reject;
    refused(reject, "body\n.\nMAIL FROM:<x@example.org>", "554 5.6.0");
}

#[test]
fn nul_is_refused_where_that_is_wanted() {
    refused(|s| s.lmtp.nul = NulPolicy::Reject, "a\0b", "554 5.6.0");
}

#[test]
fn an_overlong_line_is_refused_where_that_is_wanted() {
    let limit = |s: &mut Settings| s.limits.message_line_bytes = 1000;
    refused(limit, &"x".repeat(999), "554 5.6.0");
}

#[test]
fn nothing_of_it_is_refused_or_changed_by_default() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.ask("DATA", "354");
    let long = "y".repeat(100_000);
    client.send(format!("Subject: x\r\n\r\na\0b\nc\rd\r\n{long}\r\n.\r\n"));
    client.expect("250 2.0.0");
    let message = &server.messages("u1")[0];
    assert!(message.ends_with(&format!("Subject: x\n\na\0b\nc\rd\n{long}\n")));
}
