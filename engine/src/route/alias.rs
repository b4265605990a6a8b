//! `virtual_alias_maps`: from one recipient to the addresses that its mail goes to.
//!
//! Addresses are rewritten in place, left to right, until no table has them any more; an address
//! that is a member of its expansion is kept and not expanded again. A limit that is reached, a
//! table that fails and a result without an address defer the mail: what was found until then is
//! never used, for it would lose recipients. Source: virtual(5), cleanup(8).

use super::error::RouteError;
use super::opener::Opener;
use super::search::{Found, KeyForms, Keys, Maps, Search, Strategy};
use super::trace::{Step, Trace};
use crate::address::{CanonicalForm, ExtensionRule, fold_case, parse_address_list, quote_address};
use crate::config::RoutingSettings;
use crate::table::{TableError, words};
use std::collections::HashSet;

/// The virtual alias tables and how they are used.
#[derive(Debug)]
pub(crate) struct VirtualAliases {
    maps: Maps,
    rule: ExtensionRule,
    propagate_extension: bool,
    recursion_limit: usize,
    expansion_limit: usize,
    address_bytes_max: usize,
}

/// Whether `propagate_unmatched_extensions` names this class of table.
pub(crate) fn propagates(settings: &RoutingSettings, class: &str) -> bool {
    words(&settings.propagate_unmatched_extensions).any(|name| name == class)
}

/// How local parts are split.
pub(crate) fn extension_rule(settings: &RoutingSettings) -> ExtensionRule {
    ExtensionRule {
        delimiters: settings.recipient_delimiter.clone(),
        owner_request_special: settings.owner_request_special,
    }
}

impl VirtualAliases {
    /// Opens the tables.
    pub(crate) fn open(settings: &RoutingSettings, opener: &Opener<'_>) -> Self {
        let list = &settings.virtual_alias_maps;
        Self {
            maps: Maps::open_or_fail("virtual_alias_maps", list, opener),
            rule: extension_rule(settings),
            propagate_extension: propagates(settings, "virtual"),
            recursion_limit: settings.virtual_alias_recursion_limit,
            expansion_limit: settings.virtual_alias_expansion_limit,
            address_bytes_max: settings.virtual_alias_address_length_limit,
        }
    }

    /// The tables, for reports.
    pub(crate) fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Returns the addresses that `address` (internal form, canonical) expands to, in internal
    /// form, in order, without duplicates; `address` itself when it is no alias.
    ///
    /// # Errors
    /// A table could not answer, a limit was reached, or a result has no address in it.
    pub(crate) fn expand(
        &self,
        address: &str,
        form: &CanonicalForm,
        is_own_domain: impl Fn(&str) -> Result<bool, TableError>,
        trace: &mut Trace,
    ) -> Result<Vec<String>, RouteError> {
        if self.maps.is_empty() {
            return Ok(vec![address.to_owned()]);
        }
        self.expand_found(address, None, form, is_own_domain, trace)
    }

