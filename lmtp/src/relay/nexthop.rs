//! Nexthops as Postfix writes them: where messages go on to.
//!
//! Does no I/O. Sources: transport(5), lmtp(8), smtp(8). A domain without brackets means its MX
//! hosts to smtp(8), and looking them up belongs to Postfix: it is refused with the remedy.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

/// Servers in one list of nexthops.
const PLACES_MAX: usize = 16;
/// The port that lmtp(8) uses (`lmtp_tcp_port`).
const LMTP_PORT: u16 = 24;
/// The port that smtp(8) uses (`smtp_tcp_port`).
const SMTP_PORT: u16 = 25;

/// What is spoken to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// One reply for each recipient (RFC 2033).
    Lmtp,
    /// One reply for all of them (RFC 5321).
    Smtp,
}

impl Protocol {
    /// Its name in front of nexthops.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lmtp => "lmtp",
            Self::Smtp => "smtp",
        }
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A UNIX-domain socket.
    Unix(PathBuf),
    /// A host, by name or address, and a port.
    Inet(String, u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inet(host, port) => write!(f, "[{host}]:{port}"),
        }
    }
}

/// Why a nexthop names no server. Displays what is wrong and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NexthopError {
    #[error("no nexthop; name a server, as in {0}")]
    Missing(&'static str),
    #[error("{0}: more than {PLACES_MAX} servers; name fewer")]
    TooMany(String),
    #[error(
        "smtp:{0} means the mail exchangers of a domain, which only Postfix looks up; name a \
         server, as in smtp:{1}, or let Postfix send the mail"
    )]
    Domain(String, String),
    #[error("{0}: no such port; use a number from 1 to 65535")]
    Port(String),
    #[error("{0}: no host and no address; use {1}")]
    Host(String, &'static str),
}

/// Returns the servers that `nexthop` names, in the order in which they are tried. A relative path
/// of a socket is one in `queue_directory`, where Postfix's lmtp(8) looks.
///
/// # Errors
/// It names none, or something that is not looked up here.
pub(super) fn parse(
    protocol: Protocol,
    nexthop: &str,
    queue_directory: &Path,
) -> Result<Vec<Place>, NexthopError> {
    let words = nexthop.split([',', ' ', '\t']);
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Err(NexthopError::Missing(example(protocol)));
    }
    if words.len() > PLACES_MAX {
        return Err(NexthopError::TooMany(nexthop.to_owned()));
    }
    let place = |word: &&str| parse_one(protocol, word, queue_directory);
    words.iter().map(place).collect()
}

const fn example(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Lmtp => "lmtp:unix:/path or lmtp:inet:host:port",
        Protocol::Smtp => "smtp:[host]:port",
    }
}

fn parse_one(
    protocol: Protocol,
    word: &str,
    queue_directory: &Path,
) -> Result<Place, NexthopError> {
    if let Some(path) = word.strip_prefix("unix:") {
        let bad = || NexthopError::Host(word.to_owned(), example(protocol));
        let is_path = !path.is_empty() && !path.contains('\0');
        return is_path
            .then(|| Place::Unix(queue_directory.join(path)))
            .ok_or_else(bad);
    }
    let rest = word.strip_prefix("inet:").unwrap_or(word);
    let is_literal = rest.starts_with('[') || protocol == Protocol::Lmtp || rest.len() < word.len();
    if !is_literal {
        let server = match rest.split_once(':') {
            Some((host, port)) => format!("[{host}]:{port}"),
            None => format!("[{rest}]"),
        };
        return Err(NexthopError::Domain(rest.to_owned(), server));
    }
    let (host, port) = split(rest).ok_or_else(|| {
        let example = example(protocol);
        NexthopError::Host(word.to_owned(), example)
    })?;
    let port = match port {
        None => match protocol {
            Protocol::Lmtp => LMTP_PORT,
            Protocol::Smtp => SMTP_PORT,
        },
        Some(port) => named_port(port).ok_or_else(|| NexthopError::Port(word.to_owned()))?,
    };
    Ok(Place::Inet(host.to_owned(), port))
}

/// Splits `host`, `host:port`, `[host]` or `[host]:port`.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']')?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':')?),
            };
            // The form of address literals in mail addresses (RFC 5321 section 4.1.3).
            let tagged = host.split_at_checked(5);
            let host = match tagged {
                Some((tag, address)) if tag.eq_ignore_ascii_case("ipv6:") => address,
                _ => host,
            };
            // A port follows the bracket; the zone of a link-local address follows a %.
            let address = host.split_once('%').map_or(host, |(address, _)| address);
            if host.contains(':') && address.parse::<Ipv6Addr>().is_err() {
                return None;
            }
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c) || !c.is_ascii();
    let is_host = !host.is_empty() && host.len() <= 255 && host.chars().all(allowed);
    is_host.then_some((host, port))
}

/// A port by its number, or by the names that main.cf uses for the ports of mail.
fn named_port(port: &str) -> Option<u16> {
    let known = match port {
        "smtp" => SMTP_PORT,
        "lmtp" => LMTP_PORT,
        "submission" => 587,
        "smtps" | "submissions" => 465,
        number => number.parse().ok()?,
    };
    (known != 0).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(protocol: Protocol, text: &str) -> Result<String, String> {
        let places = parse(protocol, text, Path::new("/q")).map_err(|error| error.to_string())?;
        let shown: Vec<String> = places.iter().map(ToString::to_string).collect();
        Ok(shown.join(" "))
    }

    #[test]
    fn nexthops_mean_what_they_mean_to_postfix() {
        for (text, places) in [
            ("unix:/run/lmtp", "unix:/run/lmtp"),
            ("unix:private/lmtp", "unix:/q/private/lmtp"),
            ("inet:store.example:2424", "[store.example]:2424"),
            ("inet:127.0.0.1", "[127.0.0.1]:24"),
            ("store.example:24", "[store.example]:24"),
            ("store.example", "[store.example]:24"),
            ("[::1]:10024", "[::1]:10024"),
            ("[ipv6:::1]", "[::1]:24"),
            ("[fe80::1%eth0]:25", "[fe80::1%eth0]:25"),
            ("a:1, [b]:2\tunix:/c", "[a]:1 [b]:2 unix:/c"),
        ] {
            assert_eq!(
                parsed(Protocol::Lmtp, text).as_deref(),
                Ok(places),
                "{text}"
            );
        }
        assert_eq!(
            parsed(Protocol::Smtp, "[mx.example]").unwrap(),
            "[mx.example]:25"
        );
        assert_eq!(
            parsed(Protocol::Smtp, "[mx]:submission").unwrap(),
            "[mx]:587"
        );
    }

    #[test]
    fn a_domain_is_left_to_postfix_with_the_remedy() {
        let error = parsed(Protocol::Smtp, "example.com").unwrap_err();
        assert!(error.contains("as in smtp:[example.com],"), "{error}");
        let error = parsed(Protocol::Smtp, "127.0.0.1:2525").unwrap_err();
        assert!(error.contains("as in smtp:[127.0.0.1]:2525,"), "{error}");
    }

    #[test]
    fn what_names_no_server_is_refused() {
        for text in [
            "",
            " , ",
            "unix:",
            "[a",
            "[]:1",
            "a:",
            "a:0",
            "a:70000",
            "a:x",
            "a/b",
            "[a]1",
            "[a:25]",
            "[127.0.0.1:25]",
            "[::1%]x",
        ] {
            assert!(parsed(Protocol::Lmtp, text).is_err(), "{text}");
        }
        assert!(parsed(Protocol::Lmtp, &"a ".repeat(17)).is_err());
    }
}
