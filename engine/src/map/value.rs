//! A value as the map stores it: a text, a number, or a template that repeats parts of its key.
//!
//! Invariant: what is decoded for the key it was encoded with is the same text, byte for byte.
//! Templates make the values of most recipients equal (`example.com/user/` is "domain / local part
//! /" for all of them), so that they are stored once.

use std::borrow::Cow;

use super::cursor::{Cursor, put_varint};
use super::error::MapError;

const LITERAL: u64 = 0;
const TEMPLATE: u64 = 1;
const NUMBER: u64 = 2;
const USUAL_TEMPLATE: u64 = 3;

// Bytes that no UTF-8 text holds encode parts of the key.
const LOCAL: u8 = 0xf8;
const DOMAIN: u8 = 0xf9;
const KEY: u8 = 0xfa;

/// Templates that take one byte, by number.
const USUAL_TEMPLATES: [&[u8]; 5] = [
    &[DOMAIN, b'/', LOCAL, b'/'],
    &[DOMAIN, b'/', LOCAL],
    &[LOCAL, b'/'],
    &[LOCAL],
    &[KEY],
];

/// Longest text looked at for a template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 512;

/// The parts of a key that a value may repeat: before and after its last `@`.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyParts<'a> {
    pub(super) key: &'a str,
    pub(super) local: &'a str,
    pub(super) domain: Option<&'a str>,
}

impl<'a> KeyParts<'a> {
    #[inline]
    pub(super) fn new(key: &'a str) -> Self {
        match memchr::memrchr(b'@', key.as_bytes()).and_then(|at| key.split_at_checked(at)) {
            Some((local, rest)) => Self {
                key,
                local,
                domain: rest.get(1..),
            },
            None => Self {
                key,
                local: "",
                domain: None,
            },
        }
    }
}

/// Appends `value` of `key` as the map stores it.
pub(super) fn encode(key: KeyParts<'_>, value: &str, out: &mut Vec<u8>) {
    if let Some(number) = canonical_number(value) {
        put_varint(out, number << 2 | NUMBER);
        return;
    }
    if is_usual_maildir(key, value) {
        put_varint(out, USUAL_TEMPLATE);
        return;
    }
    if value.len() <= TEMPLATE_BYTES_MAX {
        let start = out.len();
        // Room for the length of most templates; a longer one is moved.
        out.push(0);
        if fill_template(key, value, out) {
            let template = out.get(start + 1..).unwrap_or_default();
            let usual = (0..)
                .zip(USUAL_TEMPLATES)
                .find(|(_, usual)| *usual == template);
            if let Some((number, _)) = usual {
                out.truncate(start);
                put_varint(out, number << 2 | USUAL_TEMPLATE);
                return;
            }
            let len = (out.len() - start - 1) as u64;
            match (u8::try_from(len << 2 | TEMPLATE), out.get_mut(start)) {
                (Ok(byte @ ..0x80), Some(place)) => *place = byte,
                _ => {
                    let mut head = Vec::new();
                    put_varint(&mut head, len << 2 | TEMPLATE);
                    out.splice(start..=start, head);
                }
            }
            return;
        }
        out.truncate(start);
    }
    put_varint(out, (value.len() as u64) << 2 | LITERAL);
    out.extend_from_slice(value.as_bytes());
}

/// `domain/local part/`, the first of the usual templates: how most installations name their
/// Maildirs.
fn is_usual_maildir(key: KeyParts<'_>, value: &str) -> bool {
    let Some(domain) = key.domain else {
        return false;
    };
    let rest = value.strip_prefix(domain).and_then(|r| r.strip_prefix('/'));
    let local = rest.and_then(|rest| rest.strip_suffix('/'));
    local == Some(key.local) && domain.len() >= 2 && key.local.len() >= 2
}

/// A number whose decimal form is `value` again, and that leaves two bits for the kind.
fn canonical_number(value: &str) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if value.len() > 1 && value.starts_with('0') {
        return None;
    }
    value.parse().ok()
}

