//! What local(8) makes of a user who has no alias: `.forward` file, mailbox, or nothing.
//!
//! As in local(8): a `.forward` file that
//! cannot be used is passed over with a warning, and its user's mail goes to the mailbox; a user
//! who is a member of the own file gets the mail in the mailbox. Source: local(8), `forward_path`,
//! `mailbox_transport`, `mailbox_command`, `fallback_transport`, `luser_relay`.

use super::accounts::Account;
use super::error::RouteError;
use super::local::Fate;
use super::local_walk::{Origin, State, Walk, Who, listed};
use super::trace::Step;
use super::types::{Destination, Expansion};
use crate::address::{ListedAddress, parse_address_list, quote_address};
use crate::config::expand_attributes;
use crate::octets;
use crate::table::TableError;
use std::borrow::Cow;
use std::cell::Cell;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

impl Walk<'_> {
    /// Goes where mail for a user without an alias goes.
    pub(super) fn user(&mut self, who: &Who<'_>, state: &State) {
        let found = self.local.accounts.named(who.user);
        let forwarded = found.and_then(|account| {
            let is_forwarded = match &account {
                Some(account) => self.is_forwarded(who, account, state)?,
                None => false,
            };
            Ok((account, is_forwarded))
        });
        let account = match forwarded {
            Ok((_, true)) => return,
            Ok((account, false)) => account,
            Err(error) => return self.fail(who.recipient, state, RouteError::Table(error)),
        };
        if self.been_here(&format!("mailbox {}", who.local_part)) {
            return;
        }
        let settled = match &account {
            Some(account) => self.mailbox(who, account, state),
            None => match self.local.mailbox_transport(who.user, self.trace) {
                Ok(Some(transport)) => {
                    self.pass(who, &transport, state);
                    Ok(())
                }
                Ok(None) => self.unknown(who, state),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = settled {
            self.fail(who.recipient, state, RouteError::Table(error));
        }
    }

    /// Follows the `.forward` file of a user, if there is one; true when that settles the matter.
    fn is_forwarded(
        &mut self,
        who: &Who<'_>,
        account: &Account,
        state: &State,
    ) -> Result<bool, TableError> {
        let rights = (account.rights.uid, account.rights.gid);
        let parameters = &self.local.parameters;
        if parameters.require_home_directory && !self.local.files.has_home(rights, &account.home)? {
            return Err(TableError::Unavailable {
                name: format!("of home directories (require_home_directory): {}", who.user),
                cause: format!("cannot access home directory {}", account.home.display()),
            });
        }
        let (paths, of_extension) = self.forward_paths(who, account);
        if paths.is_empty() {
            return Ok(false);
        }
        let Some(file) = self.local.files.forward(rights, &paths)? else {
            return Ok(false);
        };
        let path = paths.get(file.number).map_or("", String::as_str);
        if self.been_here(&format!("forward {path}")) {
            return Ok(self.was_here(&format!("forward-done {path}")));
        }
        let members = match file.text {
            Ok(text) => listed(&text),
            Err(cause) => {
                tracing::warn!(
                    "{}: {cause}; mail for {} goes to the mailbox",
                    octets::shown(path),
                    who.user
                );
                return Ok(false);
            }
        };
        if members.is_empty() {
            return Ok(false);
        }
        self.trace.record(|| Step::Expanded {
            depth: 0,
            from: path.to_owned(),
            to: members.iter().map(ListedAddress::external).collect(),
        });
        let mut state = state.clone();
        state.level += 1;
        state.rights = Some(account.clone());
        state.alias = Some(who.local_part.to_owned());
        state.origin = Origin::Forward;
        state.expansion = state.expansion.or(Expansion::Alias);
        state.owner = Some(who.user.to_owned());
        if of_extension.get(file.number) == Some(&true) || !self.local.propagate_forward {
            state.unmatched = None;
        }
        if !self.local.frozen_delivered_to {
            state.delivered_to = Some(who.recipient.to_owned());
        }
        for member in &members {
            self.member(who, member, &state);
        }
        self.been_here(&format!("forward-done {path}"));
        Ok(true)
    }

    /// The files of `forward_path` for a recipient, each with whether its name has the extension.
    fn forward_paths(&self, who: &Who<'_>, account: &Account) -> (Vec<String>, Vec<bool>) {
        let filter = &self.local.parameters.forward_expansion_filter;
        let mut paths = (Vec::new(), Vec::new());
        for pattern in &self.local.forward_paths {
            let has_extension = Cell::new(false);
            let attribute = |name: &str| {
                let value = self.attribute(name, who, Some(account))?;
                if name == "extension" {
                    has_extension.set(true);
                }
                Some(value.replace(|c: char| !filter.contains(c), "_"))
            };
            match expand_attributes(pattern, attribute) {
                // One that needs an extension is for recipients with an extension.
                Ok((_, false)) => {}
                Ok((path, true)) => {
                    paths.0.push(path);
                    paths.1.push(has_extension.get());
                }
                Err(cause) => tracing::warn!("forward_path: {cause}"),
            }
        }
        paths
    }

    /// The value of `$name` in parameters about one recipient.
    fn attribute(&self, name: &str, who: &Who<'_>, account: Option<&Account>) -> Option<String> {
        let shown = |path: &Path| octets::text(path.as_os_str().as_bytes()).into_owned();
        Some(match name {
            "user" => who.user.to_owned(),
            "home" => shown(&account?.home),
            "shell" => shown(&account?.shell),
            "local" | "mailbox" => who.local_part.to_owned(),
            "domain" => who.domain.to_owned(),
            "recipient" => who.recipient.to_owned(),
            "extension" => who.extension?.chars().skip(1).collect(),
            "recipient_delimiter" => {
                let delimiters = &self.local.rule.delimiters;
                let delimiter = who
                    .extension
                    .unwrap_or(delimiters.as_str())
                    .chars()
                    .next()?;
                delimiter.to_string()
            }
            _ => return None,
        })
    }

    /// The mailbox of an account, or what takes its place.
    fn mailbox(
        &mut self,
        who: &Who<'_>,
        account: &Account,
        state: &State,
    ) -> Result<(), TableError> {
        if let Some(transport) = self.local.mailbox_transport(who.user, self.trace)? {
            self.pass(who, &transport, state);
        } else if let Some(command) = self.local.mailbox_command(who.user, self.trace)? {
            let mut state = state.clone();
            state.rights = Some(account.clone());
            self.run_command(who, &command, &state);
        } else {
            let mailbox = self.local.accounts.mailbox(who.user, account);
            let mut state = state.clone();
            if !self.local.frozen_delivered_to {
                state.delivered_to = Some(who.recipient.to_owned());
            }
            self.push(who.recipient, &state, Fate::Ends(mailbox));
        }
        Ok(())
    }

    /// Where mail goes for a name that has neither an alias nor an account.
    fn unknown(&mut self, who: &Who<'_>, state: &State) -> Result<(), TableError> {
        if let Some(transport) = self.local.fallback_transport(who.user, self.trace)? {
            self.pass(who, &transport, state);
            return Ok(());
        }
        let relay = &self.local.parameters.luser_relay;
        // What is unknown itself gets no mail of other unknown names.
        if !relay.is_empty() && !state.is_relayed {
            let relay = expand_attributes(relay, |name| self.attribute(name, who, None));
            match relay {
                Ok((relay, _)) => self.relay_to(who, &relay, state),
                Err(cause) => self.bad_member(who.recipient, "luser_relay", &cause, false, state),
            }
            return Ok(());
        }
        let fate = if matches!(who.user, "postmaster" | "mailer-daemon") {
            Fate::Ends(Destination::Discarded)
        } else {
            let address = quote_address(who.recipient).into_owned();
            Fate::Fails(RouteError::UnknownUser { address })
        };
        self.push(who.recipient, state, fate);
        Ok(())
    }

    fn relay_to(&mut self, who: &Who<'_>, relay: &str, state: &State) {
        // The name may need quotes as a local part.
        let quoted = match relay.contains(['"', '<', '(']) {
            true => Cow::Borrowed(relay),
            false => quote_address(relay),
        };
        let Some(address) = parse_address_list(&quoted).into_iter().next() else {
            let cause = "there is no address in luser_relay; correct it";
            return self.bad_member(who.recipient, relay, cause, false, state);
        };
        let mut state = state.clone();
        state.unmatched = None;
        state.is_relayed = true;
        self.address(who.recipient, &address, &state);
    }

    /// Has a transport take the mail: `transport:nexthop`.
    fn pass(&mut self, who: &Who<'_>, transport: &str, state: &State) {
        let (transport, nexthop) = transport.split_once(':').unwrap_or((transport, ""));
        let nexthop = (!nexthop.is_empty()).then(|| nexthop.to_owned());
        let fate = Fate::Passed(transport.to_owned(), nexthop);
        self.push(who.recipient, state, fate);
    }
}
