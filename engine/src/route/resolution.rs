//! From one recipient to all its final recipients: aliases, class, transport, local members.
//!
//! Mail that local(8) sends on is looked up as new mail, virtual aliases included, as it is in
//! Postfix.

use super::error::RouteError;
use super::local::{Fate, Forward, Member, Way};
use super::resolver::Resolved;
use super::router::Router;
use super::trace::{Step, Trace};
use super::types::{AddressClass, Destination, Expansion, Resolution, Route};
use crate::address::{Address, fold_case, quote_address};
use crate::status::{EnhancedCode, Status};
use crate::sync::Arc;
use crate::target::MailboxTarget;
use std::collections::{HashMap, HashSet};

/// To how many recipients the mail for one address may be sent on more than once. Lists that
/// forward to each other multiply.
const FORWARDED_MAX: usize = 2_000;
/// How often mail is sent on before a loop is assumed (postconf(5) `hopcount_limit`).
const HOPS_MAX: usize = 50;

/// `Delivered-To:` and sender of a mail that is sent on: those with the same are one mail.
type Batch = (String, Option<String>);

/// One resolution in progress.
pub(super) struct Resolving<'a> {
    router: &'a Router,
    trace: &'a mut Trace,
    /// The `Delivered-To:` headers that the mail has got on its way, folded.
    delivered_to: Vec<String>,
    /// To how many recipients mail was sent on that had been sent on before.
    forwarded: usize,
    /// Mail is sent on without end: it is deferred whatever else is found.
    is_endless: bool,
    resolution: Resolution,
    /// How each result was come to.
    ways: Vec<Journey>,
    /// How the mail was sent on to where it is now.
    journey: Journey,
}

/// How mail for a recipient comes to one of the ends that it has by way of local delivery.
#[derive(Clone, Debug, Default)]
pub(super) struct Journey {
    /// Of the last local recipient; `None` where mail ends that was sent on.
    pub(super) way: Option<Way>,
    /// From whom it was sent on, the first one first; external form.
    pub(super) sent_on_from: Vec<String>,
    /// Who it was for at first since a list with an owner hid that; external form.
    pub(super) original: Option<String>,
    /// What the recipient was expanded by first.
    pub(super) expansion: Expansion,
    /// The local recipients that it was for, in internal form, folded.
    pub(super) passed: Vec<Arc<str>>,
}

impl Router {
    /// Everything that is known of `address`: its final recipients, aliases expanded, and the reply
    /// for its sender.
    pub fn resolve(&self, address: &Address) -> Resolution {
        self.traced_resolve(address, &mut Trace::off())
    }

    /// As [`Router::resolve`], with every step that led to the answer.
    pub fn explain(&self, address: &Address) -> (Resolution, Trace) {
        let mut trace = Trace::on();
        let resolution = self.traced_resolve(address, &mut trace);
        (resolution, trace)
    }

    fn traced_resolve(&self, address: &Address, trace: &mut Trace) -> Resolution {
        let resolution = Resolving::new(self, trace).resolve(&address.internal());
        trace.record(|| {
            let accepted = || Status::new(250, EnhancedCode::new(2, 1, 5), "Ok");
            Step::Reply(resolution.error.clone().unwrap_or_else(accepted))
        });
        resolution
    }
}

impl<'a> Resolving<'a> {
    pub(super) fn new(router: &'a Router, trace: &'a mut Trace) -> Self {
        Self {
            router,
            trace,
            delivered_to: Vec::new(),
            forwarded: 0,
            is_endless: false,
            resolution: Resolution::default(),
            ways: Vec::new(),
            journey: Journey::default(),
        }
    }

    /// Follows the mail of a recipient that local delivery takes. Returns its ends, each with how
    /// mail comes there.
    pub(super) fn local_ends(
        mut self,
        resolved: &Resolved,
        is_member: bool,
    ) -> (Resolution, Vec<Journey>) {
        self.local(resolved, is_member, &None);
        (self.resolution, self.ways)
    }

    /// Resolves an address in internal form.
    fn resolve(mut self, address: &str) -> Resolution {
        self.expand(address, false, &None, &mut HashSet::new());
        self.resolution
    }

