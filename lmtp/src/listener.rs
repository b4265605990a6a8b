//! Opening the sockets we listen on.
//!
//! Sources: ipv6(7), systemd sd_listen_fds(3).

use crate::peers;
use crate::socket_file::{self, BACKLOG};
use mailstow_engine::config::{ListenAddress, LmtpSettings};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

pub use crate::listen_error::ListenError;
pub use crate::peers::Peers;
pub use crate::socket_file::SocketFile;

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// A UNIX socket; `file` when we made it.
    Unix {
        /// The socket.
        socket: UnixListener,
        /// Removes the socket file at the end.
        file: Option<SocketFile>,
        /// Whom it serves.
        peers: Peers,
    },
    /// A TCP socket.
    Inet {
        /// The socket.
        socket: TcpListener,
    },
}

impl Listener {
    /// Serves only these users from now on; a TCP socket everybody as before.
    pub fn serve_only(&mut self, users: Peers) {
        if let Self::Unix { peers, .. } = self {
            *peers = users;
        }
    }

    /// The address as the configuration writes it.
    pub fn name(&self) -> String {
        match self {
            Self::Unix {
                file: Some(file), ..
            } => format!("unix:{}", file.path().display()),
            Self::Unix { socket, .. } => match socket.local_addr() {
                Ok(address) => match address.as_pathname() {
                    Some(path) => format!("unix:{}", path.display()),
                    None => "unix:(unnamed)".into(),
                },
                Err(_) => "unix:(unknown)".into(),
            },
            Self::Inet { socket } => match socket.local_addr() {
                Ok(address) => format!("inet:{address}"),
                Err(_) => "inet:(unknown)".into(),
            },
        }
    }
}

/// Opens every configured socket, beside those that are [`inherited`]. A configured address that
/// is inherited already is not opened a second time.
///
/// # Errors
/// The first socket that cannot be opened; those opened before are closed again.
pub fn open_all(
    settings: &LmtpSettings,
    inherited: Vec<Listener>,
) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = inherited;
    let inherited_names: Vec<String> = listeners.iter().map(Listener::name).collect();
    for address in &settings.listen {
        match address {
            ListenAddress::Unix(path) => {
                if !inherited_names.contains(&format!("unix:{}", path.display())) {
                    listeners.push(open_unix(path, settings)?);
                }
            }
            ListenAddress::Inet { host, port } => {
                for address in resolve(host, *port)? {
                    if !inherited_names.contains(&format!("inet:{address}")) {
                        listeners.push(open_inet(address)?);
                    }
                }
            }
        }
    }
    Ok(listeners)
}

