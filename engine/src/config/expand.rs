//! Expansion of `$name` and its relatives in parameter values, as postconf(5) describes it.
//!
//! `$name`, `${name}`, `$(name)`; `${name?text}`, `${name:text}`, `${name?{text}:{text}}`;
//! `${{left} op {right}?{text}:{text}}`; `$$`. Only what decides the result is evaluated: a mistake
//! in a branch that is not taken stays silent, as it does in Postfix. Invariants: the work is
//! bounded ([`STEPS_MAX`], [`BYTES_MAX`], [`DEPTH_MAX`]) whatever the input, and a parameter that
//! needs its own value is an error.

use std::cmp::Ordering;

/// Parameter references followed for one value.
const STEPS_MAX: usize = 20_000;
/// Size of an expanded value.
const BYTES_MAX: usize = 1024 * 1024;
/// How deep references and conditions nest (Postfix allows 100).
const DEPTH_MAX: usize = 100;

/// What is wrong with a value; the text names the place within it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    #[error("\"$\" without a parameter name in \"{0}\"; write $$ for a dollar sign")]
    EmptyName(String),
    #[error("\"{0}\" is not closed; add the missing closing bracket")]
    Unclosed(String),
    #[error("\"{0}\" is no parameter name; names are letters, digits and underscores")]
    BadName(String),
    #[error("unexpected \"{found}\" in \"${{{expression}}}\"; expected {expected}")]
    Unexpected {
        expression: String,
        found: String,
        expected: &'static str,
    },
    #[error("\"{0}\" is no number that can be compared; use a smaller one")]
    BadNumber(String),
    #[error("\"{0}\" is no compatibility level; write it like 3.6")]
    BadLevel(String),
    #[error("parameters refer to each other in a loop: {}; break it", .0.join(" -> "))]
    Loop(Vec<String>),
    #[error("parameters refer to each other more than {DEPTH_MAX} levels deep; simplify them")]
    TooDeep,
    #[error("the expanded value gets too large; simplify the parameters it refers to")]
    TooLarge,
}

/// Supplies the unexpanded value of a parameter; `None`: there is no such parameter.
pub(super) type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// An expanded value and the names in it that are not defined.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expansion {
    pub(super) value: String,
    pub(super) undefined: Vec<String>,
}

impl Expansion {
    /// The value of a text that is not expanded.
    pub(super) fn none(text: &str) -> Self {
        Self {
            value: text.to_owned(),
            undefined: Vec::new(),
        }
    }
}

/// Expands `$name` and its relatives in a text that is about one recipient. `lookup` gives the
/// value of a name, which is not expanded again; `None`: there is no such name, or it has no
/// value. Returns the text, and whether each name that it needed has a value.
///
/// # Errors
/// The text is written wrongly. Says how.
pub(crate) fn expand_attributes(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<(String, bool), String> {
    let literal = |name: &str| lookup(name).map(|value| value.replace('$', "$$"));
    let expansion = expand("", text, &literal).map_err(|error| error.to_string())?;
    Ok((expansion.value, expansion.undefined.is_empty()))
}

/// Expands `text`, the value of parameter `name`.
pub(super) fn expand(
    name: &str,
    text: &str,
    lookup: &Lookup<'_>,
) -> Result<Expansion, ExpandError> {
    let mut expander = Expander {
        lookup,
        value: String::new(),
        undefined: Vec::new(),
        active: vec![name.to_owned()],
        depth: 0,
        steps: 0,
    };
    expander.text(text)?;
    Ok(Expansion {
        value: expander.value,
        undefined: expander.undefined,
    })
}

/// The parameter names that `text` mentions anywhere, conditions and branches included.
pub(super) fn references(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
            continue;
        }
        let open = after
            .trim_start_matches(['{', '('])
            .trim_start_matches(is_blank);
        let (name, _) = open.split_at(name_length(open));
        if !name.is_empty() {
            names.push(name);
        }
        rest = after;
    }
    names
}

struct Expander<'a> {
    lookup: &'a Lookup<'a>,
    value: String,
    undefined: Vec<String>,
    /// The parameters whose values are being expanded, outermost first.
    active: Vec<String>,
    depth: usize,
    steps: usize,
}

