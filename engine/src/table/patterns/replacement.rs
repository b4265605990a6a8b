//! Result text of pattern tables: `$1 ${1} $(1)` are replaced by matched groups, `$$` by `$`.
//!
//! Source: regexp_table(5) and pcre_table(5), "TEXT SUBSTITUTION".

use std::ops::Range;

use crate::octets;
use crate::table::component::component;

/// A result text, parsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::table) struct Replacement {
    pieces: Vec<Piece>,
    groups_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Group(usize),
}

impl Replacement {
    /// Parses `text`.
    ///
    /// # Errors
    /// A `$` that is followed by no group number from 1, or by a brace that never closes.
    pub(in crate::table) fn parse(text: &[u8]) -> Result<Self, String> {
        let mut found = Self::default();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if byte != b'$' {
                literal.push(byte);
                continue;
            }
            if let Some(after) = rest.strip_prefix(b"$") {
                literal.push(b'$');
                rest = after;
                continue;
            }
            let (name, after) = macro_name(rest)?;
            let group = group_number(name)?;
            if !literal.is_empty() {
                found.pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            found.pieces.push(Piece::Group(group));
            found.groups_max = found.groups_max.max(group);
            rest = after;
        }
        if !literal.is_empty() {
            found.pieces.push(Piece::Text(literal));
        }
        Ok(found)
    }

    /// The highest group number in use; 0 when the text is constant.
    pub(in crate::table) fn groups_max(&self) -> usize {
        self.groups_max
    }

    /// The text with the groups of a match in `subject`; a group that took no part is empty.
    pub(in crate::table) fn expand(
        &self,
        subject: &[u8],
        groups: &[Option<Range<usize>>],
    ) -> Vec<u8> {
        let mut value = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => value.extend_from_slice(text),
                Piece::Group(number) => {
                    let span = groups.get(*number).cloned().flatten();
                    let text = span.and_then(|span| subject.get(span));
                    value.extend_from_slice(text.unwrap_or_default());
                }
            }
        }
        value
    }

    /// As [`Replacement::expand`], each group made one safe path component.
    ///
    /// # Errors
    /// A group is empty, and so no component.
    pub(in crate::table) fn expand_components(
        &self,
        subject: &[u8],
        groups: &[Option<Range<usize>>],
    ) -> Result<Vec<u8>, String> {
        let mut value = Vec::new();
        for piece in &self.pieces {
            let number = match piece {
                Piece::Text(text) => {
                    value.extend_from_slice(text);
                    continue;
                }
                Piece::Group(number) => number,
            };
            let span = groups.get(*number).cloned().flatten();
            let text = span.and_then(|span| subject.get(span)).unwrap_or_default();
            if text.is_empty() {
                return Err(format!(
                    "has an empty ${number}, which is no name in a path"
                ));
            }
            let safe = component(&octets::text(text));
            value.extend_from_slice(&octets::octets(&safe));
        }
        Ok(value)
    }
}

/// Takes the name of a macro off `text`, which follows a `$`.
fn macro_name(text: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let (open, close) = match text.first() {
        Some(b'{') => (b'{', b'}'),
        Some(b'(') => (b'(', b')'),
        _ => {
            let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
            let end = text.iter().position(|b| !is_name(b)).unwrap_or(text.len());
            return text.split_at_checked(end).ok_or_else(String::new);
        }
    };
    let mut depth = 0_usize;
    for (at, &byte) in text.iter().enumerate() {
        if byte == open {
            depth += 1;
        } else if byte == close {
            depth -= 1;
        }
        if depth == 0 {
            let name = text.get(1..at).unwrap_or_default();
            return Ok((name, text.get(at + 1..).unwrap_or_default()));
        }
    }
    Err(format!("\"${}\" has no end", char::from(open)))
}

fn group_number(name: &[u8]) -> Result<usize, String> {
    let text = String::from_utf8_lossy(name);
    if name.is_empty() {
        return Err("\"$\" without a group number; write $$ for a dollar sign".to_owned());
    }
    if !name.iter().all(u8::is_ascii_digit) {
        return Err(format!("\"${text}\" is not a group number"));
    }
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("group number \"${text}\" is out of range")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> String {
        let groups = [Some(0..5), Some(0..2), None, Some(3..5)];
        let parsed = Replacement::parse(text.as_bytes()).unwrap();
        String::from_utf8(parsed.expand(b"ab-cd", &groups)).unwrap()
    }

    #[test]
    fn groups_and_dollar_signs_are_replaced() {
        assert_eq!(expand("plain"), "plain");
        assert_eq!(expand("$1/$(3)/${1}x"), "ab/cd/abx");
        assert_eq!(expand("$$1 $$$3"), "$1 $cd");
        assert_eq!(expand("[$2][$9]"), "[][]");
        assert_eq!(expand("${03}"), "cd");
        assert_eq!(expand(""), "");
    }

    #[test]
    fn groups_are_made_safe_components() {
        let subject = "../x/.Sent";
        let groups = [Some(0..10), Some(0..4), Some(5..10), None, Some(0..0)];
        let expand = |text: &str| {
            let parsed = Replacement::parse(text.as_bytes()).unwrap();
            parsed.expand_components(subject.as_bytes(), &groups)
        };
        assert_eq!(expand("d/$1/$2/").unwrap(), b"d/=2E.=2Fx/=2ESent/");
        for empty in ["d/$3/", "d/$4/", "d/$9/"] {
            assert!(expand(empty).unwrap_err().contains("an empty $"), "{empty}");
        }
        let latin = Replacement::parse(b"$1/").unwrap();
        let latin = latin.expand_components(b"j\xfcrgen/x", &[None, Some(0..8)]);
        assert_eq!(latin.unwrap(), b"j\xfcrgen=2Fx/");
    }

    #[test]
    fn the_highest_group_is_known() {
        let max = |text: &str| Replacement::parse(text.as_bytes()).unwrap().groups_max();
        assert_eq!(max("$$ x"), 0);
        assert_eq!(max("$2 $1"), 2);
    }

    #[test]
    fn what_is_no_group_number_is_refused() {
        for text in [
            "$",
            "$x",
            "$1x",
            "$0",
            "${1",
            "$(1",
            "${}",
            "${{1}}",
            "a $ b",
            "$99999999999999999999",
        ] {
            assert!(Replacement::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
