//! The connection to a server, whatever kind it is of, and how it comes about.
//!
//! Every wait ends at an instant that the caller names. Names are looked up by the system, on a few
//! threads: a resolver that hangs holds up those who need it.

use super::nexthop::Place;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

/// Names that are looked up at once; each takes a thread of the runtime.
pub(crate) const LOOKUPS_MAX: usize = 4;

/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Finds the addresses of names.
#[derive(Clone, Debug)]
pub(super) struct Resolver(Arc<Semaphore>);

impl Default for Resolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Resolver {
    /// Returns the addresses of a host; at least one.
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let permit = permit.map_err(io::Error::other)?;
        let host = host.to_owned();
        // Its thread is in use until the system has answered, even if the answer is not needed.
        let lookup = tokio::spawn(async move {
            let found = lookup_host((host, port)).await;
            drop(permit);
            found.map(|addresses| addresses.take(ADDRESSES_MAX).collect::<Vec<_>>())
        });
        let addresses = lookup.await.map_err(io::Error::other)??;
        match addresses.is_empty() {
            true => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            )),
            false => Ok(addresses),
        }
    }
}

impl Stream {
    /// Connects.
    ///
    /// # Errors
    /// The system's; `TimedOut` after `until`.
    pub(super) async fn connect(
        place: &Place,
        resolver: &Resolver,
        until: Instant,
    ) -> io::Result<Self> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        match place {
            Place::Unix(path) => {
                let connected = timeout_at(until, UnixStream::connect(path)).await;
                Ok(Self::Unix(connected.map_err(late)??))
            }
            Place::Inet(host, port) => {
                let addresses = timeout_at(until, resolver.addresses(host, *port)).await;
                let addresses = addresses.map_err(late)??;
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                let mut left = u32::try_from(addresses.len()).unwrap_or(1);
                for address in addresses {
                    let now = Instant::now();
                    let share = until.saturating_duration_since(now) / left.max(1);
                    left = left.saturating_sub(1);
                    match timeout_at(now + share, TcpStream::connect(address)).await {
                        Ok(Ok(stream)) => {
                            // Only slower without.
                            let _ = stream.set_nodelay(true);
                            return Ok(Self::Tcp(stream));
                        }
                        Ok(Err(error)) => last = error,
                        Err(elapsed) => last = late(elapsed),
                    }
                }
                Err(last)
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
