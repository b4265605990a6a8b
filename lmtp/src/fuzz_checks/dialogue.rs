//! A model of a dialogue that knows framing alone.

use super::content::{data_end, joined_lines, unstuffed};
use std::collections::VecDeque;

/// Longest line of a reply, in bytes: it may name an address, which is no longer than a path.
const REPLY_BYTES_MAX: usize = 4096;

/// Follows a dialogue.
pub(super) struct Model {
    replies: VecDeque<u16>,
    line_bytes_max: usize,
    is_in_mail: bool,
    recipients: usize,
    /// Content of the chunks so far.
    chunks: Vec<u8>,
    taken: Taken,
}

/// What the replies say that was taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Deliveries that were acknowledged.
    pub(super) acknowledged: usize,
    /// Contents with an acknowledged delivery.
    pub(super) contents: Vec<Vec<u8>>,
    /// Content whose replies were lost.
    pub(super) unknown: Option<Vec<u8>>,
}

/// The dialogue ends here.
struct End;

impl Model {
    pub(super) fn new(output: &[u8], line_bytes_max: usize) -> Self {
        let mut replies = VecDeque::new();
        for line in output.split_inclusive(|byte| *byte == b'\n') {
            let text = line.escape_ascii().to_string();
            assert!(
                line.ends_with(b"\r\n") || line.len() < 6,
                "a whole line: {text}"
            );
            assert!(
                line.len() <= REPLY_BYTES_MAX,
                "{} bytes: {text}",
                line.len()
            );
            let code = line.get(..3).and_then(|code| str::from_utf8(code).ok());
            let code = code.and_then(|code| code.parse().ok());
            let code = code.unwrap_or_else(|| panic!("a reply code: {text}"));
            if line.get(3) != Some(&b'-') {
                replies.push_back(code);
            }
        }
        Self {
            replies,
            line_bytes_max,
            is_in_mail: false,
            recipients: 0,
            chunks: Vec::new(),
            taken: Taken::default(),
        }
    }

    /// What was acknowledged.
    pub(super) fn follow(mut self, input: &[u8]) -> Taken {
        let mut rest = input;
        assert_eq!(self.replies.pop_front(), Some(220), "the greeting");
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(end + 1);
            rest = behind;
            if self.command(line, &mut rest).is_err() {
                break;
            }
        }
        assert!(
            self.replies.iter().all(|code| *code == 421),
            "replies without a command: {:?}",
            self.replies
        );
        self.taken
    }

    fn reply(&mut self) -> Result<u16, End> {
        match self.replies.pop_front() {
            // The connection was reset before the reply was read, or the session ends.
            None | Some(421) => Err(End),
            Some(code) => Ok(code),
        }
    }

    fn command(&mut self, line: &[u8], rest: &mut &[u8]) -> Result<(), End> {
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        // A CR or NUL within a line refuses it, also where a blank may stand.
        let is_whole = !content.contains(&b'\r') && !content.contains(&b'\0');
        let line = content.trim_ascii_end();
        if line.len() + 2 >= self.line_bytes_max {
            // At the bound the model does not know which of the two it is.
            self.reply()?;
            return Err(End);
        }
        let words = line.split(|byte| *byte == b' ' || *byte == b'\t');
        let verb = words
            .take(1)
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        if verb == b"BDAT" {
            return match is_whole {
                true => self.chunk(line, rest),
                false => self.unreadable_chunk(),
            };
        }
        let code = self.reply()?;
        match (verb.as_slice(), code) {
            (b"MAIL", 250) => {
                assert!(!self.is_in_mail, "a transaction within another");
                self.is_in_mail = true;
            }
            (b"RCPT", 250) => {
                assert!(self.is_in_mail, "a recipient without a transaction");
                self.recipients += 1;
            }
            (b"RSET" | b"LHLO", 250) => self.reset(),
            (b"QUIT", 221) => return Err(End),
            (b"DATA", 354) => {
                assert!(self.recipients > 0, "a message for nobody");
                let end = data_end(rest).ok_or(End)?;
                let (wire, behind) = rest.split_at(end);
                *rest = behind;
                self.message(unstuffed(wire))?;
            }
            (b"DATA", 451) => self.reset(),
            // Without recipients the transaction is over.
            (b"DATA", 503) if self.recipients == 0 => self.reset(),
            _ => {}
        }
        Ok(())
    }

    fn chunk(&mut self, line: &[u8], rest: &mut &[u8]) -> Result<(), End> {
        let text = String::from_utf8_lossy(line).to_ascii_uppercase();
        let words: Vec<&str> = text.split_ascii_whitespace().skip(1).collect();
        let (octets, is_last) = match words.as_slice() {
            [octets] => (octets, false),
            [octets, "LAST"] => (octets, true),
            _ => return self.unreadable_chunk(),
        };
        let is_number = octets.len() < 20 && octets.bytes().all(|byte| byte.is_ascii_digit());
        let Some(octets) = is_number.then(|| octets.parse::<usize>().ok()).flatten() else {
            return self.unreadable_chunk();
        };
        let (chunk, behind) = rest.split_at_checked(octets).ok_or(End)?;
        *rest = behind;
        if !self.is_in_mail {
            return self.reply().map(drop);
        }
        self.chunks.extend_from_slice(chunk);
        match is_last {
            true => {
                let content = joined_lines(&self.chunks);
                self.message(content)
            }
            false => self.reply().map(drop),
        }
    }

    /// Where the next command begins is unknown: one reply, and the session is over.
    fn unreadable_chunk(&mut self) -> Result<(), End> {
        let code = self.reply()?;
        assert!(code == 501 || code == 500, "{code}");
        Err(End)
    }

    /// A message has come: one reply for each recipient.
    fn message(&mut self, content: Vec<u8>) -> Result<(), End> {
        let mut acknowledged = 0;
        for _ in 0..self.recipients {
            match self.replies.pop_front() {
                Some(250) => acknowledged += 1,
                Some(code) => assert!((400..600).contains(&code), "{code}"),
                // The connection was reset: what was acknowledged is unknown.
                None => {
                    self.taken.acknowledged += acknowledged;
                    self.taken.unknown = Some(content);
                    return Err(End);
                }
            }
        }
        self.taken.acknowledged += acknowledged;
        if acknowledged > 0 {
            self.taken.contents.push(content);
        }
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.is_in_mail = false;
        self.recipients = 0;
        self.chunks.clear();
    }
}
