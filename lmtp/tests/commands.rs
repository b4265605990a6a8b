//! Every command and what it is answered, right or wrong, in order or out of it.

mod support;

use mailstow_engine::config::Limits;
use support::TestServer;

#[test]
fn the_greeting_offers_every_extension() {
    let server = TestServer::start();
    let mut client = server.connect();
    let offered = client.ask("LHLO client.example", "250-mx.example.com");
    for extension in [
        "PIPELINING",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "SIZE 10240000",
        "CHUNKING",
        "BINARYMIME",
        "DSN",
        "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
    ] {
        let found = offered.lines().any(|line| line.get(4..) == Some(extension));
        assert!(found, "{extension} is missing in {offered}");
    }
}

#[test]
fn what_is_no_lmtp_command_is_unknown() {
    let server = TestServer::with(|s| s.limits.command_errors = 100);
    let mut client = server.connect();
    for command in [
        "HELO a",
        "EHLO a",
        "HELP",
        "EXPN x",
        "STARTTLS",
        "AUTH PLAIN",
        "",
        "FOO",
    ] {
        client.ask(command, "500 5.5.1 Unknown command\r\n");
    }
    client.send(b"\xff\xfe\x00\r\n");
    client.expect("500 5.5.1");
    client.ask("NOOP", "250 2.0.0");
}

#[test]
fn the_tenth_bad_command_ends_the_session() {
    let server = TestServer::start();
    let mut client = server.connect();
    for _ in 0..9 {
        client.ask("FOO", "500 5.5.1");
    }
    client.ask("FOO", "421 4.7.0");
    client.expect_closed();
    let mut client = server.connect();
    for _ in 0..30 {
        client.ask("FOO", "500 5.5.1");
        client.ask("NOOP", "250 2.0.0");
    }
}

#[test]
fn simple_commands_are_answered_as_dovecot_answers_them() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.ask("NOOP", "250 2.0.0");
    client.ask("noop ignored", "250 2.0.0");
    client.ask("VRFY u1", "252 2.3.3 Try RCPT instead\r\n");
    client.ask("RSET", "250 2.0.0");
    client.ask("RSET now", "501 5.5.4");
    client.ask("DATA now", "501 5.5.4");
    client.ask("QUIT", "221 2.0.0 Bye\r\n");
    client.expect_closed();
}

#[test]
fn commands_out_of_order_are_refused() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("MAIL FROM:<a@example.org>", "503 5.5.1");
    client.ask("LHLO", "501 5.5.4");
    client.ask("LHLO client", "250");
    client.ask("RCPT TO:<u1@example.com>", "503 5.5.1");
    client.ask("DATA", "503 5.5.1");
    client.ask("MAIL FROM:<a@example.org>", "250 2.1.0");
    client.ask("MAIL FROM:<a@example.org>", "503 5.5.1");
    client.ask("XFORWARD IDENT=1", "503 5.5.1");
    client.ask("LHLO client", "250");
    client.ask("RCPT TO:<u1@example.com>", "503 5.5.1");
}

