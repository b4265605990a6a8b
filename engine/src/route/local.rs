//! What local(8) knows when it looks at a recipient: its tables and parameters.
//!
//! `local_walk` resolves recipients with it. `.forward` files are not read. Source: local(8),
//! aliases(5).

use super::accounts::{Account, Accounts};
use super::alias::{extension_rule, propagates};
use super::error::RouteError;
use super::opener::Opener;
use super::search::Maps;
use super::types::Destination;
use crate::address::ExtensionRule;
use crate::config::RoutingSettings;
use crate::sync::Arc;
use crate::table::{TableError, TextFiles, words};

/// The tables and parameters of local(8).
#[derive(Debug)]
pub(crate) struct LocalDelivery {
    pub(super) aliases: Maps,
    /// Name of each table in `aliases` that has a file, and who owns that.
    pub(super) owners: Vec<(String, u32)>,
    pub(super) rule: ExtensionRule,
    pub(super) propagate_alias: bool,
    pub(super) propagate_include: bool,
    pub(super) commands_in: Vec<String>,
    pub(super) files_in: Vec<String>,
    pub(super) expand_owner_alias: bool,
    pub(super) reset_owner_alias: bool,
    pub(super) frozen_delivered_to: bool,
    pub(super) duplicate_filter_limit: usize,
    pub(super) accounts: Accounts,
    /// The texts of `:include:`.
    pub(super) texts: Arc<TextFiles>,
}

/// An address that mail for a local recipient goes to.
#[derive(Debug)]
pub(crate) struct Member {
    /// Internal form.
    pub(crate) recipient: String,
    /// The envelope sender that takes the place of the message's (`owner-` aliases).
    pub(crate) sender: Option<String>,
    pub(crate) fate: Fate,
}

/// What becomes of a member.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Its mail ends here.
    Ends(Destination),
    /// Its mail is sent on as new mail.
    Forwarded(Forward),
    /// Its mail is refused, or kept for later.
    Fails(RouteError),
}

/// How mail is sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// What the new mail says in `Delivered-To:`; internal form.
    pub(crate) delivered_to: String,
    /// The new mail still tells who it was for at first; not so from a list with an owner.
    pub(crate) keeps_original: bool,
}

impl LocalDelivery {
    /// Opens the tables.
    pub(crate) fn open(settings: &RoutingSettings, opener: &Opener<'_>) -> Self {
        let list = |text: &str| words(text).map(str::to_owned).collect();
        Self {
            aliases: Maps::open_or_fail("alias_maps", &settings.alias_maps, opener),
            owners: opener.file_owners(&settings.alias_maps),
            rule: extension_rule(settings),
            propagate_alias: propagates(settings, "alias"),
            propagate_include: propagates(settings, "include"),
            commands_in: list(&settings.allow_mail_to_commands),
            files_in: list(&settings.allow_mail_to_files),
            expand_owner_alias: settings.expand_owner_alias,
            reset_owner_alias: settings.reset_owner_alias,
            frozen_delivered_to: settings.frozen_delivered_to,
            duplicate_filter_limit: settings.duplicate_filter_limit,
            accounts: Accounts::new(settings),
            texts: Arc::clone(opener.cache.texts()),
        }
    }

    /// The alias tables, for reports.
    pub(crate) fn aliases(&self) -> &Maps {
        &self.aliases
    }

    /// Whose rights the members of an alias in `table` have: those of the owner of the table, but
    /// aliases of root have no rights.
    pub(super) fn rights_of(&self, table: &str) -> Result<Option<Account>, TableError> {
        let owner = self.owners.iter().find(|(name, _)| name == table);
        match owner {
            Some((_, uid)) if *uid != 0 => self.accounts.by_id(*uid).map(Some),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
