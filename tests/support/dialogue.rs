//! The wire of an SMTP or LMTP dialogue, as a client has it: bytes out, replies in (RFC 5321
//! section 4.2.1).

use std::io::{self, ErrorKind, Read, Write};

/// A connection whose replies are read.
#[derive(Debug)]
pub struct Dialogue<S> {
    /// What is written goes to the server as it is.
    pub stream: S,
    received: Vec<u8>,
}

impl<S: Read + Write> Dialogue<S> {
    /// Over a connected stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Reads one reply, all of its lines with their ends; `None` when the server has closed.
    ///
    /// # Errors
    /// The stream fails; a line is not UTF-8, or ends with LF alone.
    pub fn read_reply(&mut self) -> io::Result<Option<String>> {
        let mut reply = String::new();
        loop {
            let Some(line) = self.read_line()? else {
                return Ok(None);
            };
            reply += &line;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Some(reply));
            }
        }
    }

    /// Returns the bytes that were received and not read, and all that come until the server
    /// closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.received);
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..at + 2).collect();
                let line = String::from_utf8(line)
                    .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                if line.find('\n') != Some(at + 1) {
                    let text = format!("a line ends with LF alone: {line:?}");
                    return Err(io::Error::new(ErrorKind::InvalidData, text));
                }
                return Ok(Some(line));
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let text = format!("{error}; so far {:?}", self.received);
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
    }
}