impl Expander<'_> {
    /// Appends the expansion of `text`.
    fn text(&mut self, text: &str) -> Result<(), ExpandError> {
        self.depth += 1;
        self.steps += 1;
        if self.depth > DEPTH_MAX {
            return Err(ExpandError::TooDeep);
        }
        if self.steps > STEPS_MAX {
            return Err(ExpandError::TooLarge);
        }
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('$') {
            self.push(literal)?;
            rest = if let Some(after) = after.strip_prefix('$') {
                self.push("$")?;
                after
            } else if let Some(inner) = after.strip_prefix('{') {
                let (expression, after) = balanced(inner, '{', '}')
                    .ok_or_else(|| ExpandError::Unclosed(format!("${after}")))?;
                self.bracketed(expression, text)?;
                after
            } else if let Some(inner) = after.strip_prefix('(') {
                let (expression, after) = balanced(inner, '(', ')')
                    .ok_or_else(|| ExpandError::Unclosed(format!("${after}")))?;
                self.bracketed(expression, text)?;
                after
            } else {
                let (name, after) = after.split_at(name_length(after));
                if name.is_empty() {
                    return Err(ExpandError::EmptyName(text.to_owned()));
                }
                self.parameter(name)?;
                after
            };
        }
        self.push(rest)?;
        self.depth -= 1;
        Ok(())
    }

    fn push(&mut self, text: &str) -> Result<(), ExpandError> {
        if self.value.len() + text.len() > BYTES_MAX {
            return Err(ExpandError::TooLarge);
        }
        self.value.push_str(text);
        Ok(())
    }

    /// Appends the value of a parameter.
    fn parameter(&mut self, name: &str) -> Result<(), ExpandError> {
        if let Some(start) = self.active.iter().position(|active| active == name) {
            let mut circle: Vec<String> = self.active.iter().skip(start).cloned().collect();
            circle.push(name.to_owned());
            return Err(ExpandError::Loop(circle));
        }
        match (self.lookup)(name) {
            Some(value) => {
                self.active.push(name.to_owned());
                self.text(&value)?;
                self.active.pop();
            }
            None if !self.undefined.iter().any(|undefined| undefined == name) => {
                self.undefined.push(name.to_owned());
            }
            None => {}
        }
        Ok(())
    }

    /// `expression` is what stands between `${` and `}`.
    fn bracketed(&mut self, expression: &str, text: &str) -> Result<(), ExpandError> {
        if expression.is_empty() {
            return Err(ExpandError::EmptyName(text.to_owned()));
        }
        let inner = expression.trim_start_matches(is_blank);
        let unexpected = |rest: &str, expected| ExpandError::Unexpected {
            expression: expression.to_owned(),
            found: rest.chars().take(20).collect(),
            expected,
        };
        let (holds, rest) = if let Some(left) = inner.strip_prefix('{') {
            let (holds, rest) = self.comparison(left, &unexpected)?;
            if rest.is_empty() {
                return self.push(if holds { "true" } else { "" });
            }
            (holds, rest)
        } else {
            let (name, rest) = inner.split_at(name_length(inner));
            let rest = rest.trim_start_matches(is_blank);
            if !rest.is_empty() && !rest.starts_with(['?', ':']) {
                return Err(ExpandError::BadName(inner.to_owned()));
            }
            if rest.is_empty() {
                return if name.is_empty() {
                    Err(ExpandError::EmptyName(text.to_owned()))
                } else {
                    self.parameter(name)
                };
            }
            // Conditions look at the value as it is written, before its own expansion.
            let holds = (self.lookup)(name).is_some_and(|value| !value.is_empty());
            (holds, rest)
        };
        self.branches(holds, rest, &unexpected)
    }

    /// `?text`, `:text`, `?{text}:{text}`, `?{text}:text`
    fn branches(
        &mut self,
        holds: bool,
        rest: &str,
        unexpected: &dyn Fn(&str, &'static str) -> ExpandError,
    ) -> Result<(), ExpandError> {
        let mut rest = rest;
        if let Some(after) = rest.strip_prefix('?') {
            let (text, after) = operand(after)?;
            if holds {
                self.text(text)?;
            }
            if after.is_empty() {
                return Ok(());
            }
            rest = after;
        }
        let Some(after) = rest.strip_prefix(':') else {
            return Err(unexpected(rest, "\"?\", \":\" or the end"));
        };
        let (text, after) = operand(after)?;
        if !after.is_empty() {
            return Err(unexpected(after, "the end"));
        }
        if holds { Ok(()) } else { self.text(text) }
    }

    /// `left} op {right}`: whether it holds, and what follows.
    fn comparison<'t>(
        &mut self,
        left: &'t str,
        unexpected: &dyn Fn(&str, &'static str) -> ExpandError,
    ) -> Result<(bool, &'t str), ExpandError> {
        let (left, rest) = braced(left)?;
        let length = rest
            .find(|c| !"<>!=?+-*/~&|%".contains(c))
            .unwrap_or(rest.len());
        let (operator, after) = rest.split_at(length);
        let accepts: fn(Ordering) -> bool = match operator {
            "==" => Ordering::is_eq,
            "!=" => Ordering::is_ne,
            "<" => Ordering::is_lt,
            "<=" => Ordering::is_le,
            ">" => Ordering::is_gt,
            ">=" => Ordering::is_ge,
            _ => return Err(unexpected(rest, "==, !=, <, <=, > or >=")),
        };
        let (suffix, after) = after.split_at(name_length(after));
        let compare: fn(&str, &str) -> Result<Ordering, ExpandError> = match suffix {
            "" => compare_plain,
            "level" => compare_levels,
            _ => return Err(unexpected(suffix, "\"{\" or \"level\"")),
        };
        let Some(right) = after.trim_start_matches(is_blank).strip_prefix('{') else {
            return Err(unexpected(after, "\"{\""));
        };
        let (right, rest) = braced(right)?;
        let left = self.aside(left)?;
        let right = self.aside(right)?;
        Ok((accepts(compare(&left, &right)?), rest))
    }

    /// Expands `text` without appending it.
    fn aside(&mut self, text: &str) -> Result<String, ExpandError> {
        let outer = std::mem::take(&mut self.value);
        self.text(text)?;
        Ok(std::mem::replace(&mut self.value, outer))
    }
}

