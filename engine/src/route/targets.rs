//! From the address a client gives to the mailboxes and transports of the recipient it means.
//!
//! As `finding`, where mail may go elsewhere than into a mailbox: each final recipient has the
//! transport that trivial-rewrite(8) finds for it. What comes to this server by that transport is
//! stored; so is what `virtual` takes; what `local` takes is followed to its ends. Sources:
//! trivial-rewrite(8), transport(5), smtpd(8).

use super::error::RouteError;
use super::finding::{Found, is_bare_postmaster};
use super::resolver::Resolved;
use super::router::Router;
use super::trace::Trace;
use super::types::{AddressClass, Expansion};
use crate::address::Address;
use crate::status::Status;
use crate::target::{LocalEnd, LocalTarget, Target};
use std::collections::BTreeMap;

/// Names of transports that are looked at.
const TRANSPORTS_MAX: usize = 1000;

/// A recipient that was looked up, with all addresses that its mail goes to.
#[derive(Clone, Debug)]
pub struct FoundTargets {
    /// The address in canonical form.
    pub address: Address,
    /// What it was expanded by, here or by local delivery.
    pub expansion: Expansion,
    /// Where its mail goes, at least one; or why it is not taken.
    pub targets: Result<Vec<(Address, Target)>, RouteError>,
}

impl From<Found> for FoundTargets {
    fn from(found: Found) -> Self {
        let Found { address, mailboxes } = found;
        let expansion = match mailboxes {
            Ok(super::Mailboxes::Members(_)) => Expansion::Alias,
            _ => Expansion::None,
        };
        let targets = mailboxes.map(|mailboxes| {
            let members = mailboxes.members(address.clone()).into_iter();
            let target = |(address, target)| (address, Target::Mailbox(target));
            members.map(target).collect()
        });
        Self {
            address,
            expansion,
            targets,
        }
    }
}

/// The end of mail that is not taken.
fn failed(status: Status) -> LocalTarget {
    LocalTarget {
        end: LocalEnd::Failed(status),
        sender: None,
        sent_on_from: Vec::new(),
        original: None,
        passed: Vec::new(),
    }
}

impl Router {
    /// Finds the mailboxes and transports that mail for `given` goes to. With `expand_aliases`,
    /// `virtual_alias_maps` are applied, and recipients must be listed as smtpd(8) wants them;
    /// behind Postfix, cleanup(8) and smtpd(8) have done that. `is_own_socket` says which
    /// transports and nexthops lead to this server itself.
    ///
    /// Mail for a domain that is none of ours is taken only where `transport_maps` name the
    /// recipient, or where an alias of ours sends it on.
    pub fn find_targets(
        &self,
        given: Address,
        expand_aliases: bool,
        is_own_socket: &dyn Fn(&str, &str) -> bool,
    ) -> FoundTargets {
        let is_postmaster = is_bare_postmaster(&given);
        let address = self.complete(given);
        let expanded = match expand_aliases {
            true => self.expand(&address),
            false => Ok(vec![address.clone()]),
        };
        let (expansion, mut targets) = match expanded {
            Err(error) => (Expansion::None, Err(error)),
            Ok(members) => match members.as_slice() {
                [only] if *only == address => {
                    let how = (false, expand_aliases);
                    match self.targets_of(&address, how, is_own_socket) {
                        Ok((targets, expansion)) => (expansion, Ok(targets)),
                        Err(error) => (Expansion::None, Err(error)),
                    }
                }
                members => {
                    let targets = self.targets(&address, members, is_own_socket);
                    (Expansion::Alias, targets)
                }
            },
        };
        if is_postmaster
            && let Err(error) = &targets
            && error.status().is_permanent()
            && let Some(found) = self.postmaster(&address)
        {
            let found = Found {
                address: address.clone(),
                mailboxes: found,
            };
            targets = FoundTargets::from(found).targets;
        }
        FoundTargets {
            address,
            expansion,
            targets: targets.map_err(|error| self.settled(error)),
        }
    }

