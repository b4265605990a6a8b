//! One immutable snapshot of settings and tables that answers for every address.
//!
//! Imports the other files of this room. Safe to share between threads; look-ups in local
//! tables do no I/O.

use super::class::Classes;
use super::error::RouteError;
use super::mailbox::MailboxTables;
use super::opener::Opener;
use super::types::{AddressClass, MailboxTarget, Resolution, Route};
use crate::address::{Address, fold_case};
use crate::config::RoutingSettings;
use crate::table::{OpenError, TableCache, TableError};

/// A snapshot of routing. A transaction keeps the one it began with.
#[derive(Debug)]
pub struct Router {
    classes: Classes,
    tables: MailboxTables,
    myorigin: String,
    warnings: Vec<String>,
}

impl Router {
    /// Opens the tables and lists that `settings` name, out of `cache`.
    ///
    /// # Errors
    /// A table or list cannot be read or is written wrongly.
    pub fn open(settings: &RoutingSettings, cache: &TableCache) -> Result<Self, OpenError> {
        let opener = Opener {
            cache,
            default_database_type: &settings.default_database_type,
        };
        let classes = Classes::open(settings, &opener)?;
        let tables = MailboxTables::open(settings, &opener)?;
        let warnings = classes.overlaps();
        Ok(Self {
            classes,
            tables,
            myorigin: settings.myorigin.clone(),
            warnings,
        })
    }

    /// What is odd about the configuration, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The address with `$myorigin` as its domain where it has none (postconf(5)
    /// `append_at_myorigin`).
    pub fn complete(&self, mut address: Address) -> Address {
        if address.domain.is_none() {
            address.domain = Some(self.myorigin.clone());
        }
        address
    }

    /// The mailbox that mail for `address` is stored in. Like virtual(8), this asks
    /// `virtual_mailbox_maps` whatever class the domain is of: who sent the mail here has
    /// already routed it.
    ///
    /// # Errors
    /// The recipient is unknown, or our tables cannot say; see [`RouteError::status`].
    pub fn mailbox(&self, address: &Address) -> Result<MailboxTarget, RouteError> {
        let folded = Address::new(
            fold_case(&address.local_part),
            address.domain.as_deref().map(fold_case).as_deref(),
        );
        if let Some(target) = self.tables.find(&folded, |domain| self.is_own(domain))? {
            return Ok(target);
        }
        let class = match &folded.domain {
            Some(domain) => self.classes.of(domain)?,
            None => AddressClass::Local,
        };
        Err(match class {
            AddressClass::VirtualMailbox => RouteError::UnknownUser {
                address: address.external(),
            },
            AddressClass::Local
            | AddressClass::VirtualAlias
            | AddressClass::Relay
            | AddressClass::Default => RouteError::NotHosted {
                address: address.external(),
            },
        })
    }

    /// Everything that is known of `address`.
    pub fn resolve(&self, address: &Address) -> Resolution {
        let address = self.complete(address.clone());
        let domain = address.domain.clone().unwrap_or_default();
        let class = match self.classes.of(&domain) {
            Ok(class) => class,
            Err(error) => {
                return Resolution {
                    results: Vec::new(),
                    error: Some(error.status()),
                };
            }
        };
        let (mailbox, error) = match self.mailbox(&address) {
            Ok(target) => (Some(target), None),
            Err(error) => (None, Some(error.status())),
        };
        let (transport, nexthop) = self.classes.transport(class, &domain);
        let recipient = address.external();
        let route = Route {
            recipient,
            class,
            transport,
            nexthop,
            mailbox,
        };
        Resolution {
            results: vec![route],
            error,
        }
    }

    /// A domain whose users may be listed without it (`myorigin`, `mydestination`, our own
    /// addresses).
    fn is_own(&self, domain: &str) -> Result<bool, TableError> {
        Ok(domain.eq_ignore_ascii_case(&self.myorigin) || self.classes.is_local(domain)?)
    }

    /// The class of a domain.
    ///
    /// # Errors
    /// A table of a domain list could not answer.
    pub fn class(&self, domain: &str) -> Result<AddressClass, TableError> {
        self.classes.of(domain)
    }
}