/// A branch: `{text}` with blanks around it ignored, or all that is left. And what follows.
fn operand(text: &str) -> Result<(&str, &str), ExpandError> {
    match text.trim_start_matches(is_blank).strip_prefix('{') {
        Some(inner) => braced(inner),
        None => Ok((text, "")),
    }
}

/// Splits after `{` into what stands before the matching `}` and what follows, blanks skipped.
fn braced(inner: &str) -> Result<(&str, &str), ExpandError> {
    let (payload, rest) =
        balanced(inner, '{', '}').ok_or_else(|| ExpandError::Unclosed(format!("{{{inner}")))?;
    Ok((payload, rest.trim_start_matches(is_blank)))
}

/// Splits `inner`, the text after an opening bracket, at the closing one.
fn balanced(inner: &str, open: char, close: char) -> Option<(&str, &str)> {
    let mut level = 1_usize;
    for (at, c) in inner.char_indices() {
        if c == open {
            level += 1;
        } else if c == close {
            level -= 1;
            if level == 0 {
                return Some((inner.get(..at)?, inner.get(at + c.len_utf8()..)?));
            }
        }
    }
    None
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Bytes of the parameter name at the start of `text`.
fn name_length(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// Numbers when both sides are all digits, else text byte by byte.
fn compare_plain(left: &str, right: &str) -> Result<Ordering, ExpandError> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(left) || !digits(right) {
        return Ok(left.cmp(right));
    }
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| ExpandError::BadNumber(text.to_owned()))
    };
    Ok(number(left)?.cmp(&number(right)?))
}

/// Compatibility levels: `major`, `major.minor` or `major.minor.patch`.
fn compare_levels(left: &str, right: &str) -> Result<Ordering, ExpandError> {
    Ok(level(left)?.cmp(&level(right)?))
}

fn level(text: &str) -> Result<[u32; 3], ExpandError> {
    let bad = || ExpandError::BadLevel(text.to_owned());
    let mut parts = text.split('.').map(|part| {
        let digits = part.bytes().all(|b| b.is_ascii_digit());
        part.parse().ok().filter(|_| digits).ok_or_else(bad)
    });
    let mut level = [0; 3];
    for slot in &mut level {
        if let Some(part) = parts.next() {
            *slot = part?;
        }
    }
    match parts.next() {
        None => Ok(level),
        Some(_) => Err(bad()),
    }
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;
