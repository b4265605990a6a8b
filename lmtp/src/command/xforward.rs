//! XFORWARD: what the client knows about its own client (Postfix XFORWARD_README).
//!
//! Imports `reply`. The values only ever reach the log.

use super::xtext::decode_xtext;
use crate::reply::Reply;

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

/// One attribute; an empty value when the client says it has none.
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
    let refuse = |text| Err(Reply::new(501, "5.5.4", text));
    if args.is_empty() {
        return refuse("Syntax: XFORWARD attribute=value ...");
    }
    let mut attributes = Vec::new();
    for word in args.split_ascii_whitespace() {
        let Some((name, value)) = word.split_once('=') else {
            return refuse("Syntax: XFORWARD attribute=value ...");
        };
        let Some(name) = name_of(name) else {
            return refuse("Unknown XFORWARD attribute");
        };
        let unknown = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"];
        let value = if unknown.iter().any(|u| value.eq_ignore_ascii_case(u)) {
            String::new()
        } else {
            match decode_xtext(value) {
                Some(value) if value.len() <= VALUE_BYTES_MAX => neutral(&value),
                _ => return refuse("Invalid XFORWARD value"),
            }
        };
        attributes.push(Forwarded { name, value });
    }
    Ok(attributes)
}

/// The value without what separates fields of a log line: these are names and numbers, and a
/// hostile client of our client must not write into our log.
fn neutral(value: &str) -> String {
    let separates = |c: char| c.is_whitespace() || ",;<>()=\"".contains(c);
    value.replace(separates, "?")
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
        let attributes = parse("IDENT=1:+20to=<x>+2C+20status").unwrap_err();
        assert_eq!(attributes.code, 501, "an equals sign is no xtext");
        let attributes = parse("IDENT=1:+20to+3D<x>+2C+20status").unwrap();
        assert_eq!(attributes[0].value, "1:?to??x???status");
    }

    #[test]
    fn what_is_no_attribute_is_refused() {
        for args in ["", "NAME", "FOO=1", "NAME=a+0Ab", "NAME=+zz"] {
            assert_eq!(parse(args).unwrap_err().code, 501, "{args:?}");
        }
    }
}
