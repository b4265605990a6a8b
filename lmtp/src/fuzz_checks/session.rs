//! Sessions over a socket pair, with a real engine.

use super::dialogue::{Model, Taken};
use crate::admission::{Bounds, Peer};
use crate::server::Server;
use crate::session::Session;
use mailstow_engine::Engine;
use mailstow_engine::config::{Durability, Settings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Most of an input that is sent, in bytes: it fits into a socket's buffer.
pub(super) const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Largest message that is taken, in bytes.
const MESSAGE_BYTES_MAX: u64 = 40_000;

/// Sends `bytes` to a session and closes.
///
/// # Panics
/// The replies do not fit the commands; mail was stored that was not acknowledged, or the other way
/// round; what was stored is not the content between `DATA` and its end; or memory is still counted
/// when the session is over.
pub fn check_session(bytes: &[u8]) {
    thread_local! {
        static HOST: Host = Host::open();
    }
    let input = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    HOST.with(|host| {
        let output = host.talk(input);
        let taken = Model::new(&output, host.line_bytes_max).follow(input);
        let stored = host.take_stored();
        let (messages, acknowledged) = (stored.len(), taken.acknowledged);
        assert_eq!(
            acknowledged > 0,
            messages > 0,
            "{acknowledged} deliveries acknowledged, {messages} messages stored"
        );
        assert!(
            messages <= acknowledged,
            "{messages} stored, {acknowledged} acknowledged"
        );
        host.compare(&stored, &taken);
        host.check_memory();
    });
}

/// A server without listeners.
pub(super) struct Host {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) server: Server,
    mailboxes: [PathBuf; 2],
    pub(super) line_bytes_max: usize,
    _directory: tempfile::TempDir,
}

impl Host {
    pub(super) fn open() -> Self {
        let shm = Path::new("/dev/shm");
        let directory = match shm.is_dir() {
            true => tempfile::tempdir_in(shm),
            false => tempfile::tempdir(),
        };
        let directory = directory.expect("a directory");
        let base = directory.path().join("mail");
        let uid = 5000;
        std::fs::create_dir(&base).expect("the base");
        if nix::unistd::geteuid().is_root() {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(directory.path(), open).expect("a mode");
            std::os::unix::fs::chown(&base, Some(uid), Some(uid)).expect("an owner");
        }
        let owner = match nix::unistd::geteuid().is_root() {
            true => (uid, uid),
            false => (
                nix::unistd::geteuid().as_raw(),
                nix::unistd::getegid().as_raw(),
            ),
        };
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_domains = "vm.example".into();
        settings.routing.virtual_mailbox_maps =
            "inline:{a@vm.example=a/, {b@vm.example = b/}, {c@vm.example = a/}}".into();
        settings.routing.virtual_mailbox_base.clone_from(&base);
        settings.routing.virtual_uid_maps = format!("static:{}", owner.0);
        settings.routing.virtual_gid_maps = format!("static:{}", owner.1);
        settings.routing.virtual_minimum_uid = 1;
        settings.routing.message_size_limit = MESSAGE_BYTES_MAX;
        settings.routing.recipient_delimiter = "+".into();
        settings.lmtp.hostname = "mx.vm.example".into();
        settings.store.durability = Durability::Direct;
        // An input that is sent twice is stored twice.
        settings.delivery_log.in_doubt_time = Duration::ZERO;
        settings.state_directory = directory.path().join("state");
        let engine = Arc::new(Engine::open(&settings).expect("an engine"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            runtime: runtime.expect("a runtime"),
            line_bytes_max: settings.limits.command_line_bytes,
            server: Server::new(engine, settings, Vec::new()),
            mailboxes: ["a", "b"].map(|name| base.join(name)),
            _directory: directory,
        }
    }

    /// What the session answers to `input` until it ends.
    pub(super) fn talk(&self, input: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
            let shared = self.server.shared();
            let bounds = Bounds {
                connections: 4,
                of_peer: 0,
            };
            let guest = shared.admission.admit(Peer::Unknown, bounds);
            let guest = guest.unwrap_or_else(|refused| panic!("{refused:?}"));
            let session = Session::new(theirs, ("fuzzer".to_owned(), guest), shared);
            let session = tokio::spawn(session.run());
            let mut output = Vec::new();
            let (mut read, mut write) = ours.split();
            let sending = async {
                // The session may end before it has read everything.
                let _ = write.write_all(input).await;
                let _ = write.shutdown().await;
            };
            let (_, received) = tokio::join!(sending, read.read_to_end(&mut output));
            // A session that ends over unread input resets the connection.
            let _ = received;
            session.await.expect("the session does not panic");
            output
        })
    }

    /// The messages in the mailboxes, which are removed.
    pub(super) fn take_stored(&self) -> Vec<Vec<u8>> {
        let mut stored = Vec::new();
        for mailbox in &self.mailboxes {
            let Ok(entries) = std::fs::read_dir(mailbox.join("new")) else {
                continue;
            };
            for entry in entries {
                let path = entry.expect("an entry").path();
                stored.push(std::fs::read(&path).expect("a message"));
                std::fs::remove_file(path).expect("a message");
            }
        }
        stored
    }

    /// # Panics
    /// A message was stored that is none of those that were taken, or one that was taken is not
    /// there.
    fn compare(&self, stored: &[Vec<u8>], taken: &Taken) {
        let unknown = taken.unknown.iter().map(|content| (content, false));
        let known = taken.contents.iter().map(|content| (content, true));
        let mut was_found = vec![false; stored.len()];
        for (content, is_acknowledged) in known.chain(unknown) {
            let size = content.len() as u64;
            // A little more than the limit is taken.
            let is_small = size <= MESSAGE_BYTES_MAX + MESSAGE_BYTES_MAX / 256;
            assert!(is_small || !is_acknowledged, "{size} bytes were taken");
            let forms = [false, true].map(|is_binary| self.stored_form(content, is_binary));
            let mut copies = 0;
            for (file, was_found) in stored.iter().zip(&mut was_found) {
                if forms.iter().any(|form| is_copy(file, form)) {
                    *was_found = true;
                    copies += 1;
                }
            }
            assert!(
                copies > 0 || !is_acknowledged,
                "not stored: {}",
                content.escape_ascii()
            );
        }
        for (file, was_found) in stored.iter().zip(was_found) {
            assert!(was_found, "not sent: {}", file.escape_ascii());
        }
    }

    /// What the engine makes of a content.
    fn stored_form(&self, content: &[u8], is_binary: bool) -> Vec<u8> {
        let mut message = self.server.shared().engine.new_message();
        if is_binary {
            message = message.binary();
        }
        message.write(content).expect("memory");
        let mut form = Vec::new();
        let message = message.finish().expect("memory");
        message.copy_to(&mut form).expect("memory");
        form
    }

    /// # Panics
    /// An ended session still counts as a connection, or its envelopes as memory.
    fn check_memory(&self) {
        let admission = &self.server.shared().admission;
        assert_eq!(admission.count(), 0, "connections");
        assert_eq!(admission.envelope_bytes(), 0, "bytes of envelopes");
    }
}

/// Returns true if the file is the message after our header fields.
fn is_copy(file: &[u8], message: &[u8]) -> bool {
    let ours: [&[u8]; 3] = [b"Return-Path: ", b"X-Original-To: ", b"Delivered-To: "];
    let Some(head) = file.strip_suffix(message) else {
        return false;
    };
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    lines.all(|line| line.ends_with(b"\n") && ours.iter().any(|field| line.starts_with(field)))
}
