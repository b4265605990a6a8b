//! Reading of addresses, for every entrance: LMTP commands, command lines, sockets.
//!
//! The input is what is between `<` and `>`, or a whole argument, as text that may hold any octets.
//! An address comes from a mail server that has accepted it: each text that can be read is read,
//! for what is refused here is mail that bounces. Whether a recipient exists is for the tables to
//! say. Source: RFC 5321 section 4.1.2, RFC 6531 section 3.3; Postfix writes local parts that are
//! no dot-string as quoted strings, and domains as they are.

use super::quote::source_route_bytes;
use super::{Address, ReversePath, quote_address};
use crate::limits::ADDRESS_BYTES_MAX;
use crate::octets;

/// Why an address is refused; the caller answers 501 5.1.3 or 5.1.7.
///
/// ```
/// use mailstow_engine::{AddressError, parse_mailbox};
///
/// let error: AddressError = parse_mailbox("").expect_err("an empty address");
/// assert!(!error.to_string().is_empty());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no address.
    #[error("the address is empty")]
    Empty,
    /// Longer than we look up.
    #[error("the address is longer than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
}

/// Parses a reverse-path: empty for the null reverse-path, else an address.
///
/// ```
/// use mailstow_engine::{ReversePath, parse_address};
///
/// assert_eq!(parse_address("")?, ReversePath::Null);
/// assert_eq!(parse_address("me@example.org")?.external(), "me@example.org");
/// # Ok::<(), mailstow_engine::AddressError>(())
/// ```
///
/// # Errors
/// The text is too long.
pub fn parse_address(text: &str) -> Result<ReversePath, AddressError> {
    match parse_mailbox(text) {
        Ok(address) => Ok(ReversePath::Address(address)),
        Err(AddressError::Empty) => Ok(ReversePath::Null),
        Err(error) => Err(error),
    }
}

/// Parses a forward-path: `local-part@domain`, or a bare local part. Angle brackets around it are
/// taken off, and so is an obsolete source route (`@a,@b:`), as RFC 5321 appendix C asks. A local
/// part that is one quoted string is unquoted; any other local part and the domain are taken as
/// they are.
///
/// ```
/// use mailstow_engine::parse_mailbox;
///
/// let address = parse_mailbox("\"two words\"@example.com")?;
/// assert_eq!(address.local_part, "two words");
/// assert_eq!(address.domain.as_deref(), Some("example.com"));
/// # Ok::<(), mailstow_engine::AddressError>(())
/// ```
///
/// # Errors
/// The text is empty or too long.
pub fn parse_mailbox(text: &str) -> Result<Address, AddressError> {
    let text = without_brackets(text);
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if text.len() > ADDRESS_BYTES_MAX && octets::octets(text).len() > ADDRESS_BYTES_MAX {
        return Err(AddressError::TooLong);
    }
    let text = without_source_route(text);
    if let Some((local_part, rest)) = quoted_string(text) {
        if rest.is_empty() {
            return Ok(Address::new(local_part, None));
        }
        // A domain has no `@`: with two of them, the quotes are a part of the local part.
        if let Some(domain) = rest.strip_prefix('@')
            && !domain.contains('@')
        {
            return Ok(Address::new(local_part, Some(domain)));
        }
    }
    Ok(Address::from_internal(text))
}

/// Reads the original recipient of a message, in whatever form it was written, and returns it in
/// external form. Postfix writes it unquoted, as xtext or as an argument of pipe(8); others quote
/// it. A source route stays; an empty text stays empty.
pub fn parse_original_recipient(text: &str) -> String {
    let text = without_brackets(text);
    if text.is_empty() {
        return String::new();
    }
    let (route, address) = text.split_at(source_route_bytes(text));
    match parse_mailbox(address) {
        Ok(parsed) if address.starts_with('"') => [route, &parsed.external()].concat(),
        _ => quote_address(text).into_owned(),
    }
}

fn without_brackets(text: &str) -> &str {
    let inner = text.strip_prefix('<').and_then(|t| t.strip_suffix('>'));
    inner.unwrap_or(text)
}

fn without_source_route(text: &str) -> &str {
    match text.strip_prefix('@').and_then(|rest| rest.split_once(':')) {
        Some((route, address)) if !route.contains('"') && address.contains('@') => address,
        _ => text,
    }
}

