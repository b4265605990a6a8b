//! The targets of a recipient that local delivery takes.
//!
//! All of them are found when the recipient is: unknown ones are refused then, and the members of
//! an alias are handed to mailboxes, commands and transports like any recipient. A recipient is
//! refused when none of its ends takes the mail; it is deferred when one of them may take it later.

use super::error::RouteError;
use super::resolution::{Journey, Resolving};
use super::resolver::Resolved;
use super::router::Router;
use super::trace::Trace;
use super::types::{Destination, Expansion, Rights, Route};
use crate::address::Address;
use crate::octets;
use crate::status::Status;
use crate::table::TableError;
use crate::target::{
    CommandTarget, Format, LocalEnd, LocalTarget, MailboxTarget, Target, TransportTarget,
};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Permission bits by which the group or everyone may make files in a directory.
const GROUP_WRITE: u32 = 0o020;
const EVERYONE_WRITE: u32 = 0o002;

/// Says which transports and nexthops lead to this server itself.
type IsOwnSocket<'a> = &'a dyn Fn(&str, &str) -> bool;

impl Router {
    /// Finds where the mail of a recipient goes whose transport is `local`.
    pub(super) fn local_targets(
        &self,
        resolved: &Resolved,
        is_member: bool,
        is_own_socket: IsOwnSocket<'_>,
    ) -> Result<(Vec<(Address, Target)>, Expansion), RouteError> {
        let address = || Address::from_internal(&resolved.recipient).external();
        let trace = &mut Trace::off();
        let (resolution, ways) = Resolving::new(self, trace).local_ends(resolved, is_member);
        let failed = |status: Status, reason: Option<String>| RouteError::Local {
            address: address(),
            reason: reason.unwrap_or_else(|| status.text.to_string()),
            status,
        };
        if let Some(status) = resolution.error {
            return Err(failed(status, resolution.reason));
        }
        let mut targets = Vec::with_capacity(ways.len());
        let mut expansion = Expansion::None;
        for (route, journey) in resolution.results.into_iter().zip(ways) {
            let address = match (&journey.way, &route.destination) {
                // What a transport takes keeps its recipient.
                (None, _) | (_, Destination::Transport) => external(&route.recipient),
                (Some(way), _) => Address::from_internal(&way.delivered_to),
            };
            expansion = expansion.or(journey.expansion);
            let sender = route.sender.clone();
            let end = self.local_end(route, &journey, is_own_socket)?;
            let target = LocalTarget {
                end,
                sender,
                sent_on_from: journey.sent_on_from,
                original: match &journey.way {
                    Some(way) if way.hides_original => Some(String::new()),
                    _ => journey.original,
                },
                passed: journey.passed.iter().map(|one| one.to_string()).collect(),
            };
            targets.push((address, Target::Local(Box::new(target))));
        }
        let failure = |(_, target): &(Address, Target)| match target {
            Target::Local(target) => match &target.end {
                LocalEnd::Failed(status) => Some(status.clone()),
                _ => None,
            },
            _ => None,
        };
        let statuses: Vec<_> = targets.iter().filter_map(failure).collect();
        let put_off = statuses.iter().find(|status| status.is_temporary());
        let all = (statuses.len() == targets.len()).then(|| statuses.first());
        match put_off.or(all.flatten()) {
            Some(status) => Err(failed(status.clone(), None)),
            None => Ok((targets, expansion)),
        }
    }

