//! Case folding of lookup keys.
//!
//! Source: Postfix `casefold` with `smtputf8_enable = yes` (Unicode default case folding).

use std::borrow::Cow;

/// `text` folded for comparison. ASCII text takes a fast path; other text gets Unicode's full
/// default case folding, as ICU gives Postfix.
pub fn fold_case(text: &str) -> Cow<'_, str> {
    // All bytes at once: stopping at the first that matters would take longer.
    let (mut bits, mut capital) = (0, false);
    for byte in text.bytes() {
        bits |= byte;
        capital |= byte.is_ascii_uppercase();
    }
    if bits < 0x80 {
        if capital {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        }
    } else {
        Cow::Owned(caseless::default_case_fold_str(text))
    }
}

#[cfg(test)]
mod tests {
    use super::fold_case;

    #[test]
    fn ascii_and_unicode_letters_fold() {
        assert_eq!(fold_case("INFO@Example.COM"), "info@example.com");
        assert_eq!(fold_case("ÖL@Straße.example"), "öl@strasse.example");
        assert_eq!(fold_case("plain"), "plain");
    }
}
