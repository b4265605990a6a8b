//! Lists of domains: `example.com, !lists.example.com, hash:/etc/postfix/domains, /a/file`.
//!
//! Source: postconf(5) `mydestination`, `virtual_mailbox_domains`, `relay_domains` ("host/domain
//! names, /file/name or type:table patterns, ! negates").

use super::opener::Opener;
use super::search::{Maps, domain_keys};
use super::trace::Trace;
use crate::address::fold_case;
use crate::sync::Arc;
use crate::table::{Hold, Key, OpenError, TableError, TableSet, words};
use std::path::Path;

/// What of a domain may match a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matching {
    /// The domain as it is.
    Exact,
    /// The pattern `.example.com` matches what is below `example.com`.
    DottedParents,
    /// The pattern `example.com` matches itself and what is below it.
    Parents,
}

/// A list of domain patterns; the first one that matches decides.
#[derive(Debug)]
pub(crate) struct DomainList {
    parameter: &'static str,
    patterns: Vec<(bool, Pattern)>,
    matching: Matching,
    /// What holds back the files among its patterns.
    holds: Vec<Arc<Hold>>,
}

#[derive(Debug)]
enum Pattern {
    Name(String),
    Table(Maps),
}

impl DomainList {
    /// Reads a list as configured, opening the tables in it.
    ///
    /// # Errors
    /// A table or file of the list cannot be read.
    pub(crate) fn open(
        parameter: &'static str,
        list: &str,
        matching: Matching,
        opener: &Opener<'_>,
    ) -> Result<Self, OpenError> {
        let mut reader = Reader {
            parameter,
            opener,
            patterns: Vec::new(),
            holds: Vec::new(),
        };
        let read = reader.read(list, true, 0);
        read.map_err(|error| error.in_parameter(parameter))?;
        Ok(Self {
            parameter,
            patterns: reader.patterns,
            matching,
            holds: reader.holds,
        })
    }

    /// What is not in the list may be in it soon: the error to be given in place of that.
    pub(crate) fn unsettled(&self) -> Option<TableError> {
        let tables = self.patterns.iter().find_map(|(_, pattern)| match pattern {
            Pattern::Name(_) => None,
            Pattern::Table(maps) => maps.tables().unsettled(),
        });
        tables.or_else(|| TableError::unsettled(&self.holds))
    }

    /// The parameter that has the list.
    pub(crate) fn parameter(&self) -> &'static str {
        self.parameter
    }

    /// Whether `domain` is in the list.
    ///
    /// # Errors
    /// A table of the list could not answer.
    pub(crate) fn contains(&self, domain: &str, trace: &mut Trace) -> Result<bool, TableError> {
        self.contains_key(&Key::new(&fold_case(domain)), trace)
    }

    /// As [`DomainList::contains`], for a folded domain that several lists are asked for.
    ///
    /// # Errors
    /// As [`DomainList::contains`].
    pub(crate) fn contains_key<'t>(
        &'t self,
        domain: &Key<'_, 't>,
        trace: &mut Trace,
    ) -> Result<bool, TableError> {
        for (positive, pattern) in &self.patterns {
            if pattern.matches(domain, self.matching, trace)? {
                return Ok(*positive);
            }
        }
        Ok(false)
    }

    /// The plain names in the list, for reports.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.patterns
            .iter()
            .filter_map(|(positive, pattern)| match pattern {
                Pattern::Name(name) if *positive => Some(name.as_str()),
                Pattern::Name(_) | Pattern::Table(_) => None,
            })
    }

    /// The tables in the list, for reports.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &TableSet> {
        self.patterns
            .iter()
            .filter_map(|(positive, pattern)| match pattern {
                Pattern::Table(maps) if *positive => Some(maps.tables()),
                Pattern::Name(_) | Pattern::Table(_) => None,
            })
    }
}

