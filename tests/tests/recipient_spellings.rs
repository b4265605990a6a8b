//! A recipient is found by the same spellings at every entrance: LMTP, `mailstow deliver`,
//! `mailstow resolve`, the socketmap server.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mailstow_tests::Mailstow;
use mailstow_tests::content::plain;
use mailstow_tests::mailboxes::maildir;
use mailstow_tests::mailstow::{command, run_with_input};

/// What is between the angle brackets, and the mailbox it means.
const SPELLINGS: &[(&[u8], &str)] = &[
    (b"sales@example.com", "sales"),
    (b"SALES+x@Example.COM", "sales"),
    (b"sales@example.com.", "sales"),
    (b"<sales@example.com>", "sales"),
    (b"@hop.example,@hop2.example:sales@example.com", "sales"),
    (b"sales%example.com@localhost", "sales"),
    (b"sales%example.com@localhost.", "sales"),
    (b"example.com!sales@localhost", "sales"),
    (b"\"sales@example.com\"@localhost", "sales"),
    (b"\"sales\"@example.com", "sales"),
    (b"sales%example.com", "sales"),
    (b"example.com!sales", "sales"),
    (b"\"two words\"@example.com", "words"),
    (b"two words@example.com", "words"),
    (b"j\xf6rg@example.com", "latin"),
    (b"\"j\xf6rg\"@example.com.", "latin"),
    (b"j\xc3\xb6rg@example.com", "utf8"),
];

/// An unknown address, in any spelling.
const UNKNOWN: &[&[u8]] = &[
    b"nobody@example.com",
    b"sales@example.com..",
    b"sales@example.com#1",
    b"sales@",
    b"@",
    b"\"sales@example.com",
    b"j\xfcrg@example.com",
    b"sales@sub.example.com",
];

fn server() -> Mailstow {
    let server =
        Mailstow::example("spellings").main_cf("smtputf8_enable = no\nmyorigin = x.example");
    let mut table = Vec::new();
    for (address, mailbox) in [
        (&b"sales@example.com"[..], "sales"),
        (b"\"two words\"@example.com", "words"),
        (b"j\xf6rg@example.com", "latin"),
        (b"j\xc3\xb6rg@example.com", "utf8"),
    ] {
        table.extend_from_slice(address);
        table.extend_from_slice(format!(" example.com/{mailbox}/\n").as_bytes());
    }
    server.scratch().write("conf/vmailbox", table);
    let socket = server.scratch().join("map");
    let toml = format!("[socketmap]\nlisten = \"unix:{}\"\n", socket.display());
    server.toml(&toml).start()
}

fn asked(server: &Mailstow, key: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(server.scratch().join("map")).expect("it listens");
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).expect("a timeout");
    let request = [b"virtual_mailbox_maps ", key].concat();
    let request = [format!("{}:", request.len()).as_bytes(), &request, b","].concat();
    stream.write_all(&request).expect("it reads");
    let mut reply = Vec::new();
    let mut byte = [0];
    while byte != [b','] {
        stream.read_exact(&mut byte).expect("a reply");
        reply.push(byte[0]);
    }
    reply
}

