//! Messages that begin with no header, or with an odd one: the bytes are those that Postfix and
//! virtual(8) store, and no trace field that a message brings counts as ours.
//!
//! Method: every message goes into a Maildir and an mbox in three ways: through Postfix to
//! virtual(8), through Postfix to mailstow, and to mailstow alone. Postfix's own `Received:` field
//! is left out where a message did not go through it.

use std::collections::BTreeMap;
use std::path::Path;

use mailstow_tests::mailboxes::{maildir, mbox, normalised};
use mailstow_tests::postfix::Builder;
use mailstow_tests::{Client, Mailstow, Postfix};

const TO: [&str; 2] = ["info@example.com", "sales@example.com"];

/// Messages that Postfix changes on the way to either store: it drops fields, cuts a field at its
/// NUL, writes the colon right behind the name, and a blank for a CR.
const CHANGED: [&str; 6] = [
    "blank before the colon",
    "dropped by cleanup(8)",
    "NUL in a value",
    "CR first",
    "CR LF first",
    "CR in a value",
];

/// What is compared with virtual(8).
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let long_line = format!("Subject: x\nX-Long: {}\n\nbody\n", "a".repeat(5000));
    let folded = format!(
        "Subject: x\n{}\nbody\n",
        format!("X-Field: {}\n", "b\n c".repeat(90)).repeat(60)
    );
    let long_name = format!("{}: x\n\nbody\n", "n".repeat(1500));
    let no_name = format!("{}\nSubject: x\n\nbody\n", "n".repeat(3000));
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("empty", text("")),
        ("one empty line", text("\n")),
        ("leading empty line", text("\nSubject: x\n\nbody\n")),
        ("leading empty lines", text("\n\n\nbody\n")),
        (
            "leading blank",
            text(" leading\nReturn-Path: <forged@x>\n\nbody\n"),
        ),
        ("leading tab", text("\tleading\nSubject: x\n\nbody\n")),
        ("only blanks", text("  \nSubject: x\n\nbody\n")),
        ("no header", text("body\n")),
        (
            "no header, then one",
            text("body\nSubject: x\nReturn-Path: <forged@x>\n\nmore\n"),
        ),
        ("no colon", text("Subject x\n\nbody\n")),
        ("no name", text(": x\n\nbody\n")),
        ("two words", text("Sub ject: x\n\nbody\n")),
        ("blank before the colon", text("Subject : x\n\nbody\n")),
        ("header only", text("Subject: x\n")),
        ("header and end", text("Subject: x\n\n")),
        (
            "envelope line",
            text("From a@b  Sun Nov 22 06:51:19 2026\nSubject: x\n\nFrom c\nbody\n"),
        ),
        (
            "envelope line alone",
            text("From a@b  Sun Nov 22 06:51:19 2026\n"),
        ),
        (
            "quoted envelope line",
            text(">From a@b  Sun Nov 22\nSubject: x\n\n>From c\n"),
        ),
        ("quoted twice", text(">>From a@b\nSubject: x\n\nbody\n")),
        (
            "small envelope line",
            text("from a@b\nSubject: x\n\nbody\n"),
        ),
        (
            "envelope lines",
            text("From a\n>From b\nSubject: x\n\nbody\n"),
        ),
        (
            "envelope line, then a blank",
            text("From a\n leading\n\nbody\n"),
        ),
        ("envelope line, then a body", text("From a\n\nbody\n")),
        (
            "envelope line, then no header",
            text("From a\nno header\n\nbody\n"),
        ),
        (
            "envelope line behind a field",
            text("Subject: x\n\nFrom a\n"),
        ),
        ("From field", text("From: a@b\nSubject: x\n\nbody\n")),
        ("From and tab", text("From\ta@b\nSubject: x\n\nbody\n")),
        (
            "our field first",
            text("Return-Path: <forged@x>\nSubject: x\n\nbody\n"),
        ),
        (
            "our field continued",
            text("Return-Path: <forged@x>\n continued\n\tand on\nSubject: x\n\nbody\n"),
        ),
        ("our field alone", text("Return-Path: <forged@x>\n\nbody\n")),
        (
            "our field, then no header",
            text("Return-Path: <forged@x>\nbody\nmore\n"),
        ),
        (
            "our field in odd case",
            text("Subject: x\nRETURN-path : <forged@x>\n\nbody\n"),
        ),
        (
            "our field behind a continuation",
            text("Subject: x\n y\nReturn-Path: <forged@x>\n\nbody\n"),
        ),
        (
            "brought recipients",
            text("Delivered-To: a@x\nSubject: x\n\nbody\n"),
        ),
        (
            "dropped by cleanup(8)",
            text("Content-Length: 9\nSubject: x\n\nbody\n"),
        ),
        (
            "status",
            text("Status: RO\nX-Status: A\nSubject: x\n\nbody\n"),
        ),
        (
            "8-bit",
            b"Subject: \xfc\xe4\nX-Umlaut: \xc3\xbc\n\nGr\xfc\xdfe\n".to_vec(),
        ),
        ("8-bit name", b"Subj\xfc: x\nSubject: x\n\nbody\n".to_vec()),
        ("8-bit alone", b"\xff\xfe\n".to_vec()),
        ("NUL first", b"\0Subject: x\n\nbody\n".to_vec()),
        ("NUL in a value", b"Subject: x\0y\n\nbo\0dy\n".to_vec()),
        (
            "NUL in a name",
            b"Sub\0ject: x\nSubject: y\n\nbody\n".to_vec(),
        ),
        ("CR first", b"\rSubject: x\n\nbody\n".to_vec()),
        ("CR LF first", b"\r\nSubject: x\n\nbody\n".to_vec()),
        ("CR in a value", b"Subject: x\ry\r\n\nbody\r\n\n".to_vec()),
        ("dots", text(".\n..x\n\n.\n..\n")),
        ("long line", long_line.into_bytes()),
        ("long header", folded.into_bytes()),
        ("long name", long_name.into_bytes()),
        ("long line without a name", no_name.into_bytes()),
    ]
}

