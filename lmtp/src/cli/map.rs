//! `mailstow map`: checks, asks and changes a recipient map; `build` builds one.
//!
//! Exit status: 0 done (or found), 1 not done (or not found), 75 when `query` cannot answer.

mod build;
mod error;

pub(super) use build::TableBuildArgs;

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use mailstow_engine::address::fold_case;
use mailstow_engine::map::{Change, MapError, MapView, change, merge};

use super::common::complain;
use super::output::Output;
use super::sysexits;
use error::MapCommandError;

/// Arguments of `map`.
#[derive(Debug, Args)]
pub struct MapArgs {
    #[command(subcommand)]
    command: MapCommand,
}

#[derive(Debug, Subcommand)]
enum MapCommand {
    /// Compile text tables into one map that replaces the old one atomically.
    Build(build::BuildArgs),
    /// Read everything in a map and check every checksum, key and value.
    Verify(FileArgs),
    /// Set the value of a key durably, without a new build of the map.
    Set(SetArgs),
    /// Remove keys durably, without a new build of the map.
    Unset(UnsetArgs),
    /// Build a new map from a map and its changes.
    Merge(FileArgs),
    /// Print the value of a key; without TABLE, its values in all tables.
    Query(QueryArgs),
    /// Print every entry: table, TAB, key, TAB, value.
    Dump(FileArgs),
    /// Print statistics of a map.
    Stats(FileArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The map.
    map: PathBuf,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// The map.
    map: PathBuf,
    /// The table, for example virtual_mailbox_maps.
    table: String,
    /// The key.
    key: String,
    /// The value.
    value: String,
}

#[derive(Debug, Args)]
struct UnsetArgs {
    /// The map.
    map: PathBuf,
    /// The table, for example virtual_mailbox_maps.
    table: String,
    /// The keys.
    #[arg(required = true)]
    key: Vec<String>,
}

#[derive(Debug, Args)]
struct QueryArgs {
    /// The map.
    map: PathBuf,
    /// The key.
    key: String,
    /// The table, for example virtual_mailbox_maps.
    table: Option<String>,
}

/// Runs the subcommand.
pub fn run(args: &MapArgs) -> ExitCode {
    let mut out = Output::octets();
    let result = args.command.run(&mut out);
    let failed = match &args.command {
        MapCommand::Query(_) => ExitCode::from(sysexits::TEMPORARY_FAILURE),
        _ => ExitCode::FAILURE,
    };
    finish(result, out, failed)
}

impl MapCommand {
    fn run(&self, out: &mut dyn Write) -> Result<bool, MapCommandError> {
        let (map, result) = match self {
            Self::Build(args) => return build::run(args, out),
            Self::Verify(args) => (&args.map, verify(args, out)),
            Self::Set(args) => (&args.map, set(args)),
            Self::Unset(args) => (&args.map, unset(args)),
            Self::Merge(args) => (&args.map, merge_changes(args, out)),
            Self::Query(args) => (&args.map, query(args, out)),
            Self::Dump(args) => (&args.map, dump(args, out)),
            Self::Stats(args) => (&args.map, stats(args, out)),
        };
        result.map_err(|error| error.of(map))
    }
}

/// Runs `table build`.
pub(super) fn build_table(args: &TableBuildArgs) -> ExitCode {
    let mut out = Output::octets();
    let result = build::run_table(args, &mut out);
    finish(result, out, ExitCode::FAILURE)
}

/// The exit status; `failed` when there was an error, which is printed.
fn finish(
    result: Result<bool, MapCommandError>,
    mut out: impl Write,
    failed: ExitCode,
) -> ExitCode {
    let result = match (result, out.flush()) {
        // A reader that went away, as head(1) does, is no reason to complain.
        (Err(MapCommandError::Output(error)), _) | (Ok(_), Err(error))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(true)
        }
        (Ok(_), Err(error)) => Err(MapCommandError::Output(error)),
        (result, _) => result,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            complain(format_args!("mailstow: {trouble}"));
            failed
        }
    }
}

