//! `regexp:` and `pcre:` tables: rules asked in order, the first that matches answers.
//!
//! Imports `status` (through errors). Rules are read by `rule_parser`; this file asks them.
//! Source: regexp_table(5), pcre_table(5).

use std::ffi::{CStr, CString};
use std::fmt;
use std::ops::Range;

use super::perl::{PerlPattern, Scratch};
use super::posix::PosixPattern;
use super::replacement::Replacement;
use super::substitution::Substitution;
use super::{KeyInValues, LookupTable, Nature, TableError};
use crate::octets;

/// A compiled pattern of either kind.
pub(super) enum Pattern {
    Posix(PosixPattern),
    Perl(PerlPattern),
}

impl Pattern {
    /// How many groups it has.
    pub(super) fn groups(&self) -> usize {
        match self {
            Self::Posix(pattern) => pattern.groups(),
            Self::Perl(pattern) => pattern.groups(),
        }
    }
}

/// A pattern and whether it must match or must not.
pub(super) struct Condition {
    pub(super) pattern: Pattern,
    pub(super) negated: bool,
}

/// One rule of a table.
pub(super) enum Rule {
    /// `/pattern/ result`, with the second pattern of regexp_table's `/a/!/b/`.
    Match {
        condition: Condition,
        second: Option<Condition>,
        result: Replacement,
        line: usize,
    },
    /// `if /pattern/`: the index of the rule after its `endif`, if it has one.
    If {
        condition: Condition,
        after_endif: Option<usize>,
        line: usize,
    },
}

/// A table of patterns.
pub(super) struct RuleTable {
    name: String,
    rules: Vec<Rule>,
    /// Most groups of any pattern: the room a search needs.
    groups_max: usize,
    /// Groups in results are to be safe path components.
    components: bool,
    warnings: Vec<String>,
    /// Values may hold any octets (`smtputf8_enable = no`).
    pub(super) any_octets: bool,
}

impl RuleTable {
    /// Makes a table of `rules`, from which those that `substitution` refuses were left out.
    pub(super) fn new(
        name: &str,
        rules: Vec<Rule>,
        substitution: Substitution,
        warnings: Vec<String>,
    ) -> Self {
        let groups = rules.iter().map(|rule| match rule {
            Rule::Match { condition, .. } | Rule::If { condition, .. } => {
                condition.pattern.groups()
            }
        });
        Self {
            name: name.to_owned(),
            groups_max: groups.max().unwrap_or(0),
            rules,
            components: substitution == Substitution::Component,
            warnings,
            any_octets: false,
        }
    }

    fn unavailable(&self, line: usize, cause: &str) -> TableError {
        TableError::Unavailable {
            name: self.name.clone(),
            cause: format!("the pattern of line {line} cannot be searched: {cause}"),
        }
    }

    fn search(&self, search: &mut Search<'_>) -> Result<Option<Vec<u8>>, TableError> {
        let mut at = 0;
        while let Some(rule) = self.rules.get(at) {
            at += 1;
            match rule {
                Rule::If {
                    condition,
                    after_endif,
                    line,
                } => {
                    let holds = search
                        .holds(condition, 0)
                        .map_err(|cause| self.unavailable(*line, &cause))?;
                    if !holds {
                        let Some(next) = *after_endif else {
                            return Ok(None);
                        };
                        at = next;
                    }
                }
                Rule::Match {
                    condition,
                    second,
                    result,
                    line,
                } => {
                    let failed = |cause: String| self.unavailable(*line, &cause);
                    // The second pattern first: the groups are those of the first.
                    let matches = match second {
                        Some(second) => search.holds(second, 0).map_err(failed)?,
                        None => true,
                    } && search
                        .holds(condition, result.groups_max())
                        .map_err(failed)?;
                    if matches {
                        return self.result(result, search, *line).map(Some);
                    }
                }
            }
        }
        Ok(None)
    }

    fn result(
        &self,
        result: &Replacement,
        search: &Search<'_>,
        line: usize,
    ) -> Result<Vec<u8>, TableError> {
        let subject = search.subject.to_bytes();
        if !self.components {
            return Ok(result.expand(subject, &search.groups));
        }
        let expanded = result.expand_components(subject, &search.groups);
        expanded.map_err(|cause| TableError::BadValue {
            name: self.name.clone(),
            key: search.subject.to_string_lossy().into_owned(),
            cause: format!("(line {line}) {cause}"),
        })
    }
}

/// One key on its way through the rules.
struct Search<'a> {
    subject: &'a CStr,
    scratch: Option<Scratch>,
    groups_max: usize,
    groups: Vec<Option<Range<usize>>>,
}

impl Search<'_> {
    fn holds(&mut self, condition: &Condition, groups_max: usize) -> Result<bool, String> {
        let found = match &condition.pattern {
            Pattern::Posix(pattern) => pattern.find(self.subject, groups_max, &mut self.groups)?,
            Pattern::Perl(pattern) => {
                let scratch = match &mut self.scratch {
                    Some(scratch) => scratch,
                    none => none.insert(Scratch::new(self.groups_max)?),
                };
                pattern.find(self.subject.to_bytes(), scratch, &mut self.groups)?
            }
        };
        Ok(found != condition.negated)
    }
}

impl LookupTable for RuleTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        // An address has no NUL, and nothing a pattern could match follows one.
        let Ok(subject) = CString::new(octets::octets(key)) else {
            return Ok(None);
        };
        let mut search = Search {
            subject: &subject,
            scratch: None,
            groups_max: self.groups_max,
            groups: Vec::new(),
        };
        match self.search(&mut search)? {
            None => Ok(None),
            Some(value) if self.any_octets || key.chars().any(octets::is_octet) => {
                Ok(Some(octets::text(&value).into_owned()))
            }
            Some(value) => match String::from_utf8(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(TableError::BadValue {
                    name: self.name.clone(),
                    key: key.to_owned(),
                    cause: "is not UTF-8".to_owned(),
                }),
            },
        }
    }

    fn nature(&self) -> Nature {
        Nature::Pattern
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn key_in_values(&self) -> KeyInValues {
        let has_groups = |rule: &Rule| match rule {
            Rule::Match { result, .. } => result.groups_max() > 0,
            Rule::If { .. } => false,
        };
        if !self.components && self.rules.iter().any(has_groups) {
            KeyInValues::Always
        } else {
            KeyInValues::Never
        }
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Debug for RuleTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleTable")
            .field("name", &self.name)
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}