/// As `DATA` has it: each LF becomes CRLF, so that CR LF in a message is sent as CR CR LF.
fn wire(content: &[u8]) -> Vec<u8> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    let ended = lines.map(|line| match line.strip_suffix(b"\n") {
        Some(text) => [text, b"\r\n"].concat(),
        None => line.to_vec(),
    });
    ended.collect::<Vec<_>>().concat()
}

fn postfix(name: &str) -> Builder {
    let postfix = Postfix::build(name)
        .main_cf(
            "virtual_mailbox_domains = example.com\n\
             virtual_mailbox_base = @ROOT@/vhosts\n\
             virtual_mailbox_maps = hash:@DIR@/vmailbox\n\
             virtual_uid_maps = static:5000\n\
             virtual_gid_maps = static:5000\n\
             local_header_rewrite_clients =\n\
             lmtp_line_length_limit = 0",
        )
        .table(
            "vmailbox",
            "info@example.com example.com/info\nsales@example.com example.com/sales/\n",
        );
    let scratch = postfix.scratch();
    scratch.mkdir_owned("vhosts", 5000, 5000);
    scratch.mkdir_owned("vhosts/example.com", 5000, 5000);
    postfix
}

/// One message as each mailbox has it, times and queue ids made equal, and the mailboxes emptied.
fn taken(base: &Path) -> BTreeMap<&'static str, String> {
    let text = |bytes: &[u8]| normalised(bytes).escape_ascii().to_string();
    let files = maildir(&base.join("sales"));
    assert_eq!(files.len(), 1, "messages in {}", base.display());
    let in_mbox = mbox(&base.join("info"));
    let found = [
        ("maildir", text(&files[0].bytes)),
        ("mbox", text(&in_mbox.concat())),
    ];
    std::fs::remove_file(&files[0].path).expect("a message can be removed");
    std::fs::write(base.join("info"), "").expect("an mbox can be emptied");
    found.into()
}

