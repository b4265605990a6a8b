//! What routing answers.

use super::error::RouteError;
use crate::status::Status;
use crate::target::{Format, MailboxTarget};
use std::fmt;
use std::path::PathBuf;

/// What a recipient was expanded by, for notices of success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expansion {
    /// Nothing: its mail goes where it is sent to.
    #[default]
    None,
    /// An alias, or a `.forward` file. Its members cause no notice of success (RFC 3461 section
    /// 5.2.7.2).
    Alias,
    /// An alias with an `owner-` alias beside it. Mail is delivered once the list has it (RFC 3461
    /// section 5.2.7.3).
    List,
}

impl Expansion {
    /// This one, or `later` where nothing was expanded before.
    pub(super) fn or(self, later: Self) -> Self {
        match self {
            Self::None => later,
            _ => self,
        }
    }
}

/// Postfix's address classes (ADDRESS_CLASS_README).
///
/// ```
/// # use mailstow_engine::{Router, RoutingSettings, parse_mailbox};
/// # use mailstow_engine::table::{TableCache, TableContext};
/// #
/// # let settings = RoutingSettings {
/// #     virtual_mailbox_domains: "example.com".into(),
/// #     virtual_mailbox_maps: "inline:{info@example.com=example.com/info/}".into(),
/// #     virtual_uid_maps: "static:5000".into(),
/// #     virtual_gid_maps: "static:5000".into(),
/// #     virtual_transport: "virtual".into(),
/// #     ..RoutingSettings::default()
/// # };
/// # let router = Router::open(&settings, &TableCache::new(TableContext::default()))?;
/// use mailstow_engine::AddressClass;
///
/// assert_eq!(router.class("example.com")?, AddressClass::VirtualMailbox);
/// assert_eq!(AddressClass::VirtualMailbox.to_string(), "virtual_mailbox");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

/// Whose rights a command is run or a file is written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Login name.
    pub user: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What becomes of mail for a final recipient.
///
/// ```
/// # use mailstow_engine::{Router, RoutingSettings, parse_mailbox};
/// # use mailstow_engine::table::{TableCache, TableContext};
/// #
/// # let settings = RoutingSettings {
/// #     virtual_mailbox_domains: "example.com".into(),
/// #     virtual_mailbox_maps: "inline:{info@example.com=example.com/info/}".into(),
/// #     virtual_uid_maps: "static:5000".into(),
/// #     virtual_gid_maps: "static:5000".into(),
/// #     virtual_transport: "virtual".into(),
/// #     ..RoutingSettings::default()
/// # };
/// # let router = Router::open(&settings, &TableCache::new(TableContext::default()))?;
/// use mailstow_engine::Destination;
///
/// let resolution = router.resolve(&parse_mailbox("info@example.com")?);
/// assert_eq!(resolution.results[0].destination, Destination::Mailbox);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// It is handed to the transport.
    Transport,
    /// It is stored in a virtual mailbox ([`Route::mailbox`]).
    Mailbox,
    /// It is stored in the mailbox of an account of this machine.
    User {
        /// The whole path.
        path: PathBuf,
        /// Maildir or mbox.
        format: Format,
        /// The account.
        rights: Rights,
    },
    /// An alias names a file.
    File {
        /// The whole path.
        path: PathBuf,
        /// Maildir or mbox.
        format: Format,
        /// Who writes it.
        rights: Rights,
    },
    /// An alias names a command.
    Command {
        /// As it stands in the alias, without the `|`.
        command: String,
        /// Who runs it.
        rights: Rights,
    },
    /// It is taken and thrown away: mail for a postmaster without an alias, or for a list without
    /// members.
    Discarded,
    /// It is returned to its sender, or kept for later.
    Refused(Status),
}

/// One final recipient of a resolution.
///
/// ```
/// # use mailstow_engine::{Router, RoutingSettings, parse_mailbox};
/// # use mailstow_engine::table::{TableCache, TableContext};
/// #
/// # let settings = RoutingSettings {
/// #     virtual_mailbox_domains: "example.com".into(),
/// #     virtual_mailbox_maps: "inline:{info@example.com=example.com/info/}".into(),
/// #     virtual_uid_maps: "static:5000".into(),
/// #     virtual_gid_maps: "static:5000".into(),
/// #     virtual_transport: "virtual".into(),
/// #     ..RoutingSettings::default()
/// # };
/// # let router = Router::open(&settings, &TableCache::new(TableContext::default()))?;
/// let resolution = router.resolve(&parse_mailbox("info@example.com")?);
/// let route = &resolution.results[0];
/// assert_eq!((route.transport.as_str(), route.nexthop.as_str()), ("virtual", "example.com"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// What becomes of its mail.
    pub destination: Destination,
    /// The sender that replaces that of the message: the owner of a mailing list; empty for the
    /// null reverse-path.
    pub sender: Option<String>,
}

/// All that is known of one address.
///
/// ```
/// # use mailstow_engine::{Router, RoutingSettings, parse_mailbox};
/// # use mailstow_engine::table::{TableCache, TableContext};
/// #
/// # let settings = RoutingSettings {
/// #     virtual_mailbox_domains: "example.com".into(),
/// #     virtual_mailbox_maps: "inline:{info@example.com=example.com/info/}".into(),
/// #     virtual_uid_maps: "static:5000".into(),
/// #     virtual_gid_maps: "static:5000".into(),
/// #     virtual_transport: "virtual".into(),
/// #     ..RoutingSettings::default()
/// # };
/// # let router = Router::open(&settings, &TableCache::new(TableContext::default()))?;
/// let known = router.resolve(&parse_mailbox("info@example.com")?);
/// assert_eq!((known.results.len(), known.error), (1, None));
/// let unknown = router.resolve(&parse_mailbox("nobody@example.com")?);
/// assert_eq!(unknown.error.map(|status| status.code), Some(550));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Resolution {
    /// The final recipients.
    pub results: Vec<Route>,
    /// The reply for an LMTP client instead of 250; `None` when the mail is accepted.
    pub error: Option<Status>,
    /// Why, in more words than a client gets.
    pub reason: Option<String>,
}

impl Resolution {
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
            self.reason = match error {
                // The status says it all.
                RouteError::UnknownUser { .. } | RouteError::Unlisted { .. } => None,
                error => Some(error.to_string()),
            };
        }
    }
}
