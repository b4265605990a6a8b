//! Whether the client has read the replies to its messages: confirms them or leaves them in doubt.
//!
//! A message is confirmed when the system knows that the client has read everything sent to it, or
//! when the client goes on, or closes the connection without an error, with everything received.
//! Else it is in doubt. What is sent later spoils the evidence, so that it is looked at before
//! that.

use super::Session;
use crate::client_socket::ClientSocket;

impl<S: ClientSocket> Session<S> {
    /// Bytes came after the replies had been sent. Only a client that has received them sends more
    /// because it read them. Before the last command of a session, the system is asked for more.
    pub(super) fn client_goes_on(&mut self) {
        if self.unread.is_empty() || !self.wire.is_delivered() {
            return;
        }
        let quit = self.wire.input.unused().get(..4);
        let is_last = quit.is_some_and(|verb| verb.eq_ignore_ascii_case(b"QUIT"));
        if !is_last || !self.wire.is_unread() {
            self.unread.confirm();
        }
    }

    /// Something is about to be sent that the client does not wait for: confirms the messages
    /// first, if the client is known to have read the replies.
    pub(super) async fn confirm_if_read(&mut self) {
        if !self.unread.is_empty() && self.wire.is_read().await {
            self.unread.confirm();
        }
    }

    /// The session is over: confirms its last messages or leaves them in doubt.
    pub(super) async fn settle(&mut self) {
        if !self.unread.is_empty() && self.wire.was_read().await {
            self.unread.confirm();
        }
        self.unread.leave_in_doubt();
    }
}
