//! A connection to a lookup server, over TCP or a UNIX-domain socket, and its lookups.
//!
//! Shared by `tcp:` and `socketmap:`. Connections are kept open between lookups for a short time;
//! one that turns out broken is replaced once, so that a restart of the server goes unnoticed.
//! Invariants: what a server sends unasked is never taken for the answer to a later question; a
//! conversation ends after twice the timeout, however slowly the server speaks. Source: Postfix's
//! limits for these tables.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use crate::clock;
use crate::sync::Mutex;

/// How long connecting, sending and each part of a reply may take.
const TIMEOUT: Duration = Duration::from_secs(100);
/// A connection not used for so long is closed rather than used again.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// A connection is closed when it is this old, so that load spreads to new servers.
const AGE_MAX: Duration = Duration::from_secs(100);
/// Connections kept for later lookups.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// Where a lookup server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::table) enum Endpoint {
    /// `host:port`; the port may be a service's name.
    Inet(String),
    /// A socket's path.
    Unix(PathBuf),
}

/// A server and the open connections to it.
#[derive(Debug)]
pub(in crate::table) struct Server {
    endpoint: Endpoint,
    timeout: Duration,
    idle: Mutex<Vec<Open>>,
}

/// An open connection. Reads are made a byte range at a time by the protocol's own reader.
#[derive(Debug)]
pub(in crate::table) struct Open {
    stream: Stream,
    made: Instant,
    used: Instant,
    /// When the conversation must be over; looked at before each read.
    end: Instant,
}

#[derive(Debug)]
enum Stream {
    Inet(TcpStream),
    Unix(UnixStream),
}

impl Server {
    /// A server that is connected to when it is asked.
    pub(in crate::table) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            timeout: TIMEOUT,
            idle: Mutex::default(),
        }
    }

    /// As [`Server::new`], with another timeout.
    #[cfg(test)]
    pub(in crate::table) fn with_timeout(endpoint: Endpoint, timeout: Duration) -> Self {
        Self {
            timeout,
            ..Self::new(endpoint)
        }
    }

    /// Holds one conversation: `talk` asks one question and reads the whole answer.
    ///
    /// # Errors
    /// The server cannot be connected to, or `talk` failed on a new connection.
    pub(in crate::table) fn ask<T>(
        &self,
        talk: impl Fn(&mut Open) -> io::Result<T>,
    ) -> Result<T, String> {
        if let Some(mut open) = self.take() {
            open.end = self.end();
            match talk(&mut open) {
                Ok(answer) => {
                    self.put(open);
                    return Ok(answer);
                }
                // Too slow an answer is no sign of a restart.
                Err(error) if is_timeout(&error) => return Err(self.told(&error)),
                Err(_) => self.idle.lock().clear(),
            }
        }
        let mut open = self.connect().map_err(|error| self.told(&error))?;
        let answer = talk(&mut open).map_err(|error| self.told(&error))?;
        self.put(open);
        Ok(answer)
    }

    fn end(&self) -> Instant {
        clock::now() + self.timeout
    }

    fn told(&self, error: &io::Error) -> String {
        let cause = if is_timeout(error) {
            format!("no answer within {} s", self.timeout.as_secs())
        } else {
            error.to_string()
        };
        match &self.endpoint {
            Endpoint::Inet(name) => format!("server {name}: {cause}"),
            Endpoint::Unix(path) => format!("server {}: {cause}", path.display()),
        }
    }

    fn connect(&self) -> io::Result<Open> {
        let stream = match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                Stream::Unix(stream)
            }
            Endpoint::Inet(name) => {
                let mut last = io::Error::other("the host has no address");
                let connect = |address| TcpStream::connect_timeout(&address, self.timeout);
                let connected = name
                    .to_socket_addrs()?
                    .find_map(|address| connect(address).map_err(|error| last = error).ok());
                let stream = connected.ok_or(last)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                stream.set_nodelay(true)?;
                Stream::Inet(stream)
            }
        };
        let now = clock::now();
        Ok(Open {
            stream,
            made: now,
            used: now,
            end: self.end(),
        })
    }

    fn take(&self) -> Option<Open> {
        let mut idle = self.idle.lock();
        let now = clock::now();
        idle.retain(|open| {
            now.saturating_duration_since(open.used) < IDLE_MAX
                && now.saturating_duration_since(open.made) < AGE_MAX
                && open.is_silent()
        });
        idle.pop()
    }

    fn put(&self, mut open: Open) {
        open.used = clock::now();
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(open);
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

impl Open {
    /// The server has said nothing unasked, nor closed its end.
    fn is_silent(&self) -> bool {
        let fd = match &self.stream {
            Stream::Inet(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        };
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let heard = rustix::net::recv(fd, &mut [0_u8; 1], flags);
        matches!(heard, Err(rustix::io::Errno::AGAIN))
    }
}

impl Read for Open {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if clock::now() > self.end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match &mut self.stream {
            Stream::Inet(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Inet(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Inet(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
        }
    }
}
