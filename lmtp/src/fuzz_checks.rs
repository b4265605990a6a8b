//! What must hold for any bytes that a client sends.
//!
//! Built for tests and with `--cfg fuzzing` only; see `engine/src/fuzz_checks.rs`. A session runs
//! over a socket pair with a real engine. A model that knows framing alone (RFC 5321 section
//! 4.1.1, RFC 2033 section 4.2, RFC 3030) follows the dialogue: it takes one reply for each
//! command, and after a message one for each accepted recipient. Where the server and the model
//! disagree about where a message ends, the replies no longer fit.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a check fails by panicking"
)]

mod socketmap;

use crate::admission::{Bounds, Peer};
use crate::command::{Paths, parse};
use crate::decode::DataDecoder;
use crate::server::Server;
use crate::session::Session;
use mailstow_engine::config::{Durability, Settings};
use mailstow_engine::{Engine, LineEnds};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub use socketmap::check_socketmap;

/// Most of an input that is sent, in bytes: it fits into a socket's buffer.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Parses each line of `bytes` as a command, with strict and lenient paths. It is a command or
/// refused.
///
/// # Panics
/// A reply that refuses it is no error, or spans lines.
pub fn check_command(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        for paths in [Paths::Strict, Paths::Lenient] {
            if let Err(refusal) = parse(line, paths) {
                let mut written = Vec::new();
                refusal.reply.write(&mut written);
                assert!(written.starts_with(b"5"), "{}", written.escape_ascii());
                let newlines = written.iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(newlines, 1, "{}", written.escape_ascii());
            }
        }
    }
}

/// Decodes the content of a message, once as it follows `DATA` and once as chunks, in pieces as
/// the first bytes of the input say.
///
/// # Panics
/// Pieces give another content than the whole, or the content differs from the model's.
pub fn check_content(bytes: &[u8]) {
    let (cuts, wire) = bytes.split_at(bytes.len().min(4));
    let ends = |mut at: usize| {
        let mut ends: Vec<usize> = Vec::new();
        for cut in cuts.iter().cycle() {
            at += usize::from(*cut) + 1;
            if at >= wire.len() {
                break;
            }
            ends.push(at);
        }
        ends.push(wire.len());
        ends
    };
    let (expected, rest) = match data_end(wire) {
        Some(end) => (unstuffed(&wire[..end]), Some(&wire[end..])),
        None => (unstuffed(wire), None),
    };
    for ends in [ends(0), vec![wire.len()]] {
        let (content, left) = decoded(wire, &ends);
        assert_eq!(left.as_deref(), rest, "what follows the message");
        match rest {
            Some(_) => assert_eq!(
                content.escape_ascii().to_string(),
                expected.escape_ascii().to_string()
            ),
            None => assert!(expected.starts_with(&content)),
        }
    }
    let chunked = joined_lines(wire);
    for ends in [ends(0), vec![wire.len()]] {
        let mut line_ends = LineEnds::default();
        let (mut content, mut start) = (Vec::new(), 0);
        for end in ends {
            let mut piece = wire[start..end].to_vec();
            start = end;
            let converted = line_ends.convert(&mut piece);
            content.extend(converted.cr_first.then_some(b'\r'));
            content.extend_from_slice(&piece[..converted.produced]);
        }
        content.extend(line_ends.finish().then_some(b'\r'));
        assert_eq!(
            content.escape_ascii().to_string(),
            chunked.escape_ascii().to_string()
        );
    }
}

/// Feeds the decoder pieces that end at `ends`; the content, and what follows its end.
fn decoded(wire: &[u8], ends: &[usize]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut decoder = DataDecoder::default();
    let (mut content, mut pending, mut start) = (Vec::new(), Vec::new(), 0);
    for end in ends {
        pending.extend_from_slice(&wire[start..*end]);
        start = *end;
        let step = decoder.decode(&mut pending);
        content.extend(step.cr_first.then_some(b'\r'));
        content.extend_from_slice(&pending[..step.produced]);
        pending.drain(..step.consumed);
        if step.finished {
            pending.extend_from_slice(&wire[start..]);
            return (content, Some(pending));
        }
    }
    (content, None)
}

/// Where the content after `DATA` ends: behind the first line that is a dot alone.
fn data_end(wire: &[u8]) -> Option<usize> {
    if wire.starts_with(b".\r\n") {
        return Some(3);
    }
    let end = wire.windows(5).position(|five| five == b"\r\n.\r\n")?;
    Some(end + 5)
}

