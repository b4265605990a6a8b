//! Accepts connections and begins their sessions.
//!
//! A connection over the bound waits for a short time, with those behind it in the system's
//! backlog: Postfix waits with them, and defers no mail for a moment without room. If no room
//! comes, it is answered 421, and so are those that follow, until there is room again. A peer that
//! has too many connections is answered at once.

use crate::admission::{Bounds, Guest, Peer, Refused};
use crate::client_socket::ClientSocket;
use crate::listener::{Peers, SocketFile};
use crate::reply::Reply;
use crate::session::{CLOSING, Session};
use crate::shared::Shared;
use crate::socketmap;
use crate::tasks;
use rustix::net::{SendFlags, Shutdown};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// How long accepting rests after the system refused it (no file descriptors, mostly).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long a connection waits for another one to go.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// Said to a connection for which there is no room.
const FULL: Reply = Reply::new(421, "4.3.2", "Too many connections");

/// Said to a connection of a peer that has too many.
const PEER_FULL: Reply = Reply::new(421, "4.7.0", "Too many connections from you");

/// Said to a process of a user that is not served.
const STRANGER: Reply = Reply::new(421, "4.7.0", "This user may not connect here");

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Lmtp,
    Socketmap,
}

/// A socket that is accepted on.
pub(crate) enum Accepting {
    /// A UNIX socket.
    Unix {
        listener: UnixListener,
        /// Whom it serves.
        peers: Peers,
        /// Removed with it.
        _file: Option<SocketFile>,
    },
    /// A TCP socket.
    Inet(TcpListener),
}

/// Accepts connections until the order to drain.
pub(crate) fn accept(shared: Arc<Shared>, accepting: Accepting, protocol: Protocol) {
    let supervisor = shared.supervisor.clone();
    let accepting = Arc::new(accepting);
    tasks::keep(&supervisor, "accept", move || {
        let (shared, accepting) = (Arc::clone(&shared), Arc::clone(&accepting));
        async move { accept_all(&shared, &accepting, protocol).await }
    });
}

enum Connection {
    Unix(UnixStream),
    Inet(TcpStream, IpAddr),
}

impl Accepting {
    async fn next(&self) -> io::Result<Connection> {
        match self {
            Self::Unix { listener, .. } => Ok(Connection::Unix(listener.accept().await?.0)),
            Self::Inet(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Replies are small and the client waits for each.
                stream.set_nodelay(true)?;
                Ok(Connection::Inet(stream, peer.ip()))
            }
        }
    }
}

impl Accepting {
    /// The user of the process at the other end, if it is not served.
    fn stranger(&self, connection: &Connection) -> Option<Peer> {
        match (self, connection) {
            (Self::Unix { peers, .. }, Connection::Unix(_)) if !peers.is_anyone() => {
                let peer = connection.peer();
                let is_served = matches!(peer, Peer::User(uid) if peers.admit(uid));
                (!is_served).then_some(peer)
            }
            _ => None,
        }
    }
}

impl Connection {
    fn peer(&self) -> Peer {
        match self {
            Self::Unix(stream) => match stream.peer_cred() {
                Ok(credentials) => Peer::User(credentials.uid()),
                Err(_) => Peer::Unknown,
            },
            Self::Inet(_, address) => Peer::at(*address),
        }
    }

    /// Says why it is refused, and closes. Waits for nothing: what the system does not take, the
    /// client does not get.
    fn refuse(&self, why: &Reply, protocol: Protocol) {
        let socket = match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Inet(stream, _) => stream.as_fd(),
        };
        // Nothing is asked yet of a table, so nothing can be answered; Postfix tries again.
        if protocol == Protocol::Lmtp {
            let mut line = Vec::new();
            why.write(&mut line);
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::send(socket, &line, flags);
        }
        let _ = rustix::net::shutdown(socket, Shutdown::Write);
    }
}

async fn accept_all(shared: &Arc<Shared>, accepting: &Accepting, protocol: Protocol) {
    let mut cannot = false;
    // A connection waited for room in vain, and there was none since.
    let mut is_full = false;
    let mut last_stranger = None;
    loop {
        let next = tokio::select! {
            () = shared.drain.cancelled() => return,
            next = accepting.next() => next,
        };
        match next {
            Ok(connection) => {
                cannot = false;
                if let Some(stranger) = accepting.stranger(&connection) {
                    // One who tries again and again does not fill the log.
                    if last_stranger.replace(stranger) != Some(stranger) {
                        tracing::warn!(
                            client = %stranger,
                            "refused: not in socket_users; add that user if it may deliver mail"
                        );
                    }
                    connection.refuse(&STRANGER, protocol);
                    continue;
                }
                match admit(shared, &connection, &mut is_full).await {
                    Ok(guest) => serve(shared, connection, guest, protocol),
                    Err(why) => connection.refuse(&why, protocol),
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Said once for each run of refusals: it may last long.
                if !std::mem::replace(&mut cannot, true) {
                    tracing::error!("cannot accept connections: {error}; new ones are waiting");
                }
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Admits a connection, perhaps after a while.
async fn admit(
    shared: &Arc<Shared>,
    connection: &Connection,
    is_full: &mut bool,
) -> Result<Guest, Reply> {
    let peer = connection.peer();
    let room_until = tokio::time::Instant::now() + ROOM_WAIT;
    loop {
        let bounds = bounds(shared);
        let refused = match shared.admission.admit(peer, bounds) {
            Ok(guest) => {
                *is_full = false;
                return Ok(guest);
            }
            Err(refused) => refused,
        };
        if refused == Refused::Full && !*is_full {
            let room = shared.admission.fewer_than(bounds.connections);
            tokio::select! {
                () = shared.drain.cancelled() => return Err(CLOSING),
                waited = tokio::time::timeout_at(room_until, room) => match waited {
                    Ok(()) => continue,
                    Err(_) => *is_full = true,
                },
            }
        }
        shared.admission.log_refusal(peer, refused, bounds);
        return Err(match refused {
            Refused::Full => FULL,
            Refused::PeerFull => PEER_FULL,
        });
    }
}

fn bounds(shared: &Shared) -> Bounds {
    let limits = &shared.settings().limits;
    let room = shared.engine.descriptors().connections();
    Bounds {
        connections: limits.connections.min(room),
        of_peer: limits.connections_per_peer,
    }
}

/// The client went away before it was accepted (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
            | io::ErrorKind::Interrupted
    )
}

fn serve(shared: &Arc<Shared>, connection: Connection, guest: Guest, protocol: Protocol) {
    match connection {
        Connection::Unix(stream) => talk(shared, stream, "unix".to_owned(), guest, protocol),
        Connection::Inet(stream, peer) => {
            talk(shared, stream, peer.to_string(), guest, protocol);
        }
    }
}

fn talk<S>(shared: &Arc<Shared>, stream: S, peer: String, guest: Guest, protocol: Protocol)
where
    S: ClientSocket + 'static,
{
    let shared = Arc::clone(shared);
    match protocol {
        Protocol::Lmtp => {
            let session = Session::new(stream, (peer, guest), shared);
            tokio::spawn(session.run());
        }
        Protocol::Socketmap => {
            tokio::spawn(async move {
                socketmap::serve(stream, shared).await;
                drop(guest);
            });
        }
    }
}
