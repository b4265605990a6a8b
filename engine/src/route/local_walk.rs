//! What local(8) makes of a recipient: aliases, commands, files, `:include:` files.
//!
//! What a user without an alias has stands in `local_user`. Files and the account database are
//! asked, but nothing is run and nothing is written. A member that is to be sent on is handed back,
//! to be resolved as any other recipient. What is passed over for being there already, and in which
//! order, is as in local(8): a command once for a user and the rights it is run with, a file once
//! for the rights, a mailbox once for a whole local part. Source: local(8), aliases(5).

use super::accounts::Account;
use super::alias::circle;
use super::error::RouteError;
use super::local::{Fate, Forward, LocalDelivery, Member, Way};
use super::resolver::Resolver;
use super::trace::{Step, Trace};
use super::types::{Destination, Expansion, Rights};
use crate::address::{ListedAddress, fold_case, parse_address_list, quote_address};
use crate::sync::Arc;
use crate::table::{Key, TableError};
use crate::target::{CommandTarget, Format};
use std::collections::HashSet;
use std::path::Path;

/// How deep calls may be nested in local(8) before a loop is assumed. An alias of an alias takes
/// four of them.
const NESTING_MAX: u32 = 100;
/// How deep for an `:include:` file. Postfix 3.7 has no such bound, and only reads
/// no file twice; newer ones have that of aliases, which refuses mail that 3.7 delivers.
const INCLUDE_NESTING_MAX: u32 = 2 * NESTING_MAX;

/// Nesting at which the members of an alias begin to be counted: lists may be long, but not
/// long and deep.
const SHALLOW: u32 = 20;
/// Members below that. Aliases with two ways round a circle would take for ever.
const DEEP_STEPS_MAX: usize = 10_000;

/// Where a destination is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    #[default]
    Envelope,
    Alias,
    Include,
    Forward,
}

/// The recipient whose alias is being expanded.
#[derive(Debug)]
pub(super) struct Who<'a> {
    /// Internal form, as it was written.
    pub(super) recipient: &'a str,
    /// The local part, folded.
    pub(super) local_part: &'a str,
    /// The local part without its extension, folded.
    pub(super) user: &'a str,
    /// The extension with its delimiter, folded.
    pub(super) extension: Option<&'a str>,
    /// Folded.
    pub(super) domain: &'a str,
}

/// What is handed from an alias to its members.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) level: u32,
    /// The alias being expanded, folded.
    pub(super) alias: Option<String>,
    pub(super) origin: Origin,
    /// Whose rights commands and files are used with; none: those of `default_privs`.
    pub(super) rights: Option<Account>,
    /// An extension that did not match and is passed on, with its delimiter.
    pub(super) unmatched: Option<String>,
    /// The address for failure notices; local members are then forwarded instead of delivered to.
    pub(super) owner: Option<String>,
    pub(super) sender: Option<String>,
    /// What mail that is sent on says in `Delivered-To:`.
    pub(super) delivered_to: Option<String>,
    /// A list with an owner hides who the mail was for at first.
    pub(super) hides_original: bool,
    /// What the recipient was expanded by first.
    pub(super) expansion: Expansion,
    /// It goes where mail for unknown names goes.
    pub(super) is_relayed: bool,
    /// The recipients on the way here, folded.
    pub(super) passed: Vec<Arc<str>>,
}

impl State {
    /// User id that distinguishes duplicates.
    fn uid(&self) -> u32 {
        self.rights.as_ref().map_or(0, |account| account.rights.uid)
    }

    /// Whose rights files are read with; none: those of the server.
    fn reader(&self) -> Option<(u32, u32)> {
        let rights = self.rights.as_ref().map(|account| &account.rights);
        let rights = rights.filter(|rights| rights.uid != 0);
        rights.map(|rights| (rights.uid, rights.gid))
    }

    fn way(&self, recipient: &str) -> Way {
        let delivered_to = self.delivered_to.as_deref().unwrap_or(recipient);
        Way {
            delivered_to: delivered_to.to_owned(),
            hides_original: self.hides_original,
            expansion: self.expansion,
            passed: self.passed.clone(),
            command: None,
        }
    }
}

impl LocalDelivery {
    /// Returns where mail for `recipient` (internal form), whose transport is `transport`, goes.
    /// `delivered_to` are the `Delivered-To:` headers of the mail so far, folded: a
    /// recipient named there gets it no second time.
    pub(crate) fn members(
        &self,
        recipient: &str,
        transport: &str,
        delivered_to: &[String],
        resolver: &Resolver,
        trace: &mut Trace,
    ) -> Vec<Member> {
        Walk::new(self, resolver, transport, delivered_to, trace).run(recipient)
    }
}

