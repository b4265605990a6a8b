//! Takes a message in pieces of any size.
//!
//! Past the bound of one message, or when the memory of all messages is used up, the whole content
//! moves to a scratch file, and from there to another sink if the caller has one. Invariant: when
//! that sink fails, the message does not: the content moves back to a scratch file.

use super::budget::{Budget, Share};
use super::header_filter::HeaderFilter;
use super::line_ends::bare_newlines;
use super::message::{Body, Content, Message, READ_BYTES};
use super::sink::MessageSink;
use crate::config::Limits;
use crate::io::{MakeRoom, Scratch, StateDirectory};
use crate::sync::Arc;
use std::io;
use std::path::Path;

/// Memory first taken for a message.
const FIRST_BYTES: usize = 4096;
/// Small pieces for a scratch file are collected up to this many bytes.
const COLLECT_BYTES: usize = 8192;

/// Makes a scratch file.
type MakeScratch = dyn Fn() -> io::Result<Scratch> + Send + Sync;

/// Where messages are held while they arrive and wait: memory up to a bound, then files. Cheap to
/// clone; all clones share one budget. An engine has its own; open one to hold messages that
/// another program stores.
///
/// ```
/// use mailstow_engine::{Spool, config::Limits};
///
/// # let directory = tempfile::tempdir()?;
/// let spool = Spool::open(directory.path(), &Limits::default())?;
/// let mut builder = spool.message();
/// builder.write(b"Subject: hello\n\n")?;
/// assert_eq!(builder.finish()?.size(), 16);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Spool {
    make_scratch: Arc<MakeScratch>,
    budget: Arc<Budget>,
    /// Of messages in files, one each.
    files: Arc<Budget>,
    message_memory_bytes: usize,
}

impl Spool {
    /// Returns a spool with the memory bounds of `limits` and scratch files in `directory`, which
    /// is made when it is missing and may be one that all users write to, as /tmp.
    ///
    /// # Errors
    /// The directory can be neither opened nor made.
    pub fn open(directory: &Path, limits: &Limits) -> io::Result<Self> {
        let directory = StateDirectory::open_for_scratch(directory).map_err(io::Error::other)?;
        Ok(Self::new(Arc::new(directory), limits, Arc::new(|| false)))
    }

    /// A spool with the memory bounds of `limits` and scratch files in `directory`; when their disk
    /// is full, `make_room` is asked before a message is given up.
    pub fn new(directory: Arc<StateDirectory>, limits: &Limits, make_room: Arc<MakeRoom>) -> Self {
        let scratch = move || Ok(directory.scratch()?.when_full(Arc::clone(&make_room)));
        Self::with_scratch(Arc::new(scratch), limits)
    }

    /// With at most so many messages in files.
    #[must_use]
    pub fn with_files(mut self, most: usize) -> Self {
        self.files = Budget::new(most);
        self
    }

    /// A new scratch file, and its share.
    fn scratch(&self) -> io::Result<(Scratch, Share)> {
        let mut share = self.files.share();
        if !share.grow_to(1) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(((self.make_scratch)()?, share))
    }

    pub(super) fn with_scratch(make_scratch: Arc<MakeScratch>, limits: &Limits) -> Self {
        Self {
            make_scratch,
            budget: Budget::new(limits.memory_bytes),
            files: Budget::new(usize::MAX),
            message_memory_bytes: limits.message_memory_bytes,
        }
    }

    /// Bytes of message contents now held in memory.
    #[cfg(any(test, feature = "sim"))]
    pub fn memory_used_bytes(&self) -> usize {
        self.budget.used()
    }

    /// A new empty message.
    pub fn message(&self) -> MessageBuilder {
        MessageBuilder {
            filter: HeaderFilter::new(false),
            content: Arriving {
                spool: self.clone(),
                state: State::Memory {
                    bytes: Vec::new(),
                    share: self.budget.share(),
                },
                size: 0,
                bare_newlines: 0,
                last: None,
            },
            is_binary: false,
            failed: false,
        }
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("budget", &self.budget)
            .field("message_memory_bytes", &self.message_memory_bytes)
            .finish_non_exhaustive()
    }
}

