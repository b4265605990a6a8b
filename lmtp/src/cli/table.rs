//! `mailstow table`: `query` asks lookup tables what `postmap -q` would be asked; `diff` is in a
//! file of its own.
//!
//! Imports the engine's tables only. Exit status: 0 when a key was found, 1 when none was, 75
//! when a table cannot be opened or cannot answer. Source: postmap(1).

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use mailstow_engine::table::{
    OpenError, TableCache, TableContext, TableError, TableList, TableName, TableSet,
};

/// EX_TEMPFAIL: not "not found".
const TEMPORARY_FAILURE: u8 = 75;
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
    /// Print the value of a key, as postmap -q does
    #[command(after_help = "Exit status: 0 found, 1 not found, 75 a table cannot answer.")]
    Query(QueryArgs),
    /// Say which recipients change how when table NEW takes the place of OLD
    #[command(after_help = "Exit status: 0 no change, 1 changes, 75 a table cannot answer.")]
    Diff(super::diff::DiffArgs),
}

#[derive(Debug, Args)]
struct QueryArgs {
    /// Accepted as everywhere; a table is named in full and needs no configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Accepted as everywhere; a table is named in full and needs no configuration
    #[arg(long, value_name = "DIR")]
    postfix: Option<PathBuf>,
    /// The key; "-" reads keys from standard input, one a line, and prints key, TAB, value
    key: OsString,
    /// The tables, asked in this order; a path without TYPE: is read as hash:
    #[arg(required = true, value_name = "TYPE:NAME")]
    table: Vec<String>,
}

/// Runs the subcommand.
pub fn run(args: &TableArgs) -> ExitCode {
    let query = match &args.command {
        TableCommand::Query(query) => query,
        TableCommand::Diff(diff) => return super::diff::run(diff),
    };
    let tables = match open(&query.table) {
        Ok(tables) => tables,
        Err(error) => {
            eprintln!("mailstow: {error}");
            return ExitCode::from(TEMPORARY_FAILURE);
        }
    };
    let (out, errors) = (io::stdout().lock(), io::stderr().lock());
    let mut asker = Asker {
        tables,
        out: io::BufWriter::new(out),
        errors,
    };
    let done = if query.key == "-" {
        asker.ask_lines(io::stdin().lock())
    } else {
        asker.ask(query.key.as_bytes(), false)
    };
    let done = done.and_then(|found| asker.out.flush().map(|()| found).map_err(Trouble::from));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_FOUND),
        Err(trouble) => {
            let _ = asker.out.flush();
            eprintln!("mailstow: {trouble}");
            ExitCode::from(TEMPORARY_FAILURE)
        }
    }
}

/// Each argument is one table, blanks and all.
fn open(names: &[String]) -> Result<TableSet, OpenError> {
    let parse = |name: &String| TableName::parse(name, "hash");
    let list: TableList = names.iter().map(parse).collect::<Result<_, _>>()?;
    TableCache::new(TableContext::default()).open_all(&list)
}

/// Why the rest of the keys is not asked.
#[derive(Debug, thiserror::Error)]
enum Trouble {
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
    fn ask_lines(&mut self, mut input: impl BufRead) -> Result<bool, Trouble> {
        self.warn_of_tables()?;
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
    fn ask(&mut self, key: &[u8], with_key: bool) -> Result<bool, Trouble> {
        self.warn_of_tables()?;
        self.answer(key, with_key)
    }

    fn warn_of_tables(&mut self) -> Result<(), Trouble> {
        for warning in self.tables.warnings() {
            writeln!(self.errors, "mailstow: warning: {warning}")?;
        }
        Ok(())
    }

    fn answer(&mut self, key: &[u8], with_key: bool) -> Result<bool, Trouble> {
        let Ok(key) = str::from_utf8(key) else {
            let key = String::from_utf8_lossy(key);
            writeln!(
                self.errors,
                "mailstow: warning: key \"{key}\" is not UTF-8 and so in no table"
            )?;
            return Ok(false);
        };
        let Some((value, table)) = self.tables.query(key)? else {
            return Ok(false);
        };
        if value.is_empty() {
            let name = table.name();
            writeln!(
                self.errors,
                "mailstow: warning: table {name}: the value of \"{key}\" is empty, which defers \
                 mail; give it a value or remove the key"
            )?;
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
    fn a_table_that_fails_ends_the_run() {
        assert!(asker(&["fail:x"]).ask(b"a", false).is_err());
        assert!(open(&["nonsense:x".to_owned()]).is_err());
    }
}
