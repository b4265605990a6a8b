//! A blocking SMTP and LMTP client that sends exactly the given bytes (RFC 5321, RFC 2033).
//!
//! It can be as rude as a test needs: raw bytes, half commands, vanishing.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::content::mail_parameters;
use crate::dialogue::Dialogue;

/// No reply takes longer than this, not even behind a full queue of a loaded machine.
const REPLY_LIMIT: Duration = Duration::from_secs(120);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A UNIX-domain socket.
    Unix(PathBuf),
    /// Host and port.
    Inet(String, u16),
}

impl Address {
    /// As `smtp-source` and `mailstow serve --listen` spell it.
    pub fn spelled(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Inet(host, port) => format!("inet:{host}:{port}"),
        }
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

enum Socket {
    Unix(UnixStream),
    Inet(TcpStream),
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => s.read(buffer),
            Self::Inet(s) => s.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => s.write(bytes),
            Self::Inet(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One reply, its lines joined by LF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Reply code, for example 250.
    pub code: u16,
    /// The text after the code of each line.
    pub text: String,
}

impl Reply {
    /// The enhanced status code at the front of the text, else the empty string.
    pub fn enhanced(&self) -> &str {
        let word = self.text.split_whitespace().next().unwrap_or_default();
        if word.split('.').count() == 3 {
            word
        } else {
            ""
        }
    }

    /// Code and enhanced code, as `451 4.3.5`.
    pub fn codes(&self) -> String {
        format!("{} {}", self.code, self.enhanced())
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// One session.
pub struct Client {
    dialogue: Dialogue<Socket>,
}

impl Client {
    /// Connects without waiting for the greeting.
    pub fn dial(address: &Address) -> io::Result<Self> {
        let socket = match address {
            Address::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_read_timeout(Some(REPLY_LIMIT))?;
                socket.set_write_timeout(Some(REPLY_LIMIT))?;
                Socket::Unix(socket)
            }
            Address::Inet(host, port) => {
                let socket = TcpStream::connect((host.as_str(), *port))?;
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(REPLY_LIMIT))?;
                socket.set_write_timeout(Some(REPLY_LIMIT))?;
                Socket::Inet(socket)
            }
        };
        Ok(Self {
            dialogue: Dialogue::new(socket),
        })
    }

    /// Connects, reads the greeting and says `LHLO`; `Err` when the server is not there.
    pub fn try_lmtp(address: &Address) -> io::Result<Self> {
        let mut client = Self::dial(address)?;
        for expected in [220, 250] {
            if expected == 250 {
                client.send(b"LHLO client.example\r\n")?;
            }
            let reply = client.read_reply()?;
            if reply.code != expected {
                return Err(io::Error::other(reply.to_string()));
            }
        }
        Ok(client)
    }

    /// An LMTP session after `LHLO`.
    pub fn lmtp(address: &Address) -> Self {
        Self::try_lmtp(address).unwrap_or_else(|e| panic!("no LMTP session at {address:?}: {e}"))
    }

    /// An SMTP session after `EHLO`.
    pub fn smtp(address: &Address) -> Self {
        let mut client =
            Self::dial(address).unwrap_or_else(|e| panic!("no SMTP server at {address:?}: {e}"));
        assert_eq!(client.reply().code, 220);
        assert_eq!(client.command("EHLO client.example").code, 250);
        client
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.dialogue.stream.write_all(bytes)
    }

    /// Reads one reply; `Err` when the connection ended or the server fell silent.
    pub fn read_reply(&mut self) -> io::Result<Reply> {
        let reply = self.dialogue.read_reply()?;
        let reply = reply.ok_or(io::ErrorKind::UnexpectedEof)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("reply {reply:?}"));
        let lines: Vec<&str> = reply.lines().collect();
        let code = |line: &&str| line.get(..3)?.parse::<u16>().ok();
        let codes: Option<Vec<u16>> = lines.iter().map(code).collect();
        let codes = codes.ok_or_else(bad)?;
        let code = *codes.last().ok_or_else(bad)?;
        let text: Vec<&str> = lines
            .iter()
            .map(|line| line.get(4..).unwrap_or_default())
            .collect();
        let text = text.join("\n");
        Ok(Reply { code, text })
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> Reply {
        self.read_reply()
            .unwrap_or_else(|e| panic!("no reply from the server: {e}"))
    }

