//! Transports: take messages to what is not a mailbox: a command, another server.
//!
//! Imports leaves only (`mail`, `envelope`, `address`, `message`, `status`, `config`, `target`,
//! `thread`). A transport is known by its name, that of a service of Postfix's master.cf;
//! `transport_maps` and its like name it with a nexthop. Invariant: each recipient of a request is
//! answered once, whatever becomes of the transport. Source: Postfix transport(5), master(5).

mod done;
mod pipe;
mod refusing;
mod registry;

pub use crate::mail::Client;
pub use crate::target::TransportTarget;
pub use done::Done;
pub(crate) use done::{Claim, answers};
pub(crate) use registry::Transports;
pub use registry::problem;

use crate::envelope::Recipient;
use crate::mail::Mail;
use crate::sync::Arc;
use std::fmt;
use std::time::Instant;

/// Takes messages to something that is not a mailbox.
///
/// A success is reported to the client once the delivery log has it: a repetition of the message is
/// then not handed over again. Without a log nothing is remembered.
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
    /// The message: reverse-path, content, where it comes from.
    pub mail: Arc<Mail>,
    /// The name of the transport, and the nexthop.
    pub target: TransportTarget,
    /// Who is to get it; at least one.
    pub recipients: Vec<TransportRecipient>,
    /// When the outcome must be known. What is not done by then is answered 4xx.
    pub deadline: Instant,
    /// Takes the outcomes.
    pub done: Done,
}

/// A recipient of a request.
#[derive(Clone, Debug)]
pub struct TransportRecipient {
    /// The final recipient, and the original one.
    pub recipient: Recipient,
    /// By what [`Done`] knows it.
    pub index: usize,
}
