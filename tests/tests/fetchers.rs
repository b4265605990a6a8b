//! fetchmail and getmail fetch by POP3 and hand each message to the C LDA.
//!
//! Method: a POP3 server of the test, which remembers what was deleted: only what the LDA stored
//! may be.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::sync::{Arc, Mutex};

use mailstow_tests::client::dot_stuffed;
use mailstow_tests::content::plain;
use mailstow_tests::daemon::tied;
use mailstow_tests::mailboxes::{body, header, maildir};
use mailstow_tests::other_mta::{CONFIGURATION, LDA, c_program, recipe, store};
use mailstow_tests::scratch::loopback_host;
use mailstow_tests::site::OWNER;
use mailstow_tests::{Mailstow, Scratch};

const PORT: u16 = 10110;

/// One mailbox that a provider keeps.
struct Provider {
    host: String,
    messages: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
}

impl Provider {
    fn start(messages: Vec<Vec<u8>>) -> Self {
        let host = loopback_host();
        let listener = TcpListener::bind((host.as_str(), PORT)).expect("a port of its own");
        let messages = Arc::new(Mutex::new(messages.into_iter().map(Some).collect()));
        let shared = Arc::clone(&messages);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is answered no more.
                let _ = session(stream, &shared);
            }
        });
        Self { host, messages }
    }

    /// Messages that were not deleted.
    fn kept(&self) -> usize {
        let messages = self.messages.lock().expect("no panic");
        messages.iter().flatten().count()
    }
}

/// Answers commands of RFC 1939. What was deleted goes at QUIT.
fn session(stream: TcpStream, shared: &Mutex<Vec<Option<Vec<u8>>>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let messages = shared.lock().expect("no panic").clone();
    let here = || {
        messages
            .iter()
            .enumerate()
            .filter_map(|(n, m)| Some((n + 1, m.as_ref()?)))
    };
    let mut deleted: Vec<usize> = Vec::new();
    writer.write_all(b"+OK POP3\r\n")?;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default().to_ascii_uppercase();
        let number: Option<usize> = words.next().and_then(|word| word.parse().ok());
        let list = |entry: &dyn Fn(usize, &[u8]) -> String| match number {
            Some(n) => match here().find(|(number, _)| *number == n) {
                Some((n, message)) => format!("+OK {}\r\n", entry(n, message)),
                None => "-ERR no such message\r\n".to_owned(),
            },
            None => {
                let lines = here().map(|(n, message)| format!("{}\r\n", entry(n, message)));
                format!("+OK\r\n{}.\r\n", lines.collect::<String>())
            }
        };
        let wire = |n: usize| {
            here()
                .find(|(number, _)| *number == n)
                .map(|(_, m)| dot_stuffed(m))
        };
        let answer = match (command.as_str(), number) {
            ("USER" | "PASS" | "NOOP" | "RSET", _) => b"+OK\r\n".to_vec(),
            ("CAPA", _) => b"+OK\r\nUSER\r\nUIDL\r\n.\r\n".to_vec(),
            ("STAT", _) => {
                let bytes: usize = here().map(|(_, message)| message.len()).sum();
                format!("+OK {} {bytes}\r\n", here().count()).into_bytes()
            }
            ("LIST", _) => list(&|n, message| format!("{n} {}", message.len())).into_bytes(),
            ("UIDL", _) => list(&|n, _| format!("{n} message-{n}")).into_bytes(),
            // fetchmail asks TOP for more lines than there are.
            ("RETR" | "TOP", Some(n)) => match wire(n) {
                Some(wire) => [b"+OK\r\n", wire.as_slice()].concat(),
                None => b"-ERR no such message\r\n".to_vec(),
            },
            ("DELE", Some(n)) => {
                deleted.push(n);
                b"+OK\r\n".to_vec()
            }
            ("QUIT", _) => {
                let mut messages = shared.lock().expect("no panic");
                for n in &deleted {
                    if let Some(message) = messages.get_mut(n - 1) {
                        *message = None;
                    }
                }
                drop(messages);
                return writer.write_all(b"+OK\r\n");
            }
            _ => b"-ERR unknown command\r\n".to_vec(),
        };
        writer.write_all(&answer)?;
    }
}

/// Covers /etc/passwd, and runs the program as that user.
const AS_OWNER: &str = r#"
mount --bind "$1" /etc/passwd || exit 1
id=$2
shift 2
exec setpriv --reuid "$id" --regid "$id" --clear-groups -- "$@"
"#;

/// The LDA with its configuration, in a directory of the user who fetches.
struct Site {
    store: Mailstow,
    home: Scratch,
}

impl Site {
    fn new(name: &str) -> Self {
        let store = store(&format!("{name}-store"), &[]).start();
        let home = Scratch::new(name);
        c_program("examples/deliver.c", &[], &home.join("deliver"));
        home.mkdir_owned("home", OWNER, OWNER);
        Self { store, home }
    }

    /// The LDA and its configuration.
    fn lda(&self) -> (String, String) {
        let config = self.store.scratch().join("mailstow.toml");
        let program = self.home.join("deliver");
        (program.display().to_string(), config.display().to_string())
    }

