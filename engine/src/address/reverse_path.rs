//! Where failure notices go.

use super::parts::Address;
use std::fmt;

/// Where failure notices go: nowhere (`<>`) or to an address.
///
/// ```
/// use mailstow_engine::{ReversePath, parse_mailbox};
///
/// let sender = ReversePath::Address(parse_mailbox("me@example.org")?);
/// assert_eq!(sender.external(), "me@example.org");
/// assert_eq!(ReversePath::Null.external(), "");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`: the message is a notification itself.
    Null,
    /// An address.
    Address(Address),
}

impl ReversePath {
    /// The external form without angle brackets; empty for the null reverse-path.
    pub fn external(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Address(address) => address.external(),
        }
    }
}

impl fmt::Display for ReversePath {
    /// As [`ReversePath::external`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.external())
    }
}
