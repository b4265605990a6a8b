//! Why a recipient has no mailbox.
//!
//! Imports `status`, `table`. The Display text is for the operator (object, cause, remedy); the
//! status text is for the client and says no more than virtual(8) would.

use crate::status::{EnhancedCode, Status};
use crate::table::TableError;

/// Why an address cannot be delivered here.
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
    /// A table did not answer.
    #[error(transparent)]
    Table(#[from] TableError),
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
    /// What the client is told.
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
            Self::Table(error) => error.status(),
            Self::NoOwner { .. } | Self::BadOwner { .. } | Self::BadPath { .. } => {
                Status::configuration("mail system configuration error")
            }
        }
    }
}
