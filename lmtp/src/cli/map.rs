//! `mailstow map`: building, checking, asking and changing a recipient map.
//!
//! Imports the engine's map only. Exit status: 0 done (or found), 1 not done (or not found), 75
//! when `query` cannot answer.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use mailstow_engine::address::fold_case;
use mailstow_engine::map::{
    BuildOptions, BuildProgress, BuildReport, Change, Duplicates, MapBuilder, MapError, MapView,
    PendingChanges, change, merge,
};
use mailstow_engine::table::TableName;

use super::common::complain;

/// EX_TEMPFAIL: not "not found".
const TEMPORARY_FAILURE: u8 = 75;

/// Arguments of `map`.
#[derive(Debug, Args)]
pub struct MapArgs {
    #[command(subcommand)]
    command: MapCommand,
}

#[derive(Debug, Subcommand)]
enum MapCommand {
    /// Compile text tables into one map and put it in place of the old one, in one step.
    Build(BuildArgs),
    /// Read everything in a map and check every checksum, key and value.
    Verify(FileArgs),
    /// Give a key a value, durably, without building the map again.
    Set(SetArgs),
    /// Remove keys, durably, without building the map again.
    Unset(UnsetArgs),
    /// Build a new map from a map and its changes.
    Merge(FileArgs),
    /// Print the value of a key; without TABLE, all that the map has for it.
    Query(QueryArgs),
    /// Print everything: table, TAB, key, TAB, value.
    Dump(FileArgs),
    /// Print numbers about a map.
    Stats(FileArgs),
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// What to do when changes made with "map set" and "map unset" are pending: apply them.
    #[arg(long, conflicts_with = "discard_changes")]
    keep_changes: bool,
    /// What to do when changes made with "map set" and "map unset" are pending: give them up.
    #[arg(long)]
    discard_changes: bool,
    /// Of a key that comes twice, take the last value instead of the first (postmap -r).
    #[arg(short, long, conflicts_with = "strict")]
    replace: bool,
    /// Fail when a key comes twice.
    #[arg(long)]
    strict: bool,
    /// Show no progress.
    #[arg(short, long)]
    quiet: bool,
    /// The map.
    map: PathBuf,
    /// A table and the text it comes from, in the form of postmap(1):
    /// virtual_mailbox_maps=/etc/postfix/vmailbox. A table may have several texts.
    #[arg(required = true, value_name = "TABLE=TEXT")]
    tables: Vec<String>,
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
    /// The table: virtual_mailbox_maps.
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
    /// The table: virtual_mailbox_maps.
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
    /// The table: virtual_mailbox_maps.
    table: Option<String>,
}