fn verify(args: &FileArgs, out: &mut dyn Write) -> Result<bool, MapCommandError> {
    let view = open(args)?;
    let verified = view.reader().verify(|_, _| {})?;
    writeln!(
        out,
        "{}: {} blocks, {} keys, {} values, {} pending changes: whole",
        args.map.display(),
        verified.blocks,
        verified.keys,
        verified.values,
        view.changes()
    )?;
    Ok(true)
}

fn open(args: &FileArgs) -> Result<MapView, MapError> {
    let view = MapView::open(&args.map)?;
    for warning in view.warnings() {
        complain(format_args!("mailstow: warning: {warning}"));
    }
    Ok(view)
}

fn set(args: &SetArgs) -> Result<bool, MapCommandError> {
    let view = MapView::open(&args.map)?;
    if !view.has_table(&args.table) {
        complain(format_args!(
            "mailstow: warning: {}: table {} is new; until now there are: {}",
            args.map.display(),
            args.table,
            view.tables().collect::<Vec<_>>().join(", ")
        ));
    }
    drop(view);
    let set = Change::Set {
        table: args.table.clone(),
        key: fold_case(&args.key).into_owned(),
        value: args.value.clone(),
    };
    change(&args.map, &[set])?;
    Ok(true)
}

fn unset(args: &UnsetArgs) -> Result<bool, MapCommandError> {
    let view = MapView::open(&args.map)?;
    if !view.has_table(&args.table) {
        let tables: Vec<_> = view.tables().collect();
        return Err(MapCommandError::NoTable {
            table: args.table.clone(),
            tables: tables.join(", "),
        });
    }
    drop(view);
    let changes: Vec<Change> = args
        .key
        .iter()
        .map(|key| Change::Unset {
            table: args.table.clone(),
            key: fold_case(key).into_owned(),
        })
        .collect();
    change(&args.map, &changes)?;
    Ok(true)
}

fn merge_changes(args: &FileArgs, out: &mut dyn Write) -> Result<bool, MapCommandError> {
    // Nothing is made beside a file that is no map.
    open(args)?;
    match merge(&args.map, |_, _| true)? {
        Some(stats) => writeln!(
            out,
            "{}: {} keys, {} values, {} bytes",
            args.map.display(),
            stats.keys,
            stats.values,
            stats.file_bytes
        )?,
        None => writeln!(out, "{}: no pending changes", args.map.display())?,
    }
    Ok(true)
}

fn query(args: &QueryArgs, out: &mut dyn Write) -> Result<bool, MapCommandError> {
    let view = MapView::open(&args.map)?;
    let key: Cow<'_, str> = fold_case(&args.key);
    if let Some(table) = &args.table {
        let value = view.get(table, &key)?;
        if let Some(value) = &value {
            writeln!(out, "{value}")?;
        }
        return Ok(value.is_some());
    }
    let found = view.find(&key)?;
    let mut any = false;
    for table in view.tables() {
        if let Some(value) = found.text(table)? {
            writeln!(out, "{table}\t{value}")?;
            any = true;
        }
    }
    Ok(any)
}

fn dump(args: &FileArgs, out: &mut dyn Write) -> Result<bool, MapCommandError> {
    let view = open(args)?;
    let mut written = Ok(());
    view.for_each(|table, key, value| {
        written = writeln!(out, "{table}\t{key}\t{value}");
        if written.is_ok() {
            Ok(())
        } else {
            Err(MapError::Stopped)
        }
    })
    .or_else(|error| match error {
        MapError::Stopped => Ok(()),
        error => Err(error),
    })?;
    written?;
    Ok(true)
}