/// Takes a quoted string off the front: its internal form and what follows. `None` when the text
/// begins with none.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut plain = String::with_capacity(inside.len());
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((plain, inside.get(at + 1..)?)),
            '\\' => plain.push(chars.next()?.1),
            c => plain.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Result<(String, Option<String>), AddressError> {
        parse_mailbox(text).map(|a| (a.local_part, a.domain))
    }

    #[test]
    fn an_original_recipient_in_external_form_stays_as_it_is() {
        for text in ["\"u v\"@c", "@a:\"u v\"@c", "@a:\"u\\\"v\"", "@a,@b:u@c"] {
            assert_eq!(parse_original_recipient(text), text);
        }
    }

    #[test]
    fn addresses_parse_into_their_internal_form() {
        let some = |l: &str, d: &str| Ok((l.to_owned(), Some(d.to_owned())));
        assert_eq!(parts("Info@Example.COM"), some("Info", "Example.COM"));
        assert_eq!(parts("<info@example.com>"), some("info", "example.com"));
        assert_eq!(parts("\"a b\"@vm.example"), some("a b", "vm.example"));
        assert_eq!(parts("\"x.y.\"@vm.example"), some("x.y.", "vm.example"));
        assert_eq!(parts("\"a\\\"b\"@vm.example"), some("a\"b", "vm.example"));
        assert_eq!(parts("@a,@b:u@c.example"), some("u", "c.example"));
        assert_eq!(parts("u@[192.0.2.1]"), some("u", "[192.0.2.1]"));
        assert_eq!(
            parts("u@[IPv6:2001:db8::1]"),
            some("u", "[IPv6:2001:db8::1]")
        );
        assert_eq!(
            parts("\"user@domain.tld\"@auto.example"),
            some("user@domain.tld", "auto.example")
        );
        assert_eq!(parts("ünï@exämple.org"), some("ünï", "exämple.org"));
        assert_eq!(parts("postmaster"), Ok(("postmaster".to_owned(), None)));
    }

    #[test]
    fn an_odd_address_is_taken_as_it_is() {
        let some = |l: &str, d: &str| Ok((l.to_owned(), Some(d.to_owned())));
        for (text, local_part, domain) in [
            ("root@", "root", ""),
            ("root@host#1", "root", "host#1"),
            ("www-data@{hostname}", "www-data", "{hostname}"),
            ("a@b/c", "a", "b/c"),
            ("a@b:25", "a", "b:25"),
            ("@b:25", "", "b:25"),
            ("a@*.b", "a", "*.b"),
            ("@example.com", "", "example.com"),
            ("\"\"@example.com", "", "example.com"),
            ("@", "", ""),
            ("a b@example.com", "a b", "example.com"),
            ("a@b@example.com", "a@b", "example.com"),
            ("\"a\"b@example.com", "\"a\"b", "example.com"),
            ("\"a\"@b@example.com", "\"a\"@b", "example.com"),
            ("\"abc@example.com", "\"abc", "example.com"),
            ("a\"b@example.com", "a\"b", "example.com"),
            ("a@exa mple>.com", "a", "exa mple>.com"),
            ("a\u{1b}\u{85}@b", "a\u{1b}\u{85}", "b"),
        ] {
            assert_eq!(parts(text), some(local_part, domain), "{text:?}");
        }
        assert_eq!(parts("\"abc\\"), Ok(("\"abc\\".to_owned(), None)));
    }

    #[test]
    fn an_address_that_is_empty_or_too_long_is_refused() {
        for text in ["", "<>"] {
            assert_eq!(parts(text), Err(AddressError::Empty), "{text:?}");
            assert_eq!(parse_address(text), Ok(ReversePath::Null), "{text:?}");
        }
        let long = "x".repeat(ADDRESS_BYTES_MAX + 1);
        assert_eq!(parts(&long), Err(AddressError::TooLong));
        // The bound is one of octets, not of the characters that encode them.
        let latin = octets::text(&[0xfc; ADDRESS_BYTES_MAX]).into_owned();
        assert!(parts(&latin).is_ok());
    }

    proptest::proptest! {
        /// Postfix writes an address so; what it meant comes back.
        #[test]
        fn what_is_written_in_external_form_is_read_as_it_was(
            local_part in "([ab.@\"\\\\ <>+-]|\\PC){0,6}", domain in "[ab.# :/{}>*]{0,6}",
        ) {
            let address = Address::new(local_part, Some(&domain));
            proptest::prop_assert_eq!(parse_mailbox(&address.external()), Ok(address));
        }
    }
}