    /// Sends one command line and reads its reply.
    pub fn command(&mut self, line: impl AsRef<[u8]>) -> Reply {
        let mut bytes = line.as_ref().to_vec();
        bytes.extend_from_slice(b"\r\n");
        self.send(&bytes).expect("the server takes a command");
        self.reply()
    }

    /// The reply code of `RCPT` for `recipient`, in a new transaction.
    pub fn rcpt_code(&mut self, recipient: &str) -> u16 {
        self.command("RSET");
        self.command("MAIL FROM:<s@client.example>");
        self.command(format!("RCPT TO:<{recipient}>")).code
    }

    /// One LMTP transaction with the content in wire form: its replies after the data, one for
    /// each accepted recipient; `Err` with the refusal when none was accepted.
    pub fn try_deliver(
        &mut self,
        sender: &str,
        recipients: &[&str],
        content: &[u8],
    ) -> io::Result<Result<Vec<Reply>, Reply>> {
        let parameters = mail_parameters(sender, content);
        let mut commands = format!("MAIL FROM:<{sender}>{parameters}\r\n");
        for recipient in recipients {
            commands += &format!("RCPT TO:<{recipient}>\r\n");
        }
        self.send(commands.as_bytes())?;
        let mail = self.read_reply()?;
        let mut refused = None;
        let mut accepted = 0;
        for _ in recipients {
            let reply = self.read_reply()?;
            if reply.code == 250 {
                accepted += 1;
            } else {
                refused = Some(reply);
            }
        }
        if mail.code != 250 || accepted == 0 {
            self.send(b"RSET\r\n")?;
            self.read_reply()?;
            return Ok(Err(if mail.code == 250 {
                refused.unwrap_or(mail)
            } else {
                mail
            }));
        }
        self.send(b"DATA\r\n")?;
        let data = self.read_reply()?;
        if data.code != 354 {
            return Ok(Err(data));
        }
        self.send(&dot_stuffed(content))?;
        let replies: io::Result<Vec<_>> = (0..accepted).map(|_| self.read_reply()).collect();
        Ok(Ok(replies?))
    }

    /// [`Client::try_deliver`] that must reach the server: the replies, one per recipient.
    pub fn deliver(&mut self, sender: &str, recipients: &[&str], content: &[u8]) -> Vec<Reply> {
        match self.try_deliver(sender, recipients, content) {
            Ok(Ok(replies)) => replies,
            Ok(Err(refusal)) => vec![refusal],
            Err(e) => panic!("the session broke off: {e}"),
        }
    }

    /// One LMTP transaction whose content goes through `DATA` as these bytes, see
    /// `Client::data`. The replies after it.
    pub fn deliver_by_data(&mut self, recipients: &[&str], content: &[u8]) -> Vec<Reply> {
        self.envelope("", recipients);
        self.content_by_data(recipients, content)
    }

    /// The second half of [`Client::deliver_by_data`].
    pub fn content_by_data(&mut self, recipients: &[&str], content: &[u8]) -> Vec<Reply> {
        self.data(content);
        recipients.iter().map(|_| self.reply()).collect()
    }

    /// One SMTP transaction whose content goes through `DATA` as these bytes, see
    /// `Client::data`. The reply after it.
    pub fn submit_by_data(&mut self, recipients: &[&str], content: &[u8]) -> Reply {
        self.envelope(" BODY=8BITMIME", recipients);
        self.data(content);
        self.reply()
    }

    /// Sends `DATA` and these bytes: only dots behind CRLF are doubled, and a last CRLF is added
    /// where there is none.
    fn data(&mut self, content: &[u8]) {
        assert_eq!(self.command("DATA").code, 354);
        let mut wire = Vec::with_capacity(content.len() + 5);
        for (at, &byte) in content.iter().enumerate() {
            if byte == b'.' && (at == 0 || content[..at].ends_with(b"\r\n")) {
                wire.push(b'.');
            }
            wire.push(byte);
        }
        if !content.is_empty() && !content.ends_with(b"\r\n") {
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b".\r\n");
        self.send(&wire).expect("the server takes data");
    }