    /// Adds all addresses that `address` expands to, without those in `had`. An error of one member
    /// of an alias is reported for the member; the alias is refused only for a temporary one.
    fn expand(
        &mut self,
        address: &str,
        is_member: bool,
        sender: &Option<String>,
        had: &mut HashSet<String>,
    ) {
        let members = match self.router.traced_expand(address, self.trace) {
            Ok(members) => members,
            Err(error) => return self.resolution.note(&error),
        };
        let is_alias = is_member
            || match members.as_slice() {
                [only] => *only != self.router.resolver.form.of_internal(address),
                _ => true,
            };
        for member in members {
            if !had.insert(fold_case(&member).into_owned()) {
                continue;
            }
            let shown = || Step::Recipient(quote_address(&member).into_owned());
            self.trace.record(shown);
            self.member(&member, is_alias, sender);
        }
    }

    fn member(&mut self, member: &str, is_member: bool, sender: &Option<String>) {
        let resolved = match self.router.resolver.resolve(member, self.trace) {
            Ok(resolved) => resolved,
            Err(error) if is_member => return self.refused_member(member, &error, sender),
            Err(error) => return self.note(&error, false),
        };
        if self.router.local.is_transport(&resolved.transport) {
            return self.local(&resolved, is_member, sender);
        }
        let address = Address::from_internal(&resolved.recipient);
        let (mailbox, destination) = match self.mailbox(&resolved, &address, is_member) {
            Ok(Some(mailbox)) => (Some(mailbox), Destination::Mailbox),
            Ok(None) | Err(RouteError::StoredElsewhere { .. }) => (None, Destination::Transport),
            Err(error) => {
                let error = self.router.settled(error);
                self.note(&error, is_member);
                (None, Destination::Refused(error.status()))
            }
        };
        // As Postfix shows it: what looks like a source route is no part of the local part.
        let recipient = quote_address(&resolved.recipient).into_owned();
        self.push(&resolved, recipient, (mailbox, destination), sender, None);
    }

    /// A member that cannot be resolved: Postfix's queue manager gives its mail to `error`.
    fn refused_member(&mut self, member: &str, error: &RouteError, sender: &Option<String>) {
        self.note(error, true);
        let status = error.status();
        let resolved = Resolved {
            recipient: member.to_owned(),
            class: AddressClass::Default,
            transport: if status.is_temporary() {
                "retry"
            } else {
                "error"
            }
            .to_owned(),
            nexthop: format!("{} {}", status.enhanced, status.text),
            is_mapped: false,
        };
        let recipient = quote_address(member).into_owned();
        let refused = (None, Destination::Refused(status));
        self.push(&resolved, recipient, refused, sender, None);
    }

    fn push(
        &mut self,
        resolved: &Resolved,
        recipient: String,
        (mailbox, destination): (Option<MailboxTarget>, Destination),
        sender: &Option<String>,
        way: Option<Way>,
    ) {
        let mut journey = self.journey.clone();
        if let Some(way) = &way {
            journey.passed.extend(way.passed.iter().cloned());
            journey.expansion = journey.expansion.or(way.expansion);
        }
        self.ways.push(Journey { way, ..journey });
        self.resolution.results.push(Route {
            recipient,
            class: resolved.class,
            transport: resolved.transport.clone(),
            nexthop: resolved.nexthop.clone(),
            mailbox,
            destination,
            sender: sender.as_deref().map(|sender| match sender {
                "" => String::new(),
                sender => quote_address(sender).into_owned(),
            }),
        });
    }

    /// An alias whose members are all refused is accepted all the same, and its mail returned
    /// later; so it is in Postfix.
    fn note(&mut self, error: &RouteError, is_member: bool) {
        if !is_member || error.status().is_temporary() {
            self.resolution.note(error);
        }
    }

    fn mailbox(
        &mut self,
        resolved: &Resolved,
        address: &Address,
        is_member: bool,
    ) -> Result<Option<MailboxTarget>, RouteError> {
        let router = self.router;
        if matches!(resolved.transport.as_str(), "error" | "retry") {
            if resolved.class == AddressClass::VirtualAlias
                && let Some(unsettled) = router.aliases.maps().tables().unsettled()
            {
                return Err(unsettled.into());
            }
            return Err(RouteError::Refused {
                address: address.external(),
                text: resolved.nexthop.clone(),
                retry: resolved.transport == "retry",
            });
        }
        match resolved.class {
            AddressClass::VirtualMailbox => {}
            AddressClass::Default if !is_member => {}
            AddressClass::Default | AddressClass::VirtualAlias => {
                return self.unclassed_mailbox(address);
            }
            class @ (AddressClass::Local | AddressClass::Relay) => {
                if !is_member {
                    let recipient = &resolved.recipient;
                    let (listed, resolver) = (&router.listed, &router.resolver);
                    listed.check(class, recipient, resolver, self.trace)?;
                }
                return self.unclassed_mailbox(address);
            }
        }
        router.traced_mailbox(address, self.trace).map(Some)
    }