/// Without the field of Postfix.
fn without_received(texts: BTreeMap<&'static str, String>) -> BTreeMap<&'static str, String> {
    let without = |(format, text): (_, String)| {
        let received = "Received: (normalised)\\n";
        assert_eq!(text.matches(received).count(), 1, "{text}");
        (format, text.replacen(received, "", 1))
    };
    texts.into_iter().map(without).collect()
}

#[test]
fn a_message_without_a_header_is_stored_as_virtual_stores_it() {
    let theirs = postfix("theirs")
        .main_cf("virtual_transport = virtual")
        .start();
    let through = postfix("through");
    let toml = "[store]\nmbox_status_fields = \"keep\"\n";
    let store = Mailstow::build("block")
        .postfix(&through.directory())
        .toml(toml);
    let line = format!("virtual_transport = lmtp:{}", store.unix().spelled());
    let through = through.main_cf(&line);
    through.write();
    let store = store.start();
    let through = through.start();
    let base = |postfix: &Postfix| postfix.scratch().join("vhosts/example.com");
    let mut client = store.client();
    let mut differ = Vec::new();
    for (name, content) in corpus() {
        let content = wire(&content);
        for postfix in [&theirs, &through] {
            let mut client = Client::smtp(&postfix.smtp());
            let reply = client.submit_by_data(&TO, &content);
            assert_eq!(reply.code, 250, "{name}: {reply}");
            postfix.drain();
        }
        let expected = taken(&base(&theirs));
        let found = taken(&base(&through));
        if found != expected {
            differ.push(format!(
                "{name}, through Postfix: {found:#?}\nnot {expected:#?}"
            ));
        }
        // X-Original-To is known from ORCPT only.
        client.envelope_with_orcpt(&TO);
        let replies = client.content_by_data(&TO, &content);
        assert!(replies.iter().all(|reply| reply.code == 250), "{name}");
        let direct = taken(&base(&through));
        let mut expected = without_received(expected);
        if content.is_empty() {
            // The message that Postfix stores has a header: its own field.
            let end = |text: &mut String| text.push_str("\\n");
            expected.values_mut().for_each(end);
        }
        if direct != expected && !CHANGED.contains(&name) {
            differ.push(format!(
                "{name}, to mailstow alone: {direct:#?}\nnot {expected:#?}"
            ));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// The fields that a reader may take for ours.
fn forged(message: &str) -> Vec<&str> {
    let fields = message.lines().filter(|line| line.contains("forged"));
    fields.collect()
}

#[test]
fn trace_fields_that_a_message_brings_are_removed_wherever_they_are_in_its_header() {
    let server = Mailstow::example("forged").start();
    let mut client = server.client();
    let forgery = "X-Original-To: forged@x\nReturn-Path: <forged@x>\n";
    for before in [
        "",
        "Subject: x\n",
        "Subject: x\n continued\n",
        "Subject: x\nthis is no field\n",
        "Subject: x\nthis is no field\n continued\n\t\n",
        "Subject: x\n: no name\nFrom nobody\n>From nobody\n",
        "Subject: x\nno\0field\n\x0c\n",
        "Subject: x\r\n",
        "Subject: x\ry\r",
        "X-Original-To: forged@x\n continued\nSubject: x\n",
    ] {
        for behind in ["\nbody\n", "Subject: y\n\nbody\n", ""] {
            let content = [before, forgery, behind].concat();
            for reply in client.deliver_by_data(&TO, &wire(content.as_bytes())) {
                assert_eq!(reply.code, 250, "{content:?}: {reply}");
            }
            let base = server.mailbox("example.com");
            for (format, text) in taken(&base) {
                let text = text.replace("\\n", "\n").replace("\\r", "\n");
                assert_eq!(forged(&text), [""; 0], "{format} of {content:?}: {text}");
            }
        }
    }
}
