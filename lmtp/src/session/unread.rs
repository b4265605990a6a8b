//! Messages whose replies the client may not have read yet.

use crate::envelope_memory::EnvelopeMemory;
use mailstow_engine::Receipt;

/// Most messages of one session whose replies may be unread. A client that sends more without
/// reading is taken to have read the first of them: their contents take memory.
const UNREAD_MAX: usize = 8;

/// The messages of a session whose replies may be unread.
#[derive(Debug, Default)]
pub(super) struct Unread(Vec<Message>);

/// A message whose replies may be unread.
#[derive(Debug)]
struct Message {
    receipt: Receipt,
    /// The engine remembers its envelope for as long.
    _memory: EnvelopeMemory,
}

impl Unread {
    /// Adds a message whose replies are about to be sent.
    pub(super) fn push(&mut self, receipt: Receipt, memory: EnvelopeMemory) {
        if self.0.len() >= UNREAD_MAX {
            self.confirm();
        }
        self.0.push(Message {
            receipt,
            _memory: memory,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The client has read all replies.
    pub(super) fn confirm(&mut self) {
        let messages = self.0.drain(..);
        messages.for_each(|message| message.receipt.confirm());
    }

    /// Leaves the messages in doubt, as a receipt that is dropped does.
    pub(super) fn leave_in_doubt(&mut self) {
        self.0.clear();
    }
}
