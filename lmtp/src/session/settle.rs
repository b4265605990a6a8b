//! Whether the client has read the replies to its messages: confirms them or leaves them in doubt.
//!
//! Imports `wire` and the engine. A message is confirmed when the system knows that the client has
//! read everything sent to it, or when the client goes on, or closes in good order, with everything
//! received. Else it is in doubt. What is sent later spoils the evidence, so that it is looked at
//! before that.

use super::Session;
use crate::client_socket::ClientSocket;
use crate::envelope_memory::EnvelopeMemory;
use mailstow_engine::Receipt;

/// Most messages of one session whose replies may be unread. A client that sends more without
/// reading is taken to have read the first of them: their contents take memory.
const UNREAD_MAX: usize = 8;

/// A message whose replies may be unread.
#[derive(Debug)]
pub(super) struct Unread {
    receipt: Receipt,
    /// The engine remembers its envelope for as long.
    _memory: EnvelopeMemory,
}

impl<S: ClientSocket> Session<S> {
    /// The replies to a message are about to be sent.
    pub(super) fn await_reading_of(&mut self, receipt: Receipt, memory: EnvelopeMemory) {
        if self.unread.len() >= UNREAD_MAX {
            self.confirm();
        }
        self.unread.push(Unread {
            receipt,
            _memory: memory,
        });
    }

    /// Bytes came after the replies had been sent. Only a client that has received them sends more
    /// because it read them. Before the last command of a session, the system is asked for more.
    pub(super) fn client_goes_on(&mut self) {
        if self.unread.is_empty() || !self.wire.is_delivered() {
            return;
        }
        let quit = self.wire.input.unused().get(..4);
        let is_last = quit.is_some_and(|verb| verb.eq_ignore_ascii_case(b"QUIT"));
        if !is_last || !self.wire.is_unread() {
            self.confirm();
        }
    }

    /// Something is about to be sent that the client does not wait for: confirms the messages
    /// first, if the client is known to have read the replies.
    pub(super) async fn confirm_if_read(&mut self) {
        if !self.unread.is_empty() && self.wire.is_read().await {
            self.confirm();
        }
    }

    /// The session is over: confirms its last messages or leaves them in doubt.
    pub(super) async fn settle(&mut self) {
        if !self.unread.is_empty() && self.wire.was_read().await {
            self.confirm();
        }
        // A receipt that is dropped leaves its message in doubt.
        self.unread.clear();
    }

    fn confirm(&mut self) {
        let unread = self.unread.drain(..);
        unread.for_each(|unread| unread.receipt.confirm());
    }
}