/// One walk through the aliases of a recipient.
pub(super) struct Walk<'a> {
    pub(super) local: &'a LocalDelivery,
    resolver: &'a Resolver,
    transport: &'a str,
    delivered_to: &'a [String],
    pub(super) trace: &'a mut Trace,
    seen: HashSet<String>,
    /// The aliases on the way to where the walk is, outermost first.
    way: Vec<String>,
    deep_steps: usize,
    members: Vec<Member>,
}

impl<'a> Walk<'a> {
    fn new(
        local: &'a LocalDelivery,
        resolver: &'a Resolver,
        transport: &'a str,
        delivered_to: &'a [String],
        trace: &'a mut Trace,
    ) -> Self {
        Self {
            local,
            resolver,
            transport,
            delivered_to,
            trace,
            seen: HashSet::new(),
            way: Vec::new(),
            deep_steps: 0,
            members: Vec::new(),
        }
    }

    /// Returns where mail for `recipient` (internal form) goes.
    fn run(mut self, recipient: &str) -> Vec<Member> {
        self.recipient(recipient, State::default());
        self.members
    }

    /// Whether the walk has been here before. More than `duplicate_filter_limit` places are not
    /// remembered.
    pub(super) fn been_here(&mut self, place: &str) -> bool {
        let place = fold_case(place);
        if self.seen.contains(place.as_ref()) {
            return true;
        }
        let limit = self.local.duplicate_filter_limit;
        if limit == 0 || self.seen.len() < limit {
            self.seen.insert(place.into_owned());
        }
        false
    }

    /// Whether the walk has been here before; it is not noted.
    pub(super) fn was_here(&self, place: &str) -> bool {
        self.seen.contains(fold_case(place).as_ref())
    }

    pub(super) fn push(&mut self, recipient: &str, state: &State, fate: Fate) {
        self.members.push(Member {
            recipient: recipient.to_owned(),
            sender: state.sender.clone(),
            fate,
            way: state.way(recipient),
        });
    }

    pub(super) fn fail(&mut self, recipient: &str, state: &State, error: RouteError) {
        self.push(recipient, state, Fate::Fails(error));
    }

    fn is_too_deep(&mut self, recipient: &str, state: &State, nesting_max: u32) -> bool {
        let too_deep = state.level > nesting_max;
        if too_deep {
            self.fail_looping(recipient, state);
        }
        too_deep
    }

    fn fail_looping(&mut self, recipient: &str, state: &State) {
        let error = RouteError::AliasLoop {
            address: quote_address(recipient).into_owned(),
            circle: circle(&self.way),
        };
        self.fail(recipient, state, error);
    }

    /// Whether the walk has gone on for so long that only a circle can be the cause.
    fn is_exhausted(&mut self, state: &State) -> bool {
        if state.level > SHALLOW {
            self.deep_steps += 1;
        }
        self.deep_steps > DEEP_STEPS_MAX
    }

    fn recipient(&mut self, recipient: &str, mut state: State) {
        state.level += 1;
        if self.been_here(&format!("recipient {} {recipient}", state.level)) {
            return;
        }
        if self.is_exhausted(&state) {
            let error = RouteError::AliasesTooMany {
                address: quote_address(recipient).into_owned(),
                limit: DEEP_STEPS_MAX,
            };
            return self.fail(recipient, &state, error);
        }
        let folded = fold_case(recipient);
        if let Some(start) = self.delivered_to.iter().position(|had| *had == folded) {
            let round = self.delivered_to.get(start..).unwrap_or_default();
            let path = || round.iter().map(String::as_str).chain([&*folded]);
            let path = || path().map(|a| quote_address(a).into_owned()).collect();
            self.trace.record(|| Step::Cycle { path: path() });
            let address = quote_address(recipient).into_owned();
            return self.fail(recipient, &state, RouteError::ForwardLoop { address });
        }
        state
            .delivered_to
            .get_or_insert_with(|| recipient.to_owned());
        state.passed.push(folded.as_ref().into());
        let (local_part, domain) = folded.rsplit_once('@').unwrap_or((&folded, ""));
        let (user, extension) = match self.local.rule.split(local_part) {
            // An extension could name a file; one that would leave its directory is dropped.
            Some((user, extension)) if extension.contains('/') => (user, None),
            Some((user, extension)) => (user, Some(extension)),
            None => (local_part, None),
        };
        if user.is_empty() {
            let address = quote_address(recipient).into_owned();
            let cause = "it has no user name";
            return self.fail(recipient, &state, RouteError::BadAddress { address, cause });
        }
        let who = Who {
            recipient,
            local_part: if extension.is_some() {
                local_part
            } else {
                user
            },
            user,
            extension,
            domain,
        };
        self.deliver(&who, state);
    }

