//! ESMTP parameters: `KEYWORD[=value]`, separated by blanks (RFC 5321 section 4.1.2).

use crate::reply::Reply;

/// `555 5.5.4` for a parameter we never offered.
pub(super) fn unsupported() -> Reply {
    Reply::new(555, "5.5.4", "Unsupported parameters")
}

/// Calls `take(KEYWORD in upper case, value)` for each parameter; an empty value is none. A
/// parameter that is given twice is taken twice.
pub(super) fn each<'a>(
    text: &'a str,
    mut take: impl FnMut(&str, Option<&'a str>) -> Result<(), Reply>,
) -> Result<(), Reply> {
    for word in text.split_ascii_whitespace() {
        let Some((keyword, value)) = split(word) else {
            return Err(Reply::new(501, "5.5.4", "Invalid parameters"));
        };
        take(&keyword.to_ascii_uppercase(), value)?;
    }
    Ok(())
}

/// Whether all words of a text have the form of a parameter.
pub(super) fn are_parameters(text: &str) -> bool {
    text.split_ascii_whitespace()
        .all(|word| split(word).is_some())
}

fn split(word: &str) -> Option<(&str, Option<&str>)> {
    let (keyword, value) = match word.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value).filter(|value| !value.is_empty())),
        None => (word, None),
    };
    let mut bytes = keyword.bytes();
    let is_keyword = bytes.next()?.is_ascii_alphanumeric()
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_keyword.then_some((keyword, value))
}
