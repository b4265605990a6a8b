//! The keys under which an address is searched, in order.
//!
//! Imports `address`, `table`. Order and key forms are those of virtual(5), virtual(8) and
//! transport(5) (TABLE SEARCH ORDER): each key is asked of *all* tables before the next key is
//! tried; keys made from a part of the address are never offered to pattern tables.

use super::opener::Opener;
use super::trace::{Answer, Step, Trace};
use crate::address::{ExtensionRule, quote_local_part};
use crate::table::{LookupTable, Nature, OpenError, TableError, TableSet};

/// The tables of one parameter.
#[derive(Clone, Debug)]
pub(crate) struct Maps {
    parameter: &'static str,
    tables: TableSet,
}

impl Maps {
    /// Opens the tables that `list`, the value of `parameter`, names.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub(crate) fn open(
        parameter: &'static str,
        list: &str,
        opener: &Opener<'_>,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            parameter,
            tables: opener.open(parameter, list)?,
        })
    }

    /// As [`Maps::open`], for tables without which most of the work goes on: when they cannot be
    /// opened, every lookup fails.
    pub(crate) fn open_or_fail(parameter: &'static str, list: &str, opener: &Opener<'_>) -> Self {
        Self {
            parameter,
            tables: opener.open_or_fail(parameter, list),
        }
    }

    /// A table that makes paths from addresses, the value of `parameter`.
    ///
    /// # Errors
    /// The template is written wrongly.
    pub(crate) fn template(
        parameter: &'static str,
        template: &str,
        opener: &Opener<'_>,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            parameter,
            tables: opener
                .template(template)
                .map_err(|error| error.in_parameter(parameter))?,
        })
    }

    /// The parameter is not set.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The parameter.
    pub(crate) fn parameter(&self) -> &'static str {
        self.parameter
    }

    /// The tables.
    pub(crate) fn tables(&self) -> &TableSet {
        &self.tables
    }

    /// Looks up one key; a partial one is not offered to pattern tables.
    ///
    /// # Errors
    /// A table could not answer.
    pub(crate) fn lookup(
        &self,
        key: &str,
        partial: bool,
        trace: &mut Trace,
    ) -> Result<Option<String>, TableError> {
        let found = self.lookup_in(key, partial, trace)?;
        Ok(found.map(|(value, _)| value))
    }

    /// As [`Maps::lookup`], with the table that answered.
    ///
    /// # Errors
    /// A table could not answer.
    pub(crate) fn lookup_in(
        &self,
        key: &str,
        partial: bool,
        trace: &mut Trace,
    ) -> Result<Option<(String, &dyn LookupTable)>, TableError> {
        let found = self.tables.lookup(key, partial);
        if trace.is_on() && !self.tables.is_empty() && !key.is_empty() {
            self.record(key, partial, &found, trace);
        }
        found
    }

    fn record(
        &self,
        key: &str,
        partial: bool,
        found: &Result<Option<(String, &dyn LookupTable)>, TableError>,
        trace: &mut Trace,
    ) {
        let mut missed: Vec<String> = self
            .tables
            .tables()
            .filter(|table| !partial || table.nature() == Nature::Fixed)
            .map(|table| table.name().to_owned())
            .collect();
        let answer = match found {
            Ok(None) => Answer::Nothing,
            Ok(Some((value, table))) => {
                missed.truncate(missed.iter().position(|n| n == table.name()).unwrap_or(0));
                Answer::value(*table, key, value)
            }
            Err(error) => Answer::Error(error.to_string()),
        };
        if missed.is_empty() && answer == Answer::Nothing {
            return;
        }
        let (parameter, key) = (self.parameter, key.to_owned());
        trace.record(|| Step::Lookup {
            parameter,
            key,
            missed,
            answer,
        });
    }
}

/// In which forms a key is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyForms {
    /// Quoted where RFC 822 wants it.
    External,
    /// Quoted first, then, where it differs, as tables written for old releases have it.
    ExternalThenInternal,
}

