//! A server with a real engine on a temporary directory, and a client that follows a script.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a program of its own and uses its part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../../../tests/support/deadline.rs"]
mod deadline;
#[path = "../../../tests/support/dialogue.rs"]
mod dialogue;

use dialogue::Dialogue;
use mailstow_engine::Engine;
use mailstow_engine::config::{ListenAddress, Settings};
use mailstow_lmtp::listener;
use mailstow_lmtp::server::{Ended, Handle, Server};
use nix::unistd::{getegid, geteuid};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a test waits for anything before it fails.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Settings for mailboxes of `example.com` under `directory`.
pub fn settings(directory: &Path) -> Settings {
    let base = directory.join("mail");
    let domain = base.join("example.com");
    std::fs::create_dir_all(&domain).unwrap();
    let (mut uid, mut gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid == 0 {
        (uid, gid) = (5000, 5000);
        for directory in [&base, &domain] {
            std::os::unix::fs::chown(directory, Some(uid), Some(gid)).unwrap();
        }
        // The mailboxes' owner must be able to reach them.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory, mode).unwrap();
    }
    let table = directory.join("vmailbox");
    let mut lines = String::new();
    for n in 0..300 {
        lines += &format!("u{n}@example.com example.com/u{n}/\n");
    }
    lines += "alias@example.com example.com/u1/\n";
    lines += "\u{fc}@example.com example.com/utf8/\n";
    lines += "\"a b\"@example.com example.com/quoted/\n";
    lines += "mbox@example.com example.com/mbox\n";
    std::fs::write(&table, lines).unwrap();
    let mut settings = Settings::default();
    settings.routing.virtual_mailbox_domains = "example.com".into();
    settings.routing.virtual_mailbox_maps = format!("texthash:{}", table.display());
    settings.routing.virtual_mailbox_base = base;
    settings.routing.virtual_uid_maps = format!("static:{uid}");
    settings.routing.virtual_gid_maps = format!("static:{gid}");
    settings.routing.virtual_minimum_uid = 1;
    settings.routing.recipient_delimiter = "+".into();
    settings.routing.myorigin = "example.com".into();
    settings.lmtp.hostname = "mx.example.com".into();
    settings.lmtp.listen = vec![ListenAddress::Unix(directory.join("lmtp"))];
    settings.state_directory = directory.join("state");
    settings
}

/// A running server.
pub struct TestServer {
    pub directory: tempfile::TempDir,
    pub handle: Handle,
    pub settings: Settings,
    thread: Option<JoinHandle<Ended>>,
}

impl TestServer {
    /// A server with the settings of [`settings`].
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// A server with changed settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        change(&mut settings);
        let engine = Arc::new(Engine::open(&settings).unwrap());
        let listeners = listener::open_all(&settings.lmtp, Vec::new()).unwrap();
        let server = Server::new(engine, settings.clone(), listeners);
        let handle = server.handle();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let ended = runtime.block_on(server.run()).unwrap();
            // As the command does: lookups that hang are left alone.
            runtime.shutdown_timeout(Duration::from_secs(1));
            ended
        });
        Self {
            directory,
            handle,
            settings,
            thread: Some(thread),
        }
    }

    /// Path of the socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("lmtp")
    }

    /// A connected client that has read the greeting.
    pub fn connect(&self) -> Client {
        let mut client = Client::new(UnixStream::connect(self.socket()).unwrap());
        client.expect("220 mx.example.com LMTP");
        client
    }

    /// A client that has said LHLO.
    pub fn greeted(&self) -> Client {
        let mut client = self.connect();
        client.ask("LHLO client.example", "250");
        client
    }

    /// The messages in the Maildir `name` (below `example.com`), their CRLF-free text.
    pub fn messages(&self, name: &str) -> Vec<String> {
        let new = self
            .directory
            .path()
            .join("mail/example.com")
            .join(name)
            .join("new");
        let Ok(entries) = std::fs::read_dir(new) else {
            return Vec::new();
        };
        entries
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// How many messages are in any mailbox.
    pub fn message_count(&self) -> usize {
        let Ok(entries) = std::fs::read_dir(self.directory.path().join("mail/example.com")) else {
            return 0;
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| self.messages(&name).len())
            .sum()
    }

    /// Stops the server and says how it ended.
    pub fn stop(&mut self) -> Ended {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client that sends given commands and checks the answers.
pub struct Client<S = UnixStream>(Dialogue<S>);

impl<S> Deref for Client<S> {
    type Target = Dialogue<S>;

    fn deref(&self) -> &Dialogue<S> {
        &self.0
    }
}

impl<S> DerefMut for Client<S> {
    fn deref_mut(&mut self) -> &mut Dialogue<S> {
        &mut self.0
    }
}

/// A socket of a client.
pub trait Socket: Read + Write {
    fn be_patient(&self);
}

impl Socket for UnixStream {
    fn be_patient(&self) {
        self.set_read_timeout(Some(TIMEOUT)).unwrap();
        self.set_write_timeout(Some(TIMEOUT)).unwrap();
    }
}

impl Socket for TcpStream {
    fn be_patient(&self) {
        self.set_read_timeout(Some(TIMEOUT)).unwrap();
        self.set_write_timeout(Some(TIMEOUT)).unwrap();
    }
}

impl<S: Socket> Client<S> {
    pub fn new(stream: S) -> Self {
        stream.be_patient();
        Self(Dialogue::new(stream))
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads one reply, all of its lines; `None` when the server has closed.
    pub fn reply(&mut self) -> Option<String> {
        self.read_reply()
            .unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    /// The next reply must begin with `prefix`; it is returned.
    #[track_caller]
    pub fn expect(&mut self, prefix: &str) -> String {
        let reply = self
            .reply()
            .unwrap_or_else(|| panic!("closed instead of {prefix}"));
        assert!(reply.starts_with(prefix), "{reply:?} instead of {prefix}");
        reply
    }

    /// Sends one command and expects its reply.
    #[track_caller]
    pub fn ask(&mut self, command: &str, prefix: &str) -> String {
        self.send(format!("{command}\r\n"));
        let reply = self
            .reply()
            .unwrap_or_else(|| panic!("closed after {command}"));
        assert!(
            reply.starts_with(prefix),
            "{command}: {reply:?} instead of {prefix}"
        );
        reply
    }

    /// The server must have closed the connection after what was read so far.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        assert_eq!(self.reply(), None);
    }

    /// Nothing may have been sent beyond what was read: the next reply is that of NOOP.
    #[track_caller]
    pub fn expect_in_step(&mut self) {
        self.ask("VRFY nobody", "252 2.3.3 Try RCPT instead");
    }

    /// `MAIL` and `RCPT` of these local parts.
    #[track_caller]
    pub fn envelope(&mut self, to: &[&str]) {
        self.ask("MAIL FROM:<sender@example.org>", "250 2.1.0");
        for name in to {
            self.ask(&format!("RCPT TO:<{name}@example.com>"), "250 2.1.5");
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    deadline::eventually(what, TIMEOUT, || condition().then_some(()));
}
