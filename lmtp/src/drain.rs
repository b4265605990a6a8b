//! The order to come to an end: deliveries finish, nothing else is waited for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Gives the order; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ordered: AtomicBool,
    notify: Arc<Notify>,
}

impl Drain {
    /// Gives the order. It cannot be taken back.
    pub(crate) fn order(&self) {
        self.0.ordered.store(true, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    /// Whether the order was given.
    pub(crate) fn is_ordered(&self) -> bool {
        self.0.ordered.load(Ordering::SeqCst)
    }

    /// Waits for the order.
    pub(crate) async fn ordered(&self) {
        let mut listener = self.listener();
        std::future::poll_fn(|context| listener.poll(context)).await;
    }

    /// Listens for the order, many times over without being set up again.
    pub(crate) fn listener(&self) -> DrainListener {
        DrainListener {
            drain: self.clone(),
            // `notify_waiters` reaches every future made before it is called; the flag, set
            // earlier, is what those made later see.
            notified: Box::pin(Arc::clone(&self.0.notify).notified_owned()),
            waker: None,
        }
    }
}

/// One listener.
#[derive(Debug)]
pub(crate) struct DrainListener {
    drain: Drain,
    notified: Pin<Box<OwnedNotified>>,
    /// Woken by the order.
    waker: Option<Waker>,
}

impl DrainListener {
    /// Ready once the order was given.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.drain.is_ordered() {
            return Poll::Ready(());
        }
        let waker = context.waker();
        if self.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            // All listeners share a lock, which is not taken for every wait of every session.
            return Poll::Pending;
        }
        let polled = self.notified.as_mut().poll(context);
        if polled.is_pending() {
            self.waker = Some(waker.clone());
        }
        polled
    }

    /// Whether the order was given.
    pub(crate) fn is_ordered(&self) -> bool {
        self.drain.is_ordered()
    }
}
