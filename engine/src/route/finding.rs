//! From the address a client gives to the mailboxes of the recipient it means.
//!
//! This is the one way for all that stores mail: the server, `mailstow deliver`, embedders. An
//! address is looked up in canonical form, as virtual(8) looks it up. One that is listed nowhere is
//! looked up once more in the spelling that trivial-rewrite(8) resolves it to; so whatever
//! [`Router::resolve`] finds by its spelling is found here. Only recipients that would be refused
//! pay for that.

use super::error::RouteError;
use super::lookup::Mailboxes;
use super::router::Router;
use super::trace::Trace;
use crate::address::Address;

/// Domains in which a postmaster is looked for at most.
const POSTMASTER_DOMAINS_MAX: usize = 1000;

/// A recipient that was looked up.
#[derive(Clone, Debug)]
pub struct Found {
    /// The address in canonical form.
    pub address: Address,
    /// Where its mail is stored, or why it is not.
    pub mailboxes: Result<Mailboxes, RouteError>,
}

impl Router {
    /// Finds the mailboxes that mail for `given` is stored in, as it was parsed from what a client
    /// said. With `expand_aliases`, `virtual_alias_maps` are applied; behind Postfix, cleanup(8)
    /// has done that.
    ///
    /// A `postmaster` without a domain is accepted when any domain or alias here can take it (RFC
    /// 5321 section 4.5.1).
    pub fn find(&self, given: Address, expand_aliases: bool) -> Found {
        let is_postmaster = is_bare_postmaster(&given);
        let address = self.complete(given);
        let mailboxes = match self.as_spelled(&address, expand_aliases) {
            Err(error) if is_unknown(&error) => self.otherwise(&address, expand_aliases, error),
            found => found,
        };
        let mailboxes = match mailboxes {
            Err(error) if is_postmaster && error.status().is_permanent() => {
                self.postmaster(&address).unwrap_or(Err(error))
            }
            found => found,
        };
        Found {
            address,
            mailboxes: mailboxes.map_err(|error| self.settled(error)),
        }
    }

    fn as_spelled(&self, address: &Address, expand_aliases: bool) -> Result<Mailboxes, RouteError> {
        let lookup = self.look_up(address);
        if expand_aliases {
            lookup.mailboxes()
        } else {
            lookup.mailbox().map(Mailboxes::Own)
        }
    }

    /// Looks for a recipient that is not listed, which is `error`, in its other spelling.
    #[cold]
    fn otherwise(
        &self,
        address: &Address,
        expand_aliases: bool,
        error: RouteError,
    ) -> Result<Mailboxes, RouteError> {
        let Some(other) = self.other_spelling(address)? else {
            return Err(error);
        };
        match self.as_spelled(&other, expand_aliases) {
            Ok(Mailboxes::Own(target)) => Ok(Mailboxes::Respelled(other, target)),
            Err(second) if is_unknown(&second) => Err(error),
            found => found,
        }
    }

    /// The spelling of a canonical address that its routes resolve to; `None` when there is no
    /// other.
    ///
    /// # Errors
    /// A table could not answer.
    pub(super) fn other_spelling(&self, address: &Address) -> Result<Option<Address>, RouteError> {
        let internal = address.internal();
        match self.resolver.recipient(&internal, &mut Trace::off()) {
            Ok((recipient, _)) => {
                Ok((recipient != internal).then(|| Address::from_internal(&recipient)))
            }
            Err(RouteError::Table(error)) => Err(error.into()),
            // Nothing to be looked up.
            Err(_) => Ok(None),
        }
    }

    /// Finds a postmaster of one of our domains, by their order in the configuration; `None` when
    /// there is none. `local` is the postmaster of this machine.
    #[cold]
    pub(super) fn postmaster(&self, local: &Address) -> Option<Result<Mailboxes, RouteError>> {
        let mut first = Some(local.clone());
        let names = self.hosted.get_or_init(|| self.hosted_domains());
        let mut names = names.iter().take(POSTMASTER_DOMAINS_MAX);
        std::iter::from_fn(|| {
            first.take().or_else(|| {
                let domain = names.next()?;
                Some(Address::new(local.local_part.as_str(), Some(domain)))
            })
        })
        .find_map(|address| match self.look_up(&address).mailboxes() {
            Ok(Mailboxes::Own(target)) => Some(Ok(Mailboxes::Respelled(address, target))),
            Err(error) if error.status().is_permanent() => None,
            // Of a postmaster whose alias leads elsewhere, the next one may be here.
            Err(RouteError::Member { .. }) => None,
            found => Some(found),
        })
    }

    /// The domains that mail is stored for, as far as they are listed.
    fn hosted_domains(&self) -> Vec<String> {
        let [mailboxes, aliases] = self.resolver.classes.hosted();
        let mut names = Vec::new();
        for list in [mailboxes, aliases] {
            names.extend(list.names().map(str::to_owned));
            for table in list.tables().flat_map(crate::table::TableSet::tables) {
                table.for_each(&mut |key, _, _| {
                    // A table of recipients serves as a list of domains, too.
                    if names.len() < POSTMASTER_DOMAINS_MAX && !key.contains('@') {
                        names.push(key.to_owned());
                    }
                });
            }
        }
        names
    }
}

pub(super) fn is_bare_postmaster(address: &Address) -> bool {
    address.domain.is_none() && address.local_part.eq_ignore_ascii_case("postmaster")
}

fn is_unknown(error: &RouteError) -> bool {
    matches!(
        error,
        RouteError::UnknownUser { .. } | RouteError::NotHosted { .. }
    )
}
