//! `mailstow map build`: from the tables of a configuration, or from texts, to one map; and
//! `mailstow table build`: from one text to a map beside it, as postmap(1) makes an index.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use mailstow_engine::address::fold_case;
use mailstow_engine::config::{Configuration, Sources};
use mailstow_engine::map::{
    BuildOptions, BuildProgress, BuildReport, Duplicates, MapBuilder, MapError, MapView,
    PendingChanges,
};
use mailstow_engine::route::{Part, Source, compilable, table_context};
use mailstow_engine::table::{
    TableCache, TableContext, TableList, TableName, TextWatch, text_path,
};

use super::super::common::complain;
use super::error::MapCommandError;

/// Arguments of `map build`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "With --postfix or --config, mailstow compiles all tables of the \
                       configuration that have a text: mailboxes, owners, aliases, domains and \
                       transports. It prints the lines for mailstow.toml that use the map. \
                       TABLE=TEXT replaces what the configuration has for that table."
)]
pub(super) struct BuildArgs {
    /// The map to write. Without this option, the first argument is the map.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Compile the tables that main.cf in this directory names.
    #[arg(long, value_name = "DIR")]
    postfix: Option<PathBuf>,
    /// Compile the tables that this mailstow.toml names.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// A table and the text it comes from, in the form of postmap(1):
    /// virtual_mailbox_maps=/etc/postfix/vmailbox. A table may have several texts.
    #[arg(value_name = "TABLE=TEXT")]
    tables: Vec<String>,
}

/// Arguments of `table build`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "The map is replaced atomically and durably. mailstow prints the setting \
                       that uses it. \"mailstow map build\" compiles all tables of a \
                       configuration into one map."
)]
pub(in super::super) struct TableBuildArgs {
    /// The map to write. Without this option, the path of the text with .map added.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// The text, or TYPE:NAME of a table that can be listed. TABLE= names the table in the map;
    /// without it, the table has the name of the file.
    #[arg(value_name = "[TABLE=]TEXT")]
    table: String,
}

/// How a map is built.
#[derive(Debug, Args)]
struct How {
    /// Apply the pending changes of "map set" and "map unset" to the new map.
    #[arg(long, conflicts_with = "discard_changes")]
    keep_changes: bool,
    /// Drop the pending changes of "map set" and "map unset".
    #[arg(long)]
    discard_changes: bool,
    /// When a key occurs twice, take the last value instead of the first (postmap -r).
    #[arg(short, long, conflicts_with = "strict")]
    replace: bool,
    /// Fail when a key occurs twice.
    #[arg(long)]
    strict: bool,
    /// Compile a text that was changed just now even if the new map would be much smaller than
    /// the old one.
    #[arg(long)]
    force: bool,
    /// Show no progress.
    #[arg(short, long)]
    quiet: bool,
}

/// A table of the map and what it is compiled from.
type Task = (String, Source);

/// Runs the subcommand.
pub(super) fn run(args: &BuildArgs, out: &mut dyn Write) -> Result<bool, MapCommandError> {
    let (map, texts) = match (&args.output, args.tables.as_slice()) {
        (Some(map), texts) => (map.clone(), texts),
        (None, [map, texts @ ..]) if !map.contains('=') => (PathBuf::from(map), texts),
        (None, _) => return Err(MapCommandError::NoMap),
    };
    let mut tasks: Vec<Task> = Vec::new();
    for text in texts {
        let (table, source) = task(text)?;
        tasks.push((table.to_owned(), source));
    }
    let given: Vec<String> = tasks.iter().map(|(table, _)| table.clone()).collect();
    let (mut parts, context) = configured(args)?;
    parts.retain(|part| !given.iter().any(|table| table == part.parameter));
    for part in &parts {
        let table = part.parameter.to_owned();
        tasks.extend(part.sources.iter().map(|s| (table.clone(), s.clone())));
    }
    if tasks.is_empty() {
        return Err(MapCommandError::NoSource);
    }
    let report = build(&args.how, &context, &map, &tasks)?;
    report_build(&args.how, &map, &report, out)?;
    for part in &parts {
        note(part);
    }
    if args.postfix.is_some() || args.config.is_some() {
        advise(&map, &given, &parts, out)?;
    }
    Ok(true)
}