#[test]
fn bad_syntax_and_parameters_are_told_apart() {
    let server = TestServer::start();
    let mut client = server.greeted();
    for (command, reply) in [
        ("MAIL FROM:a@example.org", "501 5.5.4"),
        ("MAIL FROM: <a@example.org>", "501 5.5.4"),
        ("MAIL TO:<a@example.org>", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> FOO=1", "555 5.5.4"),
        ("MAIL FROM:<a@example.org", "501 5.5.4"),
        ("NOOP", "250"),
        ("MAIL FROM:<a@example.org> SIZE=10240001", "552 5.3.4"),
        (
            "MAIL FROM:<a@example.org> SIZE=10240000 RET=HDRS ENVID=Q+2B BODY=8BITMIME",
            "250 2.1.0",
        ),
        ("RCPT TO:u1@example.com", "501 5.5.4"),
        ("RCPT TO: <u1@example.com>", "501 5.5.4"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<u1@example.com> FOO=1", "555 5.5.4"),
        ("RCPT TO:<nobody@example.com>", "550 5.1.1"),
        (
            "RCPT TO:<u1@example.com> NOTIFY=SUCCESS ORCPT=rfc822;x+2By@example.net",
            "250 2.1.5",
        ),
    ] {
        client.ask(command, reply);
    }
    client.send(b"RCPT TO:<u1\r@example.com>\r\n");
    client.expect("501 5.5.2");
    client.expect_in_step();
}

#[test]
fn what_is_odd_about_an_envelope_refuses_nobody() {
    let server = TestServer::start();
    let mut client = server.greeted();
    for parameters in [
        "AUTH=<>",
        "SIZE=many",
        "RET=SOME",
        "ENVID=+zz",
        "BODY=9BIT",
        "SIZE=",
    ] {
        client.ask(
            &format!("MAIL FROM:<a@example.org> {parameters}"),
            "250 2.1.0",
        );
        client.ask("RSET", "250");
    }
    for path in [
        &b"root@"[..],
        b"root@host#1",
        b"a@b/c",
        b"a b@c",
        b"\xc3\xbc@x",
        b"\xfc@\xff",
    ] {
        client.send([b"MAIL FROM:<", path, b">\r\n"].concat());
        client.expect("250 2.1.0");
        client.ask("RSET", "250");
    }
    client.ask("MAIL FROM:<a@example.org>", "250 2.1.0");
    for parameters in [
        "NOTIFY=NOW",
        "ORCPT=a@b",
        "ORCPT=rfc822;+0A",
        "ORCPT=rfc822;+FF",
        "NOTIFY=",
    ] {
        client.ask(
            &format!("RCPT TO:<u1@example.com> {parameters}"),
            "250 2.1.5",
        );
    }
    for recipient in [
        "u2@example.com.",
        "u2%example.com",
        "example.com!u2",
        "\u{fc}@example.com",
    ] {
        client.ask(&format!("RCPT TO:<{recipient}>"), "250 2.1.5");
    }
    client.send(b"RCPT TO:<\xff@example.com>\r\n");
    client.expect("550 5.1.1 <?@example.com> unknown user");
}

#[test]
fn a_postmaster_without_a_domain_is_one_of_ours() {
    let take = |maps: &str| {
        let maps = maps.to_owned();
        TestServer::with(move |s| {
            s.routing.virtual_mailbox_maps = maps;
            s.routing.virtual_mailbox_domains = "empty.example, example.com".into();
            s.routing.myorigin = "elsewhere.example".into();
        })
    };
    let server = take("inline:{postmaster@example.com=example.com/postmaster/}");
    let mut client = server.greeted();
    client.ask("MAIL FROM:<>", "250 2.1.0");
    client.ask("RCPT TO:<Postmaster>", "250 2.1.5");
    client.ask("RCPT TO:<other>", "550");
    client.ask("DATA", "354");
    client.send("Subject: x\r\n\r\nbody\r\n.\r\n");
    client.expect("250 2.0.0 ");
    let stored = server.messages("postmaster");
    assert!(
        stored[0].contains("Delivered-To: Postmaster@example.com\n"),
        "{stored:?}"
    );
    let aliased = TestServer::with(|s| {
        s.routing.virtual_alias_maps = "inline:{postmaster@example.com=u1@example.com}".into();
        s.routing.myorigin = "elsewhere.example".into();
    });
    let mut client = aliased.greeted();
    client.ask("MAIL FROM:<>", "250 2.1.0");
    client.ask("RCPT TO:<postmaster>", "250 2.1.5");
    let server = take("inline:{u1@example.com=example.com/u1/}");
    let mut client = server.greeted();
    client.ask("MAIL FROM:<>", "250 2.1.0");
    client.ask("RCPT TO:<postmaster>", "550");
}

#[test]
fn lenient_paths_are_a_choice() {
    let server = TestServer::with(|s| s.lmtp.lenient_paths = true);
    let mut client = server.greeted();
    client.ask("MAIL FROM: a@example.org", "250 2.1.0");
    client.ask("RCPT TO: <u1@example.com>", "250 2.1.5");
    client.ask("RCPT TO:u2@example.com NOTIFY=NEVER", "250 2.1.5");
}

#[test]
fn a_recipient_without_domain_gets_ours_and_a_quoted_one_is_found() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.ask("MAIL FROM:<>", "250 2.1.0");
    client.ask("RCPT TO:<u1>", "250 2.1.5");
    client.ask("RCPT TO:<\"a b\"@example.com>", "250 2.1.5");
    client.ask("RCPT TO:<@relay.example,@b:u3@example.com>", "250 2.1.5");
    client.ask("DATA", "354");
    client.send("Subject: x\r\n\r\nbody\r\n.\r\n");
    client.expect("250 2.0.0 <u1@example.com> ");
    client.expect("250 2.0.0 <\"a b\"@example.com> ");
    client.expect("250 2.0.0 <u3@example.com> ");
    assert!(server.messages("u1")[0].contains("Delivered-To: u1@example.com\n"));
    assert_eq!(server.messages("quoted").len(), 1);
}

#[test]
fn smtputf8_addresses_are_delivered() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.ask("MAIL FROM:<\u{fc}@example.org> SMTPUTF8", "250 2.1.0");
    client.ask("RCPT TO:<\u{fc}@example.com>", "250 2.1.5");
    client.ask("DATA", "354");
    client.send("Subject: \u{fc}\r\n\r\n.\r\n");
    client.expect("250 2.0.0 <\u{fc}@example.com> ");
    assert!(server.messages("utf8")[0].contains("Subject: \u{fc}\n"));
}