/// Appends `value` with parts of `key` replaced; false if it repeats none of them.
fn fill_template(key: KeyParts<'_>, value: &str, out: &mut Vec<u8>) -> bool {
    // Longest part first: the whole key would else be found as its two parts.
    let parts = [
        (KEY, key.key),
        (DOMAIN, key.domain.unwrap_or("")),
        (LOCAL, key.local),
    ];
    let mut rest = value.as_bytes();
    let mut replaced = false;
    while let Some((&first, tail)) = rest.split_first() {
        let found = parts.iter().find_map(|(token, part)| {
            let part = part.as_bytes();
            if part.len() < 2 || part.first() != Some(&first) {
                return None;
            }
            rest.strip_prefix(part).map(|tail| (*token, tail))
        });
        let (byte, tail) = found.unwrap_or((first, tail));
        replaced |= found.is_some();
        out.push(byte);
        rest = tail;
    }
    replaced
}

/// One value of one key, not yet turned into text.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pub(super) key: &'a str,
    pub(super) form: Form<'a>,
    /// Where the record lies in the file, for errors.
    pub(super) offset: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'a> {
    Literal(&'a [u8]),
    Template(&'a [u8]),
    Number(u64),
}

impl<'a> Form<'a> {
    /// Takes one value off `cursor`; `None` if it is damaged.
    #[inline]
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Option<Self> {
        let head = cursor.varint()?;
        match head & 3 {
            NUMBER => Some(Self::Number(head >> 2)),
            LITERAL => Some(Self::Literal(
                cursor.take(usize::try_from(head >> 2).ok()?)?,
            )),
            TEMPLATE => Some(Self::Template(
                cursor.take(usize::try_from(head >> 2).ok()?)?,
            )),
            USUAL_TEMPLATE => {
                let number = usize::try_from(head >> 2).ok()?;
                USUAL_TEMPLATES.get(number).copied().map(Self::Template)
            }
            _ => None,
        }
    }
}

impl<'a> Value<'a> {
    /// The value as text.
    ///
    /// # Errors
    /// [`MapError::Corrupt`] if the stored bytes are not text.
    pub fn text(&self) -> Result<Cow<'a, str>, MapError> {
        match self.form {
            Form::Literal(bytes) => std::str::from_utf8(bytes)
                .map(Cow::Borrowed)
                .map_err(|_| self.corrupt()),
            Form::Number(_) | Form::Template(_) => {
                let mut out = String::new();
                self.append_to(&mut out)?;
                Ok(Cow::Owned(out))
            }
        }
    }

    /// Appends the value's text to `out`: for callers that keep one buffer for many lookups.
    ///
    /// # Errors
    /// [`MapError::Corrupt`] if the stored bytes are not text; `out` may then have grown.
    pub fn append_to(&self, out: &mut String) -> Result<(), MapError> {
        match self.form {
            Form::Literal(bytes) => {
                out.push_str(std::str::from_utf8(bytes).map_err(|_| self.corrupt())?);
            }
            Form::Number(number) => {
                push_number(number, out);
            }
            Form::Template(bytes) => self.fill_in(bytes, out)?,
        }
        Ok(())
    }

    #[inline]
    fn fill_in(&self, mut template: &[u8], out: &mut String) -> Result<(), MapError> {
        let parts = KeyParts::new(self.key);
        if let ([DOMAIN, b'/', LOCAL, b'/'], Some(domain)) = (template, parts.domain) {
            // How most installations name their Maildirs.
            out.reserve(domain.len() + parts.local.len() + 2);
            for piece in [domain, "/", parts.local, "/"] {
                out.push_str(piece);
            }
            return Ok(());
        }
        out.reserve(template.len() + 2 * self.key.len());
        while let Some((&byte, rest)) = template.split_first() {
            let all = std::mem::replace(&mut template, rest);
            match byte {
                LOCAL => out.push_str(parts.local),
                DOMAIN => out.push_str(parts.domain.unwrap_or("")),
                KEY => out.push_str(parts.key),
                ascii if ascii < 0x80 => out.push(char::from(ascii)),
                _ => {
                    let len = all.iter().take_while(|byte| **byte < LOCAL).count();
                    let (text, rest) = all.split_at_checked(len).unwrap_or((all, &[]));
                    if text.is_empty() {
                        return Err(self.corrupt());
                    }
                    out.push_str(std::str::from_utf8(text).map_err(|_| self.corrupt())?);
                    template = rest;
                }
            }
        }
        Ok(())
    }

    /// The value if it is a number in plain decimal form: a uid, a gid, a quota.
    pub fn number(&self) -> Option<u64> {
        match self.form {
            Form::Number(number) => Some(number),
            Form::Literal(_) | Form::Template(_) => None,
        }
    }

    fn corrupt(&self) -> MapError {
        MapError::Corrupt {
            what: "value",
            offset: self.offset,
        }
    }
}

