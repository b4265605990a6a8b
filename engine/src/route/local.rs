//! What local(8) makes of a recipient: aliases, commands, files, `:include:` files, accounts.
//!
//! Imports `address`, `config`, `table`; reads `:include:` files and asks the account database,
//! but runs nothing and writes nothing. `.forward` files are not looked at. A member that is to
//! be sent on is handed back, to be resolved as any other recipient. Source: local(8),
//! aliases(5).

use super::accounts::{Account, Accounts};
use super::alias::{extension_rule, propagates};
use super::error::RouteError;
use super::opener::Opener;
use super::resolver::Resolver;
use super::search::Maps;
use super::trace::{Step, Trace};
use super::types::{Destination, Format, Rights};
use crate::address::{ExtensionRule, ListedAddress, fold_case, parse_address_list, quote_address};
use crate::config::RoutingSettings;
use crate::table::{TableError, read_file, words};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How deep calls may be nested in local(8) before a loop is assumed. An alias of an alias takes
/// four of them.
const NESTING_MAX: u32 = 100;

/// The tables and parameters of local(8).
#[derive(Debug)]
pub(crate) struct LocalDelivery {
    aliases: Maps,
    /// Name of each table in `aliases` that has a file, and who owns that.
    owners: Vec<(String, u32)>,
    rule: ExtensionRule,
    propagate_alias: bool,
    propagate_include: bool,
    commands_in: Vec<String>,
    files_in: Vec<String>,
    expand_owner_alias: bool,
    accounts: Accounts,
}

/// What a local recipient stands for.
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
    Forwarded,
    /// Its mail is refused, or kept for later.
    Fails(RouteError),
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
            accounts: Accounts::new(settings),
        }
    }

    /// The alias tables, for reports.
    pub(crate) fn aliases(&self) -> &Maps {
        &self.aliases
    }

    /// Everything that `recipient` (internal form), whose transport is `transport`, stands for.
    pub(crate) fn members(
        &self,
        recipient: &str,
        transport: &str,
        resolver: &Resolver,
        trace: &mut Trace,
    ) -> Vec<Member> {
        let mut walk = Walk {
            local: self,
            resolver,
            transport,
            trace,
            seen: HashSet::new(),
            members: Vec::new(),
        };
        walk.recipient(recipient, State::default());
        walk.members
    }
}

/// Where a destination is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Origin {
    #[default]
    Envelope,
    Alias,
    Include,
}

/// What is handed from an alias to its members.
#[derive(Clone, Debug, Default)]
struct State {
    level: u32,
    /// The alias being expanded, folded.
    alias: Option<String>,
    origin: Origin,
    /// Whose rights commands and files are used with; none: those of `default_privs`.
    rights: Option<Account>,
    /// An extension that did not match and is passed on, without its delimiter.
    unmatched: Option<String>,
    /// Who is told of trouble; local members are then sent on instead of delivered to.
    owner: Option<String>,
    sender: Option<String>,
}

struct Walk<'a> {
    local: &'a LocalDelivery,
    resolver: &'a Resolver,
    transport: &'a str,
    trace: &'a mut Trace,
    seen: HashSet<String>,
    members: Vec<Member>,
}

