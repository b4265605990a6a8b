//! The transports `error:`, `retry:` and `discard:`, which deliver nowhere.
//!
//! Sources: Postfix error(8), discard(8).

use super::{Transport, TransportRequest};
use crate::status::Status;

/// Gives every recipient the same answer.
#[derive(Debug)]
pub(super) enum Refusing {
    /// The nexthop is the reason of a permanent failure: `5.7.1 text`, or a text.
    Error,
    /// As `Error`, but temporary.
    Retry,
    /// The message is discarded, and the recipient is answered with success.
    Discard,
}

impl Refusing {
    fn status(&self, nexthop: &str) -> Status {
        match self {
            Self::Error => Status::refused(nexthop, false),
            Self::Retry => Status::refused(nexthop, true),
            Self::Discard if nexthop.is_empty() => Status::ok("discarded"),
            Self::Discard => Status::ok(nexthop.to_owned()),
        }
    }
}

impl Transport for Refusing {
    fn deliver(&self, request: TransportRequest) {
        let status = self.status(&request.target.nexthop);
        for recipient in &request.recipients {
            if request.done.begin(recipient.index) {
                request.done.answer(recipient.index, status.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_its_nexthop_says() {
        for (transport, nexthop, said) in [
            (
                Refusing::Error,
                "5.7.1 not for you",
                "550 5.7.1 not for you",
            ),
            (Refusing::Error, "not for you", "550 5.0.0 not for you"),
            (Refusing::Error, "4.2.1 later", "550 5.2.1 later"),
            (Refusing::Retry, "4.3.2 later", "450 4.3.2 later"),
            (Refusing::Retry, "later", "450 4.0.0 later"),
            (Refusing::Error, "5.1.1111 x", "550 5.0.0 5.1.1111 x"),
            (Refusing::Discard, "d.example", "250 2.0.0 d.example"),
            (Refusing::Discard, "", "250 2.0.0 discarded"),
        ] {
            assert_eq!(transport.status(nexthop).to_string(), said);
        }
    }
}
