//! Transports: deliver messages to destinations other than mailboxes: commands, other servers.
//!
//! A transport has the name of a service in Postfix's master.cf; `transport_maps` and similar
//! parameters name it with a nexthop. Invariant: each recipient of a request is answered once, even
//! if the transport fails. Source: Postfix transport(5), master(5).

mod done;
mod loops;
mod pipe;
mod refusing;
mod registry;
mod request;

pub use crate::dsn::{Disposition, Dsn, Notify, RecipientDsn, Returned};
pub use crate::mail::Client;
pub use crate::target::{CommandTarget, LocalEnd, LocalTarget, TransportTarget};
pub use done::Done;
pub(crate) use done::{Claim, answers};
pub(crate) use loops::delivered_to;
pub use pipe::kill_commands;
pub(crate) use registry::Transports;
pub use registry::problem;
pub use request::{Transport, TransportRecipient, TransportRequest};
