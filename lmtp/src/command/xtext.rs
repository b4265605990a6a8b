//! The two encodings of values inside commands: xtext (RFC 3461 section 4) and the UTF-8 address
//! encoding of RFC 6533 section 3.
//!
//! Imports nothing.

/// Decodes xtext: `+` with two hexadecimal digits stands for an octet. UTF-8 may stand for
/// itself, as clients send it under SMTPUTF8. `None` when it is not xtext of printable UTF-8.
pub(super) fn decode_xtext(text: &str) -> Option<String> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => plain.push(hex(bytes.next()?)? * 16 + hex(bytes.next()?)?),
            b'=' | 0..=b' ' | 0x7f => return None,
            b => plain.push(b),
        }
    }
    printable(String::from_utf8(plain).ok()?)
}

/// Decodes an address of type `utf-8`: `\x{HEX}` stands for a character, everything else for
/// itself. `None` when it is malformed or not printable.
pub(super) fn decode_utf8_address(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x{") {
        plain.push_str(before);
        let (digits, after) = after.split_once('}')?;
        if digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        plain.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = after;
    }
    plain.push_str(rest);
    printable(plain)
}

fn printable(text: String) -> Option<String> {
    (!text.chars().any(char::is_control)).then_some(text)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_gives_the_octets_back() {
        let decoded = |text| decode_xtext(text);
        assert_eq!(
            decoded("loc+2Be@origin.example").as_deref(),
            Some("loc+e@origin.example")
        );
        assert_eq!(decoded("+22a+20b+22@x").as_deref(), Some("\"a b\"@x"));
        assert_eq!(decoded("+C3+BC@x").as_deref(), Some("ü@x"));
        assert_eq!(decoded("ü@x").as_deref(), Some("ü@x"));
        for bad in ["a+0Ab", "a+", "a+2", "a+2x", "a=b", "a b", "+FF", "a\u{7f}"] {
            assert_eq!(decoded(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn utf8_addresses_give_their_characters_back() {
        let decoded = |text| decode_utf8_address(text);
        assert_eq!(decoded("\\x{FC}ni@x").as_deref(), Some("üni@x"));
        assert_eq!(decoded("üni@x").as_deref(), Some("üni@x"));
        assert_eq!(decoded("a\\x{2B}b@x").as_deref(), Some("a+b@x"));
        for bad in [
            "\\x{D800}",
            "\\x{}",
            "\\x{110000}",
            "\\x{zz}",
            "\\x{41",
            "\\x{0A}",
        ] {
            assert_eq!(decoded(bad), None, "{bad:?}");
        }
    }
}
