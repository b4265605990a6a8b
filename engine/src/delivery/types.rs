//! What goes into a delivery and what comes out.

use crate::envelope::ReversePath;
use crate::message::Message;
use crate::status::Status;
use std::time::Duration;

/// A message on its way: what all its recipients share.
///
/// ```
/// # mod site { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/site.inc")); }
/// # let site = site::site()?;
/// use mailstow_engine::{Mail, ReversePath, parse_mailbox};
///
/// # let engine = site.engine()?;
/// let mut message = engine.new_message();
/// message.write(b"Subject: hello\n\nIt works.\n")?;
/// let mail = Mail {
///     reverse_path: ReversePath::Address(parse_mailbox("me@example.org")?),
///     queue_id: Some("4XyZ1b2c3d".into()),
///     message: message.finish()?,
/// };
/// assert_eq!(mail.message.size(), 26);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// The delivery failed, or was not made, and the message may be in the mailbox all the same, or
    /// appear there later: because flushing it failed, because the delivery log failed with the
    /// message in it, or because an earlier delivery of the same message is under way.
    pub may_appear: bool,
    /// The mailbox as an operator names it: `virtual_mailbox_base` joined with its path (a
    /// trailing `/` for a Maildir); for the log. `None` when no mailbox was chosen.
    pub mailbox: Option<String>,
    /// Time spent waiting for a writer.
    pub queued: Duration,
    /// Time spent writing and flushing.
    pub stored: Duration,
}