    /// One LMTP transaction whose content goes through `BDAT` in chunks of that many bytes, with
    /// further parameters of `MAIL`. The replies after the last one.
    pub fn deliver_by_chunks(
        &mut self,
        parameters: &str,
        recipients: &[&str],
        content: &[u8],
        chunk_bytes: usize,
    ) -> Vec<Reply> {
        self.envelope(parameters, recipients);
        for chunk in content.chunks(chunk_bytes) {
            let command = format!("BDAT {}\r\n", chunk.len());
            let command = [command.as_bytes(), chunk].concat();
            self.send(&command).expect("the server takes a chunk");
            let reply = self.reply();
            assert_eq!(reply.code, 250, "{reply}");
        }
        self.send(b"BDAT 0 LAST\r\n").expect("the server listens");
        recipients.iter().map(|_| self.reply()).collect()
    }

    /// `MAIL`, and `RCPT` with each recipient as its own original.
    pub fn envelope_with_orcpt(&mut self, recipients: &[&str]) {
        self.envelope("", &[]);
        for recipient in recipients {
            let orcpt = format!("ORCPT=rfc822;{}", recipient.replace('+', "+2B"));
            let reply = self.command(format!("RCPT TO:<{recipient}> {orcpt}"));
            assert_eq!(reply.code, 250, "{reply}");
        }
    }

    fn envelope(&mut self, parameters: &str, recipients: &[&str]) {
        let mail = self.command(format!("MAIL FROM:<s@client.example>{parameters}"));
        assert_eq!(mail.code, 250, "{mail}");
        for recipient in recipients {
            let reply = self.command(format!("RCPT TO:<{recipient}>"));
            assert_eq!(reply.code, 250, "{reply}");
        }
    }

    /// One SMTP transaction with more parameters than paths; the last reply, or the first that
    /// is not a success.
    pub fn submit(&mut self, mail: &str, recipients: &[String], content: &[u8]) -> Reply {
        let mut commands = vec![format!("MAIL FROM:{mail}")];
        commands.extend(recipients.iter().map(|r| format!("RCPT TO:{r}")));
        commands.push("DATA".into());
        for command in commands {
            let reply = self.command(&command);
            if reply.code >= 400 {
                self.command("RSET");
                return reply;
            }
        }
        self.send(&dot_stuffed(content))
            .expect("the server takes data");
        self.reply()
    }

    /// Waits until the server closes the connection, reading what it still says.
    pub fn rest(&mut self) -> String {
        String::from_utf8_lossy(&self.dialogue.rest()).into_owned()
    }

    /// Gives up sending and reading when the server takes or says nothing for so long.
    pub fn set_timeouts(&mut self, timeout: Duration) {
        let timeout = Some(timeout);
        let set = match &self.dialogue.stream {
            Socket::Unix(s) => s
                .set_read_timeout(timeout)
                .and_then(|()| s.set_write_timeout(timeout)),
            Socket::Inet(s) => s
                .set_read_timeout(timeout)
                .and_then(|()| s.set_write_timeout(timeout)),
        };
        set.expect("a socket takes a timeout");
    }

    /// Tells the server that nothing more comes.
    pub fn close_writing(&mut self) {
        let _ = match &self.dialogue.stream {
            Socket::Unix(s) => s.shutdown(Shutdown::Write),
            Socket::Inet(s) => s.shutdown(Shutdown::Write),
        };
    }
}

/// Content in wire form: lines end with CRLF, leading dots are doubled, CRLF.CRLF at the end.
/// Only LF without CR before it is turned into CRLF; a missing last line end is added.
pub fn dot_stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + content.len() / 16 + 5);
    for line in content.split_inclusive(|&b| b == b'\n') {
        if line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        wire.extend_from_slice(text);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}
