//! Address classes: which class a domain belongs to, and the transport that class implies.
//!
//! Source: Postfix ADDRESS_CLASS_README, the order of trivial-rewrite(8): local, virtual alias,
//! virtual mailbox, relay, default. A domain in two lists is of the earlier class; that is reported
//! when the lists are opened.

use super::domains::{DomainList, Matching};
use super::interfaces::Interfaces;
use super::opener::Opener;
use super::trace::{Step, Trace};
use super::types::AddressClass;
use crate::address::fold_case;
use crate::config::RoutingSettings;
use crate::table::{Key, OpenError, TableError, words};

/// The domain lists of all classes, and their transports.
#[derive(Debug)]
pub(crate) struct Classes {
    local: DomainList,
    interfaces: Interfaces,
    virtual_alias: DomainList,
    virtual_mailbox: DomainList,
    relay: DomainList,
    local_transport: String,
    virtual_transport: String,
    relay_transport: String,
    default_transport: String,
    relayhost: String,
}

/// Whether `parent_domain_matches_subdomains` names `parameter`.
pub(crate) fn parents_match(settings: &RoutingSettings, parameter: &str) -> bool {
    words(&settings.parent_domain_matches_subdomains).any(|name| name == parameter)
}

impl Classes {
    /// Opens the domain lists.
    ///
    /// # Errors
    /// A table or file of a list cannot be read.
    pub(crate) fn open(settings: &RoutingSettings, opener: &Opener<'_>) -> Result<Self, OpenError> {
        let list = |parameter, list, matching| DomainList::open(parameter, list, matching, opener);
        let relay = if parents_match(settings, "relay_domains") {
            Matching::Parents
        } else {
            Matching::DottedParents
        };
        let exact = Matching::Exact;
        Ok(Self {
            local: list("mydestination", &settings.mydestination, exact)?,
            interfaces: Interfaces::new(settings),
            virtual_alias: list(
                "virtual_alias_domains",
                &settings.virtual_alias_domains,
                exact,
            )?,
            virtual_mailbox: list(
                "virtual_mailbox_domains",
                &settings.virtual_mailbox_domains,
                exact,
            )?,
            relay: list("relay_domains", &settings.relay_domains, relay)?,
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
    pub(crate) fn of(&self, domain: &str, trace: &mut Trace) -> Result<AddressClass, TableError> {
        if self.is_local(domain, trace)? {
            let class = AddressClass::Local;
            Self::record(domain, class, Some(self.local.parameter()), trace);
            return Ok(class);
        }
        self.of_remote(domain, trace)
    }

    /// The class of a domain that is known not to be local.
    pub(crate) fn of_remote(
        &self,
        domain: &str,
        trace: &mut Trace,
    ) -> Result<AddressClass, TableError> {
        let (class, listed_in) = self.listing(&Key::new(&fold_case(domain)), trace)?;
        Self::record(domain, class, listed_in, trace);
        Ok(class)
    }

    /// As [`Classes::of_remote`], for a folded domain, and the parameter that lists it.
    pub(crate) fn listing<'t>(
        &'t self,
        domain: &Key<'_, 't>,
        trace: &mut Trace,
    ) -> Result<(AddressClass, Option<&'static str>), TableError> {
        for (list, class) in [
            (&self.virtual_alias, AddressClass::VirtualAlias),
            (&self.virtual_mailbox, AddressClass::VirtualMailbox),
            (&self.relay, AddressClass::Relay),
        ] {
            if list.contains_key(domain, trace)? {
                return Ok((class, Some(list.parameter())));
            }
        }
        Ok((AddressClass::Default, None))
    }

    /// In `mydestination`; for a folded domain without a dot at its end.
    pub(crate) fn is_listed_local<'t>(&'t self, domain: &Key<'_, 't>) -> Result<bool, TableError> {
        self.local.contains_key(domain, &mut Trace::off())
    }

    /// The lists of the domains that mail is stored for: `virtual_mailbox_domains`,
    /// `virtual_alias_domains`.
    pub(crate) fn hosted(&self) -> [&DomainList; 2] {
        [&self.virtual_mailbox, &self.virtual_alias]
    }

    fn record(
        domain: &str,
        class: AddressClass,
        listed_in: Option<&'static str>,
        trace: &mut Trace,
    ) {
        trace.record(|| Step::Class {
            domain: domain.to_owned(),
            class,
            listed_in,
        });
    }

    /// In `mydestination`, or an address literal of one of our interfaces. One dot at the end
    /// of the domain does not count.
    pub(crate) fn is_local(&self, domain: &str, trace: &mut Trace) -> Result<bool, TableError> {
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        if domain.is_empty() || domain.ends_with('.') {
            return Ok(false);
        }
        if self.local.contains(domain, trace)? {
            return Ok(true);
        }
        match domain.strip_prefix('[').and_then(|d| d.strip_suffix(']')) {
            Some(literal) => Ok(self.interfaces.have(literal)),
            None => Ok(false),
        }
    }

    /// Transport and nexthop of a class for a recipient in `domain`, and the parameter that
    /// says so. An empty transport is a mistake in the configuration.
    pub(crate) fn transport(
        &self,
        class: AddressClass,
        domain: &str,
    ) -> (String, String, &'static str) {
        let (configured, parameter) = match class {
            AddressClass::Local => (&self.local_transport, "local_transport"),
            AddressClass::VirtualAlias => {
                let nexthop = "5.1.1 User unknown in virtual alias table";
                return ("error".into(), nexthop.into(), "virtual_alias_domains");
            }
            AddressClass::VirtualMailbox => (&self.virtual_transport, "virtual_transport"),
            AddressClass::Relay => (&self.relay_transport, "relay_transport"),
            AddressClass::Default => (&self.default_transport, "default_transport"),
        };
        let is_off_host = matches!(class, AddressClass::Relay | AddressClass::Default);
        let (transport, nexthop) = configured.split_once(':').unwrap_or((configured, ""));
        let nexthop = match nexthop {
            "" if is_off_host && !self.relayhost.is_empty() => &self.relayhost,
            "" => domain,
            nexthop => nexthop,
        };
        (transport.to_owned(), nexthop.to_owned(), parameter)
    }

    /// The lists with their parameters, in the order in which they win.
    pub(crate) fn lists(&self) -> [&DomainList; 4] {
        [
            &self.local,
            &self.virtual_alias,
            &self.virtual_mailbox,
            &self.relay,
        ]
    }

    /// Every domain that a list names outright or in a table that can be listed, with the list
    /// that wins and the one that is not heeded.
    pub(crate) fn overlaps(&self) -> Vec<Overlap> {
        let mut found = Vec::new();
        let lists = self.lists();
        for (at, winner) in lists.iter().enumerate() {
            for loser in lists.iter().skip(at + 1) {
                // relay_domains repeats mydestination by default in older configurations.
                if std::ptr::eq(*winner, &self.local) && std::ptr::eq(*loser, &self.relay) {
                    continue;
                }
                for domain in listed_domains(loser) {
                    if winner.contains(&domain, &mut Trace::off()).unwrap_or(false) {
                        found.push(Overlap {
                            domain,
                            winner: winner.parameter(),
                            loser: loser.parameter(),
                        });
                    }
                }
            }
        }
        found
    }
}

/// A domain in two classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    pub(crate) domain: String,
    pub(crate) winner: &'static str,
    pub(crate) loser: &'static str,
}

