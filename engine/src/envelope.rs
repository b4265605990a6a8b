//! The envelope: who sends, who receives (RFC 5321 section 2.3.1).
//!
//! Imports `address`.

use crate::address::Address;
pub use crate::address::ReversePath;

/// One recipient of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The forward-path, as the client gave it (case kept).
    pub address: Address,
    /// The original recipient (RFC 3461 `ORCPT`, decoded, without its address type): the address
    /// before aliases, in external form; empty when unknown. Becomes `X-Original-To`.
    pub original: String,
}

/// Sender and recipients of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where failure notices go.
    pub reverse_path: ReversePath,
    /// In the order of the `RCPT` commands.
    pub recipients: Vec<Recipient>,
    /// The queue id of the client (XFORWARD `IDENT`), for the log; empty when unknown.
    pub queue_id: String,
}
