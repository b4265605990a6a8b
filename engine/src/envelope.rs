//! The envelope: who sends, who receives (RFC 5321 section 2.3.1).

use crate::address::Address;
pub use crate::address::ReversePath;

/// One recipient of an envelope.
///
/// ```
/// use mailstow_engine::{Recipient, parse_mailbox};
///
/// let recipient = Recipient {
///     address: parse_mailbox("info@example.com")?,
///     // Before aliases, as ORCPT said it.
///     original: Some("office@example.com".into()),
/// };
/// assert_eq!(recipient.address.external(), "info@example.com");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipient {
    /// The forward-path, as the client gave it (case kept).
    pub address: Address,
    /// The original recipient (RFC 3461 `ORCPT`, decoded, without its address type): the address
    /// before aliases, in external form; `None` when unknown. Becomes `X-Original-To`.
    pub original: Option<String>,
}
