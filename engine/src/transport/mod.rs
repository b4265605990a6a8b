//! Transports: take messages to what is not a mailbox: a command, another server.
//!
//! A transport is known by its name, that of a service of Postfix's master.cf; `transport_maps` and
//! its like name it with a nexthop. Invariant: each recipient of a request is
//! answered once, whatever becomes of the transport. Source: Postfix transport(5), master(5).

mod done;
mod loops;
mod pipe;
mod refusing;
mod registry;
mod request;

pub use crate::mail::Client;
pub use crate::target::{CommandTarget, LocalEnd, LocalTarget, TransportTarget};
pub use done::Done;
pub(crate) use done::{Claim, answers};
pub(crate) use loops::delivered_to;
pub(crate) use registry::Transports;
pub use registry::problem;
pub use request::{Transport, TransportRecipient, TransportRequest};