#[test]
fn a_line_too_long_is_refused_and_the_session_goes_on() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let long = "x".repeat(Limits::default().command_line_bytes);
    client.ask(&format!("NOOP {long}"), "500 5.5.2 Line too long\r\n");
    client.ask(
        &format!("NOOP {}", long.repeat(50)),
        "500 5.5.2 Line too long\r\n",
    );
    let fits = "x".repeat(Limits::default().command_line_bytes - "NOOP \r\n".len());
    client.ask(&format!("NOOP {fits}"), "250 2.0.0");
    client.ask(&format!("NOOP {fits}x"), "500 5.5.2");
    client.expect_in_step();
}

#[test]
fn xforward_is_taken_and_what_is_odd_of_it_passed_over() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.ask(
        "XFORWARD NAME=mail.example.org ADDR=192.0.2.1 PROTO=ESMTP",
        "250 2.0.0",
    );
    client.ask(
        "XFORWARD IDENT=4F1 SOURCE=REMOTE HELO=[UNAVAILABLE] PORT=1",
        "250 2.0.0",
    );
    client.ask("XFORWARD FOO=1 HELO=a=b NAME=a+0Ab ADDR", "250 2.0.0");
    client.ask("XFORWARD", "501 5.5.4");
}

#[test]
fn more_recipients_than_allowed_are_put_off() {
    let server = TestServer::with(|s| s.limits.recipients = 100);
    let mut client = server.greeted();
    client.ask("MAIL FROM:<a@example.org>", "250");
    for n in 0..100 {
        client.ask(&format!("RCPT TO:<u{n}@example.com>"), "250 2.1.5");
    }
    client.ask("RCPT TO:<u101@example.com>", "452 4.5.3");
    client.ask("DATA", "354");
    client.send("x\r\n.\r\n");
    for n in 0..100 {
        client.expect(&format!("250 2.0.0 <u{n}@example.com> "));
    }
    client.expect_in_step();
    assert_eq!(server.message_count(), 100);
}
