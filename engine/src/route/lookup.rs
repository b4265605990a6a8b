//! One recipient that is being looked up, as the server does it for RCPT: class, aliases, mailbox.
//!
//! What an address is asked for has much in common: the text of its keys is made once, what the
//! processor has to fetch for any of them is fetched at once, and a recipient map is searched once
//! for each key, however many of its tables are asked. Invariant: the answers are those of the same
//! questions asked one by one.

use std::cell::Cell;

use super::error::RouteError;
use super::router::Router;
use super::search::{self, Keys};
use super::trace::Trace;
use super::types::AddressClass;
use crate::address::{Address, push_internal};
use crate::table::{Key, TableError};
use crate::target::MailboxTarget;

/// A recipient and what was found out about it.
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
/// let address = parse_mailbox("info@example.com")?;
/// let lookup = router.look_up(&address);
/// assert_eq!(lookup.class()?, AddressClass::VirtualMailbox);
/// assert_eq!(lookup.mailbox()?.path, "example.com/info");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Lookup<'a> {
    router: &'a Router,
    address: &'a Address,
    plain: Option<Plain>,
    is_local: Cell<Option<bool>>,
}

/// Where mail for a recipient goes, `virtual_alias_maps` applied.
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
/// use mailstow_engine::Mailboxes;
///
/// let address = parse_mailbox("info@example.com")?;
/// match router.look_up(&address).mailboxes()? {
///     Mailboxes::Own(mailbox) => assert_eq!(mailbox.path, "example.com/info"),
///     Mailboxes::Respelled(_, mailbox) => assert!(!mailbox.path.is_empty()),
///     Mailboxes::Members(members) => assert!(!members.is_empty()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mailboxes {
    /// The recipient is no alias, and this is its mailbox.
    Own(MailboxTarget),
    /// The recipient is listed in this other spelling, with this mailbox.
    Respelled(Address, MailboxTarget),
    /// The addresses it expands to, with their mailboxes, in order.
    Members(Vec<(Address, MailboxTarget)>),
}

impl Mailboxes {
    /// Returns all recipients that mail for `address`, whose mailboxes these are, is stored for.
    pub fn members(self, address: Address) -> Vec<(Address, MailboxTarget)> {
        match self {
            Self::Own(target) => vec![(address, target)],
            Self::Respelled(address, target) => vec![(address, target)],
            Self::Members(members) => members,
        }
    }
}

/// The text of an address that is in canonical form, folded and without quotes, as nearly all
/// are: all tables are asked for the same keys then.
#[derive(Debug)]
struct Plain {
    /// The address, and behind it, if it has an extension, the address without that.
    text: String,
    whole_bytes: usize,
    local_bytes: usize,
}

impl Plain {
    fn new(router: &Router, address: &Address) -> Option<Self> {
        let domain = address.domain.as_deref()?;
        let local_part = address.local_part.as_str();
        if !router
            .resolver
            .form
            .is_canonical_and_folded(local_part, domain)
        {
            return None;
        }
        let user = router.resolver.rule.split(local_part).map(|(user, _)| user);
        // `user.+list` needs no quotes, but `user.` does.
        if user.is_some_and(|user| user.ends_with('.')) {
            return None;
        }
        let whole_bytes = local_part.len() + 1 + domain.len();
        let mut text = String::with_capacity(2 * whole_bytes);
        push_internal(&mut text, local_part, domain);
        if let Some(user) = user {
            push_internal(&mut text, user, domain);
        }
        Some(Self {
            text,
            whole_bytes,
            local_bytes: local_part.len(),
        })
    }

    fn whole(&self) -> &str {
        self.text.get(..self.whole_bytes).unwrap_or_default()
    }

    fn user(&self) -> Option<&str> {
        self.text
            .get(self.whole_bytes..)
            .filter(|user| !user.is_empty())
    }

    fn domain(&self) -> &str {
        self.catch_all().get(1..).unwrap_or_default()
    }

    /// Begins with `@`.
    fn catch_all(&self) -> &str {
        self.whole().get(self.local_bytes..).unwrap_or_default()
    }
}

impl Router {
    /// Begins a lookup of `address`, to be asked for its class and its mailboxes. For more than one
    /// of these, ask one [`Lookup`] and not the router.
    pub fn look_up<'a>(&'a self, address: &'a Address) -> Lookup<'a> {
        Lookup::new(self, address)
    }

    /// The mailbox that mail for `address` is stored in; see [`Lookup::mailbox`].
    ///
    /// # Errors
    /// The recipient is unknown, or our tables cannot say; see [`RouteError::status`].
    pub fn mailbox(&self, address: &Address) -> Result<MailboxTarget, RouteError> {
        self.look_up(address).mailbox()
    }

    pub(super) fn traced_mailbox(
        &self,
        address: &Address,
        trace: &mut Trace,
    ) -> Result<MailboxTarget, RouteError> {
        let own = |domain: &str| self.resolver.is_own_domain(domain);
        match self.mailboxes.find(address, own, trace)? {
            Some(target) => Ok(target),
            None => Err(self.look_up(address).unknown()),
        }
    }

    /// The mailboxes that mail for `address` is stored in, `virtual_alias_maps` applied: of
    /// all addresses it expands to.
    ///
    /// # Errors
    /// One of them cannot be stored, or the expansion failed.
    pub fn mailboxes(
        &self,
        address: &Address,
    ) -> Result<Vec<(Address, MailboxTarget)>, RouteError> {
        let mailboxes = self.look_up(address).mailboxes()?;
        Ok(mailboxes.members(address.clone()))
    }
}