    /// What `virtual_mailbox_maps` lists is stored here whatever its class, if it comes here.
    fn unclassed_mailbox(
        &mut self,
        address: &Address,
    ) -> Result<Option<MailboxTarget>, RouteError> {
        let own = |domain: &str| self.router.resolver.is_own_domain(domain);
        self.router.mailboxes.find(address, own, self.trace)
    }

    /// A recipient of local(8).
    fn local(&mut self, resolved: &Resolved, is_member: bool, sender: &Option<String>) {
        let router = self.router;
        if !is_member {
            let recipient = &resolved.recipient;
            let class = resolved.class;
            let listed = router
                .listed
                .check(class, recipient, &router.resolver, self.trace);
            if let Err(error) = listed {
                let error = router.settled(error);
                self.note(&error, false);
                let destination = Destination::Refused(error.status());
                let recipient = quote_address(recipient).into_owned();
                return self.push(resolved, recipient, (None, destination), sender, None);
            }
        }
        let (recipient, transport) = (&resolved.recipient, &resolved.transport);
        let had = &self.delivered_to;
        let members = router
            .local
            .members(recipient, transport, had, &router.resolver, self.trace);
        if members.is_empty() {
            let recipient = quote_address(recipient).into_owned();
            let discarded = (None, Destination::Discarded);
            return self.push(resolved, recipient, discarded, sender, None);
        }
        let is_member = is_member || members.len() > 1;
        let mut batches = HashMap::new();
        for member in members {
            self.local_member(resolved, member, is_member, sender, &mut batches);
        }
    }

    fn local_member(
        &mut self,
        resolved: &Resolved,
        member: Member,
        is_member: bool,
        sender: &Option<String>,
        batches: &mut HashMap<Batch, HashSet<String>>,
    ) {
        let sender = member.sender.or_else(|| sender.clone());
        let mut passed = resolved.clone();
        let destination = match member.fate {
            Fate::Forwarded(forward) => {
                return self.forward(&member.recipient, (forward, &member.way), sender, batches);
            }
            Fate::Passed(transport, nexthop) => {
                passed.transport = transport;
                passed.nexthop = nexthop.unwrap_or(passed.nexthop);
                Destination::Transport
            }
            Fate::Ends(destination) => destination,
            Fate::Fails(error) => {
                let error = self.router.settled(error);
                self.note(&error, is_member);
                Destination::Refused(error.status())
            }
        };
        let recipient = quote_address(&member.recipient).into_owned();
        let way = Some(member.way);
        self.push(&passed, recipient, (None, destination), &sender, way);
    }

    /// Follows mail that local(8) sends on. Recipients of one new mail who were the same person
    /// all along get it once.
    fn forward(
        &mut self,
        recipient: &str,
        (forward, way): (Forward, &Way),
        sender: Option<String>,
        batches: &mut HashMap<Batch, HashSet<String>>,
    ) {
        if self.is_endless {
            return;
        }
        if !self.delivered_to.is_empty() {
            self.forwarded += 1;
        }
        if self.forwarded > FORWARDED_MAX || self.delivered_to.len() >= HOPS_MAX {
            let error = RouteError::ForwardedTooOften {
                address: quote_address(recipient).into_owned(),
                limit: FORWARDED_MAX,
                hops: HOPS_MAX,
            };
            self.is_endless = true;
            return self.resolution.note(&error);
        }
        // So that a returned message does not loop, cleanup(8) makes this the null sender.
        let null = self.router.resolver.form.of_internal("MAILER-DAEMON");
        let sender = sender.map(|sender| {
            if fold_case(&sender) == fold_case(&null) {
                String::new()
            } else {
                sender
            }
        });
        let delivered_to = fold_case(&forward.delivered_to).into_owned();
        let mut alone = HashSet::new();
        let had = if forward.keeps_original {
            batches
                .entry((delivered_to.clone(), sender.clone()))
                .or_default()
        } else {
            &mut alone
        };
        self.delivered_to.push(delivered_to);
        let before = self.journey.clone();
        let from = quote_address(&fold_case(&forward.delivered_to)).into_owned();
        self.journey.sent_on_from.push(from);
        if !forward.keeps_original {
            self.journey.original = Some(quote_address(recipient).into_owned());
        }
        self.journey.passed.extend(way.passed.iter().cloned());
        self.journey.expansion = self.journey.expansion.or(way.expansion);
        self.expand(recipient, true, &sender, had);
        self.journey = before;
        self.delivered_to.pop();
    }
}
