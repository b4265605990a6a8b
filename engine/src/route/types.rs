//! What routing answers.
//!
//! Imports `status`.

use super::error::RouteError;
use std::fmt;

/// Postfix's address classes (ADDRESS_CLASS_README).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the class names are the documentation")]
pub enum AddressClass {
    Local,
    VirtualAlias,
    VirtualMailbox,
    Relay,
    Default,
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::VirtualAlias => "virtual_alias",
            Self::VirtualMailbox => "virtual_mailbox",
            Self::Relay => "relay",
            Self::Default => "default",
        })
    }
}

/// Mailbox formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One file per message; the table's value ends in `/`.
    Maildir,
    /// All messages in one file.
    Mbox,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maildir => "maildir",
            Self::Mbox => "mbox",
        })
    }
}

/// Where one recipient's mail is stored, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MailboxTarget {
    /// Below `virtual_mailbox_base`, without leading or trailing `/`.
    pub path: String,
    /// Maildir or mbox.
    pub format: Format,
    /// Owner; never 0.
    pub uid: u32,
    /// Group; never 0.
    pub gid: u32,
}

/// One final recipient of a resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The final recipient, in external form.
    pub recipient: String,
    /// Its address class.
    pub class: AddressClass,
    /// The transport Postfix would choose.
    pub transport: String,
    /// The nexthop Postfix would choose.
    pub nexthop: String,
    /// Where its mail is stored; `None` for what is not stored here.
    pub mailbox: Option<MailboxTarget>,
}

/// All that is known of one address.
#[derive(Clone, Debug, Default)]
pub struct Resolution {
    /// The final recipients.
    pub results: Vec<Route>,
    /// What an LMTP client would be told instead of 250; `None` when the mail is accepted.
    pub error: Option<crate::status::Status>,
}

impl Resolution {
    /// Nothing is known but what went wrong.
    pub(super) fn failed(error: &RouteError) -> Self {
        Self {
            results: Vec::new(),
            error: Some(error.status()),
        }
    }

    /// Something is wrong with one recipient. Trouble that may pass decides for all of them, for
    /// only then the mail is kept.
    pub(super) fn note(&mut self, error: &RouteError) {
        let status = error.status();
        let worse = match &self.error {
            None => true,
            Some(known) => !known.is_temporary() && status.is_temporary(),
        };
        if worse {
            self.error = Some(status);
        }
    }
}
