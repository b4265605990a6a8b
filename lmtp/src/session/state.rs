//! Where a session is in its dialogue (RFC 5321 section 4.1.4, RFC 3030).
//!
//! Invariant: there is a message that comes in chunks only inside a transaction.

use super::body::Body;
use super::transaction::Transaction;
use mailstow_engine::LineEnds;

/// The state of a session.
#[derive(Debug)]
pub(super) enum SessionState {
    /// Before the first `LHLO`.
    Connected,
    /// Between two transactions.
    Greeted,
    /// From `MAIL` on: recipients, and then the message.
    Envelope(Box<Transaction>),
    /// From the first `BDAT` on, between two chunks of the message.
    Chunks(Box<Transaction>, Box<Chunks>),
}

/// A message that comes by `BDAT`.
#[derive(Debug)]
pub(super) struct Chunks {
    /// Where it goes; `None` when no recipient was accepted.
    pub(super) body: Option<Body>,
    /// Converts its line ends.
    pub(super) line_ends: LineEnds,
}

impl SessionState {
    /// Returns true once the client has said `LHLO`.
    pub(super) fn is_greeted(&self) -> bool {
        !matches!(self, Self::Connected)
    }

    /// Returns true between two chunks of a message.
    pub(super) fn is_between_chunks(&self) -> bool {
        matches!(self, Self::Chunks(..))
    }

    /// Returns the transaction, if there is one.
    pub(super) fn transaction(&self) -> Option<&Transaction> {
        match self {
            Self::Connected | Self::Greeted => None,
            Self::Envelope(transaction) | Self::Chunks(transaction, _) => Some(transaction),
        }
    }

    /// As [`SessionState::transaction`].
    pub(super) fn transaction_mut(&mut self) -> Option<&mut Transaction> {
        match self {
            Self::Connected | Self::Greeted => None,
            Self::Envelope(transaction) | Self::Chunks(transaction, _) => Some(transaction),
        }
    }

    /// Ends the transaction, if there is one, and returns it.
    pub(super) fn end_transaction(&mut self) -> Option<Box<Transaction>> {
        if !self.is_greeted() {
            return None;
        }
        match std::mem::replace(self, Self::Greeted) {
            Self::Connected | Self::Greeted => None,
            Self::Envelope(transaction) | Self::Chunks(transaction, _) => Some(transaction),
        }
    }

    /// Takes out the message whose next chunk is coming; `None` before its first chunk.
    pub(super) fn take_chunks(&mut self) -> Option<Box<Chunks>> {
        match std::mem::replace(self, Self::Greeted) {
            Self::Chunks(transaction, chunks) => {
                *self = Self::Envelope(transaction);
                Some(chunks)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Puts the message back, to wait for its next chunk.
    pub(super) fn put_chunks(&mut self, chunks: Box<Chunks>) {
        if let Some(transaction) = self.end_transaction() {
            *self = Self::Chunks(transaction, chunks);
        }
    }
}
