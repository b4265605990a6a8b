//! Address extensions: `user+extension`.
//!
//! Source: Postfix `recipient_delimiter`, semantics of split_addr.

/// How local parts are split: `recipient_delimiter` and `owner_request_special`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionRule {
    /// The delimiter characters; empty: nothing is ever split.
    pub delimiters: String,
    /// `owner-x` and `x-request` stay whole when `-` is a delimiter.
    pub owner_request_special: bool,
}

impl ExtensionRule {
    /// Splits an internal-form local part at its *first* delimiter character into user and
    /// extension, which keeps its delimiter.
    ///
    /// `None` when there is nothing to split: no delimiter character occurs, the user would be
    /// empty, or the local part is one of those that are never split (`postmaster`,
    /// `mailer-daemon`, `double-bounce`, and those of `owner_request_special`).
    pub fn split<'a>(&self, local_part: &'a str) -> Option<(&'a str, &'a str)> {
        let at = match self.delimiters.as_bytes() {
            [delimiter] => memchr::memchr(*delimiter, local_part.as_bytes())?,
            _ => local_part.find(|c| self.delimiters.contains(c))?,
        };
        let never = ["postmaster", "mailer-daemon", "double-bounce"];
        if at == 0
            || never
                .iter()
                .any(|name| local_part.eq_ignore_ascii_case(name))
        {
            return None;
        }
        if self.owner_request_special && self.delimiters.contains('-') {
            let lower = local_part.to_ascii_lowercase();
            if lower.starts_with("owner-") || lower.ends_with("-request") {
                return None;
            }
        }
        local_part.split_at_checked(at)
    }
}

/// As [`ExtensionRule::split`] with `owner_request_special` on, but without the delimiter.
pub fn split_extension<'a>(local_part: &'a str, delimiters: &str) -> Option<(&'a str, &'a str)> {
    let rule = ExtensionRule {
        delimiters: delimiters.to_owned(),
        owner_request_special: true,
    };
    let (user, extension) = rule.split(local_part)?;
    let mut extension = extension.chars();
    extension.next()?;
    Some((user, extension.as_str()))
}

#[cfg(test)]
mod tests {
    use super::{ExtensionRule, split_extension};

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

    #[test]
    fn list_addresses_are_split_when_owners_are_not_special() {
        let rule = ExtensionRule {
            delimiters: "-+".into(),
            owner_request_special: false,
        };
        assert_eq!(rule.split("owner-list"), Some(("owner", "-list")));
        assert_eq!(rule.split("list-request"), Some(("list", "-request")));
        assert_eq!(rule.split("double-bounce"), None);
    }
}