/// Takes a message in pieces; [`MessageBuilder::finish`] makes it a [`Message`].
///
/// ```
/// # mod site { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/site.inc")); }
/// # let site = site::site()?;
/// # let engine = site.engine()?;
/// let mut builder = engine.new_message().without_envelope_line();
/// builder.write(b"From me@example.org Sat Nov 28 19:30:00 2026\nSubject: hello\n\n")?;
/// builder.write(b"It works.\n")?;
/// assert_eq!(builder.finish()?.size(), 26);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MessageBuilder {
    filter: HeaderFilter,
    content: Arriving,
    is_binary: bool,
    failed: bool,
}

impl MessageBuilder {
    /// Also removes a `From ` envelope line (mbox) at the very beginning, which scripts and
    /// pipes put there.
    #[must_use]
    pub fn without_envelope_line(mut self) -> Self {
        self.filter = HeaderFilter::new(true);
        self
    }

    /// Declares the content binary (RFC 3030 `BODY=BINARYMIME`): a last line without an end stays
    /// so.
    #[must_use]
    pub fn binary(mut self) -> Self {
        self.is_binary = true;
        self
    }

    /// Takes the next piece of the content. Lines must end with LF: see [`crate::LineEnds`].
    ///
    /// # Errors
    /// The scratch file cannot be made or written (`StorageFull` when the disk is full: answer
    /// 452 4.3.1). The message is then lost, and [`MessageBuilder::finish`] fails too.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let content = &mut self.content;
        // The filter hands a header on in little pieces; room for all of them is made at once.
        content.make_room(piece.len());
        let result = self.filter.feed(piece, &mut |kept| content.append(kept));
        self.failed |= result.is_err();
        result
    }

    /// Moves the content from its scratch file to another sink, which takes the rest, too. Does
    /// nothing unless it is in a scratch file, nor when the other sink fails.
    pub(crate) fn go_on_in(&mut self, sink: Box<dyn MessageSink>) {
        self.content.go_on_in(sink);
    }

    /// Returns true while the content is in a scratch file.
    pub(crate) fn is_in_scratch(&self) -> bool {
        matches!(&self.content.state, State::File(file) if file.is_scratch)
    }

    /// Returns the bytes kept so far.
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// Ends the message, and its last line if that has no end. No content at all, which is legal,
    /// makes an empty line.
    ///
    /// # Errors
    /// As [`MessageBuilder::write`], or an earlier write failed.
    pub fn finish(mut self) -> io::Result<Message> {
        if self.failed {
            return Err(io::Error::other("an earlier part of the message was lost"));
        }
        let content = &mut self.content;
        self.filter.finish(&mut |kept| content.append(kept))?;
        if !self.is_binary && content.last.is_some_and(|last| last != b'\n') {
            content.append(b"\n")?;
        }
        let has_status_fields = self.filter.has_status_fields();
        self.content.finish(has_status_fields)
    }
}

/// The content of a message that arrives.
#[derive(Debug)]
struct Arriving {
    spool: Spool,
    state: State,
    size: u64,
    bare_newlines: u64,
    last: Option<u8>,
}

#[derive(Debug)]
enum State {
    Memory { bytes: Vec<u8>, share: Share },
    File(InFile),
}

/// Content in a file.
#[derive(Debug)]
struct InFile {
    sink: Box<dyn MessageSink>,
    /// The sink is a scratch file; the content moves back to one when another sink fails.
    is_scratch: bool,
    share: Share,
    /// Bytes of content in the sink.
    written: u64,
    /// Small pieces that follow.
    collected: Vec<u8>,
}

impl InFile {
    fn append(&mut self, piece: &[u8], spool: &Spool) -> io::Result<()> {
        if self.collected.len() + piece.len() <= COLLECT_BYTES {
            self.collected.extend_from_slice(piece);
            return Ok(());
        }
        self.write_collected(spool)?;
        self.write(piece, spool)
    }

