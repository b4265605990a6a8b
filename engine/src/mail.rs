//! A message on its way, and where it comes from.
//!
//! A leaf; imports `dsn`, `envelope`, `message`. Everything that delivers takes it: mailboxes and
//! transports.

use crate::dsn::Dsn;
use crate::envelope::ReversePath;
use crate::message::Message;

/// Who gave a message to the client of ours: the attributes of XFORWARD (XFORWARD_README). Each is
/// empty when it is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The host name.
    pub name: String,
    /// The network address.
    pub address: String,
    /// The port.
    pub port: String,
    /// What it called itself: HELO.
    pub helo: String,
    /// SMTP or ESMTP.
    pub protocol: String,
    /// Who submitted the message: `AUTH` of `MAIL` (RFC 4954 section 5).
    pub sasl_sender: String,
}

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
///     client: Default::default(),
///     dsn: Default::default(),
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
    /// Who gave it to the client.
    pub client: Client,
    /// Which notices the sender asks for.
    pub dsn: Dsn,
    /// The content.
    pub message: Message,
}
