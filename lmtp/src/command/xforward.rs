//! XFORWARD: what the client knows about its own client (Postfix XFORWARD_README).
//!
//! An attribute that is unknown or without a value is passed over: it says nothing of the others.
//! The values are for people, and for telling messages apart.

use super::xtext::decode_xtext;
use crate::reply::Reply;
use mailstow_engine::octets;

/// An attribute name of XFORWARD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of XFORWARD_README")]
pub enum ForwardedName {
    Name,
    Addr,
    Port,
    Proto,
    Helo,
    Ident,
    Source,
}

/// One attribute; an empty value when the client has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Which attribute.
    pub name: ForwardedName,
    /// Its decoded value.
    pub value: String,
}

/// Longest attribute value in bytes (XFORWARD_README: 255 for names).
const VALUE_BYTES_MAX: usize = 255;

pub(super) fn parse(args: &str) -> Result<Vec<Forwarded>, Reply> {
    if args.is_empty() {
        let text = "Syntax: XFORWARD attribute=value ...";
        return Err(Reply::new(501, "5.5.4", text));
    }
    let attribute = |word: &str| {
        let (name, value) = word.split_once('=')?;
        let name = name_of(name)?;
        let unknown = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"];
        let value = if unknown.iter().any(|u| value.eq_ignore_ascii_case(u)) {
            String::new()
        } else {
            neutral(&decode_xtext(value))
        };
        Some(Forwarded { name, value })
    };
    Ok(args
        .split_ascii_whitespace()
        .filter_map(attribute)
        .collect())
}

/// The value without what separates fields of a log line, and no longer than a value may be:
/// these are names and numbers, and a hostile client of our client must not write into our log.
fn neutral(value: &str) -> String {
    let separates = |c: char| {
        c.is_whitespace() || c.is_control() || octets::is_octet(c) || ",;<>()=\"".contains(c)
    };
    let mut value = value.replace(separates, "?");
    value.truncate(value.floor_char_boundary(VALUE_BYTES_MAX));
    value
}

fn name_of(name: &str) -> Option<ForwardedName> {
    [
        ("NAME", ForwardedName::Name),
        ("ADDR", ForwardedName::Addr),
        ("PORT", ForwardedName::Port),
        ("PROTO", ForwardedName::Proto),
        ("HELO", ForwardedName::Helo),
        ("IDENT", ForwardedName::Ident),
        ("SOURCE", ForwardedName::Source),
    ]
    .into_iter()
    .find_map(|(known, attribute)| name.eq_ignore_ascii_case(known).then_some(attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_decoded() {
        let attributes = parse("NAME=[UNAVAILABLE] addr=192.0.2.1 IDENT=4F+2B1").unwrap();
        let pairs: Vec<_> = attributes
            .iter()
            .map(|a| (a.name, a.value.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                (ForwardedName::Name, ""),
                (ForwardedName::Addr, "192.0.2.1"),
                (ForwardedName::Ident, "4F+1"),
            ]
        );
    }

    #[test]
    fn a_value_cannot_look_like_fields_of_a_log_line() {
        for value in ["1:+20to=<x>+2C+20status", "1:+20to+3D<x>+2C+20status"] {
            let attributes = parse(&format!("IDENT={value}")).unwrap();
            assert_eq!(attributes[0].value, "1:?to??x???status");
        }
    }

    #[test]
    fn an_odd_attribute_drops_no_other() {
        for odd in [
            "NAME",
            "FOO=1",
            "=",
            "HELO=a+0Ab",
            "HELO=+zz",
            "HELO=a=b",
            "HELO=+FF",
            "HELO=",
            "PORT=x",
            "NAME=\u{fc}",
        ] {
            let attributes = parse(&format!("{odd} IDENT=4F1 {odd}")).unwrap();
            let idents = attributes.iter().filter(|a| a.name == ForwardedName::Ident);
            let idents: Vec<_> = idents.map(|a| a.value.as_str()).collect();
            assert_eq!(idents, ["4F1"], "{odd}");
        }
        assert_eq!(parse("HELO=a+0Ab+FF+C2+85").unwrap()[0].value, "a?b??");
        let long = parse(&format!("NAME={}", "\u{fc}".repeat(200))).unwrap();
        assert_eq!(long[0].value.len(), 254);
        assert_eq!(parse("").unwrap_err().code, 501);
    }
}
