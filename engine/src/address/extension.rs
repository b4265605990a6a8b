//! Address extensions: `user+extension`.
//!
//! Imports nothing. Source: Postfix `recipient_delimiter`, semantics of split_addr.

/// Splits an internal-form local part at its *first* delimiter character into user and
/// extension (the delimiter excluded).
///
/// `None` when there is nothing to split: no delimiter character occurs, the user would be
/// empty, or the local part is one of those that are never split (`postmaster`,
/// `mailer-daemon`, `double-bounce`; `owner-x` and `x-request` when `-` is the delimiter).
pub fn split_extension<'a>(local_part: &'a str, delimiters: &str) -> Option<(&'a str, &'a str)> {
    if delimiters.is_empty() {
        return None;
    }
    let never = ["postmaster", "mailer-daemon", "double-bounce"];
    if never
        .iter()
        .any(|name| local_part.eq_ignore_ascii_case(name))
    {
        return None;
    }
    if delimiters.contains('-') {
        let lower = local_part.to_ascii_lowercase();
        if lower.starts_with("owner-") || lower.ends_with("-request") {
            return None;
        }
    }
    let at = local_part.find(|c| delimiters.contains(c))?;
    let (user, rest) = local_part.split_at(at);
    let mut rest = rest.chars();
    rest.next()?;
    (!user.is_empty()).then_some((user, rest.as_str()))
}

#[cfg(test)]
mod tests {
    use super::split_extension;

    #[test]
    fn the_first_delimiter_of_the_set_splits() {
        assert_eq!(split_extension("info+a-b", "+-"), Some(("info", "a-b")));
        assert_eq!(split_extension("info-a+b", "+-"), Some(("info", "a+b")));
        assert_eq!(split_extension("info", "+"), None);
        assert_eq!(split_extension("info+x", ""), None);
        assert_eq!(split_extension("info+", "+"), Some(("info", "")));
    }

    #[test]
    fn an_empty_user_is_never_split_off() {
        assert_eq!(split_extension("+x", "+"), None);
    }

    #[test]
    fn system_and_list_addresses_stay_whole() {
        assert_eq!(split_extension("Postmaster", "t"), None);
        assert_eq!(split_extension("mailer-daemon", "-"), None);
        assert_eq!(split_extension("double-bounce", "-"), None);
        assert_eq!(split_extension("owner-list", "-"), None);
        assert_eq!(split_extension("list-request", "-"), None);
        assert_eq!(
            split_extension("owner-list+x", "+"),
            Some(("owner-list", "x"))
        );
    }
}
