//! `mailstow table`: `query` asks lookup tables what `postmap -q` would be asked, `dump` prints
//! them as `postmap -s` does; `diff`, `publish` and `build` are in other files.
//!
//! Exit status: 0 when a key was found, 1 when none was, 75 when a table cannot be opened or cannot
//! answer. Source: postmap(1).

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use super::common::complain;
use super::output::Output;
use super::sysexits;
use clap::{Args, Subcommand};
use mailstow_engine::table::{
    OpenError, TableCache, TableContext, TableError, TableList, TableName, TableSet,
};

/// What `postmap` answers when no key is found.
const NOT_FOUND: u8 = 1;

/// Arguments of `table`.
#[derive(Debug, Args)]
pub struct TableArgs {
    #[command(subcommand)]
    command: TableCommand,
}

#[derive(Debug, Subcommand)]
enum TableCommand {
    /// Print the value of a key, as postmap -q does.
    #[command(after_long_help = include_str!("help/table-query.txt"))]
    Query(QueryArgs),
    /// Print every key, TAB, value, as postmap -s does.
    #[command(after_long_help = include_str!("help/table-dump.txt"))]
    Dump(DumpArgs),
    /// Compile one text into a recipient map, as postmap makes an index.
    Build(super::map::TableBuildArgs),
    /// Show which recipients get another answer when table NEW replaces table OLD.
    #[command(after_long_help = include_str!("help/table-diff.txt"))]
    Diff(super::diff::DiffArgs),
    /// Replace the text of a table atomically and durably.
    #[command(
        override_usage = "mailstow table publish [--force] [NEW] TABLE",
        after_long_help = include_str!("help/table-publish.txt")
    )]
    Publish(super::publish::PublishArgs),
}

#[derive(Debug, Args)]
struct QueryArgs {
    /// Ignored: the tables are named in full. Accepted as by other subcommands.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ignored: the tables are named in full. Accepted as by other subcommands.
    #[arg(long, value_name = "DIR")]
    postfix: Option<PathBuf>,
    /// The key; "-" reads keys from standard input, one a line, and prints key, TAB, value.
    key: OsString,
    /// The tables, asked in this order. A path with a / and without TYPE: is read as hash:PATH.
    #[arg(required = true, value_name = "TYPE:NAME")]
    table: Vec<String>,
}

#[derive(Debug, Args)]
struct DumpArgs {
    /// The tables, printed in this order. A path with a / and without TYPE: is read as hash:PATH.
    #[arg(required = true, value_name = "TYPE:NAME")]
    table: Vec<String>,
}

/// Runs the subcommand.
pub fn run(args: &TableArgs) -> ExitCode {
    let done = match &args.command {
        TableCommand::Query(args) => query(args),
        TableCommand::Dump(args) => {
            let mut out = Output::octets();
            dump(&args.table, &mut out).and_then(|()| Ok(out.flush().map(|()| true)?))
        }
        TableCommand::Build(args) => return super::map::build_table(args),
        TableCommand::Diff(args) => return super::diff::run(args),
        TableCommand::Publish(args) => return super::publish::run(args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_FOUND),
        // A reader that went away, as head(1) does, has seen enough.
        Err(TableCommandError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            complain(format_args!("mailstow: {trouble}"));
            ExitCode::from(sysexits::TEMPORARY_FAILURE)
        }
    }
}

fn query(query: &QueryArgs) -> Result<bool, TableCommandError> {
    let tables = open(&query.table)?;
    let mut asker = Asker {
        tables,
        out: Output::octets(),
        errors: io::stderr(),
    };
    let done = if query.key == "-" {
        asker.ask_lines(io::stdin().lock())
    } else {
        asker.ask(query.key.as_bytes(), false)
    };
    // What was found before a table failed is printed.
    let flushed = asker.out.flush();
    let found = done?;
    flushed?;
    Ok(found)
}

/// Prints every entry of every table.
fn dump(names: &[String], out: &mut impl Write) -> Result<(), TableCommandError> {
    let tables = open(names)?;
    for warning in tables.warnings() {
        complain(format_args!("mailstow: warning: {warning}"));
    }
    for table in tables.tables() {
        // A damaged map reports that when it is asked; no server is asked by this.
        if !table.may_block() {
            table.lookup("a")?;
        }
        let mut written = Ok(());
        let listed = table.for_each(&mut |key, value, _| {
            if written.is_ok() {
                written = writeln!(out, "{key}\t{value}");
            }
        });
        written?;
        if !listed {
            return Err(TableCommandError::Unlisted(table.name().to_owned()));
        }
    }
    Ok(())
}

/// Each argument is one table, blanks and all.
fn open(names: &[String]) -> Result<TableSet, OpenError> {
    let parse = |name: &String| TableName::parse(name, "hash");
    let list: TableList = names.iter().map(parse).collect::<Result<_, _>>()?;
    TableCache::new(TableContext::default()).open_all(&list)
}

