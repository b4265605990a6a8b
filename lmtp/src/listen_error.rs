//! Why a socket cannot be listened on.
//!
//! Every text names the socket, the cause and the remedy.

use mailstow_engine::system::PathError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another server answers there.
    #[error(
        "{}: another server is listening on this socket; stop it or listen elsewhere",
        path.display()
    )]
    Alive {
        /// The socket file.
        path: PathBuf,
    },
    /// Something that is no stream socket stands where the socket should be.
    #[error(
        "{}: exists and is not a stream socket; remove it or listen elsewhere", path.display()
    )]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The directory of the socket cannot be reached.
    #[error("socket directory {error}")]
    Path {
        /// Why not.
        error: PathError,
    },
    /// A user or group that the sockets are for is not known to the system.
    #[error("socket_{what}: \"{name}\" is not a known {kind}; create it or give its number")]
    Unknown {
        /// `owner`, `group` or `users`.
        what: &'static str,
        /// `user` or `group`.
        kind: &'static str,
        /// As configured.
        name: String,
    },
    /// A host name without addresses.
    #[error("inet:{host}:{port}: {source}; give an address of this machine")]
    Host {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The system's answer.
        source: io::Error,
    },
    /// Everything else the system refuses.
    #[error("{address}: cannot {action}: {source}; {remedy}")]
    System {
        /// The socket.
        address: String,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
}

impl ListenError {
    /// An answer of the system about the UNIX socket at `path`.
    pub(crate) fn unix(
        path: &Path,
        action: &'static str,
        source: io::Error,
        remedy: &'static str,
    ) -> Self {
        Self::System {
            address: format!("unix:{}", path.display()),
            action,
            source,
            remedy,
        }
    }
}
