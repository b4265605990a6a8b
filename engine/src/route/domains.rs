//! Lists of domains: `example.com, !lists.example.com, hash:/etc/postfix/domains, /a/file`.
//!
//! Imports `address`, `table`. Source: postconf(5) `mydestination`, `virtual_mailbox_domains`,
//! `relay_domains` ("host/domain names, /file/name or type:table patterns, ! negates").

use super::opener::Opener;
use crate::address::fold_case;
use crate::table::{OpenError, TableError, TableSet, read_file, words};
use std::path::Path;

/// A list of domain patterns; the first one that matches decides.
#[derive(Debug)]
pub(crate) struct DomainList {
    patterns: Vec<(bool, Pattern)>,
    /// A plain `example.com` matches its subdomains too (`relay_domains` when listed in
    /// `parent_domain_matches_subdomains`).
    parents: bool,
}

#[derive(Debug)]
enum Pattern {
    Name(String),
    Table(TableSet),
}

impl DomainList {
    /// Reads a list as configured, opening the tables in it.
    ///
    /// # Errors
    /// A table or file of the list cannot be read.
    pub(crate) fn open(list: &str, parents: bool, opener: &Opener<'_>) -> Result<Self, OpenError> {
        let mut patterns = Vec::new();
        collect(list, true, opener, &mut patterns, 0)?;
        Ok(Self { patterns, parents })
    }

    /// Whether `domain` is in the list.
    ///
    /// # Errors
    /// A table of the list could not answer.
    pub(crate) fn contains(&self, domain: &str) -> Result<bool, TableError> {
        let domain = fold_case(domain);
        for (positive, pattern) in &self.patterns {
            if pattern.matches(&domain, self.parents)? {
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
}

impl Pattern {
    fn matches(&self, domain: &str, parents: bool) -> Result<bool, TableError> {
        match self {
            Self::Name(name) => Ok(name_matches(name, domain, parents)),
            Self::Table(table) => {
                if table.lookup(domain, false)?.is_some() {
                    return Ok(true);
                }
                for parent in parent_domains(domain) {
                    let key = if parents {
                        parent.to_owned()
                    } else {
                        format!(".{parent}")
                    };
                    if parents && table.lookup(&key, true)?.is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

fn name_matches(name: &str, domain: &str, parents: bool) -> bool {
    name == domain || (parents && parent_domains(domain).any(|parent| parent == name))
}

/// `b.c` and `c` for `a.b.c`.
fn parent_domains(domain: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(domain.split_once('.').map(|(_, p)| p), |rest| {
        rest.split_once('.').map(|(_, p)| p)
    })
}

/// A file may name further files; deeper than this is a loop.
const FILE_DEPTH_MAX: usize = 8;

fn collect(
    list: &str,
    positive: bool,
    opener: &Opener<'_>,
    patterns: &mut Vec<(bool, Pattern)>,
    depth: usize,
) -> Result<(), OpenError> {
    for item in words(list) {
        let mut positive = positive;
        let mut item = item;
        while let Some(rest) = item.strip_prefix('!') {
            positive = !positive;
            item = rest.trim_start();
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
            let text = read_list_file(item)?;
            collect(&text, positive, opener, patterns, depth + 1)?;
        } else if item.contains(':') && !item.starts_with('[') {
            patterns.push((positive, Pattern::Table(opener.open(item)?)));
        } else {
            patterns.push((positive, Pattern::Name(fold_case(item).into_owned())));
        }
    }
    Ok(())
}

/// The contents of a `/file/name` pattern, comments dropped.
fn read_list_file(path: &str) -> Result<String, OpenError> {
    let unreadable = |source| OpenError::Read {
        name: path.to_owned(),
        path: path.to_owned(),
        source,
        remedy: "create the file, or take it out of the list",
    };
    let bytes = read_file(Path::new(path)).map_err(unreadable)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
