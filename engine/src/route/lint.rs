//! What is odd about routing tables though each of them is well formed.
//!
//! Only tables that can be listed are looked through; patterns, databases and programs answer when
//! mail comes. Every finding is one that operators of Postfix have fallen over: catch-all aliases
//! that take the mail of existing mailboxes, aliases to nowhere, circles, a domain in two classes.

use super::error::RouteError;
use super::router::Router;
use super::search::Maps;
use super::trace::{Step, Trace};
use super::types::{Destination, Resolution};
use crate::address::{Address, fold_case, parse_mailbox};
use crate::status::Status;
use crate::target::{Format, MailboxTarget};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// One oddity: what, where, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The table and line, where the oddity has one.
    pub place: Option<String>,
    /// What is odd, and what to do about it.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What lies at the place of a mailbox now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// Nothing, or something else, or we may not look.
    Unknown,
    /// A directory with `cur`, `new` and `tmp`.
    Maildir,
    /// A regular file.
    File,
}

/// How many examples a finding names.
const NAMED_MAX: usize = 5;
/// A local part that no table lists.
const STRANGER: &str = "mailstow-lint-asks-for-nobody";

/// One entry of a table.
struct Entry {
    key: String,
    value: String,
    place: String,
}

impl Router {
    /// Looks for oddities. `present` says what is at the place of a mailbox; this room does not
    /// look itself.
    pub fn lint(&self, present: impl Fn(&MailboxTarget) -> Present) -> Vec<Finding> {
        let mut lint = Lint {
            router: self,
            findings: Vec::new(),
        };
        for overlap in self.warnings() {
            lint.find(None, overlap.clone());
        }
        lint.complaints();
        let mailboxes = lint.entries(self.mailboxes.maps());
        let aliases = lint.entries(self.aliases.maps());
        lint.aliases(&aliases);
        lint.shadowed(&aliases, &mailboxes);
        lint.mailboxes(&mailboxes, present);
        lint.local_aliases();
        lint.findings
    }
}

struct Lint<'a> {
    router: &'a Router,
    findings: Vec<Finding>,
}

