//! The keys under which an address is searched, in order.
//!
//! Order and key forms are those of virtual(5), virtual(8) and transport(5) (TABLE SEARCH ORDER):
//! each key is asked of *all* tables before the next key is tried; keys made from a part of the
//! address are never offered to pattern tables.

use std::borrow::Cow;

use super::opener::Opener;
use super::trace::{Answer, Step, Trace};
use crate::address::{ExtensionRule, join, quote_local_part};
use crate::table::{Key, LookupTable, Matching, OpenError, TableError, TableSet};

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
    pub(crate) fn lookup<'t>(
        &'t self,
        key: &Key<'_, 't>,
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
    pub(crate) fn lookup_in<'t>(
        &'t self,
        key: &Key<'_, 't>,
        partial: bool,
        trace: &mut Trace,
    ) -> Result<Option<(String, &'t dyn LookupTable)>, TableError> {
        let mut value = String::new();
        let found = self.lookup_into(key, partial, &mut value, trace)?;
        Ok(found.map(|table| (value, table)))
    }

    /// As [`Maps::lookup_in`], into a buffer of the caller, which must be empty.
    ///
    /// # Errors
    /// A table could not answer; `value` may then have grown.
    #[inline]
    pub(crate) fn lookup_into<'t>(
        &'t self,
        key: &Key<'_, 't>,
        partial: bool,
        value: &mut String,
        trace: &mut Trace,
    ) -> Result<Option<&'t dyn LookupTable>, TableError> {
        if !trace.is_on() {
            return self.tables.lookup_into(key, partial, value);
        }
        let found = self.tables.lookup_into(key, partial, value);
        if !self.tables.is_empty() && !key.text().is_empty() {
            self.record(key.text(), partial, &found, value, trace);
        }
        found
    }

    fn record(
        &self,
        key: &str,
        partial: bool,
        found: &Result<Option<&dyn LookupTable>, TableError>,
        value: &str,
        trace: &mut Trace,
    ) {
        let mut missed: Vec<String> = self
            .tables
            .tables()
            .filter(|table| !partial || table.matching() == Matching::Exact)
            .map(|table| table.name().to_owned())
            .collect();
        let answer = match found {
            Ok(None) => Answer::Nothing,
            Ok(Some(table)) => {
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

/// Where a search found something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match<'a, 't> {
    /// The extension, with its delimiter, that had to be cut off for the match.
    extension: Option<&'a str>,
    table: &'t dyn LookupTable,
}

impl Match<'_, '_> {
    /// The table that answered.
    pub(crate) fn table(&self) -> &dyn LookupTable {
        self.table
    }

    /// The match, with the value that was found.
    pub(crate) fn with(self, value: String) -> Found {
        Found {
            value,
            extension: self.extension.map(str::to_owned),
        }
    }
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

/// An address in internal form, and the keys made of it.
#[derive(Debug)]
pub(crate) struct Address<'a> {
    local_part: &'a str,
    domain: Option<&'a str>,
    /// User and extension.
    split: Option<(&'a str, &'a str)>,
    whole: Forms<'a>,
    /// Without the extension, if there is one.
    user: Option<Forms<'a>>,
    catch_all: Option<&'a str>,
}

/// One key in the forms in which it is tried.
#[derive(Debug)]
struct Forms<'a> {
    external: Cow<'a, str>,
    internal: Option<Cow<'a, str>>,
}

impl<'a> Address<'a> {
    /// The keys of `text`.
    pub(crate) fn new(text: &'a str, rule: &ExtensionRule, forms: KeyForms) -> Self {
        let at = memchr::memrchr(b'@', text.as_bytes());
        let (local_part, catch_all) = match at.and_then(|at| text.split_at_checked(at)) {
            Some((local_part, catch_all)) => (local_part, Some(catch_all)),
            None => (text, None),
        };
        let domain = catch_all.and_then(|text| text.strip_prefix('@'));
        let split = rule.split(local_part);
        Self {
            local_part,
            domain,
            split,
            whole: Forms::new(local_part, domain, forms, Some(text)),
            user: split.map(|(user, _)| Forms::new(user, domain, forms, None)),
            catch_all,
        }
    }

    /// The keys of an address whose local part needs no quotes: `whole`, which is
    /// `user+extension@domain`, and `user`, which is `user@domain`.
    pub(crate) fn plain(whole: &'a str, user: Option<&'a str>) -> Self {
        let at = memchr::memrchr(b'@', whole.as_bytes());
        let (local_part, catch_all) = match at.and_then(|at| whole.split_at_checked(at)) {
            Some((local_part, catch_all)) => (local_part, Some(catch_all)),
            None => (whole, None),
        };
        let user_bytes = |key: &str| key.len() - catch_all.map_or(0, str::len);
        Self {
            local_part,
            domain: catch_all.and_then(|text| text.strip_prefix('@')),
            split: user.and_then(|key| local_part.split_at_checked(user_bytes(key))),
            whole: Forms::plain(whole),
            user: user.map(Forms::plain),
            catch_all,
        }
    }
}

impl<'a> Forms<'a> {
    fn plain(key: &'a str) -> Self {
        Self {
            external: Cow::Borrowed(key),
            internal: None,
        }
    }

    /// `joined` is the key in internal form, where it stands somewhere already.
    fn new(
        local_part: &'a str,
        domain: Option<&str>,
        forms: KeyForms,
        joined: Option<&'a str>,
    ) -> Self {
        let internal = || match (joined, domain) {
            (Some(joined), _) => Cow::Borrowed(joined),
            (None, Some(domain)) => Cow::Owned(join(local_part, domain)),
            (None, None) => Cow::Borrowed(local_part),
        };
        match quote_local_part(local_part) {
            Cow::Borrowed(_) => Self {
                external: internal(),
                internal: None,
            },
            Cow::Owned(quoted) => Self {
                external: Cow::Owned(match domain {
                    Some(domain) => join(&quoted, domain),
                    None => quoted,
                }),
                internal: (forms == KeyForms::ExternalThenInternal).then(internal),
            },
        }
    }
}

/// The keys of one address, for several parameters: a table that was asked for one of them
/// remembers it. `'t` is how long the tables live.
#[derive(Debug)]
pub(crate) struct Keys<'a, 't> {
    address: &'a Address<'a>,
    whole: FormKeys<'a, 't>,
    user: Option<FormKeys<'a, 't>>,
    catch_all: Option<Key<'a, 't>>,
    /// The processor is prefetching the next keys.
    is_fetched: bool,
}

#[derive(Debug)]
struct FormKeys<'a, 't> {
    external: Key<'a, 't>,
    internal: Option<Key<'a, 't>>,
}

impl<'a> Keys<'a, '_> {
    pub(crate) fn new(address: &'a Address<'a>) -> Self {
        Self {
            address,
            whole: FormKeys::new(&address.whole, Key::new),
            user: address
                .user
                .as_ref()
                .map(|user| FormKeys::new(user, Key::new)),
            catch_all: address.catch_all.map(Key::new),
            is_fetched: false,
        }
    }

    /// As [`Keys::new`], for an address that is folded and whose keys were fetched; see
    /// [`Key::of_folded`].
    pub(crate) fn of_folded(address: &'a Address<'a>, is_brief: bool) -> Self {
        let key = |text| Key::of_folded(text, is_brief);
        Self {
            address,
            whole: FormKeys::new(&address.whole, key),
            user: address.user.as_ref().map(|user| FormKeys::new(user, key)),
            catch_all: address.catch_all.map(key),
            is_fetched: true,
        }
    }

    /// Most extensions are in no table, and then the other keys come next: what all of them need
    /// is fetched at once.
    fn fetch(&self, maps: &Maps) {
        if self.is_fetched {
            return;
        }
        if let Some(user) = &self.user {
            maps.tables.will_ask(&user.external);
            if let Some(catch_all) = &self.catch_all {
                maps.tables.will_ask(catch_all);
            }
        }
    }
}

