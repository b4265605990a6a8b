//! A mailbox as a record of the log names it.

use crate::log::AcceptedRecipient;
use crate::mailbox::MailboxError;
use crate::target::{Format, MailboxTarget, Owner};

/// A mailbox as a record names it, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LoggedMailbox {
    pub(super) path: String,
    pub(super) format: Format,
    pub(super) owner: Owner,
}

impl LoggedMailbox {
    pub(super) fn of(recipient: &AcceptedRecipient, format: Format) -> Self {
        Self {
            path: recipient.mailbox.clone(),
            format,
            owner: Owner {
                uid: recipient.uid,
                gid: recipient.gid,
            },
        }
    }

    /// Checks the path as routing checks the paths in tables.
    pub(super) fn target(&self) -> Result<MailboxTarget, MailboxError> {
        let Owner { uid, gid } = self.owner;
        let target = MailboxTarget::new(self.path.as_str(), self.format, uid, gid);
        target.map_err(|error| MailboxError::Path {
            mailbox: error.path,
            cause: error.cause,
        })
    }
}