impl Lint<'_> {
    fn find(&mut self, place: Option<&str>, text: impl Into<String>) {
        self.findings.push(Finding {
            place: place.map(str::to_owned),
            text: text.into(),
        });
    }

    /// What was complained about while the tables were read: duplicate keys among others.
    fn complaints(&mut self) {
        let router = self.router;
        let maps = router.mailboxes.all_maps();
        let maps = maps.into_iter().chain(router.routing_maps());
        let complaints: BTreeSet<&str> = maps.flat_map(|maps| maps.tables().warnings()).collect();
        for complaint in complaints {
            self.find(None, complaint);
        }
    }

    fn entries(&mut self, maps: &Maps) -> Vec<Entry> {
        let mut entries = Vec::new();
        for table in maps.tables().tables() {
            table.for_each(&mut |key, value, line| {
                entries.push(Entry {
                    key: key.to_owned(),
                    value: value.to_owned(),
                    place: match line {
                        // A compiled table has no lines.
                        0 => table.name().to_owned(),
                        line => format!("{}, line {line}", table.name()),
                    },
                });
            });
        }
        entries
    }

    fn aliases(&mut self, aliases: &[Entry]) {
        // A circle is found at each of its members, but is one mistake.
        let mut circles = BTreeSet::new();
        for entry in aliases {
            let is_wildcard = entry.key.starts_with('@');
            if is_wildcard && is_path(&entry.value) {
                let text = format!(
                    "the wildcard {} has the mailbox path {} as its value, which would be an \
                     address here; move the line to virtual_mailbox_maps",
                    entry.key, entry.value
                );
                self.find(Some(&entry.place), text);
                continue;
            }
            let asked = if is_wildcard {
                format!("{STRANGER}{}", entry.key)
            } else {
                entry.key.clone()
            };
            // A domain alone is there to be in virtual_alias_domains, a user alone is local.
            if !asked.contains('@') {
                continue;
            }
            if let Ok(address) = parse_mailbox(&asked) {
                self.alias(entry, &address, &mut circles);
            }
        }
    }

    fn alias(&mut self, entry: &Entry, address: &Address, circles: &mut BTreeSet<Vec<String>>) {
        let (resolution, trace) = self.router.explain(address);
        if self.is_circle(entry, &resolution, &trace, circles) {
            return;
        }
        if resolution.results.is_empty() {
            if let Some(status) = &resolution.error {
                let text = resolution.reason.unwrap_or_else(|| status.to_string());
                self.find(Some(&entry.place), text);
            }
            return;
        }
        for route in &resolution.results {
            let Destination::Refused(status) = &route.destination else {
                continue;
            };
            // The stranger was sent on to the same user elsewhere, of whom nothing is known.
            if route.recipient.starts_with(STRANGER) || status.is_temporary() {
                continue;
            }
            let is_identity = fold_case(&route.recipient) == fold_case(&entry.key);
            let text = if is_identity {
                format!(
                    "{} expands to itself, but has no mailbox: its mail is accepted and then \
                     returned ({status}); give it a mailbox, or remove the alias",
                    entry.key
                )
            } else {
                format!(
                    "{} expands to {}, which leads nowhere: {status}; correct the alias",
                    entry.key, route.recipient
                )
            };
            self.find(Some(&entry.place), text);
        }
    }

    /// Reports a loop that an alias leads into, unless it was reported before.
    fn is_circle(
        &mut self,
        entry: &Entry,
        resolution: &Resolution,
        trace: &Trace,
        circles: &mut BTreeSet<Vec<String>>,
    ) -> bool {
        let circle = trace.steps().iter().find_map(|step| match step {
            Step::Cycle { path } => Some(path),
            _ => None,
        });
        let Some(path) = circle else { return false };
        let mut members: Vec<String> = path.iter().map(|a| fold_case(a).into_owned()).collect();
        members.sort_unstable();
        members.dedup();
        if circles.insert(members) {
            let waits = resolution.error.as_ref().is_some_and(Status::is_temporary);
            let text = format!(
                "aliases form a loop, and their mail {}: {}; remove one of them",
                if waits { "waits" } else { "is returned" },
                path.join(" -> ")
            );
            self.find(Some(&entry.place), text);
        }
        true
    }

    /// Catch-all aliases that take the mail of mailboxes.
    fn shadowed(&mut self, aliases: &[Entry], mailboxes: &[Entry]) {
        let mut of_domain: HashMap<&str, Vec<&str>> = HashMap::new();
        for entry in mailboxes {
            match entry.key.rfind('@') {
                None | Some(0) => {}
                Some(at) => {
                    let domain = entry.key.get(at..).unwrap_or_default();
                    of_domain.entry(domain).or_default().push(&entry.key);
                }
            }
        }
        for alias in aliases.iter().filter(|entry| entry.key.starts_with('@')) {
            let mut shadowed = of_domain
                .get(alias.key.as_str())
                .cloned()
                .unwrap_or_default();
            shadowed.retain(|key| self.is_taken(key));
            if shadowed.is_empty() {
                continue;
            }
            let text = format!(
                "the alias {} takes the mail of {} existing {}: {}; add an alias of each to \
                 itself, or move the catch-all to virtual_mailbox_maps",
                alias.key,
                shadowed.len(),
                if shadowed.len() == 1 {
                    "mailbox"
                } else {
                    "mailboxes"
                },
                examples(&shadowed)
            );
            self.find(Some(&alias.place), text);
        }
    }

    /// Whether aliases lead away from a mailbox without leading to it as well.
    fn is_taken(&self, key: &str) -> bool {
        let Ok(address) = parse_mailbox(key) else {
            return false;
        };
        let folded = fold_case(&address.internal()).into_owned();
        match self.router.expand(&address) {
            Ok(members) => !members.iter().any(|m| fold_case(&m.internal()) == folded),
            Err(_) => false,
        }
    }

    fn mailboxes(&mut self, mailboxes: &[Entry], present: impl Fn(&MailboxTarget) -> Present) {
        // One mistake in a uid map concerns every line of a table.
        let mut mistakes: BTreeMap<String, Vec<&Entry>> = BTreeMap::new();
        for entry in mailboxes {
            let is_wildcard = entry.key.starts_with('@');
            if entry.value.contains('@') && !is_path(&entry.value) {
                let text = format!(
                    "{} has the address {} as its value, which would be a mailbox path here; \
                     move the line to virtual_alias_maps",
                    entry.key, entry.value
                );
                self.find(Some(&entry.place), text);
            }
            let asked = if is_wildcard {
                format!("{STRANGER}{}", entry.key)
            } else {
                entry.key.clone()
            };
            let Some(address) = parse_mailbox(&asked).ok().filter(|a| a.domain.is_some()) else {
                continue;
            };
            match self.router.mailbox(&address) {
                Ok(target) => self.format(entry, &target, present(&target)),
                Err(RouteError::StoredElsewhere { .. }) => {}
                Err(error) => {
                    let text = mistake(&error, &address);
                    mistakes.entry(text).or_default().push(entry);
                }
            }
        }
        for (text, entries) in mistakes {
            let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
            let place = entries.first().map(|entry| entry.place.as_str());
            self.find(
                place,
                format!("mail for {} is deferred: {text}", examples(&keys)),
            );
        }
    }

    fn format(&mut self, entry: &Entry, target: &MailboxTarget, present: Present) {
        let text = match (target.format, present) {
            (Format::Mbox, Present::Maildir) => format!(
                "{} is a Maildir already, but its path does not end in /, so that mail for {} is \
                 deferred; add the /",
                entry.value, entry.key
            ),
            (Format::Maildir, Present::File) => format!(
                "{} is a file already, but its path ends in / as if it were a Maildir, so that \
                 mail for {} is deferred; remove the /",
                entry.value, entry.key
            ),
            (Format::Mbox | Format::Maildir, _) => return,
        };
        self.find(Some(&entry.place), text);
    }

    fn local_aliases(&mut self) {
        let Some(domain) = self.router.resolver.local_domain() else {
            return;
        };
        let mut circles = BTreeSet::new();
        for entry in self.entries(self.router.local.aliases()) {
            let address = Address::new(entry.key.as_str(), Some(&domain));
            let (resolution, trace) = self.router.explain(&address);
            if self.is_circle(&entry, &resolution, &trace, &mut circles) {
                continue;
            }
            let refused = resolution
                .results
                .iter()
                .filter_map(|r| match &r.destination {
                    Destination::Refused(status) => Some((r.recipient.clone(), status.clone())),
                    _ => None,
                });
            for (recipient, status) in refused.collect::<Vec<_>>() {
                let is_explained = resolution.error.as_ref() == Some(&status);
                let cause = match &resolution.reason {
                    Some(reason) if is_explained => reason.clone(),
                    _ => status.to_string(),
                };
                let text = format!("the alias {} leads to {recipient}: {cause}", entry.key);
                self.find(Some(&entry.place), text);
            }
        }
    }
}

/// A path of a mailbox, not an address.
fn is_path(value: &str) -> bool {
    value.contains('/') && !value.contains(['@', ' ', ',', '"'])
}

fn examples(keys: &[&str]) -> String {
    let named = keys.iter().take(NAMED_MAX).copied().collect::<Vec<_>>();
    match keys.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// What is wrong, without the address, so that equal mistakes are reported once.
fn mistake(error: &RouteError, address: &Address) -> String {
    let text = error.to_string();
    let named = format!("<{}>: ", address.external());
    text.strip_prefix(&named).unwrap_or(&text).to_owned()
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
