//! Quoting of local parts.
//!
//! Source: RFC 5321 section 4.1.2 (Dot-string, Quoted-string), RFC 6531 section 3.3 (UTF-8 in
//! both).

use std::borrow::Cow;

/// True for characters that may stand in a local part without quotes.
pub(super) const fn is_atom_char(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => true,
        '!' | '#'..='\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^'..='`' | '{'..='~' => true,
        c => !c.is_ascii(),
    }
}

/// This byte may stand in an atom; all those of characters beyond ASCII may.
const ATOM: u8 = 1;
/// It may stand in one that is its own folded form.
const FOLDED_ATOM: u8 = 2;
/// It may stand in a domain that is its own folded form.
const FOLDED_DOMAIN: u8 = 4;

const BYTES: [u8; 256] = {
    let mut classes = [ATOM; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        let mut class = 0;
        if is_atom_char(byte as char) {
            class |= ATOM;
            if !byte.is_ascii_uppercase() {
                class |= FOLDED_ATOM;
            }
        }
        if matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-') {
            class |= FOLDED_DOMAIN;
        }
        // A byte indexes 256 places.
        #[allow(clippy::indexing_slicing, reason = "evaluated at compile time")]
        {
            classes[byte as usize] = class;
        }
        byte += 1;
    }
    classes
};

#[inline]
fn class(byte: u8) -> u8 {
    BYTES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Atoms with single dots between them.
fn is_dot_string(text: &str) -> bool {
    dot_string_classes(text) & ATOM != 0
}

/// As [`is_dot_string`], of ASCII without capitals.
pub(super) fn is_folded_dot_string(text: &str) -> bool {
    dot_string_classes(text) & FOLDED_ATOM != 0
}

/// What all atoms of a dot-string have in common; 0 if it is none.
#[inline]
fn dot_string_classes(text: &str) -> u8 {
    let (mut after_dot, mut common) = (true, ATOM | FOLDED_ATOM);
    for byte in text.bytes() {
        let is_dot = byte == b'.';
        common &= match (is_dot, after_dot) {
            (false, _) => class(byte),
            (true, false) => common,
            (true, true) => 0,
        };
        after_dot = is_dot;
    }
    if after_dot { 0 } else { common }
}

/// Letters without capitals, digits and `.`, `_`, `-`, and not empty.
pub(super) fn is_folded_domain(text: &str) -> bool {
    let common = text
        .bytes()
        .fold(FOLDED_DOMAIN, |common, byte| common & class(byte));
    common != 0 && !text.is_empty()
}

/// The external form of a local part: as it is when it is a dot-string, else quoted.
pub fn quote_local_part(local_part: &str) -> Cow<'_, str> {
    if is_dot_string(local_part) {
        return Cow::Borrowed(local_part);
    }
    let mut quoted = String::with_capacity(local_part.len() + 2);
    quoted.push('"');
    for c in local_part.chars() {
        if c == '"' || c == '\\' || c == '\r' || c == '\n' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Cow::Owned(quoted)
}

/// The internal form of a local part or address: quotes removed, backslash escapes resolved.
pub fn unquote(text: &str) -> Cow<'_, str> {
    if !text.contains(['"', '\\']) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {}
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

/// An address in external form, from its internal form; the domain is what follows the last `@`.
/// A source route in front stays as it is.
pub fn quote_address(internal: &str) -> Cow<'_, str> {
    let (route, address) = internal.split_at(source_route_bytes(internal));
    let (local_part, domain) = match address.rfind('@') {
        Some(at) => address.split_at(at),
        None => (address, ""),
    };
    match quote_local_part(local_part) {
        Cow::Borrowed(_) => Cow::Borrowed(internal),
        Cow::Owned(quoted) => Cow::Owned(format!("{route}{quoted}{domain}")),
    }
}

/// Length of `@a,@b:` in front of an address.
pub(super) fn source_route_bytes(address: &str) -> usize {
    if address.starts_with('@') {
        address.find(':').map_or(0, |colon| colon + 1)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::{quote_address, quote_local_part, unquote};

    #[test]
    fn only_what_needs_quotes_is_quoted() {
        for (internal, external) in [
            ("info", "info"),
            ("first.last", "first.last"),
            ("a b", "\"a b\""),
            ("x.y.", "\"x.y.\""),
            ("", "\"\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("user@domain.tld", "\"user@domain.tld\""),
            ("ünïcode", "ünïcode"),
        ] {
            assert_eq!(quote_local_part(internal), external);
            assert_eq!(unquote(external), internal);
        }
    }

    #[test]
    fn whole_addresses_are_quoted_up_to_their_last_at_sign() {
        for (internal, external) in [
            ("a@b", "a@b"),
            ("a b@c", "\"a b\"@c"),
            (
                "user@domain.tld@auto.example",
                "\"user@domain.tld\"@auto.example",
            ),
            ("a\"b@c", "\"a\\\"b\"@c"),
            ("no domain", "\"no domain\""),
            ("a@", "a@"),
            ("@c", "\"\"@c"),
        ] {
            assert_eq!(quote_address(internal), external);
        }
    }
}