impl<'a> Lookup<'a> {
    fn new(router: &'a Router, address: &'a Address) -> Self {
        let plain = Plain::new(router, address);
        if let Some(plain) = &plain {
            let (whole, domain, catch_all) = (plain.whole(), plain.domain(), plain.catch_all());
            for map in &router.maps {
                // Most extensions are in no table.
                match plain.user() {
                    Some(user) => map.fetch([user, domain], &[whole, catch_all]),
                    None => map.fetch([whole, domain], &[catch_all]),
                }
            }
        }
        Self {
            router,
            address,
            plain,
            is_local: Cell::new(None),
        }
    }

    fn is_brief(&self) -> bool {
        !self.router.may_block()
    }

    /// Its keys are ready.
    #[cfg(test)]
    pub(super) fn is_plain(&self) -> bool {
        self.plain.is_some()
    }

    /// The class of the recipient's domain; local without one.
    ///
    /// # Errors
    /// A table of a domain list could not answer.
    pub fn class(&self) -> Result<AddressClass, TableError> {
        let Some(domain) = &self.address.domain else {
            return Ok(AddressClass::Local);
        };
        if self.is_local(domain)? {
            return Ok(AddressClass::Local);
        }
        let classes = &self.router.resolver.classes;
        match &self.plain {
            Some(plain) => {
                let domain = Key::of_folded(plain.domain(), self.is_brief());
                let (class, _) = classes.listing(&domain, &mut Trace::off())?;
                Ok(class)
            }
            None => classes.of_remote(domain, &mut Trace::off()),
        }
    }

    fn is_local(&self, domain: &str) -> Result<bool, TableError> {
        if let Some(known) = self.is_local.get() {
            return Ok(known);
        }
        let classes = &self.router.resolver.classes;
        let is_local = match &self.plain {
            // It has no dot at its end and no brackets around it.
            Some(plain) => {
                classes.is_listed_local(&Key::of_folded(plain.domain(), self.is_brief()))?
            }
            None => classes.is_local(domain, &mut Trace::off())?,
        };
        self.is_local.set(Some(is_local));
        Ok(is_local)
    }

    fn is_own(&self, domain: &str) -> Result<bool, TableError> {
        Ok(self.router.resolver.is_origin(domain) || self.is_local(domain)?)
    }

    /// The mailbox that mail for the recipient is stored in. Like virtual(8), this asks
    /// `virtual_mailbox_maps` whatever class the domain is of, and knows nothing of aliases: who
    /// sent the mail here has already routed it.
    ///
    /// # Errors
    /// The recipient is unknown, or our tables cannot say; see [`RouteError::status`].
    pub fn mailbox(&self) -> Result<MailboxTarget, RouteError> {
        match &self.plain {
            Some(plain) => {
                let keyed = search::Address::plain(plain.whole(), plain.user());
                self.mailbox_of(&Keys::of_folded(&keyed, self.is_brief()))
            }
            None => self.router.traced_mailbox(self.address, &mut Trace::off()),
        }
    }

    fn mailbox_of(&self, keys: &Keys<'_, 'a>) -> Result<MailboxTarget, RouteError> {
        let own = |domain: &str| self.is_own(domain);
        let mailboxes = &self.router.mailboxes;
        let found = mailboxes.find_keys(self.address, keys, own, &mut Trace::off())?;
        found.map_or_else(|| Err(self.unknown()), Ok)
    }

    /// Returns why there is no mailbox for the recipient.
    #[cold]
    fn unknown(&self) -> RouteError {
        let class = match self.class() {
            Ok(class) => class,
            Err(error) => return error.into(),
        };
        let address = self.address.external();
        match class {
            AddressClass::VirtualMailbox => RouteError::UnknownUser { address },
            AddressClass::Local
            | AddressClass::VirtualAlias
            | AddressClass::Relay
            | AddressClass::Default => RouteError::NotHosted { address },
        }
    }

    /// The mailboxes that mail for the recipient is stored in, `virtual_alias_maps` applied. For
    /// use where aliases were not expanded yet: behind Postfix, cleanup(8) has done that.
    ///
    /// # Errors
    /// One of them cannot be stored, or the expansion failed.
    pub fn mailboxes(&self) -> Result<Mailboxes, RouteError> {
        let aliases = &self.router.aliases;
        let plain = self.plain.as_ref();
        let Some(plain) = plain.filter(|_| aliases.limits_allow_asking()) else {
            return self.of_members(self.router.expand(self.address)?);
        };
        let keyed = search::Address::plain(plain.whole(), plain.user());
        let keys = Keys::of_folded(&keyed, self.is_brief());
        let found = aliases.find(&keys, |domain: &str| self.is_own(domain))?;
        if found.is_none() {
            return self.mailbox_of(&keys).map(Mailboxes::Own);
        }
        let resolver = &self.router.resolver;
        let own = |domain: &str| resolver.is_own_domain(domain);
        let trace = &mut Trace::off();
        let members = aliases.expand_found(plain.whole(), found, &resolver.form, own, trace)?;
        let members = members
            .iter()
            .map(|member| Address::from_internal(member))
            .collect();
        self.of_members(members)
    }

    fn of_members(&self, members: Vec<Address>) -> Result<Mailboxes, RouteError> {
        if matches!(members.as_slice(), [only] if only == self.address) {
            return self.mailbox().map(Mailboxes::Own);
        }
        let find = |member: Address| match self.router.mailbox(&member) {
            Ok(target) => Ok((member, target)),
            Err(cause) => Err(RouteError::Member {
                address: self.address.external(),
                member: member.external(),
                cause: Box::new(cause),
            }),
        };
        let members: Result<_, _> = members.into_iter().map(find).collect();
        members.map(Mailboxes::Members)
    }
}
