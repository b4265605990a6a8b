//! A lookup: a search, and those that the found entries point to.
//!
//! Source: ldap_table(5) on `special_result_attribute`, `recursion_limit`, `expansion_limit` and
//! `size_limit`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ldap3::{DerefAliases, Ldap, LdapError, Scope, SearchOptions};

use super::super::hosts::Failure;
use super::super::template::{Needs, Template};
use super::entry::{Attributes, Entry, Use};
use super::url::SearchUrl;

/// `noSuchObject`, RFC 4511 section 4.1.9.
const NO_SUCH_OBJECT: u32 = 32;
/// Entries that one lookup may see, whatever the limits say: references may form a ring.
const ENTRIES_MAX: u64 = 100_000;

/// What one lookup asks.
pub(super) struct Question {
    pub(super) key: String,
    pub(super) base: String,
    pub(super) filter: String,
}

/// How a table searches and what it makes of what it finds.
pub(super) struct Plan {
    pub(super) needs: Needs,
    pub(super) result: Template,
    pub(super) attributes: Attributes,
    pub(super) scope: Scope,
    pub(super) dereference: DerefAliases,
    /// The base depends on the key: that it does not exist means the key is not found.
    pub(super) is_base_dynamic: bool,
    pub(super) recursion_limit: u64,
    pub(super) expansion_limit: u64,
    pub(super) size_limit: i32,
    pub(super) timeout: Duration,
}

/// Where and what to search.
struct Search {
    base: String,
    scope: Scope,
    filter: String,
    attributes: Vec<String>,
}

/// What a lookup has found so far.
struct Found<'a> {
    key: &'a str,
    result: String,
    count: u64,
    entries: u64,
}

/// Answers `question` over `ldap`.
///
/// # Errors
/// The server does not answer, answers with an error, or a limit is exceeded.
pub(super) async fn lookup(
    plan: &Plan,
    ldap: &mut Ldap,
    question: &Question,
) -> Result<Option<String>, Failure> {
    let filter = match question.filter.trim() {
        whole if whole.starts_with('(') => whole.to_owned(),
        bare => format!("({bare})"),
    };
    let search = Search {
        base: question.base.clone(),
        scope: plan.scope,
        filter,
        attributes: plan.attributes.all(),
    };
    let mut found = Found {
        key: &question.key,
        result: String::new(),
        count: 0,
        entries: 0,
    };
    match plan.search(ldap, search).await? {
        Some(entries) => plan.gather(ldap, entries, 1, &mut found).await?,
        None if plan.is_base_dynamic => {}
        None => {
            let cause = format!("search_base \"{}\" does not exist", question.base);
            return Err(Failure::Refused(cause));
        }
    }
    Ok((!found.result.is_empty()).then_some(found.result))
}

impl Plan {
    /// The entries; `None` when there is no such base.
    async fn search(&self, ldap: &mut Ldap, search: Search) -> Result<Option<Vec<Entry>>, Failure> {
        let options = SearchOptions::new()
            .deref(self.dereference)
            .sizelimit(self.size_limit);
        ldap.with_search_options(options).with_timeout(self.timeout);
        let Search {
            base,
            scope,
            filter,
            attributes,
        } = search;
        let stream = ldap
            .streaming_search(&base, scope, &filter, attributes)
            .await;
        let mut stream = stream.map_err(|error| failure(&error))?;
        let mut entries = Vec::new();
        while let Some(entry) = stream.next().await.map_err(|error| failure(&error))? {
            if entry.is_ref() || entry.is_intermediate() {
                continue;
            }
            let strange = || Failure::Broken("an entry that is not well formed".to_owned());
            entries.push(Entry::read(entry).ok_or_else(strange)?);
        }
        let result = stream.finish().await;
        if result.rc == NO_SUCH_OBJECT {
            return Ok(None);
        }
        result.success().map_err(|error| failure(&error))?;
        Ok(Some(entries))
    }

    /// Adds what `entries` say to `found`, going on where they point to.
    fn gather<'a>(
        &'a self,
        ldap: &'a mut Ldap,
        entries: Vec<Entry>,
        depth: u64,
        found: &'a mut Found<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>> {
        Box::pin(async move {
            let limit = u64::try_from(self.size_limit).unwrap_or(0);
            if limit > 0 && u64::try_from(entries.len()).is_ok_and(|count| count > limit) {
                return Err(Failure::Refused(format!(
                    "more than size_limit = {limit} entries"
                )));
            }
            for entry in entries {
                found.entries += 1;
                if found.entries > ENTRIES_MAX {
                    let cause = format!("more than {ENTRIES_MAX} entries");
                    return Err(Failure::Refused(cause));
                }
                let uses = self.attributes.uses(&entry);
                for ((name, values), used) in entry.0.into_iter().zip(uses) {
                    for value in values {
                        if used == Use::None {
                            continue;
                        }
                        let value = String::from_utf8(value).map_err(|_| {
                            Failure::Refused(format!("a value of {name} is not UTF-8"))
                        })?;
                        if used == Use::Values {
                            self.add(&value, found)?;
                        } else {
                            self.follow(ldap, &value, depth, found).await?;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    fn add(&self, value: &str, found: &mut Found<'_>) -> Result<(), Failure> {
        let Found {
            key, result, count, ..
        } = found;
        if self.needs.add_value(&self.result, value, key, result) {
            *count += 1;
        }
        if self.expansion_limit > 0 && *count > self.expansion_limit {
            let limit = self.expansion_limit;
            let cause = format!("more than expansion_limit = {limit} results for \"{key}\"");
            return Err(Failure::Refused(cause));
        }
        Ok(())
    }

    /// Goes on with the entry, or the search, that `reference` names.
    async fn follow(
        &self,
        ldap: &mut Ldap,
        reference: &str,
        depth: u64,
        found: &mut Found<'_>,
    ) -> Result<(), Failure> {
        if depth >= self.recursion_limit {
            let limit = self.recursion_limit;
            let cause = format!("more than recursion_limit = {limit} references in a row");
            return Err(Failure::Refused(cause));
        }
        let search = match SearchUrl::parse(reference) {
            None => Search {
                base: reference.to_owned(),
                scope: Scope::Base,
                filter: "(objectClass=*)".to_owned(),
                attributes: self.attributes.all(),
            },
            Some(Err(cause)) => {
                return Err(Failure::Refused(format!("URL \"{reference}\": {cause}")));
            }
            Some(Ok(url)) => {
                let attributes = url.wanted(&self.attributes.all());
                if attributes.is_empty() {
                    return Ok(());
                }
                Search {
                    base: url.base,
                    scope: url.scope,
                    filter: url.filter,
                    attributes,
                }
            }
        };
        // What does not exist adds nothing.
        match self.search(ldap, search).await? {
            Some(entries) => self.gather(ldap, entries, depth + 1, found).await,
            None => Ok(()),
        }
    }
}

/// What an error of a search means for the connection.
fn failure(error: &LdapError) -> Failure {
    match error {
        LdapError::FilterParsing => {
            Failure::Refused("query_filter is not well formed (RFC 4515)".to_owned())
        }
        // Busy and unavailable: another server may be neither.
        LdapError::LdapResult { result } if ![51, 52].contains(&result.rc) => {
            Failure::Refused(error.to_string())
        }
        _ => Failure::Broken(error.to_string()),
    }
}
