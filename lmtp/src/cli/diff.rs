//! `mailstow table diff`: which recipients change how when one table takes another's place.
//!
//! A key that goes may still be answered by a less specific one, `@domain` for example: what counts
//! is the answer, not the line. Exit status: 0 when no answer changes, 1 when one does, 75 when a
//! table cannot be opened, listed or asked.

use super::common::complain;
use super::output::Output;
use super::sysexits;
use clap::Args;
use mailstow_engine::address::ExtensionRule;
use mailstow_engine::table::{
    OpenError, TableCache, TableContext, TableError, TableList, TableName, TableSet,
};
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// As diff(1) has it.
const DIFFERENT: u8 = 1;

/// Arguments of `table diff`.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The table in use, as TYPE:NAME or a path.
    #[arg(value_name = "OLD")]
    old: String,
    /// The table that replaces it. A path with a / and without TYPE: is read as hash:PATH.
    #[arg(value_name = "NEW")]
    new: String,
    /// Postfix's recipient_delimiter: without user+extension, user may answer.
    #[arg(long, value_name = "CHARACTERS", default_value = "")]
    recipient_delimiter: String,
}

/// Runs the subcommand.
pub(super) fn run(args: &DiffArgs) -> ExitCode {
    let mut out = Output::shown();
    match compare(args).and_then(|changes| {
        print(&changes, &mut out)?;
        Ok(changes.is_empty())
    }) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DIFFERENT),
        Err(trouble) => {
            complain(format_args!("mailstow: {trouble}"));
            ExitCode::from(sysexits::TEMPORARY_FAILURE)
        }
    }
}

/// Why the tables cannot be compared.
#[derive(Debug, thiserror::Error)]
enum DiffError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("table {0} cannot be listed; compare tables of keys, such as hash: or texthash:")]
    Unlisted(String),
    #[error("standard output: {0}")]
    Io(#[from] io::Error),
}

/// A recipient whose answer changes.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    key: String,
    old: Option<Answer>,
    new: Option<Answer>,
}

/// What a table says, and under which key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    value: String,
    key: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |answer: &Option<Answer>| match answer {
            None => "nothing".to_owned(),
            Some(answer) if answer.key == self.key => answer.value.clone(),
            Some(answer) => format!("{} (by {})", answer.value, answer.key),
        };
        write!(
            f,
            "{}: {} -> {}",
            self.key,
            side(&self.old),
            side(&self.new)
        )
    }
}

fn compare(args: &DiffArgs) -> Result<Vec<Change>, DiffError> {
    let rule = ExtensionRule {
        delimiters: args.recipient_delimiter.clone(),
        owner_request_special: true,
    };
    let (old, new) = (open(&args.old)?, open(&args.new)?);
    let mut keys = BTreeSet::new();
    for set in [&old, &new] {
        for table in set.tables() {
            let listed = table.for_each(&mut |key, _, _| {
                keys.insert(key.to_owned());
            });
            if !listed {
                return Err(DiffError::Unlisted(table.name().to_owned()));
            }
        }
    }
    let mut changes = Vec::new();
    for key in keys {
        let (old, new) = (answer(&old, &key, &rule)?, answer(&new, &key, &rule)?);
        let value = |answer: &Option<Answer>| answer.as_ref().map(|a| a.value.clone());
        if value(&old) != value(&new) {
            changes.push(Change { key, old, new });
        }
    }
    Ok(changes)
}

fn open(name: &str) -> Result<TableSet, OpenError> {
    let list: TableList = std::iter::once(TableName::parse(name, "hash")?).collect();
    TableCache::new(TableContext::default()).open_all(&list)
}

/// The answer for a key: its own, that of the address without extension, that of the domain.
fn answer(
    tables: &TableSet,
    key: &str,
    rule: &ExtensionRule,
) -> Result<Option<Answer>, TableError> {
    let mut keys = vec![key.to_owned()];
    if let Some((local_part, domain)) = key.rsplit_once('@').filter(|(l, _)| !l.is_empty()) {
        let user = rule.split(local_part).map(|(user, _)| user);
        keys.extend(user.map(|user| format!("{user}@{domain}")));
        keys.push(format!("@{domain}"));
    }
    for key in keys {
        if let Some((value, _)) = tables.lookup(&key, false)? {
            return Ok(Some(Answer { value, key }));
        }
    }
    Ok(None)
}

fn print(changes: &[Change], out: &mut impl Write) -> Result<(), DiffError> {
    for change in changes {
        writeln!(out, "{change}")?;
    }
    let count = |wanted: fn(&&Change) -> bool| changes.iter().filter(wanted).count();
    let (new, gone) = (count(|c| c.old.is_none()), count(|c| c.new.is_none()));
    let changed = changes.len() - new - gone;
    writeln!(out, "{changed} changed, {new} new, {gone} removed")?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(old: &str, new: &str) -> Vec<String> {
        let args = DiffArgs {
            old: format!("inline:{old}"),
            new: format!("inline:{new}"),
            recipient_delimiter: "+".into(),
        };
        compare(&args)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn changed_new_and_gone_recipients_are_told() {
        assert_eq!(
            diff("{a@d=1, b@d=2, c@d=3}", "{a@d=1, b@d=x, e@d=5}"),
            ["b@d: 2 -> x", "c@d: 3 -> nothing", "e@d: nothing -> 5"]
        );
        assert_eq!(diff("{A@D=1}", "{a@d=1}"), [""; 0]);
    }

    #[test]
    fn what_counts_is_the_answer_not_the_line() {
        assert_eq!(diff("{a@d=1, @d=1}", "{@d=1}"), [""; 0]);
        assert_eq!(diff("{a@d=1, @d=2}", "{@d=2}"), ["a@d: 1 -> 2 (by @d)"]);
        assert_eq!(
            diff("{a+x@d=1, a@d=2}", "{a@d=2}"),
            ["a+x@d: 1 -> 2 (by a@d)"]
        );
    }

    #[test]
    fn tables_that_cannot_be_listed_are_refused() {
        let args = DiffArgs {
            old: "static:x".into(),
            new: "inline:{a=b}".into(),
            recipient_delimiter: String::new(),
        };
        assert!(matches!(compare(&args), Err(DiffError::Unlisted(_))));
    }

    #[test]
    fn the_summary_counts_each_kind() {
        let change = |old: bool, new: bool| {
            let answer = Answer {
                value: "v".into(),
                key: "k".into(),
            };
            Change {
                key: "k".into(),
                old: old.then(|| answer.clone()),
                new: new.then_some(answer),
            }
        };
        let mut out = Vec::new();
        print(
            &[change(true, true), change(false, true), change(true, false)],
            &mut out,
        )
        .unwrap();
        assert!(
            String::from_utf8(out)
                .unwrap()
                .ends_with("1 changed, 1 new, 1 removed\n")
        );
    }
}
