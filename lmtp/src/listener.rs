//! Opening the sockets we listen on.
//!
//! Imports the engine's settings. Invariants: a UNIX socket is never more accessible than its
//! configured mode, not even for a moment; a socket file of a living server is never taken away;
//! at the end only the socket file that we made ourselves is removed.
//! Sources: unix(7), ipv6(7), systemd sd_listen_fds(3).

use mailstow_engine::config::{ListenAddress, LmtpSettings};
use nix::unistd::{Group, User};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another server answers there.
    #[error("{path}: another server is listening on this socket; stop it or listen elsewhere")]
    Alive {
        /// The socket file.
        path: String,
    },
    /// Something that is no stream socket stands where the socket should be.
    #[error("{path}: exists and is not a stream socket; remove it or listen elsewhere")]
    NotASocket {
        /// The file.
        path: String,
    },
    /// The owner or group of the socket is not known to the system.
    #[error("socket_{what}: \"{name}\" is not a known {what}; create it or give its number")]
    UnknownOwner {
        /// `owner` or `group`.
        what: &'static str,
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

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// A UNIX socket; `file` when we made it.
    Unix {
        /// The socket.
        socket: UnixListener,
        /// Removes the socket file at the end.
        file: Option<SocketFile>,
    },
    /// A TCP socket.
    Inet {
        /// The socket.
        socket: TcpListener,
    },
}

impl Listener {
    /// The address as the configuration writes it.
    pub fn name(&self) -> String {
        match self {
            Self::Unix {
                file: Some(file), ..
            } => format!("unix:{}", file.path.display()),
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

/// A socket file of ours; removed when dropped, unless another file took its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("{}: cannot remove the socket: {error}", self.path.display());
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

/// The sockets that systemd opened for us (`LISTEN_FDS`).
///
/// # Errors
/// One of them is no stream socket.
pub fn inherited() -> Result<Vec<Listener>, ListenError> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let foreign = |source| ListenError::System {
            address: format!("socket {index} passed by systemd"),
            action: "use it",
            source,
            remedy: "pass ListenStream= sockets only",
        };
        let listener = match passed.take_unix_listener(index) {
            Ok(Some(socket)) => Listener::Unix { socket, file: None },
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
    let refused = |action, source: Errno, remedy| ListenError::System {
        address: format!("unix:{}", path.display()),
        action,
        source: source.into(),
        remedy,
    };
    let owner = owner_id(&settings.socket_owner)?;
    let group = group_id(&settings.socket_group)?;
    let address = SocketAddrUnix::new(path)
        .map_err(|e| refused("name the socket", e, "use a path shorter than 108 bytes"))?;
    remove_stale(path, &address)?;
    let mode = Mode::from_raw_mode(settings.socket_mode & 0o777);
    let socket = stream_socket(AddressFamily::UNIX)
        .map_err(|e| refused("create the socket", e, "see the system's limits"))?;
    // unix(7): the file takes the mode of the socket, less the umask; so it is never too open.
    let directory = "check that its directory exists and that the server may write there";
    rustix::fs::fchmod(&socket, mode).map_err(|e| refused("set the mode", e, directory))?;
    net::bind(&socket, &address).map_err(|e| refused("bind", e, directory))?;
    let made = std::fs::symlink_metadata(path)
        .map_err(|_| refused("find the socket again", Errno::NOENT, directory))?;
    let file = SocketFile {
        path: path.to_owned(),
        device: made.dev(),
        inode: made.ino(),
    };
    if owner.is_some() || group.is_some() {
        rustix::fs::chown(path, owner, group).map_err(|e| {
            refused(
                "set owner and group",
                e,
                "start as root, or leave socket_owner empty",
            )
        })?;
    }
    rustix::fs::chmod(path, mode).map_err(|e| refused("set the mode", e, directory))?;
    net::listen(&socket, BACKLOG).map_err(|e| refused("listen", e, directory))?;
    Ok(Listener::Unix {
        socket: socket.into(),
        file: Some(file),
    })
}

/// Removes the socket file of a server that is gone; one of a living server stays.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), ListenError> {
    let shown = || path.display().to_string();
    match std::fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: shown() });
        }
        Ok(_) => {}
    }
    let answer = stream_socket(AddressFamily::UNIX).and_then(|s| net::connect(&s, address));
    match answer {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::PROTOTYPE) => return Err(ListenError::NotASocket { path: shown() }),
        Ok(()) | Err(Errno::AGAIN) => return Err(ListenError::Alive { path: shown() }),
        Err(error) => {
            return Err(ListenError::System {
                address: format!("unix:{}", path.display()),
                action: "tell whether another server listens there",
                source: error.into(),
                remedy: "remove the file if none does",
            });
        }
    }
    std::fs::remove_file(path).map_err(|source| ListenError::System {
        address: format!("unix:{}", path.display()),
        action: "remove the socket of a server that is gone",
        source,
        remedy: "remove it by hand",
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

fn owner_id(name: &str) -> Result<Option<Uid>, ListenError> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = name.parse() {
        return Ok(Some(Uid::from_raw(number)));
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(Some(Uid::from_raw(user.uid.as_raw()))),
        _ => Err(unknown_owner("owner", name)),
    }
}

fn group_id(name: &str) -> Result<Option<Gid>, ListenError> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = name.parse() {
        return Ok(Some(Gid::from_raw(number)));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(Gid::from_raw(group.gid.as_raw()))),
        _ => Err(unknown_owner("group", name)),
    }
}

fn unknown_owner(what: &'static str, name: &str) -> ListenError {
    ListenError::UnknownOwner {
        what,
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

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
