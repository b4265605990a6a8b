//! Where one recipient's mail goes: a mailbox, a transport, or what local delivery says.

use super::local::LocalTarget;
use super::mailbox_target::{MailboxTarget, TransportTarget};

/// Where one recipient's mail goes.
///
/// ```
/// use mailstow_engine::{Format, MailboxTarget, Target};
///
/// let mailbox = MailboxTarget::new("example.com/info", Format::Maildir, 5000, 5000)?;
/// assert_eq!(Target::from(mailbox.clone()).mailbox(), Some(&mailbox));
/// assert_eq!(Target::transport("autoreply", "example.com").mailbox(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// It is stored in a mailbox.
    Mailbox(MailboxTarget),
    /// It is handed to a transport.
    Transport(TransportTarget),
    /// It goes where local delivery takes it: an account of this machine, a command, elsewhere.
    Local(Box<LocalTarget>),
}

impl Target {
    /// Returns the target of a transport.
    pub fn transport(transport: impl Into<String>, nexthop: impl Into<String>) -> Self {
        Self::Transport(TransportTarget {
            transport: transport.into(),
            nexthop: nexthop.into(),
        })
    }

    /// Returns the mailbox, if it is one.
    pub fn mailbox(&self) -> Option<&MailboxTarget> {
        match self {
            Self::Mailbox(target) => Some(target),
            Self::Transport(_) | Self::Local(_) => None,
        }
    }

    /// Returns roughly how many bytes of memory it takes beside itself.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Mailbox(target) => target.path.len(),
            Self::Transport(target) => target.transport.len() + target.nexthop.len(),
            Self::Local(target) => target.text_bytes(),
        }
    }
}

impl From<MailboxTarget> for Target {
    fn from(target: MailboxTarget) -> Self {
        Self::Mailbox(target)
    }
}
