//! Which domains a recipient may have.
//!
//! Source: RFC 1123 section 2.1, RFC 5321 section 4.1.3, as leniently as Postfix takes them
//! (underscores are fine). Letters beyond ASCII are those of internationalized names (RFC 6531) and
//! are not checked against IDNA.

use super::interfaces::parse_literal;

/// Longest label of a domain name, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// Longest domain name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Labels of letters, digits, `_` and inner `-`, not all of them numbers.
pub(crate) fn is_valid_hostname(name: &str) -> bool {
    let is_label_char = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "_-".contains(c);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(is_label_char)
    };
    name.len() <= NAME_BYTES_MAX
        && name.split('.').all(is_label)
        && name.contains(|c: char| !c.is_ascii_digit() && c != '.')
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]`
pub(crate) fn is_valid_literal(domain: &str) -> bool {
    let inner = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']'));
    inner.is_some_and(|literal| parse_literal(literal).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_labels_and_are_not_just_numbers() {
        for good in [
            "a",
            "a.example",
            "a_b.example",
            "1.a",
            "x--y.z",
            "exämple.org",
            "3com",
        ] {
            assert!(is_valid_hostname(good), "{good}");
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "1.2.3.4", "12", "a b", "a/b",
        ] {
            assert!(!is_valid_hostname(bad), "{bad}");
        }
        assert!(!is_valid_hostname(&"a".repeat(64)));
        assert!(!is_valid_hostname(&"ab.".repeat(90)));
    }

    #[test]
    fn literals_have_both_brackets_and_an_address() {
        assert!(is_valid_literal("[192.0.2.1]"));
        assert!(is_valid_literal("[IPv6:::1]"));
        for bad in ["192.0.2.1", "[192.0.2.1", "[::1]", "[x]", "[]"] {
            assert!(!is_valid_literal(bad), "{bad}");
        }
    }
}
