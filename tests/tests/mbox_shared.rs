//! One mbox, several programs: mailstow, Python's mailbox module (which also deletes, and so
//! replaces the file), and a writer that locks as Dovecot does, all at the same time. Method:
//! every writer numbers its messages; afterwards each must be there once, whole, and parse.

use mailstow_engine::Mail;
use mailstow_engine::address::{Address, parse_address};
use mailstow_engine::config::Settings;
use mailstow_engine::route::{Format, MailboxTarget};
use mailstow_engine::{Engine, Recipient};
use mailstow_tests::scratch::needs_root;
use mailstow_tests::{Scratch, mailboxes, python};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::sync::Arc;

const OWNER: u32 = 5000;
const THREADS: usize = 6;
const MESSAGES: usize = 25;

/// Adds messages, and deletes every fifth one again, which rewrites and replaces the file.
const PYTHON_MAILBOX: &str = r#"
import mailbox, sys, time
path, messages = sys.argv[1], int(sys.argv[2])
for number in range(messages):
    while True:
        box = mailbox.mbox(path)
        try:
            box.lock()
            break
        except mailbox.ExternalClashError:
            box.close()
            time.sleep(0.002)
    body = "".join("python-%d line %d\n" % (number, n) for n in range(100))
    text = "From: p@ex.example\nSubject: python-%d\n\n" % number + body
    if number % 5 == 0:
        junk = box.add("From: p@ex.example\nSubject: junk\n\njunk\n")
        box.flush()
        box.remove(junk)
        box.flush()
    box.add(text)
    box.flush()
    box.unlock()
    box.close()
"#;

/// Lock file first, then a POSIX record lock, as Dovecot's mbox_write_locks = dotlock fcntl.
const AS_DOVECOT: &str = r#"
import fcntl, os, sys, time
path, messages = sys.argv[1], int(sys.argv[2])
for number in range(messages):
    while True:
        try:
            os.close(os.open(path + ".lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            time.sleep(0.002)
            continue
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            os.close(file)
            os.unlink(path + ".lock")
            time.sleep(0.002)
    os.lseek(file, 0, os.SEEK_END)
    os.write(file, b"From d@ex.example  Sun Nov 22 06:51:19 2026\n")
    os.write(file, b"From: d@ex.example\nSubject: dovecot-%d\n\n" % number)
    for n in range(100):
        os.write(file, b"dovecot-%d line %d\n" % (number, n))
    os.write(file, b"\n")
    os.close(file)
    os.unlink(path + ".lock")
"#;

fn lines(name: &str) -> String {
    (0..100).map(|n| format!("{name} line {n}\n")).collect()
}

fn start(program: &str, path: &str) -> Child {
    python::program(program, &[path, &MESSAGES.to_string()])
        .uid(OWNER)
        .gid(OWNER)
        .spawn()
        .expect("python3: install the package python3")
}

fn deliver(engine: &Engine, name: &str) -> String {
    let mut builder = engine.new_message();
    let content = format!("From: m@ex.example\nSubject: {name}\n\n{}", lines(name));
    builder.write(content.as_bytes()).expect("room in memory");
    let mail = Mail {
        reverse_path: parse_address("m@ex.example").expect("an address"),
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: builder.finish().expect("room in memory"),
    };
    let recipient = Recipient {
        address: Address::new("info", Some("vm.example")),
        original: None,
    };
    let target = MailboxTarget::new("info", Format::Mbox, OWNER, OWNER).unwrap();
    let outcomes = engine.deliver(Arc::new(mail), vec![(recipient, target)]);
    outcomes[0].status.to_string()
}

#[test]
fn programs_that_lock_share_an_mbox_with_mailstow_and_nothing_is_lost() {
    needs_root("mailboxes belong to a user of their own");
    let scratch = Scratch::new("mbox-shared");
    let base = scratch.mkdir_owned("vhosts", OWNER, OWNER);
    let path = base.join("info");
    let mut settings = Settings::default();
    settings.routing.virtual_mailbox_base = base.clone();
    settings.routing.deliver_lock_attempts = 100;
    // Like two servers: each has a separate delivery log.
    let engines = ["one", "two"].map(|name| {
        settings.state_directory = scratch.join(name);
        Engine::open(&settings).expect("an engine")
    });
    let text = path.to_str().expect("a plain path");
    let programs = [start(PYTHON_MAILBOX, text), start(AS_DOVECOT, text)];
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let engine = &engines[thread % engines.len()];
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let status = deliver(engine, &format!("mailstow-{thread}.{number}"));
                    assert_eq!(status, "250 2.0.0 delivered to mailbox");
                }
            });
        }
    });
    for mut program in programs {
        let status = program.wait().expect("our own child");
        assert!(status.success(), "a writer failed: {status}");
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for message in mailboxes::mbox(&path) {
        let subject = mailboxes::header(&message, "Subject").remove(0);
        let expected = format!("{}\n", lines(&subject));
        let body = String::from_utf8_lossy(mailboxes::body(&message)).into_owned();
        assert_eq!(body, expected, "message {subject} is damaged");
        *seen.entry(subject).or_default() += 1;
    }
    let all = (THREADS + 2) * MESSAGES;
    assert_eq!(seen.len(), all, "messages are missing");
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    assert_eq!(python::messages(&path).len(), all);
    assert_eq!(mailboxes::list(&base), [path], "no lock file is left");
}
