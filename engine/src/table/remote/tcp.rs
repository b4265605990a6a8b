//! `tcp:host:port`: lookups by a server that speaks Postfix's TCP table protocol.
//!
//! Source: tcp_table(5). The key is sent as it is, unfolded, and only for whole addresses.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use super::stream::{Endpoint, Open, Server};
use crate::octets;
use crate::table::{LookupTable, Matching, OpenError, TableError};

/// Longest reply, in bytes, as tcp_table(5) has it.
const REPLY_BYTES_MAX: usize = 4096;

/// A table behind a TCP table server.
#[derive(Debug)]
pub(in crate::table) struct TcpTable {
    name: String,
    server: Server,
}

impl TcpTable {
    /// Opens the table called `name`; `text` is `host:port`. Nothing is connected to yet.
    ///
    /// # Errors
    /// `text` is not of that form.
    pub(in crate::table) fn open(name: &str, text: &str) -> Result<Self, OpenError> {
        let endpoint = endpoint(text).ok_or_else(|| OpenError::Content {
            name: name.to_owned(),
            cause: "not a server; write tcp:host:port".to_owned(),
        })?;
        Ok(Self {
            name: name.to_owned(),
            server: Server::new(endpoint),
        })
    }
}

/// `host:port`, or `port` on this machine.
pub(in crate::table) fn endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = match text.rsplit_once(':') {
        Some(("", port)) => ("localhost", port),
        Some((host, port)) => (host, port),
        None => ("localhost", text),
    };
    port.parse::<u16>().ok()?;
    Some(Endpoint::Inet(format!("{host}:{port}")))
}

impl LookupTable for TcpTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        let unavailable = |cause: String| TableError::Unavailable {
            name: self.name.clone(),
            cause,
        };
        let request = format!("get {}\n", encode(key));
        if request.len() > REPLY_BYTES_MAX {
            return Err(unavailable(
                "the key is too long for this protocol".to_owned(),
            ));
        }
        let line = self.server.ask(|open| {
            open.write_all(request.as_bytes())?;
            read_line(open)
        });
        let line = line.map_err(unavailable)?;
        answer(&line).map_err(unavailable)
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

/// What the reply `line` says.
fn answer(line: &[u8]) -> Result<Option<String>, String> {
    let strange = || {
        format!(
            "strange reply \"{}\"",
            crate::table::text::problems::excerpt(line)
        )
    };
    let decoded = decode(line).ok_or_else(strange)?;
    match decoded.split_once(' ') {
        Some(("200", value)) => Ok(Some(value.trim_start().to_owned())),
        Some(("500", _)) => Ok(None),
        Some(("400", cause)) => Err(format!("the server answered: {cause}")),
        _ => Err(strange()),
    }
}

fn read_line(open: &mut Open) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let count = open.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(buffer.get(..count).unwrap_or_default());
        match memchr::memchr(b'\n', &line) {
            Some(end) if end + 1 == line.len() => {
                line.truncate(end);
                return Ok(line);
            }
            Some(_) => return Err(io::Error::other("more than one line of reply")),
            None if line.len() > REPLY_BYTES_MAX => {
                return Err(io::Error::other("the reply is too long"));
            }
            None => {}
        }
    }
}

/// `%`, white space and what is not printable ASCII as `%XX`.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in octets::octets(text).iter() {
        if byte.is_ascii_graphic() && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The reverse of [`encode`]; `None` when `%` is not followed by two digits, or the result is no
/// UTF-8.
fn decode(text: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::time::Duration;

    #[test]
    fn keys_are_encoded_and_values_decoded() {
        assert_eq!(encode("a b%c\n@ü"), "a%20b%25c%0A@%C3%BC");
        for text in ["a b%c\n@ü", "", "plain"] {
            assert_eq!(decode(encode(text).as_bytes()).unwrap(), text);
        }
        for bad in ["%", "%4", "%4g", "%+1", "%ff"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn replies_are_values_nothing_or_errors() {
        assert_eq!(answer(b"200 a%20b"), Ok(Some("a b".to_owned())));
        assert_eq!(answer(b"500 no"), Ok(None));
        assert!(answer(b"400 later").unwrap_err().contains("later"));
        for strange in ["", "200", "250 x", "200x y"] {
            assert!(answer(strange.as_bytes()).is_err(), "{strange}");
        }
    }

    /// Serves `connections` connections, each for `requests` requests, and closes them.
    fn serve(connections: usize, requests: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                for _ in 0..requests {
                    let request = lines.next().unwrap().unwrap();
                    let key = request.strip_prefix("get ").unwrap();
                    let reply = match key {
                        "none@d" => "500 none\n".to_owned(),
                        "bad@d" => "400 trouble\n".to_owned(),
                        key => format!("200 value%20of%20{key}\n"),
                    };
                    stream.write_all(reply.as_bytes()).unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn a_server_answers_and_its_restart_goes_unnoticed() {
        let address = serve(2, 3);
        let table = TcpTable::open("tcp:t", &address).unwrap();
        assert_eq!(table.lookup("u@d").unwrap().unwrap(), "value of u@d");
        assert_eq!(table.lookup("none@d").unwrap(), None);
        assert!(table.lookup("bad@d").is_err());
        // The first connection is closed by now.
        assert_eq!(table.lookup("v@d").unwrap().unwrap(), "value of v@d");
    }

    #[test]
    fn what_a_server_says_unasked_is_no_answer_to_the_next_question() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answered, more) = std::sync::mpsc::channel();
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                reader.read_line(&mut line).unwrap();
                let key = line.trim_end().replace("get ", "");
                stream
                    .write_all(format!("200 of-{key}\n").as_bytes())
                    .unwrap();
                more.recv().unwrap();
                stream.write_all(b"200 of-nobody\n").unwrap();
                said.send(stream).unwrap();
            }
        });
        let table = TcpTable::open("tcp:t", &address).unwrap();
        let mut open = Vec::new();
        for key in ["u@d", "v@d"] {
            assert_eq!(table.lookup(key).unwrap().unwrap(), format!("of-{key}"));
            answered.send(()).unwrap();
            open.push(heard.recv().unwrap());
        }
    }

    #[test]
    fn a_server_that_speaks_for_ever_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut table = TcpTable::open("tcp:t", &address.to_string()).unwrap();
        let endpoint = Endpoint::Inet(address.to_string());
        table.server = Server::with_timeout(endpoint, Duration::from_millis(200));
        let error = table.lookup("u@d").unwrap_err().to_string();
        assert!(error.contains("no answer within"), "{error}");
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error_and_never_not_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let table = TcpTable::open("tcp:t", &address).unwrap();
        assert!(table.lookup("u@d").is_err());
        assert!(TcpTable::open("tcp:t", "host:x").is_err());
        assert!(TcpTable::open("tcp:t", "host").is_err());
    }
}