/// Runs `table build`.
pub(super) fn run_table(
    args: &TableBuildArgs,
    out: &mut dyn Write,
) -> Result<bool, MapCommandError> {
    let (table, source) = match args.table.split_once('=') {
        Some((table, _)) if is_table(table) => {
            let (_, source) = task(&args.table)?;
            (table.to_owned(), source)
        }
        _ => {
            let source = source(&args.table)?;
            (table_name(&source), source)
        }
    };
    let map = match (&args.output, &source) {
        (Some(map), _) => map.clone(),
        (None, Source::Text(text)) => {
            let mut map = text.clone().into_os_string();
            map.push(".map");
            map.into()
        }
        (None, Source::Table(_) | Source::Domain(_)) => return Err(MapCommandError::NoMap),
    };
    let context = TableContext::default();
    let report = build(&args.how, &context, &map, &[(table.clone(), source)])?;
    report_build(&args.how, &map, &report, out)?;
    let map = std::path::absolute(map)?;
    writeln!(out, "to use it, write mailstow:{}:{table}", map.display())?;
    Ok(true)
}

fn is_table(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_word)
}

/// Returns the name of a table that was given none: that of its file, as far as that is a name.
fn table_name(source: &Source) -> String {
    let file = match source {
        Source::Text(path) => path.file_name(),
        Source::Table(name) => name.path().and_then(Path::file_name),
        Source::Domain(_) => None,
    };
    let file = file.unwrap_or_default().to_string_lossy();
    match file.replace(|c: char| !c.is_ascii_alphanumeric(), "_") {
        name if name.is_empty() => "table".to_owned(),
        name => name,
    }
}

/// What the configuration has to compile, if there is one, and how its tables are read.
fn configured(args: &BuildArgs) -> Result<(Vec<Part>, TableContext), MapCommandError> {
    if args.postfix.is_none() && args.config.is_none() {
        return Ok((Vec::new(), TableContext::default()));
    }
    let sources = Sources {
        config: args.config.clone(),
        postfix: args.postfix.clone(),
        ..Sources::default()
    };
    let configuration = Configuration::load(&sources)
        .map_err(|error| MapCommandError::Configuration(error.to_string()))?;
    let routing = &configuration.settings.routing;
    Ok((compilable(routing), table_context(routing)))
}

/// A table and what it is compiled from.
fn task(argument: &str) -> Result<(&str, Source), MapCommandError> {
    let (table, text) = argument
        .split_once('=')
        .filter(|(table, text)| !table.is_empty() && !text.is_empty())
        .ok_or_else(|| MapCommandError::Source(argument.to_owned()))?;
    Ok((table, source(text)?))
}

/// A text, by its path or as `type:name`; or another table whose entries can be listed.
fn source(text: &str) -> Result<Source, MapCommandError> {
    if !text.contains([':', '/']) {
        return Ok(Source::Text(text.into()));
    }
    let name = TableName::parse(text, "hash")?;
    match text_path(&name) {
        Some(path) => Ok(Source::Text(path.to_owned())),
        None if name.is_listed() => Ok(Source::Table(name)),
        None => Err(MapCommandError::NotText(text.to_owned())),
    }
}

fn build(
    args: &How,
    context: &TableContext,
    map: &Path,
    tasks: &[Task],
) -> Result<BuildReport, MapCommandError> {
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
        any_octets: context.any_octets,
        ..BuildOptions::default()
    };
    let mut texts = Vec::new();
    for (_, source) in tasks {
        if let Source::Text(text) = source {
            let unreadable = |error| MapCommandError::Text {
                path: text.display().to_string(),
                error,
            };
            File::open(text).map_err(unreadable)?;
            let watch = TextWatch::begin(text, context.hold_time).map_err(unreadable)?;
            texts.extend(watch.map(|watch| (text, watch)));
        }
    }
    let had = MapView::open(map).map_or(0, |old| old.reader().stats().values);
    let mut builder = MapBuilder::new(map, options)?;
    let bar = (!args.quiet && io::stderr().is_terminal()).then(|| Bar::new(tasks));
    if let Some(bar) = bar.clone() {
        builder = builder.on_progress(move |progress| {
            bar.show(progress);
            true
        });
    }
    let mut warnings = Vec::new();
    for (table, source) in tasks {
        match source {
            Source::Text(path) => warnings.extend(builder.add_text(table, path)?),
            Source::Domain(domain) => {
                let table = builder.table(table)?;
                builder.add(table, domain, domain)?;
            }
            Source::Table(name) => add_listed(&mut builder, table, name, &mut warnings)?,
        }
    }
    for (text, watch) in &texts {
        let path = text.display().to_string();
        watch.finish().map_err(|error| MapCommandError::Text {
            path: path.clone(),
            error,
        })?;
        let has = builder.entries();
        if !args.force && watch.is_doubtful(had, has) {
            return Err(MapCommandError::Doubtful {
                path,
                had,
                has,
                hold_time: context.hold_time.as_secs(),
            });
        }
    }
    let report = builder.finish();
    if let Some(bar) = bar {
        bar.bar.finish_and_clear();
    }
    for warning in warnings {
        complain(format_args!("mailstow: warning: {warning}"));
    }
    Ok(report?)
}