impl Walk<'_> {
    fn push(&mut self, recipient: &str, state: &State, fate: Fate) {
        // The same file, command or mailbox gets one copy, as does whoever mail is sent on to.
        let key = match &fate {
            Fate::Ends(destination) => format!("{destination:?}"),
            Fate::Forwarded => format!("forward {}", fold_case(recipient)),
            Fate::Fails(error) => error.to_string(),
        };
        if self.seen.insert(key) {
            self.members.push(Member {
                recipient: recipient.to_owned(),
                sender: state.sender.clone(),
                fate,
            });
        }
    }

    fn fail(&mut self, recipient: &str, state: &State, error: RouteError) {
        self.push(recipient, state, Fate::Fails(error));
    }

    fn is_too_deep(&mut self, recipient: &str, state: &State) -> bool {
        let too_deep = state.level > NESTING_MAX;
        if too_deep {
            let address = quote_address(recipient).into_owned();
            self.fail(recipient, state, RouteError::AliasLoop { address });
        }
        too_deep
    }

    fn recipient(&mut self, recipient: &str, mut state: State) {
        state.level += 1;
        if self.is_too_deep(recipient, &state) {
            return;
        }
        if !self.seen.insert(format!("{} {recipient}", state.level)) {
            return;
        }
        let (local_part, _) = recipient.rsplit_once('@').unwrap_or((recipient, ""));
        let folded = fold_case(local_part);
        let (user, extension) = match self.local.rule.split(&folded) {
            // An extension could name a file; one that would leave its directory is dropped.
            Some((user, extension)) if extension.contains('/') => (user, None),
            Some((user, extension)) => (user, Some(extension)),
            None => (folded.as_ref(), None),
        };
        let name = match extension {
            Some(_) => folded.as_ref(),
            None => user,
        };
        if user.is_empty() {
            let address = quote_address(recipient).into_owned();
            let cause = "it has no user name";
            return self.fail(recipient, &state, RouteError::BadAddress { address, cause });
        }
        self.deliver(recipient, name, user, extension, state);
    }

    fn deliver(
        &mut self,
        recipient: &str,
        name: &str,
        user: &str,
        extension: Option<&str>,
        mut state: State,
    ) {
        state.level += 1;
        state.unmatched = None;
        if self.alias(recipient, name, state.clone()) {
            return;
        }
        if let Some(extension) = extension {
            let mut rest = extension.chars();
            rest.next();
            let unmatched = Some(rest.as_str().to_owned());
            if self.local.propagate_alias {
                state.unmatched.clone_from(&unmatched);
            }
            if self.alias(recipient, user, state.clone()) {
                return;
            }
            state.unmatched = unmatched;
        }
        let sent_on = match &state.owner {
            Some(owner) => fold_case(owner) != user,
            None => state.origin == Origin::Include,
        };
        if sent_on {
            return self.push(recipient, &state, Fate::Forwarded);
        }
        match self.local.accounts.mailbox(user) {
            Ok(Some(destination)) => self.push(recipient, &state, Fate::Ends(destination)),
            Ok(None) if matches!(user, "postmaster" | "mailer-daemon") => {
                self.push(recipient, &state, Fate::Ends(Destination::Discarded));
            }
            Ok(None) => {
                let address = quote_address(recipient).into_owned();
                self.fail(recipient, &state, RouteError::UnknownUser { address });
            }
            Err(error) => self.fail(recipient, &state, RouteError::Table(error)),
        }
    }

    /// Expands the alias `name`, if there is one; true when that settles the matter. An alias
    /// that lists itself is its user.
    fn alias(&mut self, recipient: &str, name: &str, mut state: State) -> bool {
        state.level += 1;
        if state.alias.as_deref() == Some(name) {
            return false;
        }
        if self.is_too_deep(recipient, &state) {
            return true;
        }
        let found = match self.local.aliases.lookup_in(name, false, self.trace) {
            Ok(Some((value, table))) => Ok((value, self.local.rights_of(table.name()))),
            Ok(None) => return false,
            Err(error) => Err(error),
        };
        let (value, rights) = match found {
            Ok((value, Ok(rights))) => (value, rights),
            Ok((_, Err(error))) | Err(error) => {
                self.fail(recipient, &state, RouteError::Table(error));
                return true;
            }
        };
        state.rights = rights;
        state.alias = Some(name.to_owned());
        state.origin = Origin::Alias;
        if let Err(error) = self.set_owner(name, &mut state) {
            self.fail(recipient, &state, RouteError::Table(error));
            return true;
        }
        let members = parse_address_list(&value);
        self.trace.record(|| Step::Expanded {
            depth: 0,
            from: name.to_owned(),
            to: members.iter().map(ListedAddress::external).collect(),
        });
        if members.is_empty() {
            let cause = "there is no address in it; correct the alias";
            self.bad_member(recipient, &value, cause, false, &state);
        }
        for member in &members {
            self.member(recipient, member, &state);
        }
        true
    }

    /// An alias with an `owner-` alias beside it is a mailing list.
    fn set_owner(&mut self, name: &str, state: &mut State) -> Result<(), TableError> {
        if !self.local.rule.owner_request_special {
            return Ok(());
        }
        let owner = format!("owner-{name}");
        if let Some(members) = self
            .local
            .aliases
            .lookup(&owner, false, &mut Trace::off())?
        {
            let sender = if self.local.expand_owner_alias {
                members
            } else {
                owner
            };
            let sender = self.resolver.form.of_external(&sender);
            state.owner = Some(sender.clone());
            state.sender = Some(sender);
        }
        Ok(())
    }

    fn bad_member(
        &mut self,
        recipient: &str,
        member: &str,
        cause: &str,
        restricted: bool,
        state: &State,
    ) {
        let error = RouteError::BadMember {
            address: quote_address(recipient).into_owned(),
            member: member.to_owned(),
            cause: cause.to_owned(),
            restricted,
        };
        self.fail(recipient, state, error);
    }

    /// One member of an alias or of an `:include:` file.
    fn member(&mut self, recipient: &str, listed: &ListedAddress, state: &State) {
        let text = listed.internal();
        let is_include = text
            .get(..9)
            .is_some_and(|start| start.eq_ignore_ascii_case(":include:"));
        if is_include {
            let path = text.get(9..).unwrap_or_default();
            self.include(recipient, path, state.clone());
        } else if let Some(command) = text.strip_prefix('|') {
            if !self.local.is_allowed(&self.local.commands_in, state.origin) {
                let cause = "mail to command is restricted";
                return self.bad_member(recipient, &text, cause, true, state);
            }
            let command = command.to_owned();
            let ends = |rights| Destination::Command { command, rights };
            self.with_rights(recipient, state, ends);
        } else if text.starts_with('/') {
            self.file(recipient, &text, &text, state);
        } else if let Some(below) = text.strip_prefix('~') {
            let home = state.rights.as_ref().map(|owner| owner.home.clone());
            match home.filter(|_| below.starts_with('/')) {
                Some(home) => {
                    let path = format!("{}{below}", home.display());
                    self.file(recipient, &text, &path, state);
                }
                None => {
                    let cause = "it has no home directory; write the whole path";
                    self.bad_member(recipient, &text, cause, false, state);
                }
            }
        } else {
            self.address(recipient, listed, state);
        }
    }

    fn file(&mut self, recipient: &str, member: &str, path: &str, state: &State) {
        if !self.local.is_allowed(&self.local.files_in, state.origin) {
            let cause = "mail to file is restricted";
            return self.bad_member(recipient, member, cause, true, state);
        }
        let format = Format::of(path);
        let path = path.to_owned();
        let ends = |rights| Destination::File {
            path: path.into(),
            format,
            rights,
        };
        self.with_rights(recipient, state, ends);
    }

    fn with_rights(
        &mut self,
        recipient: &str,
        state: &State,
        ends: impl FnOnce(Rights) -> Destination,
    ) {
        let rights = match &state.rights {
            Some(owner) => Ok(owner.rights.clone()),
            None => self.local.accounts.default_rights(),
        };
        match rights {
            Ok(rights) => self.push(recipient, state, Fate::Ends(ends(rights))),
            Err(error) => self.fail(recipient, state, RouteError::Table(error)),
        }
    }

    fn address(&mut self, recipient: &str, listed: &ListedAddress, state: &State) {
        let mut state = state.clone();
        state.level += 1;
        let canonical = self.resolver.form.of_external(&listed.external());
        let resolved = match self.resolver.resolve(&canonical, &mut Trace::off()) {
            Ok(resolved) => resolved,
            Err(error) => return self.fail(recipient, &state, error),
        };
        let mut member = resolved.recipient;
        if let (Some(unmatched), Some(delimiter), Some(at)) = (
            &state.unmatched,
            self.local.rule.delimiters.chars().next(),
            member.rfind('@'),
        ) {
            member.insert_str(at, &format!("{delimiter}{unmatched}"));
        }
        if resolved.transport == self.transport {
            self.recipient(&member, state);
        } else {
            self.push(&member, &state, Fate::Forwarded);
        }
    }

    fn include(&mut self, recipient: &str, path: &str, mut state: State) {
        state.level += 1;
        let name = format!(":include:{path}");
        if self.is_too_deep(recipient, &state) || !self.seen.insert(name.clone()) {
            return;
        }
        let text = match read_include(Path::new(path)) {
            Ok((text, owner)) => match self.local.accounts.of_include(owner, &state.rights) {
                Ok(rights) => {
                    state.rights = rights;
                    text
                }
                Err(error) => return self.fail(recipient, &state, RouteError::Table(error)),
            },
            Err(cause) => return self.bad_member(recipient, &name, &cause, false, &state),
        };
        state.origin = Origin::Include;
        state.owner.get_or_insert_with(|| recipient.to_owned());
        if !self.local.propagate_include {
            state.unmatched = None;
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            for member in parse_address_list(line) {
                self.member(recipient, &member, &state);
            }
        }
    }
}

