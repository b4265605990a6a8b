//! The socket of a client, and whether the client has read what was sent to it.
//!
//! What the system can tell:
//!
//! - A UNIX-domain socket counts the bytes that its peer has not read. One that is closed over
//!   unread bytes breaks the connection (unix(7)).
//! - A TCP socket counts the bytes that its peer's system has not acknowledged. Whether the client
//!   has read the others is known of a client on this machine, whose own socket sock_diag(7) shows.
//!   A socket that is closed over unread bytes breaks the connection (RFC 9293 section 3.10.4).
//!
//! Asking changes nothing: an error that waits in the socket stays there for the next read.

mod diag;
mod unsent;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

/// Whether a client has read everything that was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It has.
    Read,
    /// It has not, or the connection is broken.
    Unread,
    /// Its system has everything; more is not known.
    Unknown,
}

/// A connected socket of a client.
pub(crate) trait ClientSocket: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    /// Whether the client's system has everything that was sent; if the client is connected to a
    /// UNIX-domain socket, whether it has read everything. Costs one system call.
    fn is_delivered(&self) -> bool;

    /// Whether the client has read everything that was sent.
    fn reading(&self) -> Reading;

    /// Whether the connection is known to be broken. A client that closes after it has read
    /// everything does not break it; one that closes before does.
    fn is_broken(&self) -> bool;

    /// Returns true if it is known that the client reads nothing that is sent from now on. A TCP
    /// client that has closed cannot be distinguished from one that has only ended its side, until
    /// something is sent to it.
    fn is_gone(&self) -> bool;

    /// Waits until the connection breaks.
    fn broken(&self) -> impl Future<Output = ()> + Send;
}

impl ClientSocket for UnixStream {
    fn is_delivered(&self) -> bool {
        unsent::bytes(self) == Some(0)
    }

    fn reading(&self) -> Reading {
        // In this order: closing over unread bytes first breaks the connection, then frees them.
        match self.is_delivered() && !self.is_broken() {
            true => Reading::Read,
            false => Reading::Unread,
        }
    }

    fn is_broken(&self) -> bool {
        shows(self, PollFlags::ERR)
    }

    fn is_gone(&self) -> bool {
        shows(self, PollFlags::ERR | PollFlags::HUP)
    }

    async fn broken(&self) {
        // An error of the wait itself is no better.
        let _ = self.ready(Interest::ERROR).await;
    }
}

impl ClientSocket for TcpStream {
    fn is_delivered(&self) -> bool {
        unsent::bytes(self) == Some(0)
    }

    fn reading(&self) -> Reading {
        if !self.is_delivered() {
            return Reading::Unread;
        }
        let unread = match (self.peer_addr(), self.local_addr()) {
            (Ok(peer), Ok(local)) => diag::unread_bytes(peer, local),
            _ => None,
        };
        // In this order, as above.
        match unread {
            _ if self.is_broken() => Reading::Unread,
            // The end of the stream counts as one byte.
            Some(0..=1) => Reading::Read,
            Some(_) => Reading::Unread,
            None => Reading::Unknown,
        }
    }

    fn is_broken(&self) -> bool {
        shows(self, PollFlags::ERR)
    }

    fn is_gone(&self) -> bool {
        shows(self, PollFlags::ERR | PollFlags::HUP)
    }

    async fn broken(&self) {
        let _ = self.ready(Interest::ERROR).await;
    }
}

/// Whether one of these stands in the socket: an error, or both sides were closed.
fn shows(socket: &impl AsFd, flags: PollFlags) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let at_once = Timespec::default();
    match poll(&mut polled, Some(&at_once)) {
        Ok(_) => polled
            .iter()
            .any(|socket| socket.revents().intersects(flags)),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The client's side of a connection.
    trait Client: Read + Write + 'static {
        fn close_writing(&self);
    }

    impl Client for std::os::unix::net::UnixStream {
        fn close_writing(&self) {
            self.shutdown(Shutdown::Write).unwrap();
        }
    }

    impl Client for std::net::TcpStream {
        fn close_writing(&self) {
            self.shutdown(Shutdown::Write).unwrap();
        }
    }

    /// What is known of each client that was sent a reply and did `what`.
    fn readings(what: impl Fn(Box<dyn Client>) -> Option<Box<dyn Client>>) -> [Reading; 3] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (server, client) = std::os::unix::net::UnixStream::pair().unwrap();
            server.set_nonblocking(true).unwrap();
            let server = UnixStream::from_std(server).unwrap();
            let unix = reading(server, Box::new(client), &what).await;
            let mut inet = Vec::new();
            for host in ["127.0.0.1:0", "[::1]:0"] {
                let listener = TcpListener::bind(host).unwrap();
                let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (server, _) = listener.accept().unwrap();
                server.set_nonblocking(true).unwrap();
                let server = TcpStream::from_std(server).unwrap();
                inet.push(reading(server, Box::new(client), &what).await);
            }
            [unix, inet[0], inet[1]]
        })
    }

    async fn reading(
        mut server: impl ClientSocket,
        client: Box<dyn Client>,
        what: impl Fn(Box<dyn Client>) -> Option<Box<dyn Client>>,
    ) -> Reading {
        server.write_all(b"250 2.0.0 Ok\r\n").await.unwrap();
        let client = what(client);
        let reading = server.reading();
        if client.is_none() {
            // It is closed: nothing changes, whether this is an end or an error.
            let _ = server.read(&mut [0; 9]).await;
        }
        if reading == Reading::Unread && client.is_none() {
            let broken = tokio::time::timeout(Duration::from_secs(9), server.broken());
            broken.await.unwrap();
        }
        reading
    }

    fn read_all(client: &mut Box<dyn Client>) {
        client.read_exact(&mut [0; 14]).unwrap();
    }

    #[test]
    fn a_client_that_reads_everything_is_known_to_have_read_it() {
        let open = readings(|mut client| {
            read_all(&mut client);
            Some(client)
        });
        assert_eq!(open, [Reading::Read; 3]);
        let closed = readings(|mut client| {
            read_all(&mut client);
            None
        });
        assert_eq!(closed, [Reading::Read; 3]);
        let half_closed = readings(|mut client| {
            client.close_writing();
            read_all(&mut client);
            Some(client)
        });
        assert_eq!(half_closed, [Reading::Read; 3]);
    }

    #[test]
    fn a_client_that_reads_a_part_or_nothing_is_known_not_to_have_read() {
        for bytes in [0, 5] {
            let read = |mut client: Box<dyn Client>| {
                client.read_exact(&mut vec![0; bytes]).unwrap();
                client
            };
            assert_eq!(readings(|client| Some(read(client))), [Reading::Unread; 3]);
            assert_eq!(
                readings(|client| {
                    let client = read(client);
                    client.close_writing();
                    Some(client)
                }),
                [Reading::Unread; 3]
            );
            let closed = readings(|client| {
                drop(read(client));
                None
            });
            assert_eq!(closed, [Reading::Unread; 3]);
        }
    }
}
