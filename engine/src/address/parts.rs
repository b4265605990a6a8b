//! An address: local part and domain.

use super::quote::quote_local_part;
use std::fmt;

/// An address with its local part in internal (unquoted) form.
///
/// ```
/// use mailstow_engine::Address;
///
/// let address = Address::new("two words", Some("example.com"));
/// assert_eq!(address.internal(), "two words@example.com");
/// assert_eq!(address.external(), "\"two words\"@example.com");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Internal form, case kept.
    pub local_part: String,
    /// Without the `@`; `None` for a bare local part (`<postmaster>`).
    pub domain: Option<String>,
}

impl Address {
    /// An address from its parts, local part in internal form.
    pub fn new(local_part: impl Into<String>, domain: Option<&str>) -> Self {
        Self {
            local_part: local_part.into(),
            domain: domain.map(str::to_owned),
        }
    }

    /// An address from its internal form; the domain is what follows the last `@`.
    pub fn from_internal(text: &str) -> Self {
        match text.rsplit_once('@') {
            Some((local_part, domain)) => Self::new(local_part, Some(domain)),
            None => Self::new(text, None),
        }
    }

    /// The internal form `local@domain`, unquoted.
    pub fn internal(&self) -> String {
        match &self.domain {
            Some(domain) => join(&self.local_part, domain),
            None => self.local_part.clone(),
        }
    }

    /// The external form, local part quoted where RFC 5322 wants it.
    pub fn external(&self) -> String {
        let local_part = quote_local_part(&self.local_part);
        match &self.domain {
            Some(domain) => join(&local_part, domain),
            None => local_part.into_owned(),
        }
    }
}

/// `local_part@domain`
pub(crate) fn join(local_part: &str, domain: &str) -> String {
    let mut address = String::with_capacity(local_part.len() + 1 + domain.len());
    push_internal(&mut address, local_part, domain);
    address
}

/// Appends `local_part@domain`.
pub(crate) fn push_internal(text: &mut String, local_part: &str, domain: &str) {
    text.push_str(local_part);
    text.push('@');
    text.push_str(domain);
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.external())
    }
}