    fn local_end(
        &self,
        route: Route,
        journey: &Journey,
        is_own_socket: IsOwnSocket<'_>,
    ) -> Result<LocalEnd, RouteError> {
        Ok(match route.destination {
            Destination::Refused(status) => LocalEnd::Failed(status),
            Destination::Discarded => LocalEnd::Discarded,
            Destination::User {
                path,
                format,
                rights,
            } => {
                let rights = self.rights_in_spool(&path, rights)?;
                self.account_end(&route.recipient, (&path, format), &rights)?
            }
            Destination::File {
                path,
                format,
                rights,
            } => self.account_end(&route.recipient, (&path, format), &rights)?,
            Destination::Command { .. } => {
                let command = journey.way.as_ref().and_then(|way| way.command.as_deref());
                command.map_or_else(|| no_rights("a command"), command_end)
            }
            Destination::Transport if journey.way.is_some() => {
                self.passed_end(&route, is_own_socket)
            }
            Destination::Transport | Destination::Mailbox => {
                let how = (true, true);
                match self.target(&external(&route.recipient), how, is_own_socket) {
                    Ok((_, Target::Mailbox(target))) => LocalEnd::Mailbox(target),
                    Ok((_, Target::Transport(target))) => LocalEnd::Transport(target),
                    // Local recipients were followed to their ends.
                    Ok((_, Target::Local(target))) => target.end,
                    Err(error) => LocalEnd::Failed(self.settled(error).status()),
                }
            }
        })
    }

    /// The rights to make the mailbox of an account in the spool: as in local(8), the group of the
    /// spool may make files there, users may not. A file that a user names has the user's rights
    /// alone, or one user could make the mailbox of another.
    fn rights_in_spool(&self, path: &Path, rights: Rights) -> Result<Rights, TableError> {
        if !self.local.accounts.is_in_spool(path) {
            return Ok(rights);
        }
        Ok(match self.local.files.place(path, rights.uid)?.above {
            Some((mode, group)) if mode & EVERYONE_WRITE == 0 && mode & GROUP_WRITE != 0 => {
                Rights {
                    gid: group,
                    ..rights
                }
            }
            _ => rights,
        })
    }

    /// A mailbox of an account, or a file.
    fn account_end(
        &self,
        recipient: &str,
        (path, format): (&Path, Format),
        rights: &Rights,
    ) -> Result<LocalEnd, TableError> {
        if path == Path::new("/dev/null") {
            return Ok(LocalEnd::Discarded);
        }
        let place = self.local.files.place(path, rights.uid)?;
        if rights.uid == 0 || rights.gid == 0 {
            return Ok(no_rights(recipient));
        }
        let shown = octets::text(place.path.as_os_str().as_bytes());
        Ok(
            match MailboxTarget::new(shown, format, rights.uid, rights.gid) {
                Ok(target) => LocalEnd::Account(target),
                Err(error) => {
                    tracing::error!("<{recipient}>: mailbox {error}");
                    let text = format!(
                        "mail system configuration error: mailbox path: {}",
                        error.cause
                    );
                    LocalEnd::Failed(Status::configuration(text))
                }
            },
        )
    }

    /// What `mailbox_transport` and its like name.
    fn passed_end(&self, route: &Route, is_own_socket: IsOwnSocket<'_>) -> LocalEnd {
        let (transport, nexthop) = (&route.transport, &route.nexthop);
        if transport == "virtual" || is_own_socket(transport, nexthop) {
            return match self.mailbox(&external(&route.recipient)) {
                Ok(target) => LocalEnd::Mailbox(target),
                Err(error) => LocalEnd::Failed(self.settled(error).status()),
            };
        }
        if self.local.is_transport(transport) {
            let text = "mail system configuration error: local delivery passes mail to itself";
            return LocalEnd::Failed(Status::configuration(text));
        }
        LocalEnd::Transport(TransportTarget {
            transport: transport.clone(),
            nexthop: nexthop.clone(),
        })
    }
}

fn command_end(command: &CommandTarget) -> LocalEnd {
    match command.uid == 0 || command.gid == 0 {
        true => no_rights(&command.command),
        false => LocalEnd::Command(command.clone()),
    }
}

/// Nothing is done with the rights of root.
fn no_rights(what: &str) -> LocalEnd {
    tracing::error!(
        "{what}: mail is never delivered with the rights of root; give root an alias, and name a \
         user without rights in default_privs"
    );
    let text = "mail system configuration error: mail is never delivered with the rights of root";
    LocalEnd::Failed(Status::configuration(text))
}

/// An address from its external form.
fn external(text: &str) -> Address {
    crate::address::parse_mailbox(text).unwrap_or_else(|_| Address::from_internal(text))
}