impl LocalDelivery {
    /// Whose rights the members of an alias in `table` have: of who owns the table, but root's
    /// aliases have none of their own.
    fn rights_of(&self, table: &str) -> Result<Option<Account>, TableError> {
        let owner = self.owners.iter().find(|(name, _)| name == table);
        match owner {
            Some((_, uid)) if *uid != 0 => self.accounts.by_id(*uid).map(Some),
            _ => Ok(None),
        }
    }

    fn is_allowed(&self, allowed: &[String], origin: Origin) -> bool {
        let wanted = match origin {
            Origin::Envelope => return false,
            Origin::Alias => "alias",
            Origin::Include => "include",
        };
        allowed.iter().any(|word| word == wanted)
    }
}

/// The text of an `:include:` file and who owns it.
fn read_include(path: &Path) -> Result<(String, u32), String> {
    if !path.is_absolute() {
        return Err("the path is relative; write the whole path".into());
    }
    let metadata = std::fs::metadata(path).map_err(|error| format!("{error}; create the file"))?;
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    if metadata.mode() & 0o002 != 0 {
        return Err("everyone may write the file; run chmod o-w on it".into());
    }
    let bytes = read_file(path).map_err(|error| format!("{error}; let mailstow read the file"))?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), metadata.uid()))
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
