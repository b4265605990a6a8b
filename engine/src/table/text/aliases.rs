//! Lines of alias files, `name: value, value, ...`, as postalias(1) reads them.
//!
//! The name is kept without its quotes, for that is how local(8) asks for it; the value is kept as
//! it would stand in a header, to be split when it is used. Source: aliases(5), postalias(1).

use crate::address::tokens::{Spacing, externalize, internalize, scan};

/// Splits a line at its first `:` outside of quotes into name and value.
pub(in crate::table) fn split(line: &str) -> Result<(String, String), &'static str> {
    let tokens = scan(line);
    let colon = tokens.iter().position(|token| token.is(':'));
    let colon = colon.ok_or("no \":\"; write: name, colon, value")?;
    let (name, rest) = tokens.split_at_checked(colon).unwrap_or_default();
    let value = rest.get(1..).unwrap_or_default();
    if name.is_empty() || value.is_empty() || name.iter().any(|token| token.is(',')) {
        return Err("no name or no value; write: name, colon, value");
    }
    if name.iter().any(|token| token.is('@') || token.is('%')) {
        return Err("the name has a domain; names of aliases are local");
    }
    let key = internalize(name, Spacing::Spaced);
    if key.is_empty() {
        return Err("the name is empty");
    }
    Ok((key, externalize(value, Spacing::Spaced)))
}

#[cfg(test)]
mod tests {
    use super::split;

    fn pair(line: &str) -> (String, String) {
        split(line).unwrap()
    }

    #[test]
    fn names_lose_their_quotes_and_values_keep_them() {
        let both = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pair("root:me"), both("root", "me"));
        assert_eq!(
            pair("\"a b\" : \"|cmd -x\",  /file"),
            both("a b", "\"|cmd -x\", /file")
        );
        assert_eq!(
            pair("list: :include:/etc/list"),
            both("list", ":include:/etc/list")
        );
        assert_eq!(pair("a.b: c@d.example"), both("a.b", "c@d.example"));
    }

    #[test]
    fn lines_without_a_local_name_and_a_value_are_refused() {
        for line in [
            "name", "name:", ":value", "a,b: c", "a@b: c", "a%b: c", "\"\": c",
        ] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
