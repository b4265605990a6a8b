//! A message that a client submits.

use crate::counters::Permit;
use crate::message::Envelope;
use mailstow_engine::Message;

/// A message and its envelope, to be sent.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) envelope: Envelope,
    pub(crate) message: Message,
    pub(crate) permit: Permit,
}
