//! Why a recipient has no mailbox.
//!
//! The Display text is for the operator (object, cause, remedy); the status text is for the client
//! and says no more than virtual(8) would.

use crate::status::{EnhancedCode, Status};
use crate::table::TableError;

/// Why an address cannot be delivered here.
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
/// use mailstow_engine::RouteError;
///
/// let unknown = router.mailbox(&parse_mailbox("nobody@example.com")?);
/// let error = unknown.expect_err("no such user");
/// assert!(matches!(error, RouteError::UnknownUser { .. }));
/// assert_eq!(error.status().to_string(), "550 5.1.1 <nobody@example.com> unknown user");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// In one of our domains, but not in `virtual_mailbox_maps`.
    #[error("unknown user: \"{address}\"")]
    UnknownUser {
        /// The recipient.
        address: String,
    },
    /// Neither in `virtual_mailbox_maps` nor in a virtual mailbox domain.
    #[error(
        "<{address}> is neither listed in virtual_mailbox_maps nor in a domain of \
         virtual_mailbox_domains; add it there, or do not send its mail here"
    )]
    NotHosted {
        /// The recipient.
        address: String,
    },
    /// The domain is one of ours, but the table of its class does not list the recipient.
    #[error("<{address}>: user unknown in {table}")]
    Unlisted {
        /// The recipient.
        address: String,
        /// Which table, in the words of Postfix.
        table: &'static str,
    },
    /// The `error:` or `retry:` transport is configured for the recipient.
    #[error("<{address}>: {text}")]
    Refused {
        /// The recipient.
        address: String,
        /// The text for its sender, with or without an enhanced code.
        text: String,
        /// `retry:`: the mail is to be kept.
        retry: bool,
    },
    /// The aliases of the recipient cannot be expanded as a whole, so not at all.
    #[error("<{address}>: virtual_alias_maps: {cause}")]
    AliasExpansion {
        /// The recipient.
        address: String,
        /// What went wrong, and the remedy.
        cause: String,
    },
    /// An alias of the recipient has a value that no address can be made of.
    #[error("<{address}>: virtual_alias_maps: {cause}")]
    AliasValue {
        /// The recipient.
        address: String,
        /// What went wrong, and the remedy.
        cause: String,
    },
    /// A recipient expands to one whose mail cannot be stored here. The mail is stored for none of
    /// them, for the one would never learn of it.
    #[error(
        "<{address}> expands to <{member}>: {cause}; correct virtual_alias_maps, or let \
             Postfix expand aliases (expand_aliases = no)"
    )]
    Member {
        /// The recipient.
        address: String,
        /// The member.
        member: String,
        /// What is the matter with it.
        cause: Box<RouteError>,
    },
    /// Not an address that mail could be sent to.
    #[error("<{address}>: bad recipient address: {cause}")]
    BadAddress {
        /// The recipient.
        address: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// A transport parameter is empty.
    #[error("{parameter} is empty; name a transport, or remove the parameter")]
    NoTransport {
        /// The parameter.
        parameter: &'static str,
    },
    /// Nothing here delivers by the transport of the recipient.
    #[error(
        "<{address}>: unknown transport {transport}; name one of lmtp, smtp, relay, error, retry, \
         discard, or a service of type pipe in master.cf"
    )]
    UnknownTransport {
        /// The recipient.
        address: String,
        /// The transport.
        transport: String,
    },
    /// A member of a local alias cannot be used.
    #[error("alias_maps: \"{member}\", which <{address}> expands to: {cause}")]
    BadMember {
        /// The recipient.
        address: String,
        /// What the alias says.
        member: String,
        /// What is wrong with it, and the remedy.
        cause: String,
        /// It is permanently forbidden here.
        restricted: bool,
    },
    /// Local aliases that do not come to an end.
    #[error("alias_maps: aliases of <{address}> {}", loops(.circle))]
    AliasLoop {
        /// The recipient.
        address: String,
        /// The aliases that lead back to the first of them, which ends the circle; empty when
        /// there is none.
        circle: Vec<String>,
    },
    /// Local aliases with more members, deep down, than are followed.
    #[error(
        "alias_maps: deeply nested aliases of <{address}> have more than {limit} members; list \
         their members directly, or look for aliases that contain each other"
    )]
    AliasesTooMany {
        /// The recipient.
        address: String,
        /// How many are followed.
        limit: usize,
    },
    /// Forwarded mail comes back to a recipient that had it before.
    #[error(
        "<{address}> had the mail before: forwarding loop; remove the address from the alias or \
         :include: file that leads back to it"
    )]
    ForwardLoop {
        /// The recipient.
        address: String,
    },
    /// A recipient expands to too many addresses.
    #[error(
        "<{address}>: its mail is forwarded to more than {limit} recipients or {hops} times in a \
         row; look for lists that contain each other"
    )]
    ForwardedTooOften {
        /// The recipient.
        address: String,
        /// How many recipients mail is sent on to at most.
        limit: usize,
        /// How often mail is sent on at most.
        hops: usize,
    },
    /// Local delivery of the recipient takes no mail now, or none at all.
    #[error("<{address}>: local delivery: {reason}")]
    Local {
        /// The recipient.
        address: String,
        /// The reply for the client.
        status: Status,
        /// Why, in more words.
        reason: String,
    },
    /// A table did not answer.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The recipient exists, but no table says where and as which user its mail is stored: another
    /// program stores it.
    #[error(
        "<{address}>: virtual_mailbox_base, virtual_uid_maps and virtual_gid_maps are not set; \
         set them where its mail is stored"
    )]
    StoredElsewhere {
        /// The recipient.
        address: String,
    },
    /// `virtual_uid_maps` or `virtual_gid_maps` does not know the recipient.
    #[error("<{address}>: {parameter} has no entry for it; add one, or use static:NUMBER")]
    NoOwner {
        /// The recipient.
        address: String,
        /// The parameter.
        parameter: &'static str,
    },
    /// The uid or gid found is not one that mail may be written as.
    #[error("<{address}>: {parameter} gives \"{value}\": {cause}")]
    BadOwner {
        /// The recipient.
        address: String,
        /// The parameter.
        parameter: &'static str,
        /// What the table said.
        value: String,
        /// What is wrong with it, and the remedy.
        cause: String,
    },
    /// The mailbox path is not one below `virtual_mailbox_base`.
    #[error("<{address}>: virtual_mailbox_maps gives the path \"{path}\": {cause}")]
    BadPath {
        /// The recipient.
        address: String,
        /// What the table said.
        path: String,
        /// What is wrong with it.
        cause: &'static str,
    },
}

