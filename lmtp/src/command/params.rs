//! ESMTP parameters: `KEYWORD[=value]`, separated by blanks (RFC 5321 section 4.1.2).
//!
//! Imports `reply`.

use crate::reply::Reply;

/// `501 5.5.4` for a parameter we offer but whose value is wrong.
pub(super) fn bad_value(keyword: &str) -> Reply {
    Reply::with_text(
        501,
        "5.5.4",
        format!("Invalid value of parameter {keyword}"),
    )
}

/// `555 5.5.4` for a parameter we never offered.
pub(super) fn unsupported() -> Reply {
    Reply::new(555, "5.5.4", "Unsupported parameters")
}

/// Calls `take(KEYWORD in upper case, value)` for each parameter; every keyword at most once.
pub(super) fn each(
    text: &str,
    mut take: impl FnMut(&str, Option<&str>) -> Result<(), Reply>,
) -> Result<(), Reply> {
    let mut seen: Vec<String> = Vec::new();
    for word in text.split_ascii_whitespace() {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let is_keyword = keyword
            .bytes()
            .enumerate()
            .all(|(n, b)| b.is_ascii_alphanumeric() || (n > 0 && b == b'-'));
        if keyword.is_empty() || !is_keyword || value == Some("") {
            return Err(Reply::new(501, "5.5.4", "Invalid parameters"));
        }
        let keyword = keyword.to_ascii_uppercase();
        if seen.contains(&keyword) {
            let text = format!("Parameter {keyword} given twice");
            return Err(Reply::with_text(501, "5.5.4", text));
        }
        take(&keyword, value)?;
        seen.push(keyword);
    }
    Ok(())
}
