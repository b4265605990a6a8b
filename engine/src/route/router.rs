//! One immutable snapshot of settings and tables that answers for every address.
//!
//! Safe to share between threads; look-ups in local tables do no I/O.

use super::alias::VirtualAliases;
use super::error::RouteError;
use super::local::LocalDelivery;
use super::mailbox::MailboxTables;
use super::opener::Opener;
use super::recipients::ListedRecipients;
use super::resolver::Resolver;
use super::search::Maps;
use super::trace::{Step, Trace};
use super::types::AddressClass;
use crate::address::{Address, quote_address};
use crate::config::RoutingSettings;
use crate::map::MapView;
use crate::sync::{Arc, OnceLock};
use crate::table::{Hold, OpenError, TableCache, TableError};

/// A snapshot of routing. A transaction keeps the one it began with.
///
/// ```
/// use mailstow_engine::{Router, RoutingSettings, parse_mailbox};
/// use mailstow_engine::table::{TableCache, TableContext};
///
/// let settings = RoutingSettings {
///     virtual_mailbox_domains: "example.com".into(),
///     virtual_mailbox_maps: "inline:{info@example.com=example.com/info/}".into(),
///     virtual_uid_maps: "static:5000".into(),
///     virtual_gid_maps: "static:5000".into(),
///     virtual_transport: "virtual".into(),
///     ..RoutingSettings::default()
/// };
/// let router = Router::open(&settings, &TableCache::new(TableContext::default()))?;
/// let mailbox = router.mailbox(&parse_mailbox("info@example.com")?)?;
/// assert_eq!((mailbox.path.as_str(), mailbox.uid), ("example.com/info", 5000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Router {
    pub(super) resolver: Resolver,
    pub(super) aliases: VirtualAliases,
    pub(super) mailboxes: MailboxTables,
    pub(super) listed: ListedRecipients,
    pub(super) local: LocalDelivery,
    may_block: bool,
    /// What holds back files of tables and lists.
    holds: Vec<Arc<Hold>>,
    /// The recipient maps that tables are parts of.
    pub(super) maps: Vec<Arc<MapView>>,
    /// Computed on demand, because that reads all domains.
    warnings: OnceLock<Vec<String>>,
    /// The domains that mail is stored for, found when they are needed.
    pub(super) hosted: OnceLock<Vec<String>>,
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
        let resolver = Resolver::open(settings, &opener)?;
        let aliases = VirtualAliases::open(settings, &opener);
        let mailboxes = MailboxTables::open(settings, &opener)?;
        let listed = ListedRecipients::open(settings, &opener);
        let local = LocalDelivery::open(settings, &opener);
        Ok(Self {
            aliases,
            mailboxes,
            listed,
            local,
            // With all tables open.
            may_block: cache.may_block(),
            holds: cache.holds(),
            maps: cache.map_views(),
            warnings: OnceLock::new(),
            hosted: OnceLock::new(),
            resolver,
        })
    }

    /// Some table asks a database or another server: a lookup may take as long as its timeouts and
    /// is not to be made by a thread that must not wait.
    pub fn may_block(&self) -> bool {
        self.may_block
    }

    /// Checks whether a program wrote into a recipient map that is in use; lookups in it then
    /// defer. Costs one fstat(2) for each map. A transaction does this once; while it goes on,
    /// lookups look again after a few milliseconds.
    pub fn look_at_maps(&self) {
        for map in &self.maps {
            // A lookup in the map returns the error.
            let _ = map.check_intact_now();
        }
    }

    /// `error`, unless it says that a recipient is unknown while a table or list is about to have
    /// other contents: then the recipient may be in it, and is deferred.
    #[cold]
    pub(super) fn settled(&self, error: RouteError) -> RouteError {
        let cause = match &error {
            RouteError::Member { cause, .. } => cause,
            error => error,
        };
        let is_unknown = matches!(
            cause,
            RouteError::UnknownUser { .. }
                | RouteError::NotHosted { .. }
                | RouteError::Unlisted { .. }
        );
        match TableError::unsettled(&self.holds) {
            Some(unsettled) if is_unknown => unsettled.into(),
            _ => error,
        }
    }

    /// Returns why files of tables and lists are not used as they are now, one sentence each.
    pub(crate) fn held_back(&self) -> Vec<String> {
        Hold::causes(&self.holds)
    }

    /// What is odd about the configuration, one sentence each.
    pub fn warnings(&self) -> &[String] {
        self.warnings.get_or_init(|| {
            let overlaps = self.resolver.classes.overlaps();
            overlaps.iter().map(ToString::to_string).collect()
        })
    }

    /// Returns the address in canonical form: `$myorigin` is its domain where it has none
    /// (postconf(5) `append_at_myorigin`), routes and a dot at the end of its domain are resolved.
    pub fn complete(&self, address: Address) -> Address {
        self.resolver.form.canonical(address)
    }

    /// Returns all addresses that `address` expands to in `virtual_alias_maps`, in order and
    /// without duplicates; the completed address itself when it is no alias. For use where aliases
    /// were not expanded yet: behind Postfix, cleanup(8) has done that.
    ///
    /// # Errors
    /// The expansion failed as a whole: a table, a limit, a result without an address.
    pub fn expand(&self, address: &Address) -> Result<Vec<Address>, RouteError> {
        let internal = address.internal();
        let members = self.traced_expand(&internal, &mut Trace::off())?;
        // Most addresses are no aliases.
        let has_plain_domain = |domain: &String| !domain.contains('@');
        if members.as_slice() == [internal] && address.domain.as_ref().is_some_and(has_plain_domain)
        {
            return Ok(vec![address.clone()]);
        }
        Ok(members
            .iter()
            .map(|member| Address::from_internal(member))
            .collect())
    }

    /// Canonical form, then aliases; all in internal form.
    pub(super) fn traced_expand(
        &self,
        address: &str,
        trace: &mut Trace,
    ) -> Result<Vec<String>, RouteError> {
        let canonical = self.resolver.form.of_internal(address);
        if canonical != address {
            trace.record(|| Step::Canonical {
                from: quote_address(address).into_owned(),
                to: quote_address(&canonical).into_owned(),
            });
        }
        let own = |domain: &str| self.resolver.is_own_domain(domain);
        self.aliases
            .expand(&canonical, &self.resolver.form, own, trace)
    }

    /// Every table that says who a recipient is, apart from those of mailboxes; for reports.
    pub(super) fn routing_maps(&self) -> Vec<&Maps> {
        let mut maps = vec![self.aliases.maps(), self.local.aliases()];
        maps.extend(self.resolver.maps());
        maps.extend(self.listed.maps());
        maps
    }

    /// The class of a domain.
    ///
    /// # Errors
    /// A table of a domain list could not answer.
    pub fn class(&self, domain: &str) -> Result<AddressClass, TableError> {
        self.resolver.classes.of(domain, &mut Trace::off())
    }
}
