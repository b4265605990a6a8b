//! What a transport is, and the requests that it gets.

use super::done::Done;
use crate::envelope::Recipient;
use crate::mail::Mail;
use crate::sync::Arc;
use crate::target::TransportTarget;
use std::fmt;
use std::time::Instant;

/// Delivers messages to destinations other than mailboxes.
///
/// A success is reported to the client once the delivery log has it: a repetition of the message is
/// then not given to the transport again. Without a log, repetitions are not recognised.
///
/// ```
/// use mailstow_engine::Status;
/// use mailstow_engine::transport::{Transport, TransportRequest};
///
/// #[derive(Debug)]
/// struct Counter;
///
/// impl Transport for Counter {
///     fn deliver(&self, request: TransportRequest) {
///         for recipient in &request.recipients {
///             if request.done.begin(recipient.index) {
///                 request.done.answer(recipient.index, Status::ok("counted"));
///             }
///         }
///     }
/// }
/// ```
pub trait Transport: Send + Sync + fmt::Debug {
    /// Begins to deliver. Returns at once, and never waits for a command or a server.
    fn deliver(&self, request: TransportRequest);
}

/// A message and its recipients for one nexthop.
#[derive(Debug)]
pub struct TransportRequest {
    /// The message: reverse-path, content, client.
    pub mail: Arc<Mail>,
    /// The name of the transport, and the nexthop.
    pub target: TransportTarget,
    /// The recipients; at least one.
    pub recipients: Vec<TransportRecipient>,
    /// When the outcome must be known. Later recipients are answered 4xx.
    pub deadline: Instant,
    /// Takes the outcomes.
    pub done: Done,
}

/// A recipient of a request.
#[derive(Clone, Debug)]
pub struct TransportRecipient {
    /// The final recipient, and the original one.
    pub recipient: Recipient,
    /// The index by which [`Done`] identifies it.
    pub index: usize,
}
