//! `{ }` in Postfix's lists: `type:{ ... }` is one word, whatever stands inside.
//!
//! Source: postconf(5) on lists with braces.

use super::error::OpenError;
use super::text::lines::{is_space, trim_text};

/// Splits `list` at commas and white space outside braces. Words are never empty; a `}` too
/// many is an ordinary character, a `{` too many takes the rest of the list.
pub fn words(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    list.split(move |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && matches!(c, ',' | ' ' | '\t' | '\r' | '\n')
    })
    .filter(|word| !word.is_empty())
}

/// What stands between the braces of `{ ... }`, outer white space removed.
///
/// # Errors
/// The text does not start with `{`, or its partner is missing or not the last character.
pub(super) fn inside(text: &str) -> Result<&str, String> {
    if !text.starts_with('{') {
        return Err(format!("no \"{{\" at the start of \"{text}\""));
    }
    let mut depth = 0_usize;
    let closing = text.bytes().position(|byte| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    });
    let Some(end) = closing else {
        return Err(format!("no closing \"}}\" in \"{text}\""));
    };
    if end + 1 != text.len() {
        return Err(format!("text after the closing \"}}\" in \"{text}\""));
    }
    Ok(trim_text(text.get(1..end).unwrap_or_default()))
}

/// Splits `name = value`; either may be empty (Postfix 3.7 takes an empty name too).
///
/// # Errors
/// There is nothing, or no `=` right after the name.
pub(super) fn name_value(text: &str) -> Result<(&str, &str), &'static str> {
    let text = trim_text(text);
    let end = text.bytes().position(|byte| is_space(byte) || byte == b'=');
    let (name, rest) = end
        .and_then(|at| text.split_at_checked(at))
        .unwrap_or((text, ""));
    if text.is_empty() {
        return Err("no name before \"=\"");
    }
    match trim_text(rest).strip_prefix('=') {
        Some(value) => Ok((name, trim_text(value))),
        None => Err("no \"=\" after the name"),
    }
}

/// The words between the braces of a compound table's name.
///
/// # Errors
/// The braces do not match, or there is nothing between them.
pub(super) fn members<'a>(name: &str, text: &'a str) -> Result<Vec<&'a str>, OpenError> {
    let (kind, _) = name.split_once(':').unwrap_or((name, ""));
    let bad = |cause: String| OpenError::Content {
        name: name.to_owned(),
        cause: match kind {
            "randmap" => format!("{cause}; write randmap:{{value, value, ...}}"),
            kind => format!("{cause}; write {kind}:{{type:name, type:name, ...}}"),
        },
    };
    let members: Vec<_> = words(inside(text).map_err(bad)?).collect();
    if members.is_empty() {
        return Err(bad("nothing between the braces".to_owned()));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_split_outside_braces_only() {
        let found: Vec<_> =
            words(" hash:/a,,inline:{k=v, {k = v w}}\n\tstatic:x } y {a b").collect();
        assert_eq!(
            found,
            [
                "hash:/a",
                "inline:{k=v, {k = v w}}",
                "static:x",
                "}",
                "y",
                "{a b"
            ]
        );
        assert_eq!(words(" , ").count(), 0);
    }

    #[test]
    fn braces_are_taken_off_only_when_they_match() {
        assert_eq!(inside("{ a {b} }"), Ok("a {b}"));
        assert_eq!(inside("{}"), Ok(""));
        assert!(inside("a").is_err());
        assert!(inside("{a").is_err());
        assert!(inside("{a} b").is_err());
        assert!(inside("").is_err());
    }

    #[test]
    fn names_and_values_split_at_the_equals_sign() {
        assert_eq!(name_value("a=b"), Ok(("a", "b")));
        assert_eq!(name_value(" a =  b = c "), Ok(("a", "b = c")));
        assert_eq!(name_value("a="), Ok(("a", "")));
        assert!(name_value("a b = c").is_err());
        assert_eq!(name_value("= c"), Ok(("", "c")));
        assert!(name_value("a").is_err());
        assert!(name_value("").is_err());
    }
}