    fn deliver(&mut self, who: &Who<'_>, mut state: State) {
        state.level += 1;
        state.unmatched = None;
        if self.alias(who, who.local_part, state.clone()) {
            return;
        }
        if let Some(extension) = who.extension {
            let unmatched = Some(extension.to_owned());
            if self.local.propagate_alias {
                state.unmatched.clone_from(&unmatched);
            }
            if self.alias(who, who.user, state.clone()) {
                return;
            }
            state.unmatched = unmatched;
        }
        let of_other = |owner: &String| fold_case(owner) != who.user;
        if state.owner.as_ref().is_some_and(of_other) || state.origin == Origin::Include {
            return self.forward(who.recipient, &state);
        }
        self.user(who, &state);
    }

    fn forward(&mut self, recipient: &str, state: &State) {
        if self.been_here(&format!("indirect {recipient}")) {
            return;
        }
        let forward = Forward {
            delivered_to: state.delivered_to.clone().unwrap_or_default(),
            keeps_original: !state.hides_original,
        };
        self.push(recipient, state, Fate::Forwarded(forward));
    }

    /// Expands the alias `name`, if there is one; true when that settles the matter. An alias
    /// that lists itself is its user.
    fn alias(&mut self, who: &Who<'_>, name: &str, mut state: State) -> bool {
        let recipient = who.recipient;
        state.level += 1;
        if state.alias.as_deref() == Some(name) {
            return false;
        }
        if self.is_too_deep(recipient, &state, NESTING_MAX) {
            return true;
        }
        let found = match self
            .local
            .aliases
            .lookup_in(&Key::new(name), false, self.trace)
        {
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
        if !self.local.frozen_delivered_to {
            state.delivered_to = Some(recipient.to_owned());
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
        self.way.push(name.to_owned());
        let path = circle(&self.way);
        // Going round once is enough to see; the limit is still reached.
        let seen = (self.trace.is_on() && !path.is_empty()).then(|| {
            self.trace.record(|| Step::Cycle { path });
            std::mem::take(self.trace)
        });
        for member in &members {
            self.member(who, member, &state);
        }
        if let Some(seen) = seen {
            *self.trace = seen;
        }
        self.way.pop();
        true
    }

    /// Notes what kind of alias it is: one with an `owner-` alias beside it is a mailing list.
    fn set_owner(&mut self, name: &str, state: &mut State) -> Result<(), TableError> {
        let owner = format!("owner-{name}");
        let members = if self.local.rule.owner_request_special {
            let aliases = &self.local.aliases;
            aliases.lookup(&Key::new(&owner), false, &mut Trace::off())?
        } else {
            None
        };
        match members {
            Some(members) => {
                let expands = self.local.expand_owner_alias;
                let sender = if expands { members } else { owner };
                let sender = self.resolver.form.of_internal(&sender).into_owned();
                state.owner = Some(sender.clone());
                state.sender = Some(sender);
                state.hides_original = true;
                state.expansion = state.expansion.or(Expansion::List);
            }
            None if self.local.reset_owner_alias => state.owner = None,
            None => {}
        }
        state.expansion = state.expansion.or(Expansion::Alias);
        Ok(())
    }

    pub(super) fn bad_member(
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

    /// One member of an alias, of an `:include:` file or of a `.forward` file.
    pub(super) fn member(&mut self, who: &Who<'_>, listed: &ListedAddress, state: &State) {
        let text = listed.internal();
        let is_include = text
            .get(..9)
            .is_some_and(|start| start.eq_ignore_ascii_case(":include:"));
        if is_include {
            let path = text.get(9..).unwrap_or_default();
            self.include(who, path, state.clone());
        } else if let Some(command) = text.strip_prefix('|') {
            self.command(who, command, state);
        } else if text.starts_with('/') {
            self.file(who.recipient, &text, &text, state);
        } else if let Some(below) = text.strip_prefix('~') {
            let home = state.rights.as_ref().map(|owner| &owner.home);
            match home.filter(|_| below.starts_with('/')) {
                Some(home) if home == Path::new("/") => {
                    self.file(who.recipient, &text, below, state);
                }
                Some(home) => {
                    let path = format!("{}{below}", home.display());
                    self.file(who.recipient, &text, &path, state);
                }
                None => {
                    let cause = "it has no home directory; write the whole path";
                    self.bad_member(who.recipient, &text, cause, false, state);
                }
            }
        } else {
            self.address(who.recipient, listed, state);
        }
    }

    fn command(&mut self, who: &Who<'_>, command: &str, state: &State) {
        if !is_allowed(&self.local.commands_in, state.origin) {
            let cause = "mail to command is restricted";
            return self.bad_member(who.recipient, &format!("|{command}"), cause, true, state);
        }
        self.run_command(who, command, state);
    }

    /// Has a command run, once for a user and the rights it has.
    pub(super) fn run_command(&mut self, who: &Who<'_>, command: &str, state: &State) {
        if self.been_here(&format!("command {}:{} {command}", who.user, state.uid())) {
            return;
        }
        let rights = match self.rights(state) {
            Ok(rights) => rights,
            Err(error) => return self.fail(who.recipient, state, RouteError::Table(error)),
        };
        let without_delimiter = |extension: &str| extension.chars().skip(1).collect();
        let account = state.rights.as_ref();
        let told = CommandTarget {
            command: command.to_owned(),
            uid: rights.uid,
            gid: rights.gid,
            home: account.map(|account| account.home.clone()),
            shell: account.map(|account| account.shell.clone()),
            user: who.user.to_owned(),
            local_part: who.local_part.to_owned(),
            extension: who.extension.map(without_delimiter),
            recipient: who.recipient.to_owned(),
            domain: who.domain.to_owned(),
        };
        let command = command.to_owned();
        let fate = Fate::Ends(Destination::Command { command, rights });
        self.push(who.recipient, state, fate);
        if let Some(member) = self.members.last_mut() {
            member.way.command = Some(Box::new(told));
        }
    }

    fn file(&mut self, recipient: &str, member: &str, path: &str, state: &State) {
        // One that was refused before is passed over too.
        if self.been_here(&format!("file {} {path}", state.uid())) {
            return;
        }
        if !is_allowed(&self.local.files_in, state.origin) {
            let cause = "mail to file is restricted";
            return self.bad_member(recipient, member, cause, true, state);
        }
        let format = Format::of(path);
        let path = path.to_owned();
        let fate = match self.rights(state) {
            Ok(rights) => Fate::Ends(Destination::File {
                path: path.into(),
                format,
                rights,
            }),
            Err(error) => Fate::Fails(RouteError::Table(error)),
        };
        self.push(recipient, state, fate);
    }

    /// With whose rights commands are run and files are written: never root's.
    fn rights(&self, state: &State) -> Result<Rights, TableError> {
        match &state.rights {
            Some(owner) if owner.rights.uid != 0 => Ok(owner.rights.clone()),
            _ => self.local.accounts.default_rights(),
        }
    }

    pub(super) fn address(&mut self, recipient: &str, listed: &ListedAddress, state: &State) {
        let mut state = state.clone();
        state.level += 1;
        let canonical = self.resolver.form.of_external(&listed.external());
        let resolved = match self.resolver.resolve(&canonical, &mut Trace::off()) {
            Ok(resolved) => resolved,
            Err(error) => return self.fail(recipient, &state, error),
        };
        let mut member = resolved.recipient;
        if let (Some(unmatched), Some(at)) = (&state.unmatched, member.rfind('@')) {
            member.insert_str(at, unmatched);
        }
        if resolved.transport == self.transport {
            self.recipient(&member, state);
        } else {
            self.forward(&member, &state);
        }
    }

    fn include(&mut self, who: &Who<'_>, path: &str, mut state: State) {
        let recipient = who.recipient;
        state.level += 1;
        if self.is_too_deep(recipient, &state, INCLUDE_NESTING_MAX)
            || self.been_here(&format!("include {} {path}", state.uid()))
        {
            return;
        }
        state.alias = Some(who.local_part.to_owned());
        let name = format!(":include:{path}");
        let files = &self.local.files;
        let read = files.include(state.reader(), path).and_then(|read| {
            let (text, owner) = match read {
                Ok(read) => read,
                Err(cause) => return Ok(Err(cause)),
            };
            state.rights = self.local.accounts.of_include(owner, &state.rights)?;
            Ok(Ok(text))
        });
        let text = match read {
            Ok(Ok(text)) => text,
            Ok(Err(cause)) => return self.bad_member(recipient, &name, &cause, false, &state),
            Err(error) => return self.fail(recipient, &state, RouteError::Table(error)),
        };
        state.origin = Origin::Include;
        state.owner.get_or_insert_with(|| recipient.to_owned());
        if !self.local.propagate_include {
            state.unmatched = None;
        }
        let members = listed(&text);
        self.trace.record(|| Step::Expanded {
            depth: 0,
            from: name,
            to: members.iter().map(ListedAddress::external).collect(),
        });
        for member in &members {
            self.member(who, member, &state);
        }
    }
}

fn is_allowed(allowed: &[String], origin: Origin) -> bool {
    let wanted = match origin {
        Origin::Envelope => return false,
        Origin::Alias => "alias",
        Origin::Include => "include",
        Origin::Forward => "forward",
    };
    allowed.iter().any(|word| word == wanted)
}

/// The members that the lines of a file name.
pub(super) fn listed(text: &str) -> Vec<ListedAddress> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(parse_address_list).collect()
}