/// The content without its final line, stuffed dots and the CR of each line end.
fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let wire = match wire {
        b".\r\n" => b"",
        _ => match wire.strip_suffix(b"\r\n.\r\n") {
            Some(_) => &wire[..wire.len() - 3],
            None => wire,
        },
    };
    let mut content = Vec::new();
    let mut at_line_start = true;
    for (at, byte) in wire.iter().enumerate() {
        if at_line_start && *byte == b'.' {
            at_line_start = false;
            continue;
        }
        at_line_start = *byte == b'\n' && at > 0 && wire[at - 1] == b'\r';
        content.push(*byte);
    }
    joined_lines(&content)
}

/// CRLF becomes LF; a lone CR or LF stays.
fn joined_lines(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'\r' || bytes.get(at + 1) != Some(&b'\n') {
            out.push(*byte);
        }
    }
    out
}

/// Sends `bytes` to a session and closes.
///
/// # Panics
/// The replies do not fit the commands, or mail was stored that was not acknowledged, or the other
/// way round.
pub fn check_session(bytes: &[u8]) {
    thread_local! {
        static HOST: Host = Host::open();
    }
    let input = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    HOST.with(|host| {
        let output = host.talk(input);
        let acknowledged = Model::new(&output, host.line_bytes_max).follow(input);
        let stored = host.take_stored();
        assert_eq!(
            acknowledged > 0,
            stored > 0,
            "{acknowledged} deliveries acknowledged, {stored} messages stored"
        );
        assert!(
            stored <= acknowledged,
            "{stored} stored, {acknowledged} acknowledged"
        );
    });
}

/// A server without listeners.
struct Host {
    runtime: tokio::runtime::Runtime,
    server: Server,
    mailboxes: [PathBuf; 2],
    line_bytes_max: usize,
    _directory: tempfile::TempDir,
}