fn stats(args: &FileArgs, out: &mut dyn Write) -> Result<bool, MapCommandError> {
    let view = open(args)?;
    let stats = view.reader().stats();
    let id: String = stats.id.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(out, "format version: {}", stats.format_version)?;
    writeln!(out, "id: {id}")?;
    writeln!(out, "bytes: {}", stats.file_bytes)?;
    writeln!(out, "bytes of index: {}", stats.index_bytes)?;
    writeln!(out, "keys: {}", stats.keys)?;
    writeln!(out, "values: {}", stats.values)?;
    writeln!(out, "pending changes: {}", view.changes())?;
    for table in view.tables() {
        writeln!(out, "table: {table}")?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: MapArgs,
    }

    fn command(words: &[&str]) -> MapCommand {
        let words = ["map"].iter().chain(words);
        Line::try_parse_from(words).unwrap().args.command
    }

    fn printed(words: &[&str]) -> (Result<bool, MapCommandError>, String) {
        let mut out = Vec::new();
        let result = command(words).run(&mut out);
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_map_is_built_asked_changed_merged_and_verified() {
        let directory = tempfile::tempdir().unwrap();
        let map = directory.path().join("recipients.map");
        let map = map.to_str().unwrap();
        let texts = [
            ("vmailbox", "Anna@example.com example.com/anna/\n"),
            ("vuid", "@x 1\n"),
        ];
        for (name, text) in texts {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let path = |name| directory.path().join(name).display().to_string();
        let mailboxes = format!("virtual_mailbox_maps=hash:{}", path("vmailbox"));
        let uids = format!("virtual_uid_maps={}", path("vuid"));
        assert!(printed(&["build", map, &mailboxes, &uids]).0.unwrap());
        let query = ["query", map, "ANNA@example.com", "virtual_mailbox_maps"];
        assert_eq!(printed(&query).1, "example.com/anna/\n");
        assert!(
            printed(&["set", map, "virtual_uid_maps", "Anna@Example.com", "5000"])
                .0
                .unwrap()
        );
        assert_eq!(
            printed(&["query", map, "anna@example.com"]).1,
            "virtual_mailbox_maps\texample.com/anna/\nvirtual_uid_maps\t5000\n"
        );
        assert!(printed(&["build", map, &mailboxes]).0.is_err());
        assert!(printed(&["merge", map]).1.contains("2 keys, 3 values"));
        assert!(
            printed(&["unset", map, "virtual_mailbox_maps", "anna@example.com"])
                .0
                .unwrap()
        );
        assert!(!printed(&query).0.unwrap());
        assert!(
            printed(&["verify", map])
                .1
                .ends_with("1 pending changes: whole\n")
        );
        assert!(
            printed(&["stats", map])
                .1
                .contains("values: 3\npending changes: 1\n")
        );
        assert_eq!(printed(&["dump", map]).1.lines().count(), 2);
    }

    #[test]
    fn errors_name_the_map_and_nothing_is_left_beside_what_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("vmailbox");
        std::fs::write(&text, "a@x a/\n").unwrap();
        let (text, missing) = (text.to_str().unwrap(), directory.path().join("missing"));
        let missing = missing.to_str().unwrap();
        for path in [text, missing] {
            for words in [
                vec!["set", path, "t", "k", "v"],
                vec!["unset", path, "t", "k"],
                vec!["merge", path],
                vec!["query", path, "k"],
                vec!["verify", path],
                vec!["dump", path],
            ] {
                let error = printed(&words).0.unwrap_err().to_string();
                assert!(error.contains(path) && error.contains(';'), "{error}");
            }
        }
        let source = format!("t={missing}");
        let error = printed(&["build", "-o", missing, &source]).0.unwrap_err();
        assert!(error.to_string().contains("cannot read"), "{error}");
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn keys_are_not_removed_from_tables_that_the_map_does_not_have() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("vmailbox");
        std::fs::write(&text, "a@x a/\n").unwrap();
        let map = directory.path().join("map").display().to_string();
        let source = format!("t={}", text.display());
        assert!(printed(&["build", &map, &source]).0.unwrap());
        let error = printed(&["unset", &map, "tt", "a@x"]).0.unwrap_err();
        assert!(
            error.to_string().contains("no table tt, only: t"),
            "{error}"
        );
        assert!(printed(&["set", &map, "tt", "a@x", "b"]).0.unwrap());
        assert!(printed(&["unset", &map, "tt", "a@x"]).0.unwrap());
    }
}