/// Adds the entries of a table that has no text.
fn add_listed(
    builder: &mut MapBuilder<'_>,
    table: &str,
    name: &TableName,
    warnings: &mut Vec<String>,
) -> Result<(), MapCommandError> {
    let list: TableList = std::iter::once(name.clone()).collect();
    let cache = TableCache::new(TableContext::default());
    let set = cache.open_all(&list)?;
    if let Some(cause) = cache.held_back().into_iter().next() {
        return Err(MapCommandError::HeldBack(cause));
    }
    warnings.extend(set.warnings().map(str::to_owned));
    let number = builder.table(table)?;
    let mut added: Result<(), MapError> = Ok(());
    for listed in set.tables() {
        listed.for_each(&mut |key, value, _| {
            if added.is_ok() {
                added = builder.add(number, &fold_case(key), value);
            }
        });
    }
    Ok(added?)
}

/// How far a build is, on a terminal.
#[derive(Clone)]
struct Bar {
    bar: ProgressBar,
    text_bytes: u64,
}

impl Bar {
    fn new(tasks: &[Task]) -> Self {
        let bytes = tasks.iter().map(|(_, source)| match source {
            Source::Text(path) => path.metadata().map_or(0, |metadata| metadata.len()),
            Source::Domain(_) | Source::Table(_) => 0,
        });
        let text_bytes = bytes.sum();
        let bar = ProgressBar::new(text_bytes);
        let template = "{msg:9} [{bar:40}] {percent:>3}% {elapsed}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("#> "));
        }
        Self { bar, text_bytes }
    }

    fn show(&self, progress: BuildProgress) {
        let (what, done, total) = match progress {
            BuildProgress::Reading { bytes, .. } => ("reading", bytes, self.text_bytes),
            BuildProgress::Writing { done, total } => ("writing", done, total),
        };
        if self.bar.message() != what {
            self.bar.set_message(what);
            self.bar.reset_eta();
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

fn report_build(
    args: &How,
    map: &Path,
    report: &BuildReport,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (table, key) in &report.duplicates_named {
        let taken = if args.replace { "last" } else { "first" };
        complain(format_args!(
            "mailstow: warning: table {table}: \"{key}\" occurs twice; the {taken} value counts"
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
        map.display(),
        report.stats.keys,
        report.stats.values,
        report.stats.file_bytes
    )
}

/// Says what of a parameter could not be compiled.
fn note(part: &Part) {
    if !part.rest.is_empty() && part.shares.is_none() {
        complain(format_args!(
            "mailstow: {}: {} stays in the configuration",
            part.parameter,
            part.rest.join(", ")
        ));
    }
}

/// Prints the lines of mailstow.toml by which the map is used.
fn advise(map: &Path, given: &[String], parts: &[Part], out: &mut dyn Write) -> io::Result<()> {
    let map = std::path::absolute(map)?;
    let name = format!("mailstow:{}", map.display());
    writeln!(out, "to use it, write into mailstow.toml:\n\n[routing]")?;
    let given = given.iter().map(|table| (table.as_str(), Vec::new()));
    let compiled = parts
        .iter()
        .filter(|part| !part.sources.is_empty() || part.shares.is_some())
        .map(|part| (part.parameter, part.rest.clone()));
    let mut written: Vec<&str> = Vec::new();
    for (parameter, rest) in given.chain(compiled) {
        if written.contains(&parameter) {
            continue;
        }
        written.push(parameter);
        let value: Vec<String> = std::iter::once(name.clone()).chain(rest).collect();
        // Quotes and backslashes are written in a string of TOML as Rust writes them.
        writeln!(out, "{parameter} = {:?}", value.join(", "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_texts_of_postmap() {
        let text = |path: &str| ("t", Source::Text(path.into()));
        assert_eq!(task("t=/a/b").unwrap(), text("/a/b"));
        assert_eq!(task("t=b").unwrap(), text("b"));
        assert_eq!(task("t=lmdb:/a").unwrap(), text("/a"));
        assert!(matches!(task("t=inline:{a=b}"), Ok((_, Source::Table(_)))));
        for bad in ["t", "=x", "t=", "t=static:x", "t=pcre:/x", "t=nosuch:/x"] {
            assert!(task(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_without_a_name_is_called_as_its_file() {
        let name = |text: &str| table_name(&source(text).unwrap());
        assert_eq!(name("/etc/postfix/vmailbox"), "vmailbox");
        assert_eq!(name("cdb:/etc/postfix/v-mail.box"), "v_mail_box");
        assert_eq!(name("inline:{a=b}"), "table");
    }
}
