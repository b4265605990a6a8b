//! Status is data: reply code, enhanced status code and exit status of one outcome.
//!
//! Invariant: the class of the enhanced code always agrees with the first digit of the reply code.
//! Sources: RFC 5321 section 4.2, RFC 3463, sysexits(3), Postfix pipe(8).

use std::borrow::Cow;
use std::fmt;

/// An enhanced mail system status code (RFC 3463), for example `4.3.5`.
///
/// ```
/// use mailstow_engine::EnhancedCode;
///
/// let code = EnhancedCode::new(5, 1, 1);
/// assert_eq!(code.to_string(), "5.1.1");
/// assert_eq!(EnhancedCode::split("5.1.1 unknown"), Some((code, "unknown")));
/// assert_eq!(EnhancedCode::split("5.1 unknown"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// What the status is about (mailbox, system, protocol, policy ...).
    pub subject: u16,
    /// The precise condition.
    pub detail: u16,
}

impl EnhancedCode {
    /// `class.subject.detail`
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        assert!(
            class == 2 || class == 4 || class == 5,
            "RFC 3463 knows classes 2, 4 and 5"
        );
        Self {
            class,
            subject,
            detail,
        }
    }

    /// Splits `class.subject.detail` and the white space after it off the beginning of a text;
    /// `None` when the text does not begin with a code.
    pub fn split(text: &str) -> Option<(Self, &str)> {
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let mut parts = first.split('.');
        let mut number = || {
            let part = parts.next()?;
            let is_number =
                (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| part.parse::<u16>().ok()).flatten()
        };
        let (class, subject, detail) = (number()?, number()?, number()?);
        let class = u8::try_from(class).ok()?;
        let is_code = matches!(class, 2 | 4 | 5) && parts.next().is_none();
        is_code.then(|| (Self::new(class, subject, detail), rest.trim_start()))
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The outcome of one command or of one recipient's delivery, as SMTP states it.
///
/// A failure of mailstow or its machine is 4xx; 5xx only for the mail's or the recipient's fault.
///
/// ```
/// use mailstow_engine::{EnhancedCode, Status};
///
/// let status = Status::new(452, EnhancedCode::new(4, 3, 1), "The disk is full");
/// assert_eq!(status.to_string(), "452 4.3.1 The disk is full");
/// assert!(status.is_temporary());
/// assert_eq!(status.sysexits(), 75);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// Reply code (RFC 5321 section 4.2.1), for example 451.
    pub code: u16,
    /// Enhanced status code.
    pub enhanced: EnhancedCode,
    /// Human-readable text on one line.
    pub text: Cow<'static, str>,
}

impl Status {
    /// A status; `code` and `enhanced` must be of the same class. The text is cleaned of line
    /// breaks and control characters, so that it cannot break a reply or a log line.
    pub fn new(code: u16, enhanced: EnhancedCode, text: impl Into<Cow<'static, str>>) -> Self {
        debug_assert_eq!(
            code / 100,
            u16::from(enhanced.class),
            "reply and enhanced class differ"
        );
        let text = text.into();
        let text = if text.contains(char::is_control) {
            Cow::Owned(text.replace(char::is_control, " "))
        } else {
            text
        };
        Self {
            code,
            enhanced,
            text,
        }
    }

    /// `250 2.0.0`
    pub fn ok(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(250, EnhancedCode::new(2, 0, 0), text)
    }

    /// `451 4.3.5`: our configuration or tables are wrong; the mail is kept by the sender.
    pub fn configuration(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(451, EnhancedCode::new(4, 3, 5), text)
    }

    /// `451 4.3.0`: a failure of mailstow or its machine that is not the configuration.
    pub fn system(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(451, EnhancedCode::new(4, 3, 0), text)
    }

    /// `451 4.2.0`: this mailbox cannot take mail now.
    pub fn mailbox(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(451, EnhancedCode::new(4, 2, 0), text)
    }

    /// `452 4.3.1`: the file system is full.
    pub fn storage_full(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(452, EnhancedCode::new(4, 3, 1), text)
    }

    /// `550 5.1.1`: no such recipient.
    pub fn unknown_user(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(550, EnhancedCode::new(5, 1, 1), text)
    }

    /// `552 5.2.2`: the mailbox is over its limit.
    pub fn mailbox_full(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(552, EnhancedCode::new(5, 2, 2), text)
    }

    /// Returns what a text of the `error:` or `retry:` transport says: `D.S.N text`, or a text.
    /// Of a code whose class is not that of the transport, only the rest counts.
    pub(crate) fn refused(text: &str, is_temporary: bool) -> Self {
        let ((subject, detail), text) = match EnhancedCode::split(text) {
            Some((code, rest)) => ((code.subject, code.detail), rest),
            None => ((0, 0), text),
        };
        let (reply, class) = if is_temporary { (450, 4) } else { (550, 5) };
        let code = EnhancedCode::new(class, subject, detail);
        Self::new(reply, code, text.trim().to_owned())
    }

    /// True for 2xx.
    pub fn is_success(&self) -> bool {
        self.enhanced.class == 2
    }

    /// True for 4xx: the sender keeps the mail and tries again.
    pub fn is_temporary(&self) -> bool {
        self.enhanced.class == 4
    }

    /// True for 5xx: the sender returns the mail.
    pub fn is_permanent(&self) -> bool {
        self.enhanced.class == 5
    }

    /// The exit status by which Postfix pipe(8) understands this outcome (sysexits(3)).
    ///
    /// pipe(8) takes only 71 and 75 as temporary, so every temporary failure is 75.
    pub fn sysexits(&self) -> i32 {
        match (
            self.enhanced.class,
            self.enhanced.subject,
            self.enhanced.detail,
        ) {
            (2, _, _) => 0,
            (4, _, _) => 75,             // EX_TEMPFAIL
            (_, 1, 1) => 67,             // EX_NOUSER
            (_, 1, _) => 68,             // EX_NOHOST: address cannot be served
            (_, 2, _) => 73,             // EX_CANTCREAT: mailbox refuses
            (_, 6, _) => 65,             // EX_DATAERR: the message itself
            (_, 7, _) => 77,             // EX_NOPERM: policy
            (_, 3, 4) | (_, 5, _) => 65, // message too large, syntax: the input
            _ => 69,                     // EX_UNAVAILABLE
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.code, self.enhanced, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_text_never_breaks_the_reply_line() {
        let status = Status::system("first\r\n250 2.0.0 forged");
        assert_eq!(status.to_string(), "451 4.3.0 first  250 2.0.0 forged");
    }

    #[test]
    fn every_temporary_status_exits_with_ex_tempfail() {
        for status in [
            Status::configuration("c"),
            Status::system("s"),
            Status::mailbox("m"),
            Status::storage_full("f"),
        ] {
            assert!(status.is_temporary());
            assert_eq!(status.sysexits(), 75, "{status}");
        }
        assert_eq!(Status::unknown_user("u").sysexits(), 67);
        assert_eq!(Status::mailbox_full("q").sysexits(), 73);
        assert_eq!(Status::ok("k").sysexits(), 0);
    }
}