    /// What the tables have for the keys of an address in canonical form.
    ///
    /// # Errors
    /// A table could not answer.
    pub(crate) fn find<'t>(
        &'t self,
        keys: &Keys<'_, 't>,
        is_own_domain: impl Fn(&str) -> Result<bool, TableError>,
    ) -> Result<Option<Found>, TableError> {
        let mut value = String::new();
        let search = self.search(is_own_domain);
        let found = search.find_keys(&self.maps, keys, &mut value, &mut Trace::off())?;
        Ok(found.map(|found| found.with(value)))
    }

    /// Returns true if no limit can refuse a recipient before the tables were asked once.
    pub(crate) fn limits_allow_asking(&self) -> bool {
        self.recursion_limit > 0 && self.expansion_limit > 0
    }

    /// As [`VirtualAliases::expand`], with what [`VirtualAliases::find`] found for `address`, if
    /// it was asked.
    ///
    /// # Errors
    /// As [`VirtualAliases::expand`].
    pub(crate) fn expand_found(
        &self,
        address: &str,
        found: Option<Found>,
        form: &CanonicalForm,
        is_own_domain: impl Fn(&str) -> Result<bool, TableError>,
        trace: &mut Trace,
    ) -> Result<Vec<String>, RouteError> {
        let search = self.search(is_own_domain);
        let mut expansion = Expansion {
            aliases: self,
            form,
            original: address,
            members: vec![address.to_owned()],
            kept: HashSet::new(),
            found,
        };
        let mut next = 0;
        while next < expansion.members.len() {
            expansion.check_size(self.expansion_limit)?;
            expansion.flatten(next, &search, trace)?;
            next += 1;
        }
        // Most addresses are no aliases.
        if expansion.members.len() > 1 {
            let mut seen = HashSet::new();
            expansion
                .members
                .retain(|member| seen.insert(fold_case(member).into_owned()));
        }
        Ok(expansion.members)
    }

    fn search<F>(&self, is_own_domain: F) -> Search<'_, F> {
        Search {
            rule: &self.rule,
            forms: KeyForms::External,
            strategy: Strategy::Address,
            is_own_domain,
        }
    }
}

/// One expansion in progress.
struct Expansion<'a> {
    aliases: &'a VirtualAliases,
    form: &'a CanonicalForm,
    original: &'a str,
    members: Vec<String>,
    /// Addresses that are members of themselves, folded.
    kept: HashSet<String>,
    /// What the tables have for the first member, if that is known.
    found: Option<Found>,
}

