//! Reads the text of `regexp:` and `pcre:` tables into rules.
//!
//! A bad rule is skipped with a complaint, as Postfix does. Source: regexp_table(5), pcre_table(5),
//! and how Postfix 3.7 reads the corners those leave open.

use std::ffi::CString;

use super::perl::{
    PCRE2_ANCHORED, PCRE2_CASELESS, PCRE2_DOLLAR_ENDONLY, PCRE2_DOTALL, PCRE2_EXTENDED,
    PCRE2_MULTILINE, PCRE2_UNGREEDY, PerlPattern,
};
use super::posix::{PosixPattern, REG_EXTENDED, REG_ICASE, REG_NEWLINE, REG_NOSUB};
use super::replacement::Replacement;
use super::rule_table::RuleTable;
use super::rules::{Condition, Pattern, Rule, Rules};
use crate::table::OpenError;
use crate::table::braces::{inside, words};
use crate::table::substitution::{Substitution, refusal};
use crate::table::text::lines::{before_nul, is_space, logical_lines, trim_end, trim_start};
use crate::table::text::problems::{Problems, excerpt};

/// Whose regular expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::table) enum Flavor {
    /// `regexp:`
    Posix,
    /// `pcre:`
    Perl,
}

/// How a table of rules is read.
#[derive(Clone, Copy, Debug)]
pub(in crate::table) struct Reading<'a> {
    pub(in crate::table) flavor: Flavor,
    pub(in crate::table) substitution: Substitution,
    /// The parameter that names the table, where `substitution` depends on it.
    pub(in crate::table) parameter: Option<&'a str>,
    /// Values may hold any octets, or UTF-8 alone.
    pub(in crate::table) any_octets: bool,
}

impl RuleTable {
    /// Reads `bytes`, the content of `source`. The second part of the answer is set when lines
    /// were skipped or cut.
    pub(in crate::table) fn parse(
        name: &str,
        source: &str,
        reading: Reading<'_>,
        bytes: &[u8],
    ) -> (Self, Option<String>) {
        let mut parser = Parser {
            reading,
            problems: Problems::new(source),
            rules: Vec::new(),
            open_ifs: Vec::new(),
        };
        for line in logical_lines(bytes) {
            if line.is_stray() {
                let text = excerpt(&line.text);
                let text = format!(
                    "line starts with white space but continues nothing, skipped: \"{text}\""
                );
                parser.problems.malformed(line.number, &text);
                continue;
            }
            let text = trim_end(before_nul(&line.text));
            parser.line(line.number, text);
        }
        parser.finish(name)
    }

    /// Opens a table whose rules stand in its name: `{ {rule}, {rule} }`.
    ///
    /// # Errors
    /// Braces do not match, or a rule stands without them.
    pub(in crate::table) fn open_inline(
        name: &str,
        reading: Reading<'_>,
        text: &str,
    ) -> Result<Self, OpenError> {
        let bad = |cause: String| OpenError::Content {
            name: name.to_owned(),
            cause: format!("{cause}; write {{ {{/pattern/ result}}, ... }}"),
        };
        let mut lines = String::new();
        for word in words(inside(text).map_err(bad)?) {
            lines.push_str(inside(word).map_err(bad)?);
            lines.push('\n');
        }
        Ok(Self::parse(name, name, reading, lines.as_bytes()).0)
    }
}

/// `/pattern/flags` before it is compiled.
struct Source<'a> {
    pattern: &'a [u8],
    flags: u32,
    negated: bool,
}

struct Parser<'a> {
    reading: Reading<'a>,
    problems: Problems,
    rules: Vec<Rule>,
    /// Indexes of the `if` rules whose `endif` did not come yet.
    open_ifs: Vec<usize>,
}