impl RouteError {
    /// The reply for the client.
    pub fn status(&self) -> Status {
        match self {
            Self::UnknownUser { address } => {
                Status::unknown_user(format!("<{address}> unknown user"))
            }
            Self::NotHosted { address } => Status::new(
                550,
                EnhancedCode::new(5, 7, 1),
                format!("<{address}> is not hosted here, relay access denied"),
            ),
            Self::Unlisted { address, table } => {
                Status::unknown_user(format!("<{address}> user unknown in {table}"))
            }
            Self::Refused {
                address,
                text,
                retry,
            } => refusal(address, text, *retry),
            Self::AliasExpansion { .. } => {
                Status::new(451, EnhancedCode::new(4, 6, 0), "Alias expansion error")
            }
            Self::Member { cause, .. } if cause.status().is_temporary() => cause.status(),
            Self::AliasValue { .. } => Status::system("alias lookup failure"),
            Self::BadAddress { address, .. } => Status::new(
                501,
                EnhancedCode::new(5, 1, 3),
                format!("<{address}> bad recipient address syntax"),
            ),
            Self::BadMember {
                restricted: true,
                cause,
                ..
            } => Status::new(550, EnhancedCode::new(5, 7, 1), cause.clone()),
            Self::AliasLoop { address, .. } => Status::new(
                550,
                EnhancedCode::new(5, 4, 6),
                format!("alias database loop for <{address}>"),
            ),
            Self::ForwardLoop { address } => Status::new(
                550,
                EnhancedCode::new(5, 4, 6),
                format!("mail forwarding loop for <{address}>"),
            ),
            Self::ForwardedTooOften { .. } => {
                Status::new(451, EnhancedCode::new(4, 4, 6), "mail is sent on too often")
            }
            Self::AliasesTooMany { .. } => Status::new(
                451,
                EnhancedCode::new(4, 4, 6),
                "too many aliases of aliases",
            ),
            Self::Table(error) => error.status(),
            Self::Local { status, .. } => status.clone(),
            // No secret, and it is in the queue's log that an operator looks first.
            Self::BadPath { cause, .. } => Status::configuration(format!(
                "mail system configuration error: mailbox path: {cause}"
            )),
            Self::UnknownTransport { transport, .. } => Status::configuration(format!(
                "mail system configuration error: unknown transport {transport}"
            )),
            Self::StoredElsewhere { .. }
            | Self::NoOwner { .. }
            | Self::BadOwner { .. }
            | Self::NoTransport { .. }
            | Self::Member { .. }
            | Self::BadMember {
                restricted: false, ..
            } => Status::configuration("mail system configuration error"),
        }
    }
}

fn loops(circle: &[String]) -> String {
    match circle {
        [] => "are nested too deeply; list their members directly".to_owned(),
        circle => format!("form a loop: {}; remove one of them", circle.join(" -> ")),
    }
}

/// What the `error:` transport says: `D.S.N text`, or just a text.
fn refusal(address: &str, text: &str, retry: bool) -> Status {
    let status = Status::refused(text, retry);
    let text = format!("<{address}> {}", status.text);
    Status::new(status.code, status.enhanced, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_transport_says_its_own_text_and_code() {
        let refused = |text: &str, retry| {
            let error = RouteError::Refused {
                address: "u@d".into(),
                text: text.into(),
                retry,
            };
            error.status().to_string()
        };
        assert_eq!(
            refused("5.1.1 User unknown", false),
            "550 5.1.1 <u@d> User unknown"
        );
        assert_eq!(
            refused("mail is not for you", false),
            "550 5.0.0 <u@d> mail is not for you"
        );
        assert_eq!(refused("4.3.2 later", true), "450 4.3.2 <u@d> later");
    }
}
