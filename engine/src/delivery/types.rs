//! What goes into a delivery and what comes out.
//!
//! Imports `envelope`, `message`, `status`.

use crate::envelope::ReversePath;
use crate::message::Message;
use crate::status::Status;
use std::time::Duration;

/// A message on its way: what all its recipients share.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Becomes `Return-Path` and the sender of the mbox `From ` line.
    pub reverse_path: ReversePath,
    /// The client's queue id (XFORWARD IDENT), which the delivery log remembers; `None` when
    /// unknown.
    pub queue_id: Option<String>,
    /// The content.
    pub message: Message,
}

/// What became of one recipient's delivery.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// 2xx only after the message is durable.
    pub status: Status,
    /// The mailbox as an operator names it: `virtual_mailbox_base` joined with its path (a
    /// trailing `/` for a Maildir); for the log. `None` when no mailbox was chosen.
    pub mailbox: Option<String>,
    /// Time spent waiting for a writer.
    pub queued: Duration,
    /// Time spent writing and flushing.
    pub stored: Duration,
}
