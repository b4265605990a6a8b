//! Long messages that go into their mailbox while they arrive.
//!
//! Imports `transaction` and the engine. The file system of a mailbox may be slow or hang, and the
//! threads of the sessions must not wait for it: such work is done while another thread takes
//! over the other sessions. Invariant: only so many messages do this at once, so that threads are
//! left for everything else that waits.

use super::transaction::Transaction;
use mailstow_engine::{Engine, MessageBuilder};
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many messages at once; those that come besides are copied into their mailboxes.
pub(crate) const AHEAD_MESSAGES_MAX: usize = 32;

/// The places there are for such messages.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AHEAD_MESSAGES_MAX)))
    }
}

impl Places {
    /// One for the message, if all its recipients have one mailbox and a place is free.
    pub(super) fn place_for(
        &self,
        engine: &Engine,
        transaction: Option<&Transaction>,
        message: &mut MessageBuilder,
    ) -> Option<Place> {
        let transaction = transaction?;
        let (recipients, target) = transaction.only_mailbox()?;
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        let place = Place { _permit: permit };
        let reverse_path = &transaction.mail.reverse_path;
        place.work(|| engine.go_ahead(message, reverse_path, (&recipients, target)));
        Some(place)
    }
}

/// The right to wait for a mailbox while a message arrives.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Does what may wait for the mailbox.
    pub(super) fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
            // No other thread could take over.
            _ => work(),
        }
    }
}