impl std::fmt::Display for Overlap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            domain,
            winner,
            loser,
        } = self;
        write!(
            f,
            "do not list domain {domain} in BOTH {winner} and {loser}; {winner} takes precedence; \
             remove it from one of them"
        )
    }
}

/// The domains of a list, as far as they are named. Of a table that also has addresses, as
/// `virtual_alias_domains = $virtual_alias_maps` makes it, only the keys that are domains.
fn listed_domains(list: &DomainList) -> Vec<String> {
    let mut domains: Vec<String> = list.names().map(str::to_owned).collect();
    for set in list.tables() {
        for table in set.tables() {
            table.for_each(&mut |key, _, _| {
                if !key.contains('@') && key.contains('.') {
                    domains.push(key.trim_start_matches('.').to_owned());
                }
            });
        }
    }
    domains.sort_unstable();
    domains.dedup();
    domains
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{TableCache, TableContext};

    fn settings() -> RoutingSettings {
        RoutingSettings {
            mydestination: "local.example".into(),
            inet_interfaces: "192.0.2.1, 2001:db8::1".into(),
            proxy_interfaces: "192.0.2.9".into(),
            virtual_alias_domains: "inline:{va.example=x user@va.example=y}".into(),
            virtual_mailbox_domains: "vm.example va.example".into(),
            relay_domains: "relay.example".into(),
            relayhost: "[gate.example]".into(),
            local_transport: "local:$myhostname".into(),
            ..RoutingSettings::default()
        }
    }

    fn open(settings: &RoutingSettings) -> Classes {
        let cache = &TableCache::new(TableContext::default());
        Classes::open(
            settings,
            &Opener {
                cache,
                default_database_type: "hash",
            },
        )
        .unwrap()
    }

    #[test]
    fn the_first_list_that_has_the_domain_decides() {
        let classes = open(&settings());
        for (domain, class) in [
            ("LOCAL.example", AddressClass::Local),
            ("local.example.", AddressClass::Local),
            ("local.example..", AddressClass::Default),
            ("[192.0.2.1]", AddressClass::Local),
            ("[IPv6:2001:db8:0:0::1]", AddressClass::Local),
            ("[192.0.2.9]", AddressClass::Local),
            ("[192.0.2.2]", AddressClass::Default),
            ("va.example", AddressClass::VirtualAlias),
            ("vm.example", AddressClass::VirtualMailbox),
            ("relay.example", AddressClass::Relay),
            ("sub.relay.example", AddressClass::Default),
            ("far.example", AddressClass::Default),
        ] {
            assert_eq!(classes.of(domain, &mut Trace::off()), Ok(class), "{domain}");
        }
        let parents = RoutingSettings {
            parent_domain_matches_subdomains: "mynetworks,relay_domains".into(),
            ..settings()
        };
        let class = open(&parents).of("sub.relay.example", &mut Trace::off());
        assert_eq!(class, Ok(AddressClass::Relay));
    }

    #[test]
    fn relayhost_is_for_mail_that_leaves_unless_the_transport_has_a_nexthop() {
        let hop =
            |settings: &RoutingSettings, class| open(settings).transport(class, "d.example").1;
        let with = settings();
        assert_eq!(hop(&with, AddressClass::Relay), "[gate.example]");
        assert_eq!(hop(&with, AddressClass::Default), "[gate.example]");
        assert_eq!(hop(&with, AddressClass::VirtualMailbox), "d.example");
        assert_eq!(hop(&with, AddressClass::Local), "$myhostname");
        let fixed = RoutingSettings {
            default_transport: "smtp:[x]:25".into(),
            ..with
        };
        assert_eq!(hop(&fixed, AddressClass::Default), "[x]:25");
    }

    #[test]
    fn a_domain_in_two_classes_is_reported() {
        let overlaps = open(&settings()).overlaps();
        assert_eq!(overlaps.len(), 1);
        assert_eq!(
            overlaps[0].to_string(),
            "do not list domain va.example in BOTH virtual_alias_domains and \
             virtual_mailbox_domains; virtual_alias_domains takes precedence; remove it from one of them"
        );
    }
}