    /// Writes a file that its user alone may read.
    fn private(&self, name: &str, content: String) -> std::path::PathBuf {
        let path = self.home.write(&format!("home/{name}"), content);
        std::os::unix::fs::chown(&path, Some(OWNER), Some(OWNER)).expect("chown needs root");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("chmod");
        path
    }

    /// Runs a program as the owner of the mailboxes, whom it alone knows by name.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let home = self.home.join("home").display().to_string();
        let passwd = format!("{passwd}vmail:x:{OWNER}:{OWNER}::{home}:/bin/sh\n");
        let mut command = tied("unshare");
        command.args(["--mount", "--", "sh", "-c", AS_OWNER, "sh"]);
        command.arg(self.home.write("passwd", passwd));
        command.arg(OWNER.to_string()).arg(program).args(arguments);
        command.env("HOME", self.home.join("home"));
        command.env("FETCHMAILHOME", self.home.join("home"));
        command.env("USER", "vmail").env("LOGNAME", "vmail");
        command.current_dir(self.home.join("home"));
        command
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}; install the package"))
    }

    fn fetchmail(&self, provider: &Provider, recipient: &str) -> Output {
        let (program, config) = self.lda();
        let rc = recipe(
            "fetchmail",
            &[
                (LDA, &program),
                (CONFIGURATION, &config),
                ("info@example.com", recipient),
                (
                    "pop.example.org protocol POP3",
                    &format!("{} protocol POP3 port {PORT}", provider.host),
                ),
                // The test's provider has no TLS.
                ("password \"secret\"", "password \"secret\" sslproto \"\""),
            ],
        );
        let rc = self.private("fetchmailrc", rc);
        self.run(
            "/usr/bin/fetchmail",
            &[
                "-v",
                "--auth",
                "password",
                "-f",
                rc.to_str().expect("UTF-8"),
            ],
        )
    }

    fn getmail(&self, provider: &Provider, recipient: &str) -> Output {
        let (program, config) = self.lda();
        let rc = recipe(
            "getmail",
            &[
                (LDA, &program),
                (CONFIGURATION, &config),
                ("info@example.com", recipient),
                (
                    "server = pop.example.org",
                    &format!("server = {}\nport = {PORT}", provider.host),
                ),
            ],
        );
        let rc = self.private("getmailrc", rc);
        let home = self.home.join("home").display().to_string();
        let rc = rc.to_str().expect("UTF-8");
        self.run("/usr/bin/getmail", &["--getmaildir", &home, "--rcfile", rc])
    }
}

/// A sender that a shell must not read.
const HOSTILE: &str = "x`touch${IFS}made`$(touch${IFS}made)@client.example";

/// Three messages that a provider has, as a mailbox keeps them.
fn three() -> Vec<Vec<u8>> {
    [
        ("first", "s@client.example"),
        ("second", "s@client.example"),
        ("third", HOSTILE),
    ]
    .map(|(subject, sender)| {
        let path = format!("Return-Path: <{sender}>\n").into_bytes();
        [path, plain(subject), b".a dot\n".to_vec()].concat()
    })
    .to_vec()
}

/// True when the program passes on what the LDA says.
fn says(output: &Output, words: &str) -> bool {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).contains(words)
}

fn fetches(name: &str, fetch: impl Fn(&Site, &Provider, &str) -> Output) {
    let site = Site::new(name);
    let provider = Provider::start(three());
    // A refused message stays with the provider.
    let output = fetch(&site, &provider, "nobody@example.com");
    assert_eq!(provider.kept(), 3, "{output:?}");
    assert!(says(&output, "5.1.1"), "{output:?}");
    // As does one that cannot be stored now.
    let blocked = site.store.mailbox("example.com/info");
    std::fs::write(&blocked, "").expect("a file in the place of the Maildir");
    let output = fetch(&site, &provider, "info@example.com");
    assert_eq!(provider.kept(), 3, "{output:?}");
    assert!(says(&output, "4.2.0"), "{output:?}");
    std::fs::remove_file(&blocked).expect("our own file");

    let output = fetch(&site, &provider, "info@example.com");
    assert_eq!(provider.kept(), 0, "{output:?}");
    assert!(!site.home.join("home/made").exists(), "{output:?}");
    let stored = maildir(&site.store.mailbox("example.com/info"));
    let mut subjects: Vec<_> = stored.iter().map(|m| header(&m.bytes, "Subject")).collect();
    subjects.sort();
    assert_eq!(subjects, [["first"], ["second"], ["third"]], "{output:?}");
    for message in &stored {
        let is_hostile = header(&message.bytes, "Subject") == ["third"];
        if !is_hostile {
            let sender = header(&message.bytes, "Return-Path");
            assert_eq!(sender, ["<s@client.example>"]);
        }
        assert_eq!(header(&message.bytes, "Delivered-To"), ["info@example.com"]);
        assert!(
            body(&message.bytes).ends_with(b".\n.a dot\n"),
            "{message:?}"
        );
    }
}

#[test]
fn fetchmail_deletes_what_the_c_lda_stored_and_nothing_else() {
    fetches("fetchmail", Site::fetchmail);
}

#[test]
fn getmail_deletes_what_the_c_lda_stored_and_nothing_else() {
    fetches("getmail", Site::getmail);
}
