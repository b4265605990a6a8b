//! `mailstow table publish`: puts a text in the place of a table's, whole and in one step.
//!
//! The new file is written beside the old one, flushed and renamed, so that Postfix and mailstow
//! see the old table or the new one and never a part; it carries a mark by which a running server
//! knows that what is not in it is not to be waited for.

use super::common::complain;
use super::sysexits;
use clap::Args;
use mailstow_engine::table::{
    Examination, OpenError, TableName, examine, publish, published_path, read_whole,
};
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

/// What is to be published looks wrong.
const REFUSED: u8 = 1;

/// Arguments of `table publish`.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Publish even what looks like a part of a table: empty, much smaller than before, or without
    /// a newline at its end.
    #[arg(long)]
    force: bool,
    /// NEW is the file that is copied into the table; "-" is standard input. Without NEW, the table
    /// itself is published as it was edited in place. TABLE is a path or TYPE:PATH; a path without
    /// TYPE: is read as hash:PATH.
    #[arg(required = true, num_args = 1..=2, value_name = "[NEW] TABLE")]
    files: Vec<String>,
}

/// Runs the subcommand.
pub(super) fn run(args: &PublishArgs) -> ExitCode {
    match publish_table(args) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            complain(format_args!("mailstow: {trouble}"));
            match trouble {
                PublishError::Doubtful { .. } | PublishError::Malformed { .. } => {
                    ExitCode::from(REFUSED)
                }
                _ => ExitCode::from(sysexits::TEMPORARY_FAILURE),
            }
        }
    }
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0} is no table with a text; name one, such as hash:/etc/postfix/vmailbox")]
    NoText(String),
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{new} is not published: {malformed}; correct it")]
    Malformed { new: String, malformed: String },
    #[error(
        "{new} is not published: {doubts}; if it is correct for {table}, use --force",
        doubts = .doubts.join(", and ")
    )]
    Doubtful {
        new: String,
        table: String,
        doubts: Vec<String>,
    },
    #[error("{0}")]
    Write(io::Error),
}

fn publish_table(args: &PublishArgs) -> Result<String, PublishError> {
    let (new, table) = match args.files.as_slice() {
        [new, table] => (Some(new.as_str()), table.clone()),
        files => (None, files.concat()),
    };
    let word = match table.contains(':') || table.contains('/') {
        true => table.clone(),
        false => format!("./{table}"),
    };
    let name = TableName::parse(&word, "hash")?;
    let path = published_path(&name).ok_or(PublishError::NoText(table))?;
    let (new, bytes) = match new {
        Some("-") => ("standard input".to_owned(), read_input()),
        Some(new) => (new.to_owned(), read_new(Path::new(new))),
        None => (path.display().to_string(), read_whole(path)),
    };
    let bytes = bytes.map_err(|source| PublishError::Read {
        path: new.clone(),
        source,
    })?;
    let found = examine(&name, &bytes)?;
    // Lines are named as those of the table's file, and are those of the new text.
    let of_table = format!("{}:", path.display());
    let named = |text: &str| match text.strip_prefix(&of_table) {
        Some(rest) => format!("{new}:{rest}"),
        None => text.to_owned(),
    };
    for warning in &found.warnings {
        complain(format_args!("mailstow: warning: {}", named(warning)));
    }
    if let Some(malformed) = found.malformed {
        let malformed = named(&malformed);
        return Err(PublishError::Malformed { new, malformed });
    }
    let doubts = found.doubts();
    if !doubts.is_empty() && !args.force {
        let table = name.full().to_owned();
        return Err(PublishError::Doubtful { new, table, doubts });
    }
    publish(path, &bytes).map_err(PublishError::Write)?;
    for index in ["db", "lmdb", "cdb", "dir"] {
        let mut file = path.as_os_str().to_owned();
        file.push(format!(".{index}"));
        if Path::new(&file).exists() {
            complain(format_args!(
                "mailstow: Postfix reads {}; run postmap {name}",
                Path::new(&file).display()
            ));
        }
    }
    let Examination { had, lost, has, .. } = found;
    Ok(format!(
        "{name}: {has} entries in force instead of {had}; {lost} of the old ones are missing"
    ))
}

fn read_input() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file, or what another program writes into a pipe.
fn read_new(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::metadata(path)?.is_file() {
        true => read_whole(path),
        false => std::fs::read(path),
    }
}
