//! Command lines: what is read from one is read again from the same command in our own spelling.

use crate::command::{
    Body, Command, Forwarded, ForwardedName, MailCommand, Paths, RcptCommand, parse,
};
use mailstow_engine::transport::{RecipientDsn, Returned};
use mailstow_engine::{ReversePath, octets};

/// Most bytes that one byte of a line becomes in the texts of a command: an octet that is no UTF-8
/// is kept as a character of four bytes.
const GROWTH_MAX: usize = 4;
/// Bytes that come from no byte of the line: two quotes, and the type of an original recipient.
const ADDED_MAX: usize = 2 + "rfc822;".len();

/// Parses each line of `bytes` as a command, with strict and lenient paths. It is a command or
/// refused.
///
/// # Panics
/// A reply that refuses it is no error, or spans lines; or a command is another one when it is
/// written and parsed again, or takes more memory than its line allows.
pub fn check_command(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        for paths in [Paths::Strict, Paths::Lenient] {
            match parse(line, paths) {
                Ok(command) => {
                    check_texts(&command, line.len());
                    check_again(&command, line);
                }
                Err(refusal) => {
                    let mut written = Vec::new();
                    refusal.reply.write(&mut written);
                    assert!(written.starts_with(b"5"), "{}", written.escape_ascii());
                    let newlines = written.iter().filter(|byte| **byte == b'\n').count();
                    assert_eq!(newlines, 1, "{}", written.escape_ascii());
                }
            }
        }
    }
}

/// # Panics
/// A text of the command is longer than a line of so many bytes allows.
fn check_texts(command: &Command, line_bytes: usize) {
    let most = GROWTH_MAX * line_bytes + ADDED_MAX;
    let texts = match command {
        Command::Mail(mail) => mail.texts(),
        Command::Rcpt(rcpt) => {
            let notice = rcpt.dsn.as_ref().map_or(0, |dsn| dsn.original.len());
            let address = rcpt.address.external().len();
            address.max(rcpt.original.len()).max(notice)
        }
        Command::Xforward(all) => {
            let names = all.len();
            assert!(names <= line_bytes, "{names} attributes");
            all.iter().map(|one| one.value.len()).sum()
        }
        _ => 0,
    };
    assert!(
        texts <= most,
        "{texts} bytes of text in {line_bytes}: {command:?}"
    );
}

/// # Panics
/// The command is another one when it is written and parsed again.
fn check_again(command: &Command, line: &[u8]) {
    if !has_spelling(command) {
        return;
    }
    let written = written(command);
    for paths in [Paths::Strict, Paths::Lenient] {
        let again = parse(&written, paths);
        assert_eq!(
            again.as_ref(),
            Ok(command),
            "{} as {}",
            line.escape_ascii(),
            written.escape_ascii()
        );
    }
}

/// Whether some spelling of the command tells where its path ends. A domain cannot be quoted: with
/// `>` and a blank in it, what follows may be parameters.
fn has_spelling(command: &Command) -> bool {
    let address = match command {
        Command::Mail(mail) => match &mail.reverse_path {
            ReversePath::Null => None,
            ReversePath::Address(address) => Some(address),
        },
        Command::Rcpt(rcpt) => Some(&rcpt.address),
        _ => None,
    };
    let domain = address.and_then(|address| address.domain.as_deref());
    domain.is_none_or(|domain| !domain.contains("> ") && !domain.contains(">\t"))
}

/// The command as a client would write it.
fn written(command: &Command) -> Vec<u8> {
    let text = match command {
        Command::Lhlo => "LHLO client.example".to_owned(),
        Command::Mail(mail) => written_mail(mail),
        Command::Rcpt(rcpt) => written_rcpt(rcpt),
        Command::Data => "DATA".to_owned(),
        Command::Bdat { octets, last } => {
            format!("BDAT {octets}{}", if *last { " LAST" } else { "" })
        }
        Command::Rset => "RSET".to_owned(),
        Command::Noop => "NOOP".to_owned(),
        Command::Vrfy => "VRFY".to_owned(),
        Command::Quit => "QUIT".to_owned(),
        Command::Xforward(attributes) => written_xforward(attributes),
    };
    octets::octets(&text).into_owned()
}

fn written_mail(mail: &MailCommand) -> String {
    let mut text = format!("MAIL FROM:<{}>", mail.reverse_path.external());
    if let Some(size) = mail.size {
        text.push_str(&format!(" SIZE={size}"));
    }
    text.push_str(match mail.body {
        Body::SevenBit => "",
        Body::EightBitMime => " BODY=8BITMIME",
        Body::BinaryMime => " BODY=BINARYMIME",
    });
    if mail.smtputf8 {
        text.push_str(" SMTPUTF8");
    }
    if let Some(id) = &mail.envelope_id {
        text.push_str(&format!(" ENVID={}", xtext(id)));
    }
    text.push_str(match mail.returned {
        Some(Returned::Full) => " RET=FULL",
        Some(Returned::Headers) => " RET=HDRS",
        None => "",
    });
    if !mail.sasl_sender.is_empty() {
        text.push_str(&format!(" AUTH={}", xtext(&mail.sasl_sender)));
    }
    text
}

fn written_rcpt(rcpt: &RcptCommand) -> String {
    let mut text = format!("RCPT TO:<{}>", rcpt.address.external());
    match &rcpt.dsn {
        Some(RecipientDsn { notify, original }) => {
            text.push_str(&format!(" NOTIFY={}", notify.unwrap_or_default()));
            if let Some((kind, decoded)) = original.split_once(';') {
                let encoded = match kind.eq_ignore_ascii_case("utf-8") {
                    true => utf8_address(decoded),
                    false => xtext(decoded),
                };
                text.push_str(&format!(" ORCPT={kind};{encoded}"));
            }
        }
        None if rcpt.original.is_empty() => {}
        None => text.push_str(&format!(" ORCPT=rfc822;{}", xtext(&rcpt.original))),
    }
    text
}

fn written_xforward(attributes: &[Forwarded]) -> String {
    let mut text = "XFORWARD".to_owned();
    for Forwarded { name, value } in attributes {
        let name = match name {
            ForwardedName::Name => "NAME",
            ForwardedName::Addr => "ADDR",
            ForwardedName::Port => "PORT",
            ForwardedName::Proto => "PROTO",
            ForwardedName::Helo => "HELO",
            ForwardedName::Ident => "IDENT",
            ForwardedName::Source => "SOURCE",
        };
        text.push_str(&format!(" {name}={}", xtext(value)));
    }
    if attributes.is_empty() {
        text.push_str(" ODD");
    }
    text
}

/// Encodes all but letters and digits (RFC 3461 section 4).
fn xtext(plain: &str) -> String {
    let encoded = |byte: &u8| match byte.is_ascii_alphanumeric() {
        true => char::from(*byte).to_string(),
        false => format!("+{byte:02X}"),
    };
    octets::octets(plain).iter().map(encoded).collect()
}

/// Encodes all of ASCII but letters and digits (RFC 6533 section 3).
fn utf8_address(plain: &str) -> String {
    let encoded = |c: char| match c.is_ascii_alphanumeric() || !c.is_ascii() {
        true => c.to_string(),
        false => format!("\\x{{{:X}}}", u32::from(c)),
    };
    plain.chars().map(encoded).collect()
}
