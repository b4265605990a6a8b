//! The two encodings of values inside commands: xtext (RFC 3461 section 4) and the UTF-8 address
//! encoding of RFC 6533 section 3.
//!
//! Decoding never fails: what is no code of the encoding is kept. The result may hold any
//! character; who shows it takes care of that.

use mailstow_engine::octets;

/// Decodes xtext: `+` with two hexadecimal digits is an octet.
pub(super) fn decode_xtext(text: &str) -> String {
    if !text.contains('+') {
        return text.to_owned();
    }
    let encoded = octets::octets(text);
    let mut plain = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_ref();
    while let Some((&octet, after)) = rest.split_first() {
        let code = match after {
            [high, low, ..] if octet == b'+' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        let (octet, after) = match code {
            Some((high, low)) => (high * 16 + low, after.get(2..).unwrap_or_default()),
            None => (octet, after),
        };
        plain.push(octet);
        rest = after;
    }
    octets::text(&plain).into_owned()
}

/// Decodes an address of type `utf-8`: `\x{HEX}` is a character.
pub(super) fn decode_utf8_address(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x{") {
        plain.push_str(before);
        match after
            .split_once('}')
            .and_then(|(d, after)| Some((character(d)?, after)))
        {
            Some((c, after)) => {
                // The character that was meant, even one by which others are kept.
                plain.push_str(&octets::text(c.encode_utf8(&mut [0; 4]).as_bytes()));
                rest = after;
            }
            None => {
                plain.push_str("\\x{");
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

fn character(digits: &str) -> Option<char> {
    let is_code = digits.len() <= 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let code = u32::from_str_radix(digits, 16).ok().filter(|_| is_code)?;
    char::from_u32(code)
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
        for (text, plain) in [
            ("loc+2Be@origin.example", &b"loc+e@origin.example"[..]),
            ("+22a+20b+22@x", b"\"a b\"@x"),
            ("+C3+BC@x", "ü@x".as_bytes()),
            ("ü@x", "ü@x".as_bytes()),
            ("+FF@x", b"\xff@x"),
            ("a+0Ab", b"a\nb"),
        ] {
            assert_eq!(
                octets::octets(&decode_xtext(text)).as_ref(),
                plain,
                "{text}"
            );
        }
    }

    #[test]
    fn utf8_addresses_give_their_characters_back() {
        assert_eq!(decode_utf8_address("\\x{FC}ni@x"), "üni@x");
        assert_eq!(decode_utf8_address("üni@x"), "üni@x");
        assert_eq!(decode_utf8_address("a\\x{2B}b@x"), "a+b@x");
        let odd = decode_utf8_address("\\x{10FEFC}");
        assert_eq!(octets::octets(&odd).as_ref(), "\u{10fefc}".as_bytes());
    }

    #[test]
    fn what_is_no_code_stands_for_itself() {
        for text in ["a+", "a+2", "a+2x", "+zz", "a=b", "a b", "a\u{7f}"] {
            assert_eq!(decode_xtext(text), text);
        }
        for text in [
            "\\x{D800}",
            "\\x{}",
            "\\x{110000}",
            "\\x{zz}",
            "\\x{41",
            "\\x",
        ] {
            assert_eq!(decode_utf8_address(text), text);
        }
    }
}
