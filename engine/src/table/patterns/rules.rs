//! The rules of `regexp:` and `pcre:` tables: asked in order, the first that matches answers.
//!
//! Rules are read by `rule_parser`; how much a search may take is the matter of `rule_table`.
//! Source: regexp_table(5), pcre_table(5).

use std::ffi::{CStr, CString};
use std::ops::Range;

use super::effort::{Effort, Unsearched};
use super::perl::{PerlPattern, Scratch};
use super::posix::PosixPattern;
use super::replacement::Replacement;
use crate::octets;
use crate::table::substitution::Substitution;
use crate::table::{KeyInValues, TableError};

/// A compiled pattern of either kind.
pub(in crate::table) enum Pattern {
    Posix(PosixPattern),
    Perl(PerlPattern),
}

impl Pattern {
    /// How many groups it has.
    pub(in crate::table) fn groups(&self) -> usize {
        match self {
            Self::Posix(pattern) => pattern.groups(),
            Self::Perl(pattern) => pattern.groups(),
        }
    }

    /// True when a search of it may take for ever, and cannot be given up.
    pub(in crate::table) fn is_unbounded(&self) -> bool {
        match self {
            Self::Posix(pattern) => pattern.is_unbounded(),
            // PCRE2 counts its steps.
            Self::Perl(_) => false,
        }
    }
}

/// A pattern and whether it must match or must not.
pub(in crate::table) struct Condition {
    pub(in crate::table) pattern: Pattern,
    pub(in crate::table) negated: bool,
}

/// One rule of a table.
pub(in crate::table) enum Rule {
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

/// The rules of a table, in order.
pub(in crate::table) struct Rules {
    name: String,
    rules: Vec<Rule>,
    /// Most groups of any pattern: the room a search needs.
    groups_max: usize,
    /// Groups in results are to be safe path components.
    components: bool,
    /// Values may hold any octets (`smtputf8_enable = no`).
    any_octets: bool,
}

/// Why there is no answer.
pub(in crate::table) enum Unanswered {
    /// It takes more than the effort; the line of the rule.
    Slow(usize),
    /// The table cannot answer.
    Failed(TableError),
}

impl From<TableError> for Unanswered {
    fn from(error: TableError) -> Self {
        Self::Failed(error)
    }
}

impl Rules {
    /// Makes the rules of the table called `name`, from which those that `substitution` refuses
    /// were left out.
    pub(in crate::table) fn new(
        name: &str,
        rules: Vec<Rule>,
        substitution: Substitution,
        any_octets: bool,
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
            any_octets,
        }
    }

    /// How many there are.
    pub(in crate::table) fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether text of the key is put into results as it is.
    pub(in crate::table) fn key_in_values(&self) -> KeyInValues {
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

    /// The answer for `key`. Before a pattern is searched, `begins` gets its line and may end the
    /// search.
    ///
    /// # Errors
    /// There is none within `effort`, or at all.
    pub(in crate::table) fn answer(
        &self,
        key: &str,
        effort: Effort,
        begins: &mut dyn FnMut(usize) -> Result<(), Unanswered>,
    ) -> Result<Option<String>, Unanswered> {
        // An address has no NUL, and nothing a pattern could match follows one.
        let Ok(subject) = CString::new(octets::octets(key)) else {
            return Ok(None);
        };
        let mut search = Search {
            subject: &subject,
            effort,
            begins,
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
                Err(_) => Err(Unanswered::Failed(TableError::BadValue {
                    name: self.name.clone(),
                    key: key.to_owned(),
                    cause: "is not UTF-8".to_owned(),
                })),
            },
        }
    }

    /// The error of a pattern that cannot be searched.
    pub(in crate::table) fn unavailable(&self, line: usize, cause: &str) -> TableError {
        self.unavailable_by(&format!(
            "the pattern of line {line} cannot be searched: {cause}"
        ))
    }

    /// The error of a table that cannot be asked.
    pub(in crate::table) fn unavailable_by(&self, cause: &str) -> TableError {
        TableError::Unavailable {
            name: self.name.clone(),
            cause: cause.to_owned(),
        }
    }

    fn search(&self, search: &mut Search<'_>) -> Result<Option<Vec<u8>>, Unanswered> {
        let mut at = 0;
        while let Some(rule) = self.rules.get(at) {
            at += 1;
            match rule {
                Rule::If {
                    condition,
                    after_endif,
                    line,
                } => {
                    if !self.holds(search, condition, 0, *line)? {
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
                    // The second pattern first: the groups are those of the first.
                    let matches = match second {
                        Some(second) => self.holds(search, second, 0, *line)?,
                        None => true,
                    } && self.holds(search, condition, result.groups_max(), *line)?;
                    if matches {
                        return Ok(Some(self.result(result, search, *line)?));
                    }
                }
            }
        }
        Ok(None)
    }

    fn holds(
        &self,
        search: &mut Search<'_>,
        condition: &Condition,
        groups_max: usize,
        line: usize,
    ) -> Result<bool, Unanswered> {
        (search.begins)(line)?;
        search
            .holds(condition, groups_max)
            .map_err(|unsearched| match unsearched {
                Unsearched::Slow => Unanswered::Slow(line),
                Unsearched::Failed(cause) => Unanswered::Failed(self.unavailable(line, &cause)),
            })
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
    effort: Effort,
    begins: &'a mut dyn FnMut(usize) -> Result<(), Unanswered>,
    scratch: Option<Scratch>,
    groups_max: usize,
    groups: Vec<Option<Range<usize>>>,
}

impl Search<'_> {
    fn holds(&mut self, condition: &Condition, groups_max: usize) -> Result<bool, Unsearched> {
        let found = match &condition.pattern {
            Pattern::Posix(pattern) => {
                pattern.find(self.subject, self.effort, groups_max, &mut self.groups)?
            }
            Pattern::Perl(pattern) => {
                let scratch = match &mut self.scratch {
                    Some(scratch) => scratch,
                    none => none.insert(Scratch::new(self.groups_max).map_err(Unsearched::Failed)?),
                };
                let subject = self.subject.to_bytes();
                pattern.find(subject, self.effort, scratch, &mut self.groups)?
            }
        };
        Ok(found != condition.negated)
    }
}
