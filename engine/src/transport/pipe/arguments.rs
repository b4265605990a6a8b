//! The argument vector of one delivery: the words of `argv=` with their macros expanded.
//!
//! Source: Postfix pipe(8). There is no shell, and the value of a macro is not expanded again: a
//! `$` in an address stays as it is. A word that names a property of a recipient is repeated for
//! each.

use super::attributes::Flags;
use crate::address::{Address, ExtensionRule, fold_case, parse_mailbox, quote_address};
use crate::envelope::{Recipient, ReversePath};
use crate::mail::Mail;
use crate::octets;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// Part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Macro(Name),
}

/// The names of macros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    ClientAddress,
    ClientHelo,
    ClientHostname,
    ClientPort,
    ClientProtocol,
    Domain,
    EnvelopeId,
    Extension,
    Mailbox,
    Nexthop,
    OriginalRecipient,
    QueueId,
    Recipient,
    /// `sasl_method`, `sasl_username`: known to Postfix, whose LMTP client does not tell them.
    Unavailable,
    SaslSender,
    Sender,
    Size,
    User,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "client_address" => Self::ClientAddress,
            "client_helo" => Self::ClientHelo,
            "client_hostname" => Self::ClientHostname,
            "client_port" => Self::ClientPort,
            "client_protocol" => Self::ClientProtocol,
            "domain" => Self::Domain,
            "extension" => Self::Extension,
            "mailbox" => Self::Mailbox,
            "nexthop" => Self::Nexthop,
            "original_recipient" => Self::OriginalRecipient,
            "queue_id" => Self::QueueId,
            "recipient" => Self::Recipient,
            "envid" => Self::EnvelopeId,
            "sasl_method" | "sasl_username" => Self::Unavailable,
            "sasl_sender" => Self::SaslSender,
            "sender" => Self::Sender,
            "size" => Self::Size,
            "user" => Self::User,
            _ => return None,
        })
    }

    /// A word with it is repeated for each recipient.
    fn is_of_recipient(self) -> bool {
        matches!(
            self,
            Self::Domain
                | Self::Extension
                | Self::Mailbox
                | Self::OriginalRecipient
                | Self::Recipient
                | Self::User
        )
    }
}

/// The words of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    words: Vec<Vec<Part>>,
}

/// The values for the words of one delivery.
pub(super) struct Delivery<'a> {
    pub(super) mail: &'a Mail,
    pub(super) nexthop: &'a str,
    pub(super) recipients: &'a [&'a Recipient],
    pub(super) flags: Flags,
    pub(super) null_sender: &'a str,
    pub(super) extensions: &'a ExtensionRule,
}

impl Template {
    /// Reads the words of a command.
    ///
    /// # Errors
    /// A macro is not known, or not closed.
    pub(super) fn parse(argv: &[String]) -> Result<Self, String> {
        let words: Result<_, _> = argv.iter().map(|word| parse_word(word)).collect();
        Ok(Self { words: words? })
    }

    /// Returns the words for a delivery.
    pub(super) fn expand(&self, delivery: &Delivery<'_>) -> Vec<OsString> {
        let mut argv = Vec::new();
        for word in &self.words {
            let is_repeated = word.iter().any(|part| match part {
                Part::Text(_) => false,
                Part::Macro(name) => name.is_of_recipient(),
            });
            if !is_repeated {
                argv.extend(expand_word(word, delivery, None));
                continue;
            }
            for recipient in delivery.recipients {
                argv.extend(expand_word(word, delivery, Some(recipient)));
            }
        }
        argv
    }
}

fn parse_word(word: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        text.push_str(before);
        rest = after.strip_prefix('$').unwrap_or_default();
        if let Some(after) = rest.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let (name, after) = macro_name(rest).ok_or_else(|| {
            format!("a macro in \"{word}\" is not closed; add the missing bracket")
        })?;
        rest = after;
        let name = Name::parse(name).ok_or_else(|| {
            format!("unknown macro \"{name}\" in \"{word}\"; write $$ for a dollar sign")
        })?;
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(Part::Macro(name));
    }
    text.push_str(rest);
    if !text.is_empty() || parts.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// Splits `name`, `{name}` or `(name)` off a text; `None` when its bracket is not closed.
fn macro_name(text: &str) -> Option<(&str, &str)> {
    let (open, close) = match text.chars().next() {
        Some('{') => ('{', '}'),
        Some('(') => ('(', ')'),
        _ => {
            let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            return Some(text.split_at(end.unwrap_or(text.len())));
        }
    };
    let mut level = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            level += 1;
        } else if c == close {
            level -= 1;
        }
        if level == 0 {
            return Some((text.get(1..at)?, text.get(at + 1..)?));
        }
    }
    None
}

