//! One connection to the server: sends bytes and reads replies, each before its deadline.
//!
//! Invariant: the last reply of a message is left unread, at least in part, until the host confirms
//! that it was passed on; closing a socket with unread bytes shows the server that it was not. A
//! child of fork(2) must not keep the socket open.

use super::reply::{Reply, Strange};
use crate::boundary::PrivateSocket;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{connect, recv, send, socket_with};
use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Most bytes peeked at once.
const LOOK_BYTES: usize = 64 * 1024;

/// A connection after the greeting.
#[derive(Debug)]
pub(super) struct Connection {
    socket: PrivateSocket,
    /// Bytes that were read or peeked from the socket, and not used yet.
    taken: Vec<u8>,
    /// Bytes of a reply that are left in the socket.
    unread: usize,
    buffer: Vec<u8>,
    pub(super) takes_ident: bool,
    pub(super) takes_original: bool,
    pub(super) takes_utf8: bool,
}

/// Why a connection is not usable any more.
#[derive(Debug)]
pub(super) enum Lost {
    /// It cannot be established, or broke.
    System(io::Error),
    /// The server ended it (421).
    Ended(String),
    /// The server sent an invalid reply.
    Strange,
    /// The server sent nothing in time.
    Late,
    /// The server is still making an earlier delivery of the message; the connection is usable.
    InProgress,
}

impl From<Errno> for Lost {
    fn from(error: Errno) -> Self {
        match error {
            Errno::AGAIN => Self::Late,
            error => Self::System(error.into()),
        }
    }
}

impl From<Strange> for Lost {
    fn from(_: Strange) -> Self {
        Self::Strange
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::Ended(text) => write!(f, "the server ended the connection: {text}"),
            Self::Strange => f.write_str("the server does not speak LMTP"),
            Self::Late => f.write_str("the server did not answer in time"),
            Self::InProgress => f.write_str("an earlier delivery of the message has not ended"),
        }
    }
}

impl Connection {
    /// Connects and sends LHLO.
    pub(super) fn open(path: &Path, deadline: Instant) -> Result<Self, Lost> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let socket = PrivateSocket::new(socket);
        set_socket_timeout(&socket, Timeout::Send, Some(left(deadline)?))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        let mut connection = Self {
            socket,
            taken: Vec::new(),
            unread: 0,
            buffer: vec![0; LOOK_BYTES],
            takes_ident: false,
            takes_original: false,
            takes_utf8: false,
        };
        let greeting = connection.reply(deadline)?;
        if !greeting.is_success() {
            return Err(Lost::Ended(greeting.text));
        }
        connection.send(b"LHLO localhost\r\n", deadline)?;
        let hello = connection.reply(deadline)?;
        if !hello.is_success() {
            return Err(Lost::Ended(hello.text));
        }
        let names = |name: &str| hello.lines.iter().any(|line| line.starts_with(name));
        connection.takes_original = names("DSN");
        connection.takes_utf8 = names("SMTPUTF8");
        let mut forwards = hello.lines.iter();
        connection.takes_ident = forwards.any(|line| {
            line.starts_with("XFORWARD") && line.split(' ').any(|word| word == "IDENT")
        });
        Ok(connection)
    }

    /// Sends all of it.
    pub(super) fn send(&self, mut bytes: &[u8], deadline: Instant) -> Result<(), Lost> {
        set_socket_timeout(&self.socket, Timeout::Send, Some(left(deadline)?))?;
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next reply, taken from the socket.
    pub(super) fn reply(&mut self, deadline: Instant) -> Result<Reply, Lost> {
        self.next(deadline, false)
    }

    /// The last reply of a message, whose end is left unread.
    pub(super) fn last_reply(&mut self, deadline: Instant) -> Result<Reply, Lost> {
        self.next(deadline, true)
    }

    fn next(&mut self, deadline: Instant, is_last: bool) -> Result<Reply, Lost> {
        loop {
            if let Some((reply, length)) = Reply::take(&self.taken)? {
                self.taken.drain(..length);
                if reply.ends_connection() {
                    return Err(Lost::Ended(reply.text));
                }
                return Ok(reply);
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left(deadline)?))?;
            // Only one reply is searched for at a time, so that no more than that is taken.
            let seen = match recv(&self.socket, &mut *self.buffer, RecvFlags::PEEK) {
                Ok((0, _)) => return Err(closed()),
                Ok((seen, _)) => seen,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let known = self.taken.len();
            let seen = self.buffer.get(..seen).unwrap_or_default();
            self.taken.extend_from_slice(seen);
            let length = Reply::take(&self.taken)?.map(|(_, length)| length);
            let own = length.map_or(seen.len(), |length| length.saturating_sub(known));
            self.taken.truncate(known + own);
            match is_last && length.is_some() {
                // It stays in the socket.
                true => self.unread = own,
                false => self.consume(own)?,
            }
        }
    }

    /// Takes peeked bytes out of the socket.
    fn consume(&mut self, mut count: usize) -> Result<(), Lost> {
        while count > 0 {
            let part = self.buffer.get_mut(..count.min(LOOK_BYTES));
            match recv(&self.socket, part.unwrap_or_default(), RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(closed()),
                Ok((taken, _)) => count = count.saturating_sub(taken),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads the rest of the last reply, because the replies were passed on. Returns false when the
    /// connection is not usable any more.
    pub(super) fn read_rest(&mut self) -> bool {
        let unread = std::mem::take(&mut self.unread);
        self.consume(unread).is_ok()
    }

    /// Returns whether an idle connection has received nothing: otherwise the server ended it.
    pub(super) fn is_quiet(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let seen = recv(&self.socket, &mut [0_u8; 1][..], flags);
        self.taken.is_empty() && matches!(seen, Err(Errno::AGAIN))
    }
}

fn closed() -> Lost {
    Lost::System(io::ErrorKind::UnexpectedEof.into())
}

/// Returns the time until `deadline`, which has not passed.
fn left(deadline: Instant) -> Result<Duration, Lost> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(Lost::Late),
        false => Ok(left.max(Duration::from_millis(1))),
    }
}