/// The sockets that systemd opened for us (`LISTEN_FDS`), with the modes and owners that their
/// unit gave them.
///
/// # Errors
/// One of them is no stream socket.
pub fn inherited() -> Result<Vec<Listener>, ListenError> {
    let mut passed = listenfd::ListenFd::from_env();
    let peers = Peers::anyone();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let foreign = |source| ListenError::System {
            address: format!("socket {index} passed by systemd"),
            action: "use it",
            source,
            remedy: "pass ListenStream= sockets only",
        };
        let listener = match passed.take_unix_listener(index) {
            Ok(Some(socket)) => Listener::Unix {
                socket,
                file: None,
                peers: peers.clone(),
            },
            Ok(None) => continue,
            Err(_) => match passed.take_tcp_listener(index).map_err(foreign)? {
                Some(socket) => Listener::Inet { socket },
                None => continue,
            },
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

fn open_unix(path: &Path, settings: &LmtpSettings) -> Result<Listener, ListenError> {
    let peers = Peers::of(settings)?;
    let (socket, file) = socket_file::bind(path, peers::permissions(settings)?)?;
    Ok(Listener::Unix {
        socket: socket.into(),
        file: Some(file),
        peers,
    })
}

/// Opens every address of a host.
///
/// # Errors
/// The first address that cannot be opened; those opened before are closed again.
pub(crate) fn open_host(host: &str, port: u16) -> Result<Vec<Listener>, ListenError> {
    resolve(host, port)?.into_iter().map(open_inet).collect()
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ListenError> {
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |source| ListenError::Host {
        host: host.to_owned(),
        port,
        source,
    };
    let mut addresses: Vec<_> = (plain, port).to_socket_addrs().map_err(failed)?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

fn open_inet(address: SocketAddr) -> Result<Listener, ListenError> {
    let refused = |action, source: Errno| ListenError::System {
        address: format!("inet:{address}"),
        action,
        source: source.into(),
        remedy: match source {
            Errno::ADDRINUSE => "stop the server that has this port or use another port",
            Errno::ACCESS => "use a port from 1024 on or start as root",
            _ => "give an address of this machine",
        },
    };
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let socket = stream_socket(family).map_err(|e| refused("create the socket", e))?;
    net::sockopt::set_socket_reuseaddr(&socket, true).map_err(|e| refused("share", e))?;
    if address.is_ipv6() {
        // So that [::] and 0.0.0.0 may both be configured.
        net::sockopt::set_ipv6_v6only(&socket, true).map_err(|e| refused("separate", e))?;
    }
    net::bind(&socket, &address).map_err(|e| refused("bind", e))?;
    net::listen(&socket, BACKLOG).map_err(|e| refused("listen", e))?;
    Ok(Listener::Inet {
        socket: socket.into(),
    })
}

fn stream_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    net::socket_with(family, SocketType::STREAM, flags, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    fn settings(listen: ListenAddress) -> LmtpSettings {
        LmtpSettings {
            listen: vec![listen],
            socket_mode: 0o660,
            ..LmtpSettings::default()
        }
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lmtp");
        let listeners = open_all(&settings(ListenAddress::Unix(path.clone())), Vec::new()).unwrap();
        let mode = std::fs::symlink_metadata(&path)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(listeners[0].name(), format!("unix:{}", path.display()));
        UnixStream::connect(&path).unwrap();
        drop(listeners);
        assert!(!path.exists());
    }

    #[test]
    fn the_socket_of_a_dead_server_is_replaced_and_of_a_living_one_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lmtp");
        let settings = settings(ListenAddress::Unix(path.clone()));
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let alive = open_all(&settings, Vec::new()).unwrap();
        let refused = open_all(&settings, Vec::new()).unwrap_err();
        assert!(matches!(refused, ListenError::Alive { .. }), "{refused}");
        UnixStream::connect(&path).unwrap();
        drop(alive);
        std::fs::write(&path, "precious").unwrap();
        let refused = open_all(&settings, Vec::new()).unwrap_err();
        assert!(
            matches!(refused, ListenError::NotASocket { .. }),
            "{refused}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_link_in_the_place_of_the_socket_is_neither_followed_nor_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lmtp");
        let elsewhere = directory.path().join("elsewhere");
        symlink(&elsewhere, &path).unwrap();
        let settings = settings(ListenAddress::Unix(path.clone()));
        let refused = open_all(&settings, Vec::new()).unwrap_err();
        assert!(
            matches!(refused, ListenError::NotASocket { .. }),
            "{refused}"
        );
        assert!(path.is_symlink() && !elsewhere.exists());
        std::fs::remove_file(&path).unwrap();
        let listeners = open_all(&settings, Vec::new()).unwrap();
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 1, "only the socket");
        std::fs::remove_file(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        drop(listeners);
        assert!(path.is_symlink());
    }

    #[test]
    fn a_socket_that_another_server_put_in_place_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lmtp");
        let ours = open_all(&settings(ListenAddress::Unix(path.clone())), Vec::new()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }

    #[test]
    fn both_internet_families_can_be_listened_on() {
        for host in ["127.0.0.1", "::1", "[::1]"] {
            let address = ListenAddress::Inet {
                host: host.into(),
                port: 0,
            };
            let listeners = open_all(&settings(address), Vec::new()).unwrap();
            assert!(listeners[0].name().starts_with("inet:"), "{host}");
        }
    }

    #[test]
    fn what_cannot_be_opened_says_what_to_do() {
        let missing = open_all(
            &settings(ListenAddress::Unix("/nonexistent/lmtp".into())),
            Vec::new(),
        );
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .contains("check that its directory exists")
        );
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let long = open_all(&settings(ListenAddress::Unix(long)), Vec::new());
        assert!(
            long.unwrap_err()
                .to_string()
                .contains("shorter than 108 bytes")
        );
        let mut unknown = settings(ListenAddress::Unix("/tmp/unused".into()));
        unknown.socket_group = "no such group".into();
        let unknown = open_all(&unknown, Vec::new()).unwrap_err().to_string();
        assert!(
            unknown.contains("\"no such group\" is not a known group"),
            "{unknown}"
        );
    }
}
