//! What goes into a delivery and what comes out.

use crate::dsn::Disposition;
pub use crate::mail::Mail;
use crate::status::Status;
use std::time::Duration;

/// The outcome of one recipient's delivery.
///
/// ```
/// # mod site { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/site.inc")); }
/// # let site = site::site()?;
/// # let engine = site.engine()?;
/// # let (mail, to) = site.mail(&engine, "Subject: hello\n\nIt works.\n")?;
/// let outcomes = engine.deliver(mail, to);
/// assert!(outcomes[0].status.is_success());
/// assert!(outcomes[0].mailbox.as_deref().is_some_and(|m| m.ends_with("example.com/info/")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Outcome {
    /// 2xx only after the message is durable.
    pub status: Status,
    /// The delivery failed, or was not made, but the message may be in the mailbox, or appear there
    /// later: its flush failed, the delivery log failed with the message in it, or an earlier
    /// delivery of the same message is in progress.
    pub may_appear: bool,
    /// The mailbox as operators name it: `virtual_mailbox_base` joined with its path (a trailing
    /// `/` for a Maildir). `None` when no mailbox was chosen.
    pub mailbox: Option<String>,
    /// Time spent waiting for a writer.
    pub queued: Duration,
    /// Time spent writing and flushing.
    pub stored: Duration,
    /// What a success means for a sender who asked for a success notice.
    pub disposition: Disposition,
}