impl Host {
    fn open() -> Self {
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
        settings.routing.message_size_limit = 40_000;
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
    fn talk(&self, input: &[u8]) -> Vec<u8> {
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

    /// Counts the messages in the mailboxes and removes them.
    fn take_stored(&self) -> usize {
        let mut count = 0;
        for mailbox in &self.mailboxes {
            let Ok(entries) = std::fs::read_dir(mailbox.join("new")) else {
                continue;
            };
            for entry in entries {
                std::fs::remove_file(entry.expect("an entry").path()).expect("a message");
                count += 1;
            }
        }
        count
    }
}

/// Follows a dialogue.
struct Model {
    replies: VecDeque<u16>,
    line_bytes_max: usize,
    is_in_mail: bool,
    recipients: usize,
    acknowledged: usize,
}

/// The dialogue ends here.
struct End;

impl Model {
    fn new(output: &[u8], line_bytes_max: usize) -> Self {
        let mut replies = VecDeque::new();
        for line in output.split_inclusive(|byte| *byte == b'\n') {
            let text = line.escape_ascii().to_string();
            assert!(
                line.ends_with(b"\r\n") || line.len() < 6,
                "a whole line: {text}"
            );
            let code = line.get(..3).and_then(|code| str::from_utf8(code).ok());
            let code = code.and_then(|code| code.parse().ok());
            let code = code.unwrap_or_else(|| panic!("a reply code: {text}"));
            if line.get(3) != Some(&b'-') {
                replies.push_back(code);
            }
        }
        Self {
            replies,
            line_bytes_max,
            is_in_mail: false,
            recipients: 0,
            acknowledged: 0,
        }
    }

    /// The number of deliveries that were acknowledged.
    fn follow(mut self, input: &[u8]) -> usize {
        let mut rest = input;
        assert_eq!(self.replies.pop_front(), Some(220), "the greeting");
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(end + 1);
            rest = behind;
            if self.command(line, &mut rest).is_err() {
                break;
            }
        }
        assert!(
            self.replies.iter().all(|code| *code == 421),
            "replies without a command: {:?}",
            self.replies
        );
        self.acknowledged
    }

    fn reply(&mut self) -> Result<u16, End> {
        match self.replies.pop_front() {
            // The connection was reset before the reply was read, or the session ends.
            None | Some(421) => Err(End),
            Some(code) => Ok(code),
        }
    }

    fn command(&mut self, line: &[u8], rest: &mut &[u8]) -> Result<(), End> {
        let line = line.trim_ascii_end();
        if line.len() + 2 >= self.line_bytes_max {
            // At the bound the model does not know which of the two it is.
            self.reply()?;
            return Err(End);
        }
        let words = line.split(|byte| *byte == b' ' || *byte == b'\t');
        let verb = words
            .take(1)
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        if verb == b"BDAT" {
            return self.chunk(line, rest);
        }
        let code = self.reply()?;
        match (verb.as_slice(), code) {
            (b"MAIL", 250) => self.is_in_mail = true,
            (b"RCPT", 250) => self.recipients += 1,
            (b"RSET" | b"LHLO", 250) => self.reset(),
            (b"QUIT", 221) => return Err(End),
            (b"DATA", 354) => {
                let end = data_end(rest).ok_or(End)?;
                *rest = &rest[end..];
                self.message()?;
            }
            (b"DATA", 451) => self.reset(),
            // Without recipients the transaction is over.
            (b"DATA", 503) if self.recipients == 0 => self.reset(),
            _ => {}
        }
        Ok(())
    }

    fn chunk(&mut self, line: &[u8], rest: &mut &[u8]) -> Result<(), End> {
        let text = String::from_utf8_lossy(line).to_ascii_uppercase();
        let words: Vec<&str> = text.split_ascii_whitespace().skip(1).collect();
        let (octets, is_last) = match words.as_slice() {
            [octets] => (octets, false),
            [octets, "LAST"] => (octets, true),
            _ => return self.unreadable_chunk(),
        };
        let is_number = octets.len() < 20 && octets.bytes().all(|byte| byte.is_ascii_digit());
        let Some(octets) = is_number.then(|| octets.parse::<usize>().ok()).flatten() else {
            return self.unreadable_chunk();
        };
        *rest = rest.get(octets..).ok_or(End)?;
        match self.is_in_mail && is_last {
            true => self.message(),
            false => self.reply().map(drop),
        }
    }

    /// Where the next command begins is unknown: one reply, and the session is over.
    fn unreadable_chunk(&mut self) -> Result<(), End> {
        let code = self.reply()?;
        assert!(code == 501 || code == 500, "{code}");
        Err(End)
    }

    /// A message has come: one reply for each recipient.
    fn message(&mut self) -> Result<(), End> {
        for _ in 0..self.recipients {
            match self.replies.pop_front() {
                Some(250) => self.acknowledged += 1,
                Some(code) => assert!((400..600).contains(&code), "{code}"),
                // The connection was reset: what was acknowledged is unknown.
                None => return Err(End),
            }
        }
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.is_in_mail = false;
        self.recipients = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    type Check = fn(&[u8]);

    /// Every check by the name of its fuzz target.
    const CHECKS: &[(&str, Check)] = &[
        ("command", check_command),
        ("content", check_content),
        ("session", check_session),
        ("socketmap", check_socketmap),
    ];

    #[test]
    fn inputs_that_are_kept_pass_every_check() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (target, check) in CHECKS {
            let inputs = std::fs::read_dir(corpus.join(target)).expect(target);
            let mut count = 0;
            for input in inputs {
                let path = input.expect("an entry").path();
                println!("{}", path.display());
                check(&std::fs::read(&path).expect("an input"));
                count += 1;
            }
            assert!(count > 0, "no input is kept for {target}");
        }
    }

    #[test]
    fn the_model_follows_a_dialogue_to_its_deliveries() {
        let input = b"LHLO c\r\nMAIL FROM:<s@x>\r\nRCPT TO:<a@vm.example>\r\n\
            RCPT TO:<nobody@vm.example>\r\nRCPT TO:<b@vm.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
        let host = Host::open();
        let output = host.talk(input);
        let model = Model::new(&output, host.line_bytes_max);
        assert_eq!(model.follow(input), 2, "{}", output.escape_ascii());
        assert_eq!(host.take_stored(), 2);
    }

    fn dialogue() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &[&str] = &[
            "LHLO c\r\n",
            "MAIL FROM:<s@x>\r\n",
            "MAIL FROM:<> BODY=BINARYMIME\r\n",
            "RCPT TO:<a@vm.example>\r\n",
            "RCPT TO:<b@vm.example>\r\n",
            "RCPT TO:<c@vm.example>\r\n",
            "RCPT TO:<nobody@vm.example>\r\n",
            "DATA\r\n",
            "BDAT 5\r\nhello",
            "BDAT 7 LAST\r\n.\r\nBDAT",
            "BDAT 0 LAST\r\n",
            "Subject: s\r\n\r\nbody\r\n",
            ".\r\n",
            "\r\n.\r\n",
            "\n.\n",
            "\n.\r\n",
            "\r.\r",
            "..\r\n",
            "RSET\r\n",
            "NOOP\r\n",
            "QUIT\r\n",
            "XFORWARD NAME=x ADDR=1.2.3.4 IDENT=4XyZ\r\n",
            "odd\r\n",
            "\r\n",
        ];
        let piece = prop_oneof![
            16 => proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..6),
        ];
        let begins = vec(piece, 0..24).prop_map(|pieces| pieces.concat());
        begins.prop_map(|rest| [b"LHLO c\r\n".as_slice(), &rest].concat())
    }

    proptest! {
        #[test]
        fn replies_fit_the_commands_of_any_dialogue(bytes in dialogue()) {
            check_session(&bytes);
        }

        #[test]
        fn content_in_pieces_is_the_content(bytes in vec(
            proptest::sample::select(b"\x00\x01\x02\r\n\r\n\r\n...ab".to_vec()), 0..60)) {
            check_content(&bytes);
        }
    }
}
