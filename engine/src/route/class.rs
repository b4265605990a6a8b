//! Address classes: which class a domain belongs to, and the transport that class implies.
//!
//! Imports `config` (settings), `table`. Source: Postfix ADDRESS_CLASS_README, the order of
//! trivial-rewrite(8): local, virtual alias, virtual mailbox, relay, default. A domain in two
//! lists is of the earlier class; that is reported when the lists are opened.

use super::domains::DomainList;
use super::opener::Opener;
use super::types::AddressClass;
use crate::address::fold_case;
use crate::config::RoutingSettings;
use crate::table::{OpenError, TableError, words};

/// The domain lists of all classes, and their transports.
#[derive(Debug)]
pub(crate) struct Classes {
    local: DomainList,
    interfaces: Vec<String>,
    virtual_alias: DomainList,
    virtual_mailbox: DomainList,
    relay: DomainList,
    local_transport: String,
    virtual_transport: String,
    relay_transport: String,
    default_transport: String,
    relayhost: String,
}

impl Classes {
    /// Opens the domain lists.
    ///
    /// # Errors
    /// A table or file of a list cannot be read.
    pub(crate) fn open(settings: &RoutingSettings, opener: &Opener<'_>) -> Result<Self, OpenError> {
        let relay_parents =
            words(&settings.parent_domain_matches_subdomains).any(|name| name == "relay_domains");
        let own = words(&settings.inet_interfaces).chain(words(&settings.proxy_interfaces));
        let own = own.map(str::to_owned).collect();
        Ok(Self {
            local: DomainList::open(&settings.mydestination, false, opener)?,
            interfaces: own,
            virtual_alias: DomainList::open(&settings.virtual_alias_domains, false, opener)?,
            virtual_mailbox: DomainList::open(&settings.virtual_mailbox_domains, false, opener)?,
            relay: DomainList::open(&settings.relay_domains, relay_parents, opener)?,
            local_transport: settings.local_transport.clone(),
            virtual_transport: settings.virtual_transport.clone(),
            relay_transport: settings.relay_transport.clone(),
            default_transport: settings.default_transport.clone(),
            relayhost: settings.relayhost.clone(),
        })
    }

    /// The class of `domain`.
    ///
    /// # Errors
    /// A table could not answer.
    pub(crate) fn of(&self, domain: &str) -> Result<AddressClass, TableError> {
        Ok(if self.is_local(domain)? {
            AddressClass::Local
        } else if self.virtual_alias.contains(domain)? {
            AddressClass::VirtualAlias
        } else if self.virtual_mailbox.contains(domain)? {
            AddressClass::VirtualMailbox
        } else if self.relay.contains(domain)? {
            AddressClass::Relay
        } else {
            AddressClass::Default
        })
    }

    /// In `mydestination`, or an address literal of one of our interfaces.
    pub(crate) fn is_local(&self, domain: &str) -> Result<bool, TableError> {
        if let Some(literal) = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']')) {
            let literal = literal.strip_prefix("IPv6:").unwrap_or(literal);
            return Ok(self
                .interfaces
                .iter()
                .any(|own| own.eq_ignore_ascii_case(literal)));
        }
        self.local.contains(domain)
    }

    /// Transport and nexthop of a class for a recipient in `domain`.
    pub(crate) fn transport(&self, class: AddressClass, domain: &str) -> (String, String) {
        let configured = match class {
            AddressClass::Local => &self.local_transport,
            AddressClass::VirtualAlias => {
                return (
                    "error".into(),
                    "5.1.1 User unknown in virtual alias table".into(),
                );
            }
            AddressClass::VirtualMailbox => &self.virtual_transport,
            AddressClass::Relay => &self.relay_transport,
            AddressClass::Default => &self.default_transport,
        };
        let (transport, nexthop) = configured.split_once(':').unwrap_or((configured, ""));
        let nexthop = match nexthop {
            "" if class == AddressClass::Relay && !self.relayhost.is_empty() => &self.relayhost,
            "" if class == AddressClass::Default && !self.relayhost.is_empty() => &self.relayhost,
            "" => domain,
            nexthop => nexthop,
        };
        (transport.to_owned(), nexthop.to_owned())
    }

    /// One sentence for every domain that is in two classes.
    pub(crate) fn overlaps(&self) -> Vec<String> {
        // relay_domains repeats mydestination by default in older configurations.
        let lists = [
            ("mydestination", &self.local),
            ("virtual_alias_domains", &self.virtual_alias),
            ("virtual_mailbox_domains", &self.virtual_mailbox),
        ];
        let mut found = Vec::new();
        for (at, (winner, first)) in lists.iter().enumerate() {
            for (loser, second) in lists.iter().skip(at + 1) {
                for domain in second.names() {
                    if first.names().any(|name| name == fold_case(domain)) {
                        found.push(format!(
                            "do not list domain {domain} in BOTH {winner} and {loser}; \
                             {winner} wins, so take it out of one of them"
                        ));
                    }
                }
            }
        }
        found
    }
}