impl Expansion<'_> {
    fn check_size(&self, limit: usize) -> Result<(), RouteError> {
        if self.members.len() > limit {
            return Err(self.error(format!(
                "it has more than virtual_alias_expansion_limit = {limit} members; raise the \
                 limit, or use a mailing list"
            )));
        }
        Ok(())
    }

    fn error(&self, cause: String) -> RouteError {
        RouteError::AliasExpansion {
            address: quote_address(self.original).into_owned(),
            cause,
        }
    }

    /// Replaces the member at `index` by its first member, and appends the others, until no
    /// table has it any more.
    fn flatten<F: Fn(&str) -> Result<bool, TableError>>(
        &mut self,
        index: usize,
        search: &Search<'_, F>,
        trace: &mut Trace,
    ) -> Result<(), RouteError> {
        let mut way: Vec<String> = Vec::new();
        let mut silence = Trace::off();
        let mut trace = trace;
        for depth in 0.. {
            let Some(member) = self.members.get_mut(index).map(std::mem::take) else {
                return Ok(());
            };
            if !self.kept.is_empty() && self.kept.contains(fold_case(&member).as_ref()) {
                self.put_back(index, member);
                return Ok(());
            }
            if depth >= self.aliases.recursion_limit {
                return Err(self.nested_too_deep(&way));
            }
            let found = match self.found.take() {
                Some(found) => Some(found),
                None => search.find(&self.aliases.maps, &member, trace)?,
            };
            let Some(found) = found else {
                self.put_back(index, member);
                return Ok(());
            };
            let results = self.results(&member, &found)?;
            trace.record(|| Step::Expanded {
                depth,
                from: quote_address(&member).into_owned(),
                to: results
                    .iter()
                    .map(|r| quote_address(r).into_owned())
                    .collect(),
            });
            let folded = fold_case(&member);
            if results.iter().any(|result| fold_case(result) == folded) {
                trace.record(|| Step::SelfMember {
                    address: quote_address(&member).into_owned(),
                });
                self.kept.insert(folded.into_owned());
                way.clear();
            }
            let mut results = results.into_iter();
            if let Some(first) = results.next() {
                self.put_back(index, first);
            }
            // An alias that has too many members now is refused when the next one is looked at;
            // until then something worse may turn up, but more members make no difference.
            let most = self.aliases.expansion_limit.saturating_add(1);
            let room = most.saturating_sub(self.members.len());
            self.members.extend(results.take(room));
            way.push(member);
            if trace.is_on() {
                let path = circle(&way);
                if !path.is_empty() {
                    // Going round once is enough to see; the limit is still reached.
                    trace.record(|| Step::Cycle { path });
                    trace = &mut silence;
                }
            }
        }
        Ok(())
    }

    /// Ends the absence of the member at `index`, which was taken out to be looked at.
    fn put_back(&mut self, index: usize, member: String) {
        if let Some(slot) = self.members.get_mut(index) {
            *slot = member;
        }
    }

    /// Returns the addresses in a table's value.
    fn results(&self, member: &str, found: &Found) -> Result<Vec<String>, RouteError> {
        let extension = found.extension.as_deref();
        let listed = if found.value.starts_with('@') {
            // The same user elsewhere; an extension that did not match is not part of the user.
            let (local_part, _) = member.rsplit_once('@').unwrap_or((member, ""));
            let user = extension
                .and_then(|e| local_part.strip_suffix(e))
                .unwrap_or(local_part);
            quote_address(&format!("{user}{}", found.value)).into_owned()
        } else {
            found.value.clone()
        };
        let propagated = extension.filter(|_| self.aliases.propagate_extension);
        let results = complete_list(&listed, self.form, propagated);
        if results.is_empty() {
            return Err(RouteError::AliasValue {
                address: quote_address(self.original).into_owned(),
                cause: format!(
                    "\"{}\" expands to \"{listed}\", in which there is no address; correct the \
                     table",
                    quote_address(member)
                ),
            });
        }
        let limit = self.aliases.address_bytes_max;
        if let Some(long) = results.iter().find(|result| result.len() > limit) {
            let start: String = long.chars().take(100).collect();
            return Err(self.error(format!(
                "\"{start}...\" is longer than virtual_alias_address_length_limit = {limit} \
                 bytes; an alias that contains itself with an extension grows like this"
            )));
        }
        Ok(results)
    }

    /// The error for too many aliases of aliases; names the circle, if it is one.
    fn nested_too_deep(&self, way: &[String]) -> RouteError {
        let limit = self.aliases.recursion_limit;
        let shown = match circle(way).as_slice() {
            [] => "it does not end".to_owned(),
            cycle => format!("it forms a loop: {}", cycle.join(" -> ")),
        };
        self.error(format!(
            "aliases of aliases are nested deeper than virtual_alias_recursion_limit = {limit}; \
             {shown}"
        ))
    }
}

/// The last circle in `way`, its first address repeated at the end; empty when there is none.
pub(super) fn circle(way: &[String]) -> Vec<String> {
    let Some((last, before)) = way.split_last() else {
        return Vec::new();
    };
    let same = |address: &String| fold_case(address) == fold_case(last);
    let Some(start) = before.iter().rposition(same) else {
        return Vec::new();
    };
    let round = way.get(start..).unwrap_or_default();
    // A circle of many addresses is the more readable for beginning where the reader began.
    round
        .iter()
        .map(|address| quote_address(address).into_owned())
        .collect()
}

/// The addresses of a list, in internal canonical form, each with `extension` (delimiter
/// included) at the end of its local part.
pub(crate) fn complete_list(
    list: &str,
    form: &CanonicalForm,
    extension: Option<&str>,
) -> Vec<String> {
    let list = if list.is_empty() || list == "<>" {
        "\"\""
    } else {
        list
    };
    let complete = |address: String| match extension {
        None => address,
        Some(extension) => match address.rsplit_once('@') {
            Some((local_part, domain)) => format!("{local_part}{extension}@{domain}"),
            None => address + extension,
        },
    };
    parse_address_list(list)
        .iter()
        .map(|listed| complete(form.of_external(&listed.external())))
        .collect()
}

#[cfg(test)]
#[path = "alias_tests.rs"]
mod tests;