impl<'a, 't> FormKeys<'a, 't> {
    #[inline]
    fn new(forms: &'a Forms<'a>, key: impl Fn(&'a str) -> Key<'a, 't>) -> Self {
        Self {
            external: key(&forms.external),
            internal: forms.internal.as_deref().map(key),
        }
    }

    #[inline]
    fn lookup(
        &self,
        maps: &'t Maps,
        partial: bool,
        value: &mut String,
        trace: &mut Trace,
    ) -> Result<Option<&'t dyn LookupTable>, TableError> {
        let found = maps.lookup_into(&self.external, partial, value, trace)?;
        match &self.internal {
            Some(internal) if found.is_none() => maps.lookup_into(internal, partial, value, trace),
            _ => Ok(found),
        }
    }
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
        let address = Address::new(address, self.rule, self.forms);
        let mut value = String::new();
        let matched = self.find_keys(maps, &Keys::new(&address), &mut value, trace)?;
        Ok(matched.map(|matched| matched.with(value)))
    }

    /// As [`Search::find`], for an address that several parameters are asked for, into a buffer
    /// of the caller, which must be empty.
    ///
    /// # Errors
    /// As [`Search::find`]; `value` may then have grown.
    pub(crate) fn find_keys<'a, 't>(
        &self,
        maps: &'t Maps,
        keys: &Keys<'a, 't>,
        value: &mut String,
        trace: &mut Trace,
    ) -> Result<Option<Match<'a, 't>>, TableError> {
        if maps.is_empty() {
            return Ok(None);
        }
        keys.fetch(maps);
        let whole = |table| {
            Ok(Some(Match {
                extension: None,
                table,
            }))
        };
        let user = |table| {
            let extension = keys.address.split.map(|(_, extension)| extension);
            Ok(Some(Match { extension, table }))
        };
        if let Some(table) = keys.whole.lookup(maps, false, value, trace)? {
            return whole(table);
        }
        if let Some(key) = &keys.user
            && let Some(table) = key.lookup(maps, true, value, trace)?
        {
            return user(table);
        }
        let Some(domain) = keys.address.domain else {
            return Ok(None);
        };
        match self.strategy {
            Strategy::Address => {
                if (self.is_own_domain)(domain)? {
                    let bare = |user| Forms::new(user, None, self.forms, None);
                    let mut find = |forms: &Forms<'_>| {
                        FormKeys::new(forms, Key::new).lookup(maps, true, value, trace)
                    };
                    if let Some(table) = find(&bare(keys.address.local_part))? {
                        return whole(table);
                    }
                    if let Some((name, _)) = keys.address.split
                        && let Some(table) = find(&bare(name))?
                    {
                        return user(table);
                    }
                }
                match &keys.catch_all {
                    Some(key) => match maps.lookup_into(key, true, value, trace)? {
                        Some(table) => whole(table),
                        None => Ok(None),
                    },
                    None => Ok(None),
                }
            }
            Strategy::DottedParents | Strategy::Parents => {
                for key in domain_keys(domain, self.strategy == Strategy::Parents) {
                    let key = Key::new(key);
                    if let Some(table) = maps.lookup_into(&key, true, value, trace)? {
                        return whole(table);
                    }
                }
                Ok(None)
            }
        }
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
