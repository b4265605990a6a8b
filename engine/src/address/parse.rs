//! Parsing of envelope addresses.
//!
//! Imports `limits`. The input is what stands between `<` and `>`. Source: RFC 5321 section
//! 4.1.2, RFC 6531 section 3.3.

use super::quote::is_atom_char;
use super::{Address, ReversePath};
use crate::limits::ADDRESS_BYTES_MAX;

/// Why an envelope address is refused; the caller answers 501 5.1.3 or 5.1.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing between the brackets, or nothing before the `@`.
    #[error("the local part is empty")]
    EmptyLocalPart,
    /// Nothing after the `@`.
    #[error("the domain after \"@\" is empty")]
    EmptyDomain,
    /// Longer than we look up.
    #[error("the address is longer than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
    /// A `"` without its partner.
    #[error("the quoted local part does not end")]
    UnterminatedQuote,
    /// A character that must be quoted, or may not occur at all.
    #[error("the local part has a character that must be quoted")]
    BadLocalPart,
    /// Not a domain name nor an address literal.
    #[error("the domain has a character that no domain name has")]
    BadDomain,
    /// A control character or NUL anywhere.
    #[error("the address has a control character")]
    ControlCharacter,
}

/// Parses a reverse-path: empty for the null reverse-path, else an address.
///
/// # Errors
/// The text is not an address.
pub fn parse_address(text: &str) -> Result<ReversePath, AddressError> {
    if text.is_empty() {
        return Ok(ReversePath::Null);
    }
    parse_mailbox(text).map(ReversePath::Address)
}

/// Parses a forward-path: `local-part@domain`, a bare local part, either with an obsolete source
/// route in front (`@a,@b:`), which is dropped as RFC 5321 appendix C asks.
///
/// # Errors
/// The text is not an address.
pub fn parse_mailbox(text: &str) -> Result<Address, AddressError> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(AddressError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(AddressError::ControlCharacter);
    }
    let text = strip_source_route(text);
    let (local_part, rest) = if text.starts_with('"') {
        quoted_string(text)?
    } else {
        bare_local_part(text)?
    };
    let domain = match rest.strip_prefix('@') {
        None if rest.is_empty() => None,
        None => return Err(AddressError::BadLocalPart),
        Some(domain) => Some(check_domain(domain)?),
    };
    Ok(Address::new(local_part, domain))
}

fn strip_source_route(text: &str) -> &str {
    match text.strip_prefix('@').and_then(|rest| rest.split_once(':')) {
        Some((route, address)) if !route.contains('"') => address,
        _ => text,
    }
}

/// Takes a quoted string off the front: its internal form and what follows.
fn quoted_string(text: &str) -> Result<(String, &str), AddressError> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = text.get(at + 1..).unwrap_or_default();
                return Ok((plain, rest));
            }
            '\\' => match chars.next() {
                Some((_, escaped)) => plain.push(escaped),
                None => return Err(AddressError::UnterminatedQuote),
            },
            c => plain.push(c),
        }
    }
    Err(AddressError::UnterminatedQuote)
}

/// Takes an unquoted local part off the front. Dots may stand anywhere: addresses such as
/// `x..y@` or `x.@` exist in the world, and refusing them would bounce their mail.
fn bare_local_part(text: &str) -> Result<(String, &str), AddressError> {
    let end = text.rfind('@').unwrap_or(text.len());
    let (local_part, rest) = text.split_at(end);
    if local_part.is_empty() {
        return Err(AddressError::EmptyLocalPart);
    }
    if !local_part.chars().all(|c| c == '.' || is_atom_char(c)) {
        return Err(AddressError::BadLocalPart);
    }
    Ok((local_part.to_owned(), rest))
}

fn check_domain(domain: &str) -> Result<&str, AddressError> {
    if domain.is_empty() {
        return Err(AddressError::EmptyDomain);
    }
    let is_literal = domain.starts_with('[') && domain.ends_with(']');
    let inner = if is_literal {
        domain.trim_matches(['[', ']'])
    } else {
        domain
    };
    let allowed = |c: char| {
        !c.is_ascii()
            || c.is_ascii_alphanumeric()
            || matches!(c, '.' | '-' | '_')
            || (is_literal && c == ':')
    };
    if inner.is_empty() || !inner.chars().all(allowed) {
        return Err(AddressError::BadDomain);
    }
    Ok(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Result<(String, Option<String>), AddressError> {
        parse_mailbox(text).map(|a| (a.local_part, a.domain))
    }

    #[test]
    fn addresses_parse_into_their_internal_form() {
        let some = |l: &str, d: &str| Ok((l.to_owned(), Some(d.to_owned())));
        assert_eq!(parts("Info@Example.COM"), some("Info", "Example.COM"));
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
    fn what_is_no_address_is_refused_with_its_reason() {
        for (text, error) in [
            ("", AddressError::EmptyLocalPart),
            ("@example.com", AddressError::EmptyLocalPart),
            ("a@", AddressError::EmptyDomain),
            ("\"abc@example.com", AddressError::UnterminatedQuote),
            ("\"abc\\", AddressError::UnterminatedQuote),
            ("a b@example.com", AddressError::BadLocalPart),
            ("a@b@example.com", AddressError::BadLocalPart),
            ("\"a\"b@example.com", AddressError::BadLocalPart),
            ("a@exa mple.com", AddressError::BadDomain),
            ("a@b/c", AddressError::BadDomain),
            ("a\0b@example.com", AddressError::ControlCharacter),
        ] {
            assert_eq!(parts(text), Err(error), "{text:?}");
        }
        assert_eq!(parts(&"x".repeat(1025)), Err(AddressError::TooLong));
        assert_eq!(parse_address(""), Ok(ReversePath::Null));
    }
}