    fn write_collected(&mut self, spool: &Spool) -> io::Result<()> {
        let mut collected = std::mem::take(&mut self.collected);
        self.write(&collected, spool)?;
        collected.clear();
        self.collected = collected;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], spool: &Spool) -> io::Result<()> {
        match self.sink.append(bytes) {
            Err(error) if !self.is_scratch => {
                self.come_back(&error, spool)?;
                self.sink.append(bytes)?;
            }
            written => written?,
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn go_on_in(&mut self, mut sink: Box<dyn MessageSink>) {
        match copy(self.written, self.sink.as_ref(), sink.as_mut()) {
            Ok(()) => {
                self.sink = sink;
                self.is_scratch = false;
            }
            Err(error) => log_failed_sink(&error),
        }
    }

    /// Moves the content back to a scratch file.
    fn come_back(&mut self, error: &io::Error, spool: &Spool) -> io::Result<()> {
        log_failed_sink(error);
        let mut scratch = (spool.make_scratch)()?;
        copy(self.written, self.sink.as_ref(), &mut scratch)?;
        self.sink = Box::new(scratch);
        self.is_scratch = true;
        Ok(())
    }

    fn finish(mut self, spool: &Spool) -> io::Result<Body> {
        self.write_collected(spool)?;
        match self.sink.end() {
            Err(error) if !self.is_scratch => self.come_back(&error, spool)?,
            ended => ended?,
        }
        Ok(Body::File {
            sink: self.sink,
            _share: self.share,
        })
    }
}

impl Arriving {
    /// Reserves memory for the next `more` bytes, if they may be held in memory.
    fn make_room(&mut self, more: usize) {
        if let State::Memory { bytes, share } = &mut self.state {
            reserve(bytes, share, more, self.spool.message_memory_bytes);
        }
    }

    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        let Some(last) = piece.last() else {
            return Ok(());
        };
        self.bare_newlines += bare_newlines(self.last, piece);
        self.last = Some(*last);
        self.size += piece.len() as u64;
        if let State::Memory { bytes, share } = &mut self.state {
            if reserve(bytes, share, piece.len(), self.spool.message_memory_bytes) {
                bytes.extend_from_slice(piece);
                return Ok(());
            }
            let (mut scratch, share) = self.spool.scratch()?;
            scratch.append(bytes)?;
            self.state = State::File(InFile {
                sink: Box::new(scratch),
                is_scratch: true,
                share,
                written: bytes.len() as u64,
                collected: Vec::new(),
            });
        }
        match &mut self.state {
            State::Memory { .. } => Ok(()),
            State::File(file) => file.append(piece, &self.spool),
        }
    }

    fn go_on_in(&mut self, sink: Box<dyn MessageSink>) {
        if let State::File(file) = &mut self.state
            && file.is_scratch
        {
            file.go_on_in(sink);
        }
    }

    fn finish(self, has_status_fields: bool) -> io::Result<Message> {
        let body = match self.state {
            State::Memory { bytes, share } => Body::Memory {
                bytes,
                _share: share,
            },
            State::File(file) => file.finish(&self.spool)?,
        };
        Ok(Message(Arc::new(Content {
            body,
            size: self.size,
            bare_newlines: self.bare_newlines,
            ends_with_newline: self.last == Some(b'\n'),
            has_status_fields,
        })))
    }
}

/// Copies the first `bytes` from one sink to another.
fn copy(bytes: u64, from: &dyn MessageSink, to: &mut dyn MessageSink) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let left = usize::try_from(bytes - offset).unwrap_or(READ_BYTES);
        let (part, _) = buffer.split_at_mut(left.min(READ_BYTES));
        from.read_exact_at(part, offset)?;
        to.append(part)?;
        offset += part.len() as u64;
    }
    Ok(())
}

fn log_failed_sink(error: &io::Error) {
    tracing::debug!(%error, "a long message cannot be written into its mailbox as it arrives");
}