/// Which keys follow `user@domain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// `user` for domains of this machine, then `@domain`.
    Address,
    /// `domain`, then `.parent` domains.
    DottedParents,
    /// `domain`, then parent domains.
    Parents,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The table's value.
    pub(crate) value: String,
    /// The extension, with its delimiter, that had to be cut off for the match.
    pub(crate) extension: Option<String>,
}

/// How to search, apart from the address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search<'a, F> {
    pub(crate) rule: &'a ExtensionRule,
    pub(crate) forms: KeyForms,
    pub(crate) strategy: Strategy,
    /// Whether users of a domain may be listed without it.
    pub(crate) is_own_domain: F,
}

impl<F: Fn(&str) -> Result<bool, TableError>> Search<'_, F> {
    /// Searches `maps` for an address in internal form.
    ///
    /// # Errors
    /// A table could not answer; no later key is tried, for it could give a wrong answer.
    pub(crate) fn find(
        &self,
        maps: &Maps,
        address: &str,
        trace: &mut Trace,
    ) -> Result<Option<Found>, TableError> {
        if maps.is_empty() {
            return Ok(None);
        }
        let (local_part, domain) = match address.rsplit_once('@') {
            Some((local_part, domain)) => (local_part, Some(domain)),
            None => (address, None),
        };
        let split = self.rule.split(local_part);
        let found = |value: String, extension: Option<&str>| {
            Ok(Some(Found {
                value,
                extension: extension.map(str::to_owned),
            }))
        };
        if let Some(value) = self.try_forms(maps, local_part, domain, false, trace)? {
            return found(value, None);
        }
        if let Some((user, extension)) = split
            && let Some(value) = self.try_forms(maps, user, domain, true, trace)?
        {
            return found(value, Some(extension));
        }
        let Some(domain) = domain else {
            return Ok(None);
        };
        match self.strategy {
            Strategy::Address => {
                if (self.is_own_domain)(domain)? {
                    if let Some(value) = self.try_forms(maps, local_part, None, true, trace)? {
                        return found(value, None);
                    }
                    if let Some((user, extension)) = split
                        && let Some(value) = self.try_forms(maps, user, None, true, trace)?
                    {
                        return found(value, Some(extension));
                    }
                }
                match maps.lookup(&format!("@{domain}"), true, trace)? {
                    Some(value) => found(value, None),
                    None => Ok(None),
                }
            }
            Strategy::DottedParents | Strategy::Parents => {
                for key in domain_keys(domain, self.strategy == Strategy::Parents) {
                    if let Some(value) = maps.lookup(key, true, trace)? {
                        return found(value, None);
                    }
                }
                Ok(None)
            }
        }
    }

    fn try_forms(
        &self,
        maps: &Maps,
        local_part: &str,
        domain: Option<&str>,
        partial: bool,
        trace: &mut Trace,
    ) -> Result<Option<String>, TableError> {
        let quoted = quote_local_part(local_part);
        let key = |local_part: &str| match domain {
            Some(domain) => {
                let mut key = String::with_capacity(local_part.len() + 1 + domain.len());
                key.push_str(local_part);
                key.push('@');
                key.push_str(domain);
                key
            }
            None => local_part.to_owned(),
        };
        let found = maps.lookup(&key(&quoted), partial, trace)?;
        if found.is_some() || self.forms == KeyForms::External || quoted == local_part {
            return Ok(found);
        }
        maps.lookup(&key(local_part), partial, trace)
    }
}

/// `a.b.c`, then `.b.c` and `.c`, or, with bare parents, `b.c` and `c`.
pub(crate) fn domain_keys(domain: &str, bare_parents: bool) -> impl Iterator<Item = &str> {
    let first = Some(domain).filter(|domain| !domain.is_empty());
    std::iter::successors(first, move |key| {
        let mut chars = key.char_indices();
        chars.next();
        let dot = chars.find(|(_, c)| *c == '.').map(|(at, _)| at)?;
        key.get(dot + usize::from(bare_parents)..)
            .filter(|rest| !rest.is_empty())
    })
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
