//! Long messages that are received in place: in their mailbox, while they arrive.
//!
//! The file system of a mailbox may be slow or hang, and the threads of the sessions must not wait
//! for it: while one of them does such work, another thread takes over the other sessions.
//! Invariant: only so many messages do this at once, so that threads are left for everything else
//! that waits.

use mailstow_engine::route::MailboxTarget;
use mailstow_engine::{Engine, MessageBuilder, Recipient, ReversePath};
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many messages are received in place at once; others are copied into their mailboxes.
pub(crate) const IN_PLACE_MESSAGES_MAX: usize = 32;

/// The slots for such messages.
#[derive(Clone, Debug)]
pub(crate) struct InPlaceSlots(Arc<Semaphore>);

impl Default for InPlaceSlots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(IN_PLACE_MESSAGES_MAX)))
    }
}

impl InPlaceSlots {
    /// Receives a message in place, in the one mailbox of all its recipients, if a slot is free.
    pub(crate) fn receive(
        &self,
        engine: &Engine,
        message: &mut MessageBuilder,
        reverse_path: &ReversePath,
        (recipients, target): (&[Recipient], &MailboxTarget),
    ) -> Option<InPlaceSlot> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        let slot = InPlaceSlot { _permit: permit };
        slot.work(|| engine.receive_in_place(message, reverse_path, (recipients, target)));
        Some(slot)
    }
}

/// The right to wait for a mailbox while a message arrives.
#[derive(Debug)]
pub(crate) struct InPlaceSlot {
    _permit: OwnedSemaphorePermit,
}

impl InPlaceSlot {
    /// Does work that may wait for the mailbox.
    pub(crate) fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
            // No other thread could take over.
            _ => work(),
        }
    }
}