/// Why the rest of the keys is not asked, or of the tables not printed.
#[derive(Debug, thiserror::Error)]
enum TableCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("table {0} cannot be listed; print tables of keys, such as hash: lmdb: cdb: mailstow:")]
    Unlisted(String),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("standard input or output: {0}; nothing can be answered without them")]
    Io(#[from] io::Error),
}

/// Asks, prints and warns.
struct Asker<O, E> {
    tables: TableSet,
    out: O,
    errors: E,
}

impl<O: Write, E: Write> Asker<O, E> {
    /// Asks each line of `input`; says whether any was found.
    fn ask_lines(&mut self, mut input: impl BufRead) -> Result<bool, TableCommandError> {
        self.warn_of_tables();
        let mut found = false;
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            let key = line.strip_suffix(b"\n").unwrap_or(&line);
            found |= self.answer(key, true)?;
            line.clear();
        }
        Ok(found)
    }

    /// Asks one key; says whether it was found.
    fn ask(&mut self, key: &[u8], with_key: bool) -> Result<bool, TableCommandError> {
        self.warn_of_tables();
        self.answer(key, with_key)
    }

    fn warn_of_tables(&mut self) {
        for warning in self.tables.warnings() {
            // Standard error may be closed; the answer counts.
            let _ = writeln!(self.errors, "mailstow: warning: {warning}");
        }
    }

    fn answer(&mut self, key: &[u8], with_key: bool) -> Result<bool, TableCommandError> {
        let Ok(key) = str::from_utf8(key) else {
            let key = String::from_utf8_lossy(key);
            let _ = writeln!(
                self.errors,
                "mailstow: warning: key \"{key}\" is not UTF-8 and so in no table"
            );
            return Ok(false);
        };
        let Some((value, table)) = self.tables.query(key)? else {
            return Ok(false);
        };
        if value.is_empty() {
            let name = table.name();
            let _ = writeln!(
                self.errors,
                "mailstow: warning: table {name}: the value of \"{key}\" is empty, which defers \
                 mail; give it a value or remove the key"
            );
        }
        if with_key {
            writeln!(self.out, "{key}\t{value}")?;
        } else {
            writeln!(self.out, "{value}")?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(tables: &[&str]) -> Asker<Vec<u8>, Vec<u8>> {
        let names: Vec<_> = tables.iter().map(ToString::to_string).collect();
        Asker {
            tables: open(&names).unwrap(),
            out: Vec::new(),
            errors: Vec::new(),
        }
    }

    #[test]
    fn one_key_prints_its_value_alone() {
        let mut asker = asker(&["inline:{a=1, {b = 2 3}}", "static:4 5"]);
        assert!(asker.ask(b"B", false).unwrap());
        assert!(asker.ask(b"c", false).unwrap());
        assert_eq!(asker.out, b"2 3\n4 5\n");
        assert_eq!(asker.errors, b"");
    }

    #[test]
    fn lines_print_key_and_value_of_those_found() {
        let mut asker = asker(&["inline:{a=1, b=2}"]);
        assert!(asker.ask_lines(&b"A\nx\n\xff\nb"[..]).unwrap());
        assert_eq!(asker.out, b"A\t1\nb\t2\n");
        let errors = String::from_utf8(asker.errors).unwrap();
        assert!(errors.contains("is not UTF-8"), "{errors}");
    }

    #[test]
    fn nothing_found_is_said() {
        assert!(!asker(&["inline:{a=1}"]).ask_lines(&b"x\ny\n"[..]).unwrap());
    }

    #[test]
    fn empty_values_and_odd_lines_are_warned_about() {
        let mut asker = asker(&["inline:{a=, b=1, b=2}"]);
        assert!(asker.ask(b"a", false).unwrap());
        assert_eq!(asker.out, b"\n");
        let errors = String::from_utf8(asker.errors).unwrap();
        assert!(
            errors.contains("is empty") && errors.contains("overridden"),
            "{errors}"
        );
    }

    #[test]
    fn every_entry_is_printed_in_the_order_of_its_line() {
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(text.path(), "Z@x  1 2\na@x  3\n").unwrap();
        let printed = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let mut out = Vec::new();
            dump(&names, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        let path = format!("hash:{}", text.path().display());
        let both = printed(&[&path, "inline:{b=4}"]).unwrap();
        assert_eq!(both, "z@x\t1 2\na@x\t3\nb\t4\n");
        for bad in ["static:1", "pcre:{{/x/ y}}", "tcp:localhost:1"] {
            assert!(
                matches!(printed(&[bad]), Err(TableCommandError::Unlisted(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            printed(&["fail:x"]),
            Err(TableCommandError::Table(_))
        ));
    }

    #[test]
    fn a_table_that_fails_ends_the_run() {
        assert!(asker(&["fail:x"]).ask(b"a", false).is_err());
        assert!(open(&["nonsense:x".to_owned()]).is_err());
    }
}
