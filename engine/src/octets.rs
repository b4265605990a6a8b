//! Octets as text without loss.
//!
//! An address may hold octets that are not UTF-8: Postfix takes them and virtual(8) stores them.
//! Text from outside that may hold any octets (addresses, the lines of tables, paths made of
//! these) is kept as `str`: what is valid UTF-8 stays as it is, each other octet becomes one
//! character of a private plane, from `FIRST` on. Characters of that range are themselves taken
//! apart into such characters, so that each sequence of octets has exactly one text.
//! Invariant: `octets(&text(o)) == o` for all octets, and no octet below 0x80 is ever kept in
//! another form: no text can hide a `/`, a line end or a quote.
//!
//! Text comes in through [`text`] and leaves through [`octets`] (headers, paths, other programs)
//! or [`shown`] (people).

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Encodes the octet 0x80; the 127 characters after it those up to 0xFF.
const FIRST: u32 = 0x10_fe80;
/// The first octet of the UTF-8 form of all characters from U+100000 on, and of these alone.
const LEAD: u8 = 0xf4;

/// Returns the octet that a character encodes.
fn octet_of(c: char) -> Option<u8> {
    let offset = u32::from(c).checked_sub(FIRST)?;
    let octet = u8::try_from(offset).ok()?.checked_add(0x80)?;
    Some(octet)
}

fn push_octet(text: &mut String, octet: u8) {
    let code = u32::from(octet).saturating_sub(0x80) + FIRST;
    // The range is one of valid characters.
    text.extend(char::from_u32(code));
}

/// Whether a text may hold octets that are not UTF-8; false for nearly every one. Costs less than
/// looking.
pub fn may_hold_octets(text: &[u8]) -> bool {
    memchr::memchr(LEAD, text).is_some()
}

/// Returns octets from outside as text.
pub fn text(octets: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(octets)
        && !may_hold_octets(octets)
    {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(octets.len() + 16);
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            if octet_of(c).is_some() {
                let mut encoded = [0; 4];
                let encoded = c.encode_utf8(&mut encoded).bytes();
                encoded.for_each(|octet| push_octet(&mut text, octet));
            } else {
                text.push(c);
            }
        }
        for octet in chunk.invalid() {
            push_octet(&mut text, *octet);
        }
    }
    Cow::Owned(text)
}

/// Returns the octets of a text, as they came.
pub fn octets(text: &str) -> Cow<'_, [u8]> {
    if !may_hold_octets(text.as_bytes()) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut octets = Vec::with_capacity(text.len());
    for c in text.chars() {
        match octet_of(c) {
            Some(octet) => octets.push(octet),
            None => octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(octets)
}

/// Returns a path or the name of a file, as the kernel wants it.
pub fn path(text: &str) -> Cow<'_, Path> {
    match octets(text) {
        Cow::Borrowed(octets) => Cow::Borrowed(Path::new(OsStr::from_bytes(octets))),
        Cow::Owned(octets) => Cow::Owned(OsStr::from_bytes(&octets).into()),
    }
}

/// Returns a text for people: UTF-8, with `?` for each octet that is not.
pub fn shown(text: &str) -> Cow<'_, str> {
    let holds = may_hold_octets(text.as_bytes()) && text.chars().any(is_octet);
    if holds {
        Cow::Owned(text.replace(is_octet, "?"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Returns true if a character encodes an octet that is not UTF-8.
pub fn is_octet(c: char) -> bool {
    octet_of(c).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_stays_as_it_is_and_other_octets_come_back() {
        assert!(matches!(text("jörg@x".as_bytes()), Cow::Borrowed("jörg@x")));
        assert!(matches!(octets("jörg@x"), Cow::Borrowed(_)));
        let latin = text(b"j\xf6rg@x");
        assert_eq!(latin.chars().count(), 6);
        assert_eq!(octets(&latin).as_ref(), b"j\xf6rg@x");
        assert_eq!(shown(&latin), "j?rg@x");
        assert_eq!(path(&latin).as_os_str().as_bytes(), b"j\xf6rg@x");
        assert_eq!(shown("\u{10ffff}"), "\u{10ffff}");
    }

    #[test]
    fn a_character_that_could_stand_for_an_octet_stands_for_itself() {
        let sent = "a\u{10fefc}b".as_bytes();
        let kept = text(sent);
        assert_ne!(kept, text(b"a\xfcb"));
        assert_eq!(octets(&kept).as_ref(), sent);
    }

    proptest::proptest! {
        #[test]
        fn all_octets_come_back_and_ascii_stays_in_its_place(
            sent in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::prelude::any::<u8>(),
                    proptest::sample::select(&[0xf4, 0x8f, 0xba, 0xbb, 0x80, 0xbf, b'/'][..]),
                ],
                0..40,
            ),
            other in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4),
        ) {
            let kept = text(&sent);
            let back = octets(&kept);
            proptest::prop_assert_eq!(back.as_ref(), &sent[..]);
            let ascii = |of: &[u8]| of.iter().filter(|b| b.is_ascii()).copied().collect::<Vec<_>>();
            proptest::prop_assert_eq!(ascii(kept.as_bytes()), ascii(&sent));
            proptest::prop_assert_eq!(kept == text(&other), sent == other);
            proptest::prop_assert!(!shown(&kept).chars().any(is_octet));
        }
    }
}
