//! Who exists in the domains that others deliver for: `local_recipient_maps` and
//! `relay_recipient_maps`.
//!
//! Source: postconf(5), ADDRESS_CLASS_README; Postfix's smtpd asks these before it accepts a
//! recipient.

use super::error::RouteError;
use super::opener::Opener;
use super::resolver::Resolver;
use super::search::{KeyForms, Maps, Search, Strategy};
use super::trace::Trace;
use super::types::AddressClass;
use crate::address::quote_address;
use crate::config::RoutingSettings;
use crate::table::TableError;

/// The tables that list recipients without saying where their mail goes.
#[derive(Debug)]
pub(crate) struct ListedRecipients {
    local: Maps,
    relay: Maps,
}

/// Local recipients that exist whatever the tables say.
const ALWAYS_LOCAL: [&str; 3] = ["postmaster", "mailer-daemon", "double-bounce"];

impl ListedRecipients {
    /// Opens the tables.
    pub(crate) fn open(settings: &RoutingSettings, opener: &Opener<'_>) -> Self {
        let open = |parameter, list| Maps::open_or_fail(parameter, list, opener);
        Self {
            local: open("local_recipient_maps", &settings.local_recipient_maps),
            relay: open("relay_recipient_maps", &settings.relay_recipient_maps),
        }
    }

    /// The tables, for reports.
    pub(crate) fn maps(&self) -> [&Maps; 2] {
        [&self.local, &self.relay]
    }

    /// What the map of that name has for `recipient` (internal form).
    ///
    /// # Errors
    /// A table could not answer.
    pub(crate) fn value(
        &self,
        parameter: &str,
        recipient: &str,
        resolver: &Resolver,
    ) -> Result<Option<String>, TableError> {
        let maps = if self.local.parameter() == parameter {
            &self.local
        } else {
            &self.relay
        };
        let search = Search {
            rule: &resolver.rule,
            forms: KeyForms::ExternalThenInternal,
            strategy: Strategy::Address,
            is_own_domain: |domain: &str| resolver.is_own_domain(domain),
        };
        let found = search.find(maps, recipient, &mut Trace::off())?;
        Ok(found.map(|found| found.value))
    }

    /// Passes when `recipient` (internal form) of `class` is listed, or nothing is.
    ///
    /// # Errors
    /// It is not listed, or a table could not answer.
    pub(crate) fn check(
        &self,
        class: AddressClass,
        recipient: &str,
        resolver: &Resolver,
        trace: &mut Trace,
    ) -> Result<(), RouteError> {
        let (maps, table) = match class {
            AddressClass::Local => (&self.local, "local recipient table"),
            AddressClass::Relay => (&self.relay, "relay recipient table"),
            AddressClass::VirtualAlias | AddressClass::VirtualMailbox | AddressClass::Default => {
                return Ok(());
            }
        };
        let local_part = recipient
            .rsplit_once('@')
            .map_or(recipient, |(local, _)| local);
        let is_always = ALWAYS_LOCAL
            .iter()
            .any(|name| local_part.eq_ignore_ascii_case(name));
        if maps.is_empty() || (class == AddressClass::Local && is_always) {
            return Ok(());
        }
        let search = Search {
            rule: &resolver.rule,
            forms: KeyForms::ExternalThenInternal,
            strategy: Strategy::Address,
            is_own_domain: |domain: &str| resolver.is_own_domain(domain),
        };
        match search.find(maps, recipient, trace)? {
            Some(_) => Ok(()),
            None => Err(RouteError::Unlisted {
                address: quote_address(recipient).into_owned(),
                table,
            }),
        }
    }
}
