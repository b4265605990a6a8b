//! The envelope of one transaction, in the form in which it is sent.
//!
//! Does no I/O. Sources: RFC 5321 section 4.1.1, RFC 3461 section 4 (xtext), XFORWARD_README.

use super::opening::Extensions;
use mailstow_engine::transport::{Notify, RecipientDsn, Returned};
use mailstow_engine::{Recipient, octets};

/// Longest value of an attribute of XFORWARD (XFORWARD_README).
const FORWARDED_BYTES_MAX: usize = 255;

/// An address as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    bytes: Vec<u8>,
}

impl Path {
    /// The path of an address in external form; empty for the null reverse-path.
    pub(crate) fn new(external: &str) -> Self {
        let bytes = octets::octets(external).into_owned();
        Self { bytes }
    }

    /// True when it can stand in a command. One with control characters cannot.
    pub(super) fn is_sendable(&self) -> bool {
        !self.bytes.iter().any(|byte| byte.is_ascii_control())
    }

    /// True when a server must offer SMTPUTF8 to be sent it.
    pub(super) fn needs_utf8(&self) -> bool {
        !self.bytes.is_ascii()
    }
}

/// One recipient.
#[derive(Clone, Debug)]
pub(crate) struct Rcpt {
    /// Its address.
    pub(crate) path: Path,
    /// The original recipient: address type and address, joined by `;`.
    pub(crate) original: Option<String>,
    /// Which notices the sender wants.
    pub(crate) notify: Option<Notify>,
}

impl Rcpt {
    /// The recipient, with what the sender asks for it.
    pub(crate) fn new(recipient: Recipient, dsn: Option<&RecipientDsn>) -> Self {
        let asked = dsn.map(|dsn| dsn.original.clone());
        let known = || Some(format!("rfc822;{}", recipient.original?));
        Self {
            path: Path::new(&recipient.address.external()),
            original: asked.filter(|asked| !asked.is_empty()).or_else(known),
            notify: dsn.and_then(|dsn| dsn.notify),
        }
    }
}

/// What is known of where the message comes from, for XFORWARD.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forwarded {
    /// Attribute and value, those without value left out.
    pub(crate) attributes: Vec<(&'static str, String)>,
}

/// What all recipients of a transaction share.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) sender: Path,
    /// Bytes of the message as it is sent, about.
    pub(crate) size: u64,
    /// What the sender calls the message.
    pub(crate) envelope_id: Option<String>,
    /// What a failure notice returns.
    pub(crate) returned: Option<Returned>,
    pub(crate) forwarded: Forwarded,
}

/// Appends `XFORWARD` with what the server asks for; false when there is nothing to say.
pub(super) fn xforward(out: &mut Vec<u8>, forwarded: &Forwarded, extensions: &Extensions) -> bool {
    let start = out.len();
    for (name, value) in &forwarded.attributes {
        if !extensions.xforward.iter().any(|offered| offered == name) {
            continue;
        }
        if out.len() == start {
            out.extend_from_slice(b"XFORWARD");
        }
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        let value = octets::octets(value);
        let value = value.get(..FORWARDED_BYTES_MAX).unwrap_or(&value);
        push_xtext(out, value);
    }
    let is_said = out.len() > start;
    if is_said {
        out.extend_from_slice(b"\r\n");
    }
    is_said
}