impl Pattern {
    fn matches<'t>(
        &'t self,
        domain: &Key<'_, 't>,
        matching: Matching,
        trace: &mut Trace,
    ) -> Result<bool, TableError> {
        match self {
            Self::Name(name) => Ok(name_matches(name, domain.text(), matching)),
            Self::Table(_) if domain.text().is_empty() => Ok(false),
            Self::Table(maps) => {
                if maps.lookup(domain, false, trace)?.is_some() {
                    return Ok(true);
                }
                let parents = match matching {
                    Matching::Exact => 0,
                    Matching::DottedParents | Matching::Parents => usize::MAX,
                };
                let keys = domain_keys(domain.text(), matching == Matching::Parents);
                for key in keys.skip(1).take(parents) {
                    if maps.lookup(&Key::new(key), true, trace)?.is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

fn name_matches(name: &str, domain: &str, matching: Matching) -> bool {
    let below = |parent: &str| domain.len() > parent.len() && domain.ends_with(parent);
    name == domain
        || match matching {
            Matching::Exact => false,
            Matching::DottedParents => name.starts_with('.') && below(name),
            Matching::Parents => domain
                .strip_suffix(name)
                .is_some_and(|rest| rest.ends_with('.')),
        }
}

/// A file may name further files; deeper than this is a loop.
const FILE_DEPTH_MAX: usize = 8;

struct Reader<'a> {
    parameter: &'static str,
    opener: &'a Opener<'a>,
    patterns: Vec<(bool, Pattern)>,
    holds: Vec<Arc<Hold>>,
}

impl Reader<'_> {
    fn read(&mut self, list: &str, positive: bool, depth: usize) -> Result<(), OpenError> {
        for item in words(list) {
            let mut positive = positive;
            let mut item = item;
            while let Some(rest) = item.strip_prefix('!') {
                positive = !positive;
                item = rest;
            }
            if item.is_empty() {
                continue;
            }
            if item.starts_with('/') {
                if depth >= FILE_DEPTH_MAX {
                    return Err(OpenError::Syntax {
                        list: list.to_owned(),
                        cause: format!("{item} is named by a file that it names itself"),
                    });
                }
                let text = self.list_file(item)?;
                self.read(&text, positive, depth + 1)?;
            } else if item.contains(':') && !item.starts_with('[') {
                let maps = Maps::open(self.parameter, item, self.opener)?;
                self.patterns.push((positive, Pattern::Table(maps)));
            } else {
                let name = fold_case(item).into_owned();
                self.patterns.push((positive, Pattern::Name(name)));
            }
        }
        Ok(())
    }

    /// The contents of a `/file/name` pattern, comments dropped.
    fn list_file(&mut self, path: &str) -> Result<String, OpenError> {
        let unreadable = |source| OpenError::Read {
            name: path.to_owned(),
            path: path.to_owned(),
            source,
            remedy: "create the file, or remove it from the list",
        };
        let text = self.opener.cache.texts().text(Path::new(path));
        let (text, hold) = text.map_err(unreadable)?;
        self.holds.push(hold);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{TableCache, TableContext};

    fn contains(list: &str, matching: Matching, domain: &str) -> bool {
        let cache = &TableCache::new(TableContext::default());
        let opener = Opener {
            cache,
            default_database_type: "hash",
        };
        let list = DomainList::open("relay_domains", list, matching, &opener).unwrap();
        list.contains(domain, &mut Trace::off()).unwrap()
    }

    #[test]
    fn names_match_whole_domains_in_any_case() {
        assert!(contains(
            "a.example, B.example",
            Matching::Exact,
            "b.EXAMPLE"
        ));
        assert!(!contains("a.example", Matching::Exact, "x.a.example"));
        assert!(!contains(".a.example", Matching::Exact, "x.a.example"));
    }

    #[test]
    fn parents_match_with_or_without_a_dot_as_configured() {
        assert!(contains("a.example", Matching::Parents, "x.a.example"));
        assert!(!contains("a.example", Matching::Parents, "xa.example"));
        assert!(contains(
            ".a.example",
            Matching::DottedParents,
            "x.a.example"
        ));
        assert!(!contains(
            ".a.example",
            Matching::DottedParents,
            "a.example"
        ));
        assert!(!contains(
            "a.example",
            Matching::DottedParents,
            "x.a.example"
        ));
    }

    #[test]
    fn the_first_pattern_that_matches_decides() {
        assert!(!contains(
            "!b.a.example a.example",
            Matching::Parents,
            "x.b.a.example"
        ));
        assert!(contains(
            "a.example !b.a.example",
            Matching::Parents,
            "x.b.a.example"
        ));
        assert!(contains("!!a.example", Matching::Exact, "a.example"));
    }

    #[test]
    fn tables_are_asked_for_the_domain_and_for_parents_only_where_parents_match() {
        let table = "inline:{a.example=1 .dot.example=1}";
        assert!(contains(table, Matching::Exact, "A.example"));
        assert!(!contains(table, Matching::Exact, "x.a.example"));
        assert!(contains(table, Matching::Parents, "x.a.example"));
        assert!(!contains(table, Matching::DottedParents, "x.a.example"));
        assert!(contains(table, Matching::DottedParents, "x.dot.example"));
        assert!(!contains("!inline:{a=1} a", Matching::Exact, "a"));
    }

    #[test]
    fn a_file_stands_for_the_patterns_in_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# comment\na.example b.example\n!c.example\n").unwrap();
        let list = file.path().display().to_string();
        assert!(contains(&list, Matching::Exact, "b.example"));
        assert!(!contains(
            &format!("!{list} b.example"),
            Matching::Exact,
            "b.example"
        ));
    }
}