    /// Returns the transports that the configuration names, with their nexthops, each with who
    /// names it first: the parameters of the address classes, and `transport_maps` as far as its
    /// tables can be listed. A nexthop is empty where it depends on the recipient.
    pub fn named_transports(&self) -> BTreeMap<(String, String), &'static str> {
        let mut names = BTreeMap::new();
        for class in [
            AddressClass::VirtualMailbox,
            AddressClass::Local,
            AddressClass::Relay,
            AddressClass::Default,
        ] {
            let (transport, nexthop, parameter) = self.resolver.classes.transport(class, "");
            names.entry((transport, nexthop)).or_insert(parameter);
        }
        let [transports, _] = self.resolver.maps();
        for table in transports.tables().tables() {
            table.for_each(&mut |_, value, _| {
                let (name, nexthop) = value.split_once(':').unwrap_or((value, ""));
                if !name.is_empty() && names.len() < TRANSPORTS_MAX {
                    let named = (name.to_owned(), nexthop.to_owned());
                    names.entry(named).or_insert("transport_maps");
                }
            });
        }
        names
    }

    /// Finds where the mail of all members of an alias goes. A member that is refused
    /// permanently does not keep the mail from the others: it is one of the ends, and its reply is
    /// the alias's.
    fn targets(
        &self,
        address: &Address,
        members: &[Address],
        is_own_socket: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Vec<(Address, Target)>, RouteError> {
        let mut all = Vec::with_capacity(members.len());
        let mut first_refused = None;
        let mut refused = 0;
        for member in members {
            let found = self.targets_of(member, (true, true), is_own_socket);
            let cause = match found.map_err(|cause| self.settled(cause)) {
                Ok((targets, _)) => {
                    all.extend(targets);
                    continue;
                }
                Err(cause) => cause,
            };
            let status = cause.status();
            let error = RouteError::Member {
                address: address.external(),
                member: member.external(),
                cause: Box::new(cause),
            };
            if !status.is_permanent() {
                return Err(error);
            }
            refused += 1;
            all.push((member.clone(), Target::Local(Box::new(failed(status)))));
            first_refused.get_or_insert(error);
        }
        match first_refused {
            Some(error) if refused == all.len() => Err(error),
            _ => Ok(all),
        }
    }

    /// Finds where the mail of one recipient goes, which local delivery may give many ends, and
    /// what it is expanded by there.
    fn targets_of(
        &self,
        given: &Address,
        how: (bool, bool),
        is_own_socket: &dyn Fn(&str, &str) -> bool,
    ) -> Result<(Vec<(Address, Target)>, Expansion), RouteError> {
        let resolved = self
            .resolver
            .resolve(&given.internal(), &mut Trace::off())?;
        if self.local.is_transport(&resolved.transport) {
            let address = Address::from_internal(&resolved.recipient);
            let own = |domain: &str| self.resolver.is_own_domain(domain);
            // What virtual_mailbox_maps lists is stored here whatever its class.
            return match self.mailboxes.find(&address, own, &mut Trace::off())? {
                Some(target) => {
                    let only = vec![(address, Target::Mailbox(target))];
                    Ok((only, Expansion::None))
                }
                None => {
                    let (is_member, is_first) = how;
                    self.local_targets(&resolved, is_member || !is_first, is_own_socket)
                }
            };
        }
        let target = self.resolved_target(resolved, how, is_own_socket);
        target.map(|target| (vec![target], Expansion::None))
    }

    /// Finds where the mail of one final recipient goes.
    pub(super) fn target(
        &self,
        given: &Address,
        how: (bool, bool),
        is_own_socket: &dyn Fn(&str, &str) -> bool,
    ) -> Result<(Address, Target), RouteError> {
        let resolved = self
            .resolver
            .resolve(&given.internal(), &mut Trace::off())?;
        self.resolved_target(resolved, how, is_own_socket)
    }

    fn resolved_target(
        &self,
        resolved: Resolved,
        (is_member, is_first): (bool, bool),
        is_own_socket: &dyn Fn(&str, &str) -> bool,
    ) -> Result<(Address, Target), RouteError> {
        let address = Address::from_internal(&resolved.recipient);
        let Resolved {
            transport, nexthop, ..
        } = &resolved;
        if matches!(transport.as_str(), "error" | "retry") {
            if resolved.class == AddressClass::VirtualAlias
                && let Some(unsettled) = self.aliases.maps().tables().unsettled()
            {
                return Err(unsettled.into());
            }
            return Err(RouteError::Refused {
                address: address.external(),
                text: nexthop.clone(),
                retry: transport == "retry",
            });
        }
        let is_foreign =
            resolved.class == AddressClass::Default && !is_member && !resolved.is_mapped;
        if is_foreign || transport == "virtual" || is_own_socket(transport, nexthop) {
            let target = self.mailbox(&address)?;
            return Ok((address, Target::Mailbox(target)));
        }
        let own = |domain: &str| self.resolver.is_own_domain(domain);
        let find = || self.mailboxes.find(&address, own, &mut Trace::off());
        if is_first && !is_member {
            let (class, recipient) = (resolved.class, &resolved.recipient);
            let (listed, resolver) = (&self.listed, &self.resolver);
            listed.check(class, recipient, resolver, &mut Trace::off())?;
            // A mailbox without an owner here is listed all the same.
            if class == AddressClass::VirtualMailbox
                && !self.mailboxes.maps().is_empty()
                && matches!(find(), Ok(None))
            {
                return Err(RouteError::UnknownUser {
                    address: address.external(),
                });
            }
        }
        Ok((address, Target::transport(transport, nexthop)))
    }
}
