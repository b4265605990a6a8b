//! A message cannot bring the state that readers of an mbox keep in header fields: it arrives
//! unread, unanswered, without keywords, whole, and alone.
//!
//! Method: a message that brings all of these fields goes into an mbox between two others; Dovecot,
//! Python's `mailbox` module and the bytes say what came of it. With `mbox_status_fields = "keep"`
//! the same readers do see the state, as behind virtual(8): so the test would notice it.

use mailstow_tests::mailboxes::{header, maildir, mbox};
use mailstow_tests::mailstow::{Builder, command, run_with_input};
use mailstow_tests::{Mailstow, dovecot, python};

const TO: &str = "info@example.com";

/// Every field, in odd spellings too, some behind a line that is no field.
const BROUGHT: &str = "Subject: brought\n\
    X-IMAPbase: 1795000000 0000000099 Forged\n\
    X-IMAP: 1795000000 0000000099\n\
    STATUS: RO\n\
    X-Status : AF\n\
    this is no field\n\
    X-UID: 77\n\
    X-Keywords: Forged\n\
    \tmore\n\
    Content-Length: 3\n\
    Lines: 1\n\
    X-Other: stays\n\
    \n\
    Status: in the body\n\
    From the body\n";

const NAMES: [&str; 8] = [
    "Content-Length",
    "Lines",
    "Status",
    "X-IMAP",
    "X-IMAPbase",
    "X-Keywords",
    "X-Status",
    "X-UID",
];

fn plain(subject: &str) -> String {
    format!("Subject: {subject}\n\nbody of {subject}\n")
}

/// What Python's `mailbox` module takes for flags.
fn flags_by_python(path: &std::path::Path) -> Vec<String> {
    const FLAGS: &str = "
import mailbox, sys
box = mailbox.mbox(sys.argv[1], create=False)
for key in sorted(box.keys()):
    print('flags', box.get_message(key).get_flags())
";
    let mut program = python::program(FLAGS, &[path.to_str().expect("UTF-8")]);
    let output = program
        .output()
        .expect("python3: install the package python3");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("ASCII");
    text.lines()
        .map(|line| line.trim_start_matches("flags").trim().to_owned())
        .collect()
}

fn deliver_by_command(server: &Builder, content: &str) {
    let mut arguments = vec!["deliver".to_owned()];
    arguments.extend(server.configuration());
    arguments.extend(["-f", "s@client.example", "--", TO].map(str::to_owned));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let output = run_with_input(command(&arguments), content.as_bytes());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_message_brings_no_state_into_an_mbox() {
    // Through the log, flushed in the mbox, and too long for the log.
    for (name, toml) in [
        ("logged", ""),
        ("direct", "[store]\ndurability = \"direct\"\n"),
        ("long", "[delivery_log]\nmessage_bytes_max = 0\n"),
    ] {
        let server = Mailstow::example(&format!("status-{name}"))
            .toml(toml)
            .start();
        let mut client = server.client();
        let contents = [plain("first"), BROUGHT.to_owned(), plain("last")];
        for content in &contents {
            let both = [TO, "sales@example.com"];
            for reply in client.deliver("s@client.example", &both, content.as_bytes()) {
                assert_eq!(reply.code, 250, "{name}: {reply}");
            }
        }
        let path = server.mailbox("example.com/info");
        assert_eq!(
            dovecot::flags(&path),
            vec![Vec::<String>::new(); 3],
            "{name}"
        );
        assert_eq!(flags_by_python(&path), [""; 3], "{name}");
        let stored = mbox(&path);
        assert_eq!(stored.len(), 3);
        for field in NAMES {
            assert_eq!(header(&stored[1], field), [""; 0], "{name}: {field}");
        }
        let kept = "\nSubject: brought\nthis is no field\nX-Other: stays\n\n\
                    Status: in the body\n>From the body\n\n";
        let text = String::from_utf8_lossy(&stored[1]);
        assert!(text.ends_with(kept), "{name}: {text}");
        // No reader of a Maildir keeps its state there.
        let files = maildir(&server.mailbox("example.com/sales"));
        let whole =
            |file: &&mailstow_tests::mailboxes::Stored| file.bytes.ends_with(BROUGHT.as_bytes());
        assert_eq!(files.iter().filter(whole).count(), 1, "{name}");
    }
}

#[test]
fn the_command_and_the_server_after_a_kill_leave_the_state_out_too() {
    let mut server = Mailstow::example("status-killed").start();
    let replies = server
        .client()
        .deliver("s@client.example", &[TO], BROUGHT.as_bytes());
    assert_eq!(replies[0].code, 250, "{}", replies[0]);
    let path = server.mailbox("example.com/info");
    let before = std::fs::read(&path).expect("the mbox is there");
    server.kill();
    // As if the page cache had been lost: recovery writes the message again.
    std::fs::write(&path, b"").expect("the mbox can be emptied");
    server.restart();
    let after = std::fs::read(&path).expect("the mbox is there");
    assert_eq!(
        after.escape_ascii().to_string(),
        before.escape_ascii().to_string()
    );
    drop(server);
    let store = Mailstow::example("status-command");
    deliver_by_command(&store, BROUGHT);
    let path = store.scratch().join("vhosts/example.com/info");
    assert_eq!(flags_by_python(&path), [""]);
    assert_eq!(dovecot::flags(&path), [Vec::<String>::new()]);
}

#[test]
fn the_state_stays_where_it_is_to_be_kept() {
    let toml = "[store]\nmbox_status_fields = \"keep\"\n";
    let server = Mailstow::example("status-kept").toml(toml).start();
    let replies = server
        .client()
        .deliver("s@client.example", &[TO], BROUGHT.as_bytes());
    assert_eq!(replies[0].code, 250, "{}", replies[0]);
    let path = server.mailbox("example.com/info");
    let quoted = BROUGHT.replace("\nFrom ", "\n>From ");
    assert!(mbox(&path)[0].ends_with(format!("{quoted}\n").as_bytes()));
    let seen = "\\Seen".to_owned();
    assert!(
        dovecot::flags(&path)[0].contains(&seen),
        "{:?}",
        dovecot::flags(&path)
    );
    assert!(flags_by_python(&path)[0].contains("RO"));
}
