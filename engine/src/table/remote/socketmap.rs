//! `socketmap:inet:host:port:name` and `socketmap:unix:path:name`: lookups by a server that
//! speaks Sendmail's socketmap protocol.
//!
//! Source: socketmap_table(5). The key is sent as it is, unfolded, and only for whole addresses.

use std::io::{self, Read, Write};

use super::stream::{Endpoint, Open, Server};
use super::tcp::endpoint;
use crate::octets;
use crate::table::{LookupTable, Matching, OpenError, TableError};

/// Longest reply, in bytes, as socketmap_table(5) has it.
const REPLY_BYTES_MAX: usize = 100_000;

/// A table behind a socketmap server.
#[derive(Debug)]
pub(in crate::table) struct SocketmapTable {
    name: String,
    map: String,
    server: Server,
}

impl SocketmapTable {
    /// Opens the table called `name`; `text` is what follows the type. Nothing is connected to
    /// yet.
    ///
    /// # Errors
    /// `text` is not of that form.
    pub(in crate::table) fn open(name: &str, text: &str) -> Result<Self, OpenError> {
        let (endpoint, map) = parse(text).ok_or_else(|| OpenError::Content {
            name: name.to_owned(),
            cause: "not a server and map; write socketmap:inet:host:port:map or \
                    socketmap:unix:/path:map"
                .to_owned(),
        })?;
        Ok(Self {
            name: name.to_owned(),
            map: map.to_owned(),
            server: Server::new(endpoint),
        })
    }
}

fn parse(text: &str) -> Option<(Endpoint, &str)> {
    let (server, map) = text.rsplit_once(':')?;
    let endpoint = match server.split_once(':')? {
        ("unix", path) if !path.is_empty() => Endpoint::Unix(path.into()),
        ("inet", address) => endpoint(address)?,
        _ => return None,
    };
    (!map.is_empty() && !map.contains(' ')).then_some((endpoint, map))
}

impl LookupTable for SocketmapTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        let unavailable = |cause: String| TableError::Unavailable {
            name: self.name.clone(),
            cause,
        };
        let request = [self.map.as_bytes(), b" ", &octets::octets(key)].concat();
        let request = [format!("{}:", request.len()).as_bytes(), &request, b","].concat();
        let reply = self.server.ask(|open| {
            open.write_all(&request)?;
            read_netstring(open)
        });
        let reply = String::from_utf8(reply.map_err(unavailable)?)
            .map_err(|_| unavailable("the reply is not UTF-8".to_owned()))?;
        let (status, text) = reply.split_once(' ').unwrap_or((&reply, ""));
        let text = match status {
            "OK" => return Ok(Some(text.to_owned())),
            "NOTFOUND" => return Ok(None),
            "TEMP" | "TIMEOUT" | "PERM" => crate::table::text::problems::excerpt(text.as_bytes()),
            _ => crate::table::text::problems::excerpt(reply.as_bytes()),
        };
        Err(unavailable(format!("the server answered: {status} {text}")))
    }

    fn matching(&self) -> Matching {
        Matching::Pattern
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn may_block(&self) -> bool {
        true
    }
}

/// One netstring, `length:bytes,`, and nothing behind it.
fn read_netstring(open: &mut Open) -> io::Result<Vec<u8>> {
    let strange = || io::Error::other("the reply is no netstring, or too long a one");
    let mut length = 0_usize;
    loop {
        let mut byte = [0];
        open.read_exact(&mut byte)?;
        let [byte] = byte;
        match byte {
            b':' => break,
            b'0'..=b'9' => length = length * 10 + usize::from(byte - b'0'),
            _ => return Err(strange()),
        }
        if length > REPLY_BYTES_MAX {
            return Err(strange());
        }
    }
    let mut bytes = vec![0; length + 1];
    open.read_exact(&mut bytes)?;
    match bytes.pop() {
        Some(b',') => Ok(bytes),
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    /// A server that answers each request on each connection with the next of `replies`.
    fn serve(path: &std::path::Path, replies: &'static [&'static str]) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let mut replies = replies.iter();
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                while read_request(&mut stream).is_some() {
                    let Some(reply) = replies.next() else { return };
                    stream.write_all(reply.as_bytes()).unwrap();
                    if reply.is_empty() {
                        break;
                    }
                }
            }
        });
    }

    fn read_request(stream: &mut UnixStream) -> Option<String> {
        let mut bytes = [0; 200];
        let count = stream.read(&mut bytes).unwrap();
        let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
        assert!(text.is_empty() || text == "11:map u@D u@x,", "{text}");
        (count > 0).then_some(text)
    }

    fn table(path: &std::path::Path) -> SocketmapTable {
        let text = format!("unix:{}:map", path.display());
        SocketmapTable::open("socketmap:t", &text).unwrap()
    }

    #[test]
    fn answers_errors_and_broken_connections_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        serve(
            &path,
            &[
                "8:OK a b c,",
                "9:NOTFOUND ,",
                "",
                "3:OK ,",
                "10:TEMP later,",
                "9:TIMEOUT x,",
                "6:PERM x,",
                "7:STRANGE,",
                "2:OKx",
                "999999:",
            ],
        );
        let table = table(&path);
        let ask = || table.lookup("u@D u@x");
        assert_eq!(ask().unwrap().as_deref(), Some("a b c"));
        assert_eq!(ask().unwrap(), None);
        // The server closes this connection without an answer; a new one has it.
        assert_eq!(ask().unwrap().as_deref(), Some(""));
        for _ in 0..4 {
            assert!(ask().is_err());
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut table = table(&path);
        let endpoint = Endpoint::Unix(path);
        table.server = Server::with_timeout(endpoint, Duration::from_millis(50));
        assert!(
            table
                .lookup("k")
                .unwrap_err()
                .to_string()
                .contains("no answer within")
        );
    }

    #[test]
    fn names_are_a_server_and_a_map() {
        assert_eq!(
            parse("unix:/run/map:virtual"),
            Some((Endpoint::Unix("/run/map".into()), "virtual"))
        );
        assert_eq!(
            parse("inet:[::1]:77:m"),
            Some((Endpoint::Inet("[::1]:77".to_owned()), "m"))
        );
        for bad in [
            "",
            "unix::m",
            "unix:/p",
            "inet:h:p:m",
            "tcp:h:1:m",
            "inet:h:1:",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