impl Parser<'_> {
    fn line(&mut self, number: usize, text: &[u8]) {
        let done = match text.first() {
            None => Ok(()),
            Some(first) if !first.is_ascii_alphanumeric() => self.match_rule(number, text),
            Some(_) => match (keyword(text, b"if"), keyword(text, b"endif")) {
                (Some(rest), _) => self.if_rule(number, rest),
                (None, Some(rest)) => self.endif_rule(number, rest),
                (None, None) => Err("neither /pattern/ result, nor if, nor endif".to_owned()),
            },
        };
        if let Err(cause) = done {
            let text = excerpt(text);
            let text = format!("{cause}, rule skipped: \"{text}\"");
            self.problems.malformed(number, &text);
        }
    }

    fn match_rule(&mut self, line: usize, text: &[u8]) -> Result<(), String> {
        let (first, mut rest) = self.source(line, text)?;
        let mut second = None;
        if self.reading.flavor == Flavor::Posix && rest.first() == Some(&b'!') {
            let (source, after) = self.source(line, rest)?;
            second = Some(source);
            rest = after;
        }
        let result = trim_start(rest);
        if result.is_empty() {
            self.problems
                .malformed(line, "no result text, a match will be a table error");
        } else if !self.reading.any_octets && str::from_utf8(result).is_err() {
            self.problems.malformed(
                line,
                "the result is not UTF-8, a match will be a table error",
            );
        }
        let result = Replacement::parse(result)?;
        if result.groups_max() > 0 && self.reading.substitution == Substitution::Refused {
            return Err(refusal(self.reading.parameter.unwrap_or_default()));
        }
        if first.negated && result.groups_max() > 0 {
            return Err("a negated pattern has no groups to use in its result".to_owned());
        }
        let condition = self.compile(line, &first, result.groups_max() > 0)?;
        let groups = condition.pattern.groups();
        if result.groups_max() > groups {
            let wanted = result.groups_max();
            return Err(format!(
                "${wanted} in the result, but {groups} groups in the pattern"
            ));
        }
        let second = match second {
            Some(source) => Some(self.compile(line, &source, false)?),
            None => None,
        };
        self.rules.push(Rule::Match {
            condition,
            second,
            result,
            line,
        });
        Ok(())
    }

    fn if_rule(&mut self, line: usize, rest: &[u8]) -> Result<(), String> {
        let (source, rest) = self.source(line, trim_start(rest))?;
        let condition = self.compile(line, &source, false)?;
        let extra = trim_start(rest);
        if !extra.is_empty() {
            let text = format!(
                "text after \"if\" ignored: \"{}\"; rules between if and endif must not start \
                 with white space",
                excerpt(extra)
            );
            self.problems.malformed(line, &text);
        }
        self.open_ifs.push(self.rules.len());
        self.rules.push(Rule::If {
            condition,
            after_endif: None,
            line,
        });
        Ok(())
    }

    fn endif_rule(&mut self, line: usize, rest: &[u8]) -> Result<(), String> {
        let Some(index) = self.open_ifs.pop() else {
            return Err("\"endif\" without \"if\"".to_owned());
        };
        let after = self.rules.len();
        if let Some(Rule::If { after_endif, .. }) = self.rules.get_mut(index) {
            *after_endif = Some(after);
        }
        if !trim_start(rest).is_empty() {
            self.problems
                .malformed(line, "text after \"endif\" ignored");
        }
        Ok(())
    }

    /// Takes `!/pattern/flags` off the front of `text`; any byte may be the delimiter.
    fn source<'t>(
        &mut self,
        line: usize,
        text: &'t [u8],
    ) -> Result<(Source<'t>, &'t [u8]), String> {
        let mut negated = false;
        let mut rest = text;
        let (delimiter, rest) = loop {
            let Some((&byte, after)) = rest.split_first() else {
                return Err("no pattern".to_owned());
            };
            match byte {
                b'!' => negated = !negated,
                byte if is_space(byte) => {}
                byte => break (byte, after),
            }
            rest = after;
        };
        let end = closing(rest, delimiter).ok_or_else(|| {
            let delimiter = char::from(delimiter).escape_default();
            format!("no closing \"{delimiter}\" after the pattern")
        })?;
        let (pattern, rest) = rest.split_at_checked(end).unwrap_or_default();
        let rest = rest.get(1..).unwrap_or_default();
        let stop = |b: &u8| is_space(*b) || (self.reading.flavor == Flavor::Posix && *b == b'!');
        let end = rest.iter().position(stop).unwrap_or(rest.len());
        let (letters, rest) = rest.split_at_checked(end).unwrap_or_default();
        let flags = self.flags(line, letters)?;
        let source = Source {
            pattern,
            flags,
            negated,
        };
        Ok((source, rest))
    }

    /// The flags that `letters` toggle, from the defaults of the flavor.
    fn flags(&mut self, line: usize, letters: &[u8]) -> Result<u32, String> {
        let posix = |flags: i32| u32::try_from(flags).unwrap_or(0);
        let mut flags = match self.reading.flavor {
            Flavor::Posix => posix(REG_EXTENDED | REG_ICASE),
            Flavor::Perl => PCRE2_CASELESS | PCRE2_DOTALL,
        };
        for &letter in letters {
            flags ^= match (self.reading.flavor, letter) {
                (Flavor::Posix, b'i') => posix(REG_ICASE),
                (Flavor::Posix, b'm') => posix(REG_NEWLINE),
                (Flavor::Posix, b'x') => posix(REG_EXTENDED),
                (Flavor::Perl, b'i') => PCRE2_CASELESS,
                (Flavor::Perl, b'm') => PCRE2_MULTILINE,
                (Flavor::Perl, b's') => PCRE2_DOTALL,
                (Flavor::Perl, b'x') => PCRE2_EXTENDED,
                (Flavor::Perl, b'A') => PCRE2_ANCHORED,
                (Flavor::Perl, b'E') => PCRE2_DOLLAR_ENDONLY,
                (Flavor::Perl, b'U') => PCRE2_UNGREEDY,
                (Flavor::Perl, b'X') => {
                    self.problems
                        .notice(line, "obsolete flag \"X\" has no effect; remove it");
                    0
                }
                (_, other) => {
                    let other = char::from(other).escape_default();
                    return Err(format!("unknown flag \"{other}\""));
                }
            };
        }
        Ok(flags)
    }

    fn compile(
        &mut self,
        line: usize,
        source: &Source<'_>,
        groups_wanted: bool,
    ) -> Result<Condition, String> {
        let pattern = match self.reading.flavor {
            Flavor::Posix => {
                let mut flags = i32::try_from(source.flags).unwrap_or(0);
                if !groups_wanted {
                    flags |= REG_NOSUB;
                }
                let text = CString::new(source.pattern).map_err(|_| "NUL in the pattern")?;
                PosixPattern::compile(&text, flags).map(Pattern::Posix)
            }
            Flavor::Perl => PerlPattern::compile(source.pattern, source.flags).map(Pattern::Perl),
        };
        let pattern = pattern.map_err(|cause| format!("bad pattern: {cause}"))?;
        if pattern.is_unbounded() {
            self.problems.notice(
                line,
                "the pattern has a back-reference, with which a sender can make a search take for \
                 ever; write it without, or for pcre:, where searches are limited",
            );
        }
        Ok(Condition {
            pattern,
            negated: source.negated,
        })
    }

    fn finish(mut self, name: &str) -> (RuleTable, Option<String>) {
        for index in self.open_ifs.drain(..).rev() {
            if let Some(Rule::If { line, .. }) = self.rules.get(index) {
                self.problems.malformed(*line, "\"if\" without \"endif\"");
            }
        }
        let complaints = self.problems.finish();
        let reading = self.reading;
        let rules = Rules::new(name, self.rules, reading.substitution, reading.any_octets);
        let table = RuleTable::new(name, rules, complaints.warnings);
        (table, complaints.malformed)
    }
}

/// Where the closing delimiter stands; a backslash hides the character after it.
fn closing(text: &[u8], delimiter: u8) -> Option<usize> {
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next()?;
        } else if byte == delimiter {
            return Some(at);
        }
    }
    None
}

/// What follows `word` when `text` begins with it, in any case, as a whole word.
fn keyword<'t>(text: &'t [u8], word: &[u8]) -> Option<&'t [u8]> {
    let (head, rest) = text.split_at_checked(word.len())?;
    let ends = rest.first().is_none_or(|b| !b.is_ascii_alphanumeric());
    (ends && head.eq_ignore_ascii_case(word)).then_some(rest)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
