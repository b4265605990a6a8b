//! The model of a message's content: all written bytes, and a naive search for its end.

use super::site::MESSAGE_BYTES_MAX;
use crate::api::message::{MAILSTOW_CONTENT_DOTS, MAILSTOW_CONTENT_WIRE};

/// The content written to a message.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) form: u32,
    pub(super) has_begun: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) is_refused: bool,
}

impl Written {
    /// Where the content ends, if its end was written.
    pub(super) fn end(&self) -> Option<usize> {
        let (first, later): (&[u8], &[u8]) = match self.form {
            MAILSTOW_CONTENT_WIRE => (b".\r\n", b"\r\n.\r\n"),
            MAILSTOW_CONTENT_DOTS => (b".\n", b"\n.\n"),
            _ => return None,
        };
        if self.bytes.starts_with(first) {
            return Some(first.len());
        }
        let found = self
            .bytes
            .windows(later.len())
            .position(|part| part == later);
        found.map(|at| at + later.len())
    }

    /// Whether the end has to come before the message can be delivered.
    pub(super) fn is_cut_short(&self) -> bool {
        self.form == MAILSTOW_CONTENT_WIRE && self.end().is_none() && !self.is_refused
    }

    /// Whether the message is stored; `None` when that depends on how its lines end.
    pub(super) fn is_stored(&self) -> Option<bool> {
        match (self.is_refused, self.bytes.len() <= MESSAGE_BYTES_MAX) {
            (true, _) => Some(false),
            (false, true) => Some(true),
            (false, false) => None,
        }
    }
}
