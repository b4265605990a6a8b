//! Addresses a server listens on.
//!
//! Written as Postfix writes them: `unix:PATH`, `inet:HOST:PORT`; a bare path is a UNIX socket.
//! Unlike a service of master.cf, a bare port means this machine only: LMTP is not for the open
//! network.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of LMTP over TCP (Postfix `lmtp_tcp_port`).
const LMTP_PORT: u16 = 24;

/// Longest path of a UNIX socket in bytes: `sun_path` less the terminating NUL (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A UNIX stream socket.
    Unix(PathBuf),
    /// A TCP socket.
    Inet {
        /// Host name or numeric IPv4 or IPv6 address, without brackets.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
}

/// Why a text is no listen address; the text names it, the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "listen address \"{text}\": {cause}; write unix:PATH, inet:HOST:PORT, inet:[IPV6]:PORT \
     or a path"
)]
pub struct ListenError {
    text: String,
    cause: String,
}

impl FromStr for ListenAddress {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let parsed = if let Some(path) = text.strip_prefix("unix:") {
            unix(path)
        } else if let Some(address) = text.strip_prefix("inet:") {
            inet(address)
        } else if text.starts_with(['/', '.']) || (text.contains('/') && !text.contains(':')) {
            unix(text)
        } else {
            Err("it names neither a path nor a host and port".to_owned())
        };
        parsed.map_err(|cause| ListenError {
            text: text.to_owned(),
            cause,
        })
    }
}

fn unix(path: &str) -> Result<ListenAddress, String> {
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "the path has {} bytes, the system allows {SOCKET_PATH_BYTES_MAX}",
            path.len()
        ));
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err("the path names no file".to_owned());
    }
    Ok(ListenAddress::Unix(PathBuf::from(path)))
}

fn inet(address: &str) -> Result<ListenAddress, String> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("\"[\" without \"]\"")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("\"{host}\" is no IPv6 address"));
        }
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err(format!("unexpected \"{rest}\" after \"]\"")),
        };
        (host, port)
    } else if let Some((host, port)) = address.rsplit_once(':') {
        if host.contains(':') {
            return Err("an IPv6 address needs brackets".to_owned());
        }
        (host, Some(port))
    } else if !address.is_empty() && address.bytes().all(|b| b.is_ascii_digit()) {
        ("", Some(address))
    } else {
        (address, None)
    };
    let port = match port {
        None if host.is_empty() => return Err("host and port are empty".to_owned()),
        None => LMTP_PORT,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("\"{port}\" is no port number from 1 to 65535"))?,
    };
    if host == "*" {
        return Err("\"*\" is no host; use 0.0.0.0 or [::] for all interfaces".to_owned());
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/,;\"'".contains(c)) {
        return Err(format!("\"{host}\" is no host name"));
    }
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(ListenAddress::Inet {
        host: host.to_owned(),
        port,
    })
}

impl fmt::Display for ListenAddress {
    /// The canonical form, which parses back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inet { host, port } if host.contains(':') => write!(f, "inet:[{host}]:{port}"),
            Self::Inet { host, port } => write!(f, "inet:{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_written_form_has_one_canonical_form() {
        for (text, canonical) in [
            ("unix:/run/mailstow/lmtp", "unix:/run/mailstow/lmtp"),
            ("unix:private/lmtp", "unix:private/lmtp"),
            ("/run/lmtp", "unix:/run/lmtp"),
            ("./lmtp.sock", "unix:./lmtp.sock"),
            ("run/lmtp.sock", "unix:run/lmtp.sock"),
            ("inet:mail.example:2400", "inet:mail.example:2400"),
            ("inet:127.0.0.1:24", "inet:127.0.0.1:24"),
            ("inet:[::1]:24", "inet:[::1]:24"),
            ("inet:[::1]", "inet:[::1]:24"),
            ("inet::24", "inet:localhost:24"),
            ("inet:2424", "inet:localhost:2424"),
            ("inet:localhost", "inet:localhost:24"),
        ] {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_allowed() {
        for text in [
            "",
            "unix:",
            "unix:/run/",
            "inet:",
            "inet::",
            "inet:h:0",
            "inet:h:70000",
            "inet:h:x",
            "inet:::1:24",
            "inet:[::1",
            "inet:[x]:24",
            "inet:[::1]24",
            "inet:*:24",
            "tcp:h:24",
            "lmtp",
            "inet:a b:24",
        ] {
            let error = text.parse::<ListenAddress>().expect_err(text).to_string();
            assert!(error.contains("write unix:PATH, inet:HOST:PORT"), "{error}");
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(long.parse::<ListenAddress>().is_err());
    }

    proptest! {
        #[test]
        fn the_canonical_form_parses_back(text in "(unix:|inet:|/)?[a-z0-9.:\\[\\]/*]{0,20}") {
            if let Ok(address) = text.parse::<ListenAddress>() {
                prop_assert_eq!(address.to_string().parse::<ListenAddress>(), Ok(address));
            }
        }
    }
}
