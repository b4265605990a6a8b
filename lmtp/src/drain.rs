//! The order to come to an end: deliveries finish, nothing else is waited for.

use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Gives the order, by being cancelled; clones share it. It cannot be taken back.
pub(crate) type Drain = CancellationToken;

/// Listens for the order, many times over without being set up again.
#[derive(Debug)]
pub(crate) struct DrainListener {
    /// Below that of the server, so that sessions do not share a lock.
    token: CancellationToken,
    order: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl DrainListener {
    pub(crate) fn new(drain: &Drain) -> Self {
        let token = drain.child_token();
        Self {
            order: Box::pin(token.clone().cancelled_owned()),
            token,
        }
    }

    /// Ready once the order was given.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.order.as_mut().poll(context)
    }

    /// Whether the order was given.
    pub(crate) fn is_ordered(&self) -> bool {
        self.token.is_cancelled()
    }
}
