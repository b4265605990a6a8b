//! Remarks about values, for people.

use super::problem::Origin;

/// A warning when a value ends in what looks like a comment: Postfix knows comments only on
/// separate lines (postconf(5)).
pub(super) fn comment_inside(name: &str, value: &str, origin: &Origin) -> Option<String> {
    let begins = value.match_indices('#').map(|(at, _)| at).find(|at| {
        value[..*at]
            .chars()
            .next_back()
            .is_none_or(char::is_whitespace)
    })?;
    Some(format!(
        "{name} ({origin}): no comment begins inside a value, \"{}\" is part of it; put the \
         comment on a separate line",
        shown(&value[begins..])
    ))
}

/// A value short enough for a message.
pub(super) fn shown(value: &str) -> String {
    if value.is_empty() {
        return "(empty)".to_owned();
    }
    let mut shown: String = value.chars().take(60).collect();
    if shown.len() < value.len() {
        shown.push_str("...");
    }
    shown
}