/// Returns the word; `None` for one with `$user` of a recipient whose user is empty, which pipe(8)
/// leaves out.
fn expand_word(
    word: &[Part],
    delivery: &Delivery<'_>,
    recipient: Option<&Recipient>,
) -> Option<OsString> {
    let mut text = String::new();
    for part in word {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Macro(name) => {
                let value = match recipient {
                    Some(recipient) if name.is_of_recipient() => {
                        of_recipient(*name, recipient, delivery)
                    }
                    _ => of_message(*name, delivery),
                };
                if *name == Name::User && value.is_empty() {
                    return None;
                }
                text.push_str(&value);
            }
        }
    }
    // An argument ends at NUL.
    let mut bytes = octets::octets(&text).into_owned();
    bytes.retain(|byte| *byte != 0);
    Some(OsString::from_vec(bytes))
}

fn of_message(name: Name, delivery: &Delivery<'_>) -> String {
    let mail = delivery.mail;
    match name {
        Name::ClientAddress => mail.client.address.clone(),
        Name::ClientHelo => mail.client.helo.clone(),
        Name::ClientHostname => mail.client.name.clone(),
        Name::ClientPort => mail.client.port.clone(),
        Name::ClientProtocol => mail.client.protocol.clone(),
        Name::Nexthop if delivery.flags.fold_domain => fold_case(delivery.nexthop).into_owned(),
        Name::Nexthop => delivery.nexthop.to_owned(),
        Name::QueueId => mail.queue_id.clone().unwrap_or_default(),
        Name::EnvelopeId => mail.dsn.envelope_id.clone().unwrap_or_default(),
        Name::SaslSender => mail.client.sasl_sender.clone(),
        Name::Sender => sender(mail, delivery.flags, delivery.null_sender),
        Name::Size => mail.message.wire_size().to_string(),
        Name::Unavailable
        | Name::Domain
        | Name::Extension
        | Name::Mailbox
        | Name::OriginalRecipient
        | Name::Recipient
        | Name::User => String::new(),
    }
}

fn sender(mail: &Mail, flags: Flags, null_sender: &str) -> String {
    let sender = match &mail.reverse_path {
        ReversePath::Null => null_sender.to_owned(),
        ReversePath::Address(address) => address.internal(),
    };
    match flags.quote_local_part && !sender.is_empty() {
        true => quote_address(&sender).into_owned(),
        false => sender,
    }
}

fn of_recipient(name: Name, recipient: &Recipient, delivery: &Delivery<'_>) -> String {
    let flags = delivery.flags;
    let quoted = |address: String| match flags.quote_local_part {
        true => fold(quote_address(&address).into_owned(), flags),
        false => fold(address, flags),
    };
    let address = &recipient.address;
    let folded = || Address::from_internal(&fold(address.internal(), flags));
    match name {
        Name::Recipient => quoted(address.internal()),
        Name::OriginalRecipient => quoted(original(recipient)),
        Name::Mailbox => folded().local_part,
        Name::Domain => folded().domain.unwrap_or_default(),
        Name::User | Name::Extension => {
            let local_part = folded().local_part;
            let split = delivery.extensions.split(&local_part);
            let is_user = name == Name::User;
            match split {
                Some((user, _)) if is_user => user.to_owned(),
                None if is_user => local_part,
                Some((_, extension)) => {
                    let mut extension = extension.chars();
                    extension.next();
                    extension.as_str().to_owned()
                }
                None => String::new(),
            }
        }
        name => of_message(name, delivery),
    }
}

/// The original recipient in internal form; empty when it is unknown.
pub(super) fn original(recipient: &Recipient) -> String {
    let Some(original) = &recipient.original else {
        return String::new();
    };
    match parse_mailbox(original) {
        Ok(address) => address.internal(),
        Err(_) => original.clone(),
    }
}

fn fold(address: String, flags: Flags) -> String {
    let at = address.rfind('@');
    let (user, domain) = address.split_at(at.unwrap_or(0));
    match (flags.fold_user, flags.fold_domain, at) {
        (false, false, _) => address,
        (false, true, None) => address,
        (true, true, _) | (true, false, None) => fold_case(&address).into_owned(),
        (true, false, Some(_)) => [&fold_case(user), domain].concat(),
        (false, true, Some(_)) => [user, &fold_case(domain)].concat(),
    }
}