/// Appends `number` in decimal form.
fn push_number(mut number: u64, out: &mut String) {
    // 2^64 has twenty digits.
    let mut digits = [0u8; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10).to_le_bytes()[0];
        used += 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let (_, digits) = digits.split_at(digits.len() - used);
    out.push_str(std::str::from_utf8(digits).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(key: &str, value: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode(KeyParts::new(key), value, &mut out);
        out
    }

    fn read(key: &str, bytes: &[u8]) -> String {
        let mut cursor = Cursor::new(bytes);
        let form = Form::decode(&mut cursor).unwrap();
        assert!(cursor.is_empty());
        let value = Value {
            key,
            form,
            offset: 0,
        };
        value.text().unwrap().into_owned()
    }

    #[test]
    fn values_that_repeat_their_key_are_stored_alike() {
        let first = stored("anna@example.com", "example.com/anna/");
        let second = stored("bert@example.org", "example.org/bert/");
        assert_eq!(first, second);
        assert_eq!(first.len(), 1);
        assert_eq!(read("anna@example.com", &first), "example.com/anna/");
        assert_eq!(read("bert@example.org", &second), "example.org/bert/");
        for value in ["example.com/anna", "anna/", "anna", "anna@example.com"] {
            let bytes = stored("anna@example.com", value);
            assert_eq!(bytes.len(), 1, "{value}");
            assert_eq!(read("anna@example.com", &bytes), value);
        }
        let other = stored("anna@example.com", "mail/example.com/anna/");
        assert_eq!(other.len(), 10);
        assert_eq!(read("anna@example.com", &other), "mail/example.com/anna/");
        assert!(Form::decode(&mut Cursor::new(&[5 << 2 | 3])).is_none());
    }

    #[test]
    fn numbers_keep_their_spelling() {
        for value in [
            "0",
            "5000",
            "00",
            "0123",
            "999999999999999999",
            "-1",
            "1e3",
            "",
        ] {
            assert_eq!(read("k", &stored("k", value)), value);
        }
        assert_eq!(stored("k", "5000").len(), 3);
        assert_eq!(read("k", &stored("k", "9999999999999999999999")).len(), 22);
    }

    proptest::proptest! {
        #[test]
        fn every_value_is_read_as_it_was_written(
            key in "[a-c@.é]{0,6}", value in "[a-c@./é0-9]{0,40}", whole in "\\PC*",
        ) {
            assert_eq!(read(&key, &stored(&key, &value)), value);
            assert_eq!(read(&key, &stored(&key, &whole)), whole);
            let both = format!("{key}/{value}{key}");
            assert_eq!(read(&key, &stored(&key, &both)), both);
        }

        #[test]
        fn damaged_values_are_refused_without_panic(bytes: Vec<u8>) {
            if let Some(form) = Form::decode(&mut Cursor::new(&bytes)) {
                let _ = Value { key: "a@b", form, offset: 0 }.text();
            }
        }
    }
}
