//! Replies of the server, as they come (RFC 5321 section 4.2, RFC 2034).

use mailstow_engine::{EnhancedCode, Status, octets};

/// Longest line and most lines of a reply.
const LINE_BYTES_MAX: usize = 8192;
const LINES_MAX: usize = 128;

/// A reply of one line or more; the text is that of the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) text: String,
    /// All lines, without their codes.
    pub(super) lines: Vec<String>,
}

/// The bytes are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strange;

impl Reply {
    /// Parses a reply at the front of `bytes`, and returns it with its length; `None` while it is
    /// incomplete.
    pub(super) fn take(bytes: &[u8]) -> Result<Option<(Self, usize)>, Strange> {
        let mut at = 0;
        let mut lines = Vec::new();
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(length) = memchr::memchr(b'\n', rest) else {
                return match rest.len() > LINE_BYTES_MAX {
                    true => Err(Strange),
                    false => Ok(None),
                };
            };
            let line = rest.get(..length).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            at += length + 1;
            let (code, text) = line.split_at_checked(3).ok_or(Strange)?;
            let code = str::from_utf8(code).map_err(|_| Strange)?;
            let code: u16 = code.parse().map_err(|_| Strange)?;
            if !(200..600).contains(&code) || lines.len() >= LINES_MAX {
                return Err(Strange);
            }
            let (mark, text) = match text.split_first() {
                None => (b' ', text),
                Some((mark, text)) => (*mark, text),
            };
            lines.push(octets::text(text).into_owned());
            match mark {
                b'-' => {}
                b' ' => {
                    let text = lines.last().cloned().unwrap_or_default();
                    return Ok(Some((Self { code, text, lines }, at)));
                }
                _ => return Err(Strange),
            }
        }
    }

    /// 2xx
    pub(super) fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    /// The server ends the connection.
    pub(super) fn ends_connection(&self) -> bool {
        self.code == 421
    }

    /// Returns its status for a recipient. A code that is neither success nor failure (3xx) becomes
    /// a temporary error.
    pub(super) fn status(&self) -> Status {
        let class = match self.code / 100 {
            2 => 2,
            5 => 5,
            _ => 4,
        };
        let code = if self.code / 100 == 3 { 451 } else { self.code };
        let whole = (EnhancedCode::new(class, 0, 0), self.text.as_str());
        let split = EnhancedCode::split(&self.text).filter(|(code, _)| code.class == class);
        let (enhanced, text) = split.unwrap_or(whole);
        Status::new(code, enhanced, text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_taken_whole_and_say_what_they_are() {
        let wire = b"250-host\r\n250-SIZE 10\r\n250 XFORWARD IDENT\r\n550 5.1.1 <a@b> unknown\r\n4";
        let (hello, length) = Reply::take(wire).unwrap().unwrap();
        assert_eq!(hello.lines, ["host", "SIZE 10", "XFORWARD IDENT"]);
        let (refused, more) = Reply::take(&wire[length..]).unwrap().unwrap();
        assert_eq!(refused.status().to_string(), "550 5.1.1 <a@b> unknown");
        assert_eq!(Reply::take(&wire[length + more..]), Ok(None));
        assert_eq!(Reply::take(b"250-a\r\n250"), Ok(None));
        for nonsense in [
            &b"hello\r\n"[..],
            b"99 x\r\n",
            b"700 x\r\n",
            b"250_x\r\n",
            b"\r\n",
        ] {
            assert_eq!(Reply::take(nonsense), Err(Strange));
        }
    }

    #[test]
    fn a_reply_whose_enhanced_code_is_of_another_class_gets_its_own() {
        let status = |wire: &[u8]| Reply::take(wire).unwrap().unwrap().0.status().to_string();
        assert_eq!(status(b"452 5.3.1 odd\r\n"), "452 4.0.0 5.3.1 odd");
        assert_eq!(status(b"354 go on\r\n"), "451 4.0.0 go on");
        assert_eq!(status(b"250\r\n"), "250 2.0.0 ");
    }
}