/// Appends `MAIL FROM`. `utf8`: some address of the transaction needs it.
pub(super) fn mail(out: &mut Vec<u8>, envelope: &Envelope, extensions: &Extensions, utf8: bool) {
    out.extend_from_slice(b"MAIL FROM:<");
    out.extend_from_slice(&envelope.sender.bytes);
    out.push(b'>');
    if extensions.size.is_some() {
        out.extend_from_slice(format!(" SIZE={}", envelope.size).as_bytes());
    }
    if extensions.eight_bit {
        out.extend_from_slice(b" BODY=8BITMIME");
    }
    if utf8 {
        out.extend_from_slice(b" SMTPUTF8");
    }
    if extensions.dsn {
        match envelope.returned {
            Some(Returned::Full) => out.extend_from_slice(b" RET=FULL"),
            Some(Returned::Headers) => out.extend_from_slice(b" RET=HDRS"),
            None => {}
        }
        if let Some(id) = envelope.envelope_id.as_ref().filter(|id| !id.is_empty()) {
            out.extend_from_slice(b" ENVID=");
            push_xtext(out, &octets::octets(id));
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends `RCPT TO`.
pub(super) fn rcpt(out: &mut Vec<u8>, rcpt: &Rcpt, extensions: &Extensions) {
    out.extend_from_slice(b"RCPT TO:<");
    out.extend_from_slice(&rcpt.path.bytes);
    out.push(b'>');
    if extensions.dsn {
        if let Some(notify) = rcpt.notify {
            out.extend_from_slice(format!(" NOTIFY={notify}").as_bytes());
        }
        if let Some((kind, original)) = typed(rcpt) {
            out.extend_from_slice(format!(" ORCPT={kind};").as_bytes());
            match kind.eq_ignore_ascii_case("utf-8") {
                true => push_utf8_address(out, original),
                false => push_xtext(out, &octets::octets(original)),
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The original recipient with its type, which is a word.
fn typed(rcpt: &Rcpt) -> Option<(&str, &str)> {
    let (kind, original) = rcpt.original.as_ref()?.split_once(';')?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_word = !kind.is_empty() && kind.chars().all(is_part);
    (is_word && !original.is_empty()).then_some((kind, original))
}

/// Appends an address of type utf-8 in ASCII (RFC 6533 section 3, `utf-8-addr-xtext`).
fn push_utf8_address(out: &mut Vec<u8>, address: &str) {
    for c in address.chars() {
        match c {
            '+' | '=' | '\\' => {
                out.extend_from_slice(format!("\\x{{{:X}}}", u32::from(c)).as_bytes())
            }
            '!'..='~' => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => out.extend_from_slice(format!("\\x{{{:X}}}", u32::from(c)).as_bytes()),
        }
    }
}

/// Appends xtext: what could end the value is written as `+` and two hexadecimal digits.
fn push_xtext(out: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        match byte {
            b'+' | b'=' => out.extend_from_slice(format!("+{byte:02X}").as_bytes()),
            b'!'..=b'~' => out.push(*byte),
            _ => out.extend_from_slice(format!("+{byte:02X}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_breaks_out_of_its_command() {
        assert!(!Path::new("\"a\\\rRSET\"@b").is_sendable());
        assert!(!Path::new("a\nb").is_sendable());
        assert!(Path::new("").is_sendable() && Path::new("ü@b").is_sendable());
    }

    #[test]
    fn an_original_recipient_is_sent_as_xtext_where_dsn_is_offered() {
        let mut extensions = Extensions::default();
        let to = Rcpt {
            path: Path::new("a@b"),
            original: Some("rfc822;x+y z=\u{fc}@b".into()),
            notify: None,
        };
        let line = |extensions: &Extensions| {
            let mut out = Vec::new();
            rcpt(&mut out, &to, extensions);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(line(&extensions), "RCPT TO:<a@b>\r\n");
        extensions.dsn = true;
        let wanted = "RCPT TO:<a@b> ORCPT=rfc822;x+2By+20z+3D+C3+BC@b\r\n";
        assert_eq!(line(&extensions), wanted);
    }

    #[test]
    fn what_the_sender_asks_for_is_handed_on_where_dsn_is_offered() {
        let mut extensions = Extensions::default();
        let envelope = Envelope {
            sender: Path::new("s@x"),
            size: 1,
            envelope_id: Some("id+1".into()),
            returned: Some(Returned::Headers),
            forwarded: Forwarded::default(),
        };
        let recipient = Recipient {
            address: mailstow_engine::address::Address::new("a", Some("b")),
            original: Some("o@x".into()),
        };
        let notify = Notify {
            failure: true,
            delay: true,
            ..Notify::default()
        };
        let dsn = |original: &str| RecipientDsn {
            notify: Some(notify),
            original: original.into(),
        };
        let lines = |extensions: &Extensions, dsn: Option<&RecipientDsn>| {
            let mut out = Vec::new();
            mail(&mut out, &envelope, extensions, false);
            rcpt(&mut out, &Rcpt::new(recipient.clone(), dsn), extensions);
            String::from_utf8(out).unwrap()
        };
        let plain = "MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\r\n";
        assert_eq!(lines(&extensions, Some(&dsn(""))), plain);
        extensions.dsn = true;
        for (original, shown) in [
            ("", "rfc822;o@x"),
            ("x400;/a=b", "x400;/a+3Db"),
            ("utf-8;\u{fc}=@x", "utf-8;\\x{FC}\\x{3D}@x"),
        ] {
            let wanted = format!(
                "MAIL FROM:<s@x> RET=HDRS ENVID=id+2B1\r\n\
                 RCPT TO:<a@b> NOTIFY=FAILURE,DELAY ORCPT={shown}\r\n"
            );
            assert_eq!(lines(&extensions, Some(&dsn(original))), wanted);
        }
        let without = "MAIL FROM:<s@x> RET=HDRS ENVID=id+2B1\r\nRCPT TO:<a@b> ORCPT=rfc822;o@x\r\n";
        assert_eq!(lines(&extensions, None), without);
    }

    #[test]
    fn xforward_tells_what_the_server_asks_for() {
        let forwarded = Forwarded {
            attributes: vec![("NAME", "a b".into()), ("IDENT", "4F\r\n1".into())],
        };
        let mut extensions = Extensions::default();
        let mut out = Vec::new();
        assert!(!xforward(&mut out, &forwarded, &extensions) && out.is_empty());
        extensions.xforward = vec!["IDENT".into(), "ADDR".into()];
        assert!(xforward(&mut out, &forwarded, &extensions));
        assert_eq!(out, b"XFORWARD IDENT=4F+0D+0A1\r\n");
    }
}