/// Runs the subcommand.
pub fn run(args: &MapArgs) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = match &args.command {
        MapCommand::Build(args) => build(args, &mut out),
        MapCommand::Verify(args) => verify(args, &mut out),
        MapCommand::Set(args) => set(args),
        MapCommand::Unset(args) => unset(args),
        MapCommand::Merge(args) => merge_changes(args, &mut out),
        MapCommand::Query(args) => query(args, &mut out),
        MapCommand::Dump(args) => dump(args, &mut out),
        MapCommand::Stats(args) => stats(args, &mut out),
    };
    let result = match (result, out.flush()) {
        // A reader that went away, as head(1) does, is no reason to complain.
        (Err(Trouble::Output(error)), _) | (Ok(_), Err(error))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(true)
        }
        (Ok(_), Err(error)) => Err(Trouble::Output(error)),
        (result, _) => result,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            complain(format_args!("mailstow: {trouble}"));
            match &args.command {
                MapCommand::Query(_) => ExitCode::from(TEMPORARY_FAILURE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Map(#[from] MapError),
    #[error("\"{0}\": write TABLE=TEXT, as in virtual_mailbox_maps=/etc/postfix/vmailbox")]
    Source(String),
    #[error("{0}: only tables with a text in the form of postmap(1) can be compiled")]
    NotText(String),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// The table and the path of its text.
fn source(argument: &str) -> Result<(&str, PathBuf), Trouble> {
    let (table, text) = argument
        .split_once('=')
        .filter(|(table, text)| !table.is_empty() && !text.is_empty())
        .ok_or_else(|| Trouble::Source(argument.to_owned()))?;
    if !text.contains([':', '/']) {
        return Ok((table, text.into()));
    }
    let not_text = || Trouble::NotText(text.to_owned());
    let name = TableName::parse(text, "hash").map_err(|_| not_text())?;
    if ["regexp:", "pcre:"]
        .iter()
        .any(|kind| name.full().starts_with(kind))
    {
        return Err(not_text());
    }
    let path = name.path().ok_or_else(not_text)?;
    Ok((table, path.to_owned()))
}

fn build(args: &BuildArgs, out: &mut dyn Write) -> Result<bool, Trouble> {
    let sources: Vec<_> = args
        .tables
        .iter()
        .map(|argument| source(argument))
        .collect::<Result<_, _>>()?;
    let options = BuildOptions {
        duplicates: match (args.replace, args.strict) {
            (true, _) => Duplicates::LastWins,
            (_, true) => Duplicates::Refuse,
            _ => Duplicates::FirstWins,
        },
        pending_changes: match (args.keep_changes, args.discard_changes) {
            (true, _) => PendingChanges::Keep,
            (_, true) => PendingChanges::Discard,
            _ => PendingChanges::Refuse,
        },
        ..BuildOptions::default()
    };
    let mut builder = MapBuilder::new(&args.map, options)?;
    let shown = !args.quiet && io::stderr().is_terminal();
    if shown {
        builder = builder.on_progress(|progress| {
            show(progress);
            true
        });
    }
    let mut warnings = Vec::new();
    for (table, path) in sources {
        warnings.extend(builder.add_text(table, &path)?);
    }
    let report = builder.finish();
    if shown {
        complain("");
    }
    for warning in warnings {
        complain(format_args!("mailstow: warning: {warning}"));
    }
    report_build(args, &report?, out)?;
    Ok(true)
}

/// One line that is written over and over.
fn show(progress: BuildProgress) {
    const WIDTH: u64 = 40;
    let line = match progress {
        BuildProgress::Reading { entries } => format!("reading: {entries} entries"),
        BuildProgress::Writing { done, total } => {
            let parts = done
                .saturating_mul(WIDTH)
                .checked_div(total)
                .unwrap_or(WIDTH);
            let full = "#".repeat(usize::try_from(parts).unwrap_or(0));
            format!("writing: [{full:<40}] {done} of {total} entries")
        }
    };
    let _ = write!(io::stderr().lock(), "\r{line:<79}");
}

fn report_build(args: &BuildArgs, report: &BuildReport, out: &mut dyn Write) -> io::Result<()> {
    for (table, key) in &report.duplicates_named {
        let taken = if args.replace { "last" } else { "first" };
        complain(format_args!(
            "mailstow: warning: table {table}: \"{key}\" comes twice; the {taken} value counts"
        ));
    }
    let unnamed = report
        .duplicates
        .saturating_sub(report.duplicates_named.len() as u64);
    if unnamed > 0 {
        complain(format_args!(
            "mailstow: warning: {unnamed} more duplicate entries"
        ));
    }
    writeln!(
        out,
        "{}: {} keys, {} values, {} bytes",
        args.map.display(),
        report.stats.keys,
        report.stats.values,
        report.stats.file_bytes
    )
}

fn verify(args: &FileArgs, out: &mut dyn Write) -> Result<bool, Trouble> {
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

fn set(args: &SetArgs) -> Result<bool, Trouble> {
    let set = Change::Set {
        table: args.table.clone(),
        key: fold_case(&args.key).into_owned(),
        value: args.value.clone(),
    };
    change(&args.map, &[set])?;
    Ok(true)
}

fn unset(args: &UnsetArgs) -> Result<bool, Trouble> {
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

fn merge_changes(args: &FileArgs, out: &mut dyn Write) -> Result<bool, Trouble> {
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

fn query(args: &QueryArgs, out: &mut dyn Write) -> Result<bool, Trouble> {
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

fn dump(args: &FileArgs, out: &mut dyn Write) -> Result<bool, Trouble> {
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

fn stats(args: &FileArgs, out: &mut dyn Write) -> Result<bool, Trouble> {
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

    fn printed(words: &[&str]) -> (Result<bool, Trouble>, String) {
        let mut out = Vec::new();
        let result = match command(words) {
            MapCommand::Build(args) => build(&args, &mut out),
            MapCommand::Verify(args) => verify(&args, &mut out),
            MapCommand::Set(args) => set(&args),
            MapCommand::Unset(args) => unset(&args),
            MapCommand::Merge(args) => merge_changes(&args, &mut out),
            MapCommand::Query(args) => query(&args, &mut out),
            MapCommand::Dump(args) => dump(&args, &mut out),
            MapCommand::Stats(args) => stats(&args, &mut out),
        };
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
    fn sources_are_texts_of_postmap() {
        assert_eq!(source("t=/a/b").unwrap(), ("t", "/a/b".into()));
        assert_eq!(source("t=b").unwrap(), ("t", "b".into()));
        assert_eq!(source("t=proxy:lmdb:/a=b").unwrap(), ("t", "/a=b".into()));
        for wrong in ["t", "=/a", "t=", "t=pcre:/a", "t=static:x"] {
            assert!(source(wrong).is_err(), "{wrong}");
        }
    }
}