fn run(
    server: &Mailstow,
    name: &str,
    arguments: &[&str],
    last: &[u8],
    input: &[u8],
) -> (bool, String) {
    let mut command = command(&[name]);
    command
        .args(server.configuration())
        .args(arguments)
        .arg(OsStr::from_bytes(last));
    let output = run_with_input(command, input);
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn every_entrance_finds_a_recipient_by_the_same_spellings() {
    let server = server();
    let mut client = server.client();
    assert_eq!(client.command("MAIL FROM:<>").code, 250);
    for (spelling, mailbox) in SPELLINGS {
        let shown = spelling.escape_ascii().to_string();
        let reply = client.command([b"RCPT TO:<", *spelling, b">"].concat());
        assert_eq!(reply.code, 250, "LMTP: {shown}: {reply}");

        let path = server.mailbox(&format!("example.com/{mailbox}"));
        let before = maildir(&path).len();
        let arguments = ["-f", "", "--"];
        let (delivered, said) = run(&server, "deliver", &arguments, spelling, &plain("x"));
        assert!(delivered, "deliver: {shown}: {said}");
        assert_eq!(maildir(&path).len(), before + 1, "deliver: {shown}");

        let (resolved, said) = run(&server, "resolve", &["--"], spelling, b"");
        assert!(
            resolved && said.contains(&format!("/{mailbox}/\n")),
            "{shown}: {said}"
        );

        // Postfix asks for whole addresses.
        if spelling.contains(&b'@') {
            let reply = asked(&server, spelling).escape_ascii().to_string();
            assert!(
                reply.contains(&format!("OK example.com/{mailbox}/")),
                "{shown}: {reply}"
            );
        }
    }
    for spelling in UNKNOWN {
        let shown = spelling.escape_ascii().to_string();
        let reply = client.command([b"RCPT TO:<", *spelling, b">"].concat());
        assert_eq!(reply.code / 100, 5, "LMTP: {shown}: {reply}");
        let arguments = ["-f", "", "--"];
        let (delivered, said) = run(&server, "deliver", &arguments, spelling, &plain("x"));
        assert!(
            !delivered && said.starts_with("5."),
            "deliver: {shown}: {said}"
        );
        let (resolved, said) = run(&server, "resolve", &["--"], spelling, b"");
        assert!(
            !resolved || !said.contains("mailbox"),
            "resolve: {shown}: {said}"
        );
        let reply = asked(&server, spelling).escape_ascii().to_string();
        assert!(reply.contains("NOTFOUND"), "socketmap: {shown}: {reply}");
    }
}

#[test]
fn whatever_an_argument_holds_a_delivered_header_line_stays_one_line() {
    let server = server();
    let sender = OsStr::from_bytes(b"a\nX-Forged: 1\r@\xfc{b}");
    let original = OsStr::from_bytes(b"o\nX-Forged: 2@c");
    let mut command = command(&["deliver"]);
    command
        .args(server.configuration())
        .arg("-f")
        .arg(sender)
        .arg("-o")
        .arg(original);
    command.args(["--", "sales@example.com"]);
    let output = run_with_input(command, &plain("x"));
    assert!(output.status.success(), "{output:?}");
    let stored = maildir(&server.mailbox("example.com/sales"));
    let expected = b"Return-Path: <\"a\\?X-Forged: 1\\?\"@\xfc{b}>\n\
                     X-Original-To: \"o\\?X-Forged: 2\"@c\nDelivered-To: sales@example.com\n";
    let head = &stored[0].bytes[..expected.len()];
    assert_eq!(
        head.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

#[test]
fn octets_that_are_not_utf8_are_shown_as_question_marks() {
    let server = server();
    let mut client = server.client();
    assert_eq!(client.command(b"MAIL FROM:<\xfc@\xff>").code, 250);
    let reply = client.command(b"RCPT TO:<\xe9@example.com>");
    assert!(reply.text.starts_with("5.1.1 <?@example.com> "), "{reply}");
    assert_eq!(
        client
            .command(b"RCPT TO:<j\xf6rg@example.com> ORCPT=rfc822;+FE@x")
            .code,
        250
    );
    assert_eq!(client.command("DATA").code, 354);
    let reply = client.command("Subject: x\r\n\r\nx\r\n.");
    assert!(
        reply.text.starts_with("2.0.0 <j?rg@example.com> "),
        "{reply}"
    );
    let line = server.log_line("status=sent");
    assert!(
        line.contains("to=<j?rg@example.com>, orig_to=<?@x>, from=<?@?>"),
        "{line}"
    );
    let stored = maildir(&server.mailbox("example.com/latin"));
    let expected =
        b"Return-Path: <\xfc@\xff>\nX-Original-To: \xfe@x\nDelivered-To: j\xf6rg@example.com\n";
    assert!(
        stored[0].bytes.starts_with(expected),
        "{}",
        stored[0].bytes.escape_ascii()
    );
    let log = server.scratch().join("state/delivery-log");
    let mut command = command(&["log", "inspect"]);
    command.arg(log);
    let said = String::from_utf8(run_with_input(command, b"").stdout).expect("UTF-8");
    assert!(said.contains("j?rg@example.com"), "{said}");
}

#[test]
fn a_recipient_map_holds_the_octets_of_tables_that_may_hold_any() {
    let server = server();
    let map = server.scratch().join("recipients.map");
    let mut build = command(&["map", "build", "-o"]);
    build
        .arg(&map)
        .arg("--postfix")
        .arg(server.scratch().join("conf"));
    let output = run_with_input(build, b"");
    assert!(output.status.success(), "{output:?}");
    let mut dump = command(&["map", "dump"]);
    dump.arg(&map);
    let dumped = run_with_input(dump, b"").stdout;
    let line = b"virtual_mailbox_maps\tj\xf6rg@example.com\texample.com/latin/\n";
    let found = dumped.windows(line.len()).any(|w| w == line);
    assert!(found, "{}", dumped.escape_ascii());
}