/// Makes room for `more` bytes within the message's bound and the common budget.
fn reserve(bytes: &mut Vec<u8>, share: &mut Share, more: usize, most: usize) -> bool {
    let needed = bytes.len() + more;
    if needed > most {
        return false;
    }
    if needed <= share.bytes() {
        return true;
    }
    let wanted = needed.max(share.bytes() * 2).max(FIRST_BYTES).min(most);
    if !share.grow_to(wanted) {
        return false;
    }
    bytes.reserve_exact(wanted - bytes.len());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(message: usize, all: usize) -> Limits {
        Limits {
            message_memory_bytes: message,
            memory_bytes: all,
            ..Limits::default()
        }
    }

    fn spool(dir: &tempfile::TempDir, limits: &Limits) -> Spool {
        let state = Arc::new(StateDirectory::open(dir.path()).unwrap());
        Spool::new(state, limits, Arc::new(|| false))
    }

    fn read(message: &Message) -> Vec<u8> {
        let mut content = Vec::new();
        message.copy_to(&mut content).unwrap();
        content
    }

    #[test]
    fn a_message_past_its_bound_moves_to_a_file_and_reads_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..300_000u32)
            .flat_map(|n| [b'a' + u8::try_from(n % 26).unwrap(), b'\n'])
            .collect();
        for piece in [1000, 70_000, 600_000] {
            let spool = spool(&dir, &limits(100_000, 1_000_000));
            let mut builder = spool.message();
            builder.write(b"Subject: x\n\n").unwrap();
            for chunk in content.chunks(piece) {
                builder.write(chunk).unwrap();
            }
            let message = builder.finish().unwrap();
            assert!(message.in_memory().is_none());
            assert_eq!(spool.memory_used_bytes(), 0);
            assert_eq!(message.size(), 600_012);
            assert_eq!(message.bare_newlines(), 300_002);
            assert_eq!(message.wire_size(), 900_014);
            assert!(message.ends_with_newline());
            let expected = [b"Subject: x\n\n", &content[..]].concat();
            assert!(read(&message) == expected);
        }
    }

    #[test]
    fn the_memory_of_all_messages_is_bounded_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(&dir, &limits(10_000, 25_000));
        let body = [&b"\n"[..], &[b'x'; 9000]].concat();
        let messages: Vec<Message> = (0..4)
            .map(|_| {
                let mut builder = spool.message().binary();
                builder.write(&body).unwrap();
                builder.finish().unwrap()
            })
            .collect();
        let in_memory = messages.iter().filter(|m| m.in_memory().is_some()).count();
        assert_eq!(in_memory, 2);
        assert!(messages.iter().all(|m| read(m) == body));
        assert_eq!(spool.memory_used_bytes(), 18_002);
        let other = messages[0].clone();
        drop(messages);
        assert_eq!(spool.memory_used_bytes(), 9001);
        drop(other);
        assert_eq!(spool.memory_used_bytes(), 0);
    }

    #[test]
    fn a_last_line_without_an_end_gets_one_unless_the_content_is_binary() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [10, 1000] {
            let spool = spool(&dir, &limits(bytes, 1000));
            for (content, completed) in [
                (&b"Subject: x\n\nlast"[..], &b"Subject: x\n\nlast\n"[..]),
                (b"Subject: x\n\nlast\r", b"Subject: x\n\nlast\r\n"),
                (b"Subject: x\n\nlast\n", b"Subject: x\n\nlast\n"),
            ] {
                for (is_binary, expected) in [(false, completed), (true, content)] {
                    let mut builder = spool.message();
                    if is_binary {
                        builder = builder.binary();
                    }
                    builder.write(content).unwrap();
                    let message = builder.finish().unwrap();
                    assert_eq!(read(&message), expected);
                    let bare = bare_newlines(None, expected);
                    assert_eq!(message.wire_size(), expected.len() as u64 + bare);
                }
            }
        }
    }

    #[test]
    fn messages_in_files_are_bounded_and_a_finished_one_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(&dir, &limits(10, 100)).with_files(1);
        let long = || {
            let mut builder = spool.message();
            builder.write(&[b'x'; 1000])?;
            builder.finish()
        };
        let first = long().unwrap();
        assert!(first.in_memory().is_none());
        let refused = long().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
        drop(first);
        long().unwrap();
    }

    #[test]
    fn an_empty_message_is_an_empty_line() {
        let dir = tempfile::tempdir().unwrap();
        let message = spool(&dir, &Limits::default()).message().finish().unwrap();
        assert_eq!((message.size(), message.bare_newlines()), (1, 1));
        assert_eq!(read(&message), b"\n");
    }

    #[test]
    fn a_full_disk_fails_the_write_and_the_message() {
        let full = || {
            let file = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
            Ok(Scratch::from(file))
        };
        let spool = Spool::with_scratch(Arc::new(full), &limits(10, 100));
        let mut builder = spool.message();
        let error = builder.write(&[b'x'; 20_000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(builder.finish().is_err());
    }
}
