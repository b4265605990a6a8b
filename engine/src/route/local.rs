//! What local(8) knows when it looks at a recipient: its tables and parameters.
//!
//! `local_walk` and `local_user` resolve recipients with it. Source: local(8), aliases(5).

use super::accounts::{Account, Accounts};
use super::alias::{extension_rule, propagates};
use super::error::RouteError;
use super::opener::Opener;
use super::search::Maps;
use super::trace::Trace;
use super::types::{Destination, Expansion};
use super::user_files::UserFiles;
use crate::address::ExtensionRule;
use crate::config::LocalSettings;
use crate::config::RoutingSettings;
use crate::sync::Arc;
use crate::table::{Key, TableError, words};
use crate::target::{CommandTarget, LOCAL};

/// The tables and parameters of local(8).
#[derive(Debug)]
pub(crate) struct LocalDelivery {
    pub(super) aliases: Maps,
    /// Name of each table in `aliases` that has a file, and who owns that.
    pub(super) owners: Vec<(String, u32)>,
    pub(super) rule: ExtensionRule,
    pub(super) propagate_alias: bool,
    pub(super) propagate_include: bool,
    pub(super) propagate_forward: bool,
    pub(super) commands_in: Vec<String>,
    pub(super) files_in: Vec<String>,
    pub(super) expand_owner_alias: bool,
    pub(super) reset_owner_alias: bool,
    pub(super) frozen_delivered_to: bool,
    pub(super) duplicate_filter_limit: usize,
    pub(super) accounts: Accounts,
    pub(super) files: UserFiles,
    /// `forward_path`, not expanded.
    pub(super) forward_paths: Vec<String>,
    /// What users have in place of mailboxes, and names without an account; as it is configured.
    pub(super) parameters: LocalSettings,
    mailbox_transports: Maps,
    mailbox_commands: Maps,
    fallback_transports: Maps,
}

/// An address that mail for a local recipient goes to.
#[derive(Debug)]
pub(crate) struct Member {
    /// Internal form.
    pub(crate) recipient: String,
    /// The envelope sender that takes the place of the message's (`owner-` aliases).
    pub(crate) sender: Option<String>,
    pub(crate) fate: Fate,
    pub(crate) way: Way,
}

/// How a member was come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    /// What mail says in `Delivered-To:` where it ends, and when it is sent on; internal form.
    pub(crate) delivered_to: String,
    /// It is part of a list with an owner, which does not tell who its mail was for at first.
    pub(crate) hides_original: bool,
    /// What the recipient was expanded by on the way.
    pub(crate) expansion: Expansion,
    /// The recipients whose mail goes there, folded, in internal form.
    pub(crate) passed: Vec<Arc<str>>,
    /// The environment of a command.
    pub(crate) command: Option<Box<CommandTarget>>,
}

/// What becomes of a member.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Its mail ends here.
    Ends(Destination),
    /// Its mail is sent on as new mail.
    Forwarded(Forward),
    /// A transport takes its mail, as it is: with its nexthop, if one is named.
    Passed(String, Option<String>),
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
        let local = &settings.local;
        let items = |text: &str| {
            let items = text.split([',', ' ', '\t']).filter(|item| !item.is_empty());
            items.map(str::to_owned).collect()
        };
        let maps = |parameter, list| Maps::open_or_fail(parameter, list, opener);
        Self {
            aliases: Maps::open_or_fail("alias_maps", &settings.alias_maps, opener),
            owners: opener.file_owners(&settings.alias_maps),
            rule: extension_rule(settings),
            propagate_alias: propagates(settings, "alias"),
            propagate_include: propagates(settings, "include"),
            propagate_forward: propagates(settings, "forward"),
            commands_in: list(&settings.allow_mail_to_commands),
            files_in: list(&settings.allow_mail_to_files),
            expand_owner_alias: settings.expand_owner_alias,
            reset_owner_alias: settings.reset_owner_alias,
            frozen_delivered_to: settings.frozen_delivered_to,
            duplicate_filter_limit: settings.duplicate_filter_limit,
            accounts: Accounts::new(settings),
            files: UserFiles::new(opener.cache.texts(), opener.cache.places()),
            forward_paths: items(&local.forward_path),
            mailbox_transports: maps("mailbox_transport_maps", &local.mailbox_transport_maps),
            mailbox_commands: maps("mailbox_command_maps", &local.mailbox_command_maps),
            fallback_transports: maps("fallback_transport_maps", &local.fallback_transport_maps),
            parameters: local.clone(),
        }
    }

    /// Returns true for the transport that mail is delivered to accounts by.
    pub(super) fn is_transport(&self, name: &str) -> bool {
        name == LOCAL && !self.parameters.is_other_program
    }

    /// The transport that takes the mail of an account in place of its mailbox.
    pub(super) fn mailbox_transport(
        &self,
        user: &str,
        trace: &mut Trace,
    ) -> Result<Option<String>, TableError> {
        let default = &self.parameters.mailbox_transport;
        value(&self.mailbox_transports, default, user, trace)
    }

    /// The command that takes the mail of an account in place of its mailbox.
    pub(super) fn mailbox_command(
        &self,
        user: &str,
        trace: &mut Trace,
    ) -> Result<Option<String>, TableError> {
        let default = &self.parameters.mailbox_command;
        value(&self.mailbox_commands, default, user, trace)
    }

    /// The transport that takes mail for a name without an account.
    pub(super) fn fallback_transport(
        &self,
        user: &str,
        trace: &mut Trace,
    ) -> Result<Option<String>, TableError> {
        let default = &self.parameters.fallback_transport;
        value(&self.fallback_transports, default, user, trace)
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

/// What the tables have for a user, else the default, which is empty for nothing.
fn value(
    maps: &Maps,
    default: &str,
    user: &str,
    trace: &mut Trace,
) -> Result<Option<String>, TableError> {
    if !maps.is_empty()
        && let Some(found) = maps.lookup(&Key::new(user), false, trace)?
    {
        return Ok(Some(found));
    }
    Ok((!default.is_empty()).then(|| default.to_owned()))
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
