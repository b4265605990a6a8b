//! `mailstow log`: looking at a delivery log, and recovering it.
//!
//! Looking takes no lock, so that the log of a running server can be looked at; its newest records
//! may be on their way then. Exit status: 0 when the log is whole, or everything in it is in its
//! mailbox now; 1 when it is damaged or cannot be read, or mail waits in it for its mailbox.

use super::common::{SiteArgs, complain, configuration_failed};
use super::output::Output;
use crate::log;
use clap::{Args, Subcommand};
use mailstow_engine::Engine;
use mailstow_engine::config::Configuration;
use mailstow_engine::delivery_log::{
    AcceptedRecipient, CopyLocation, DirectoryMedium, DoneOutcome, InDoubt, LogError, Record,
    ScanReport, ScannedRecord, scan,
};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long the last log lines may take.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Arguments of `log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// List records, segments, torn tails and damage.
    Inspect(InspectArgs),
    /// Read everything and check every checksum, sequence and record.
    Verify(VerifyArgs),
    /// Deliver what the log holds and the mailboxes may have lost, then empty the log, as the
    /// server does when it starts.
    Recover(RecoverArgs),
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// List records from this sequence number on.
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE")]
    from: u64,
    /// The directory of the log.
    directory: PathBuf,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The directory of the log.
    directory: PathBuf,
}

#[derive(Debug, Args)]
struct RecoverArgs {
    #[command(flatten)]
    site: SiteArgs,
    /// Drop the damaged parts of the log, list them, and deliver the rest. A record that is whole
    /// and makes no sense is copied to a file beside the log. Without this option, a damaged log is
    /// left as it is.
    #[arg(long)]
    accept_damage: bool,
    /// The directory of the log. No server may be using it.
    directory: PathBuf,
}

/// Runs the subcommand.
pub fn run(args: &LogArgs) -> ExitCode {
    let (LogCommand::Inspect(InspectArgs { directory, .. })
    | LogCommand::Verify(VerifyArgs { directory })
    | LogCommand::Recover(RecoverArgs { directory, .. })) = &args.command;
    if let Some(what) = what_is_no_log(directory) {
        complain(no_log(directory, what));
        return ExitCode::FAILURE;
    }
    let mut out = Output::shown();
    let result = match &args.command {
        LogCommand::Recover(args) => return recover(args),
        LogCommand::Inspect(args) => inspect(args, &mut out),
        LogCommand::Verify(args) => verify(&args.directory, &mut out),
    };
    // A reader that went away, as head(1) does, is no reason to complain.
    let _ = out.flush();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Why nothing can be said of a log there; `None` also when it cannot be looked at, which the log's
/// reader tells.
fn what_is_no_log(directory: &Path) -> Option<&'static str> {
    match std::fs::read_dir(directory) {
        Ok(mut entries) => {
            let is_logs = |name: &OsStr| {
                let name = name.to_string_lossy();
                let is_kind = ["segment-", "spare-"]
                    .iter()
                    .any(|kind| name.starts_with(kind));
                is_kind && name.ends_with(".log")
            };
            let found = entries.any(|entry| entry.is_ok_and(|e| is_logs(&e.file_name())));
            (!found).then_some("no delivery log in this directory")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("no such directory"),
        Err(_) => None,
    }
}

fn no_log(directory: &Path, what: &str) -> String {
    format!(
        "{}: {what}; name that of the delivery log, delivery-log in the state directory",
        directory.display()
    )
}

fn recover(args: &RecoverArgs) -> ExitCode {
    let settings = match Configuration::load_to_deliver(&args.site.sources()) {
        Ok(configuration) => configuration.settings,
        Err(error) => return configuration_failed(&error),
    };
    // Progress, and mailboxes that stand in the way.
    let log = match log::start(&settings.log) {
        Ok(log) => log,
        Err(error) => return configuration_failed(&error),
    };
    let (damaged, recovered) = match args.accept_damage {
        // Listed first: recovery empties the log.
        true => (
            list_damage(&args.directory),
            Engine::recover_in_part(&settings, &args.directory),
        ),
        false => (0, Engine::recover(&settings, &args.directory)),
    };
    log.finish(LOG_TIMEOUT);
    match recovered {
        Ok(report) => {
            let _ = match damaged {
                0 => writeln!(io::stdout().lock(), "{report}"),
                _ => writeln!(
                    io::stdout().lock(),
                    "recovered {} messages, rewrote {}, {} wait for their mailboxes; the records \
                     in {damaged} damaged places of the log are not delivered",
                    report.messages,
                    report.rewritten,
                    report.waiting
                ),
            };
            match report.waiting {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Says what is damaged, before it is given up; how many places.
fn list_damage(directory: &Path) -> usize {
    let mut unreadable = Vec::new();
    let mut look = |entry: ScannedRecord<'_>| unreadable.extend(entry.record().err());
    let found = DirectoryMedium::open_read_only(directory).and_then(|m| scan(&m, &mut look));
    found.map_or(0, |report| {
        let mut out = io::stdout().lock();
        let _ = write_unreadable(&mut out, &unreadable);
        let _ = write_findings(&mut out, &report);
        report.damage.len() + unreadable.len()
    })
}

/// Answers whether the log is whole.
fn inspect(args: &InspectArgs, out: &mut dyn Write) -> Result<bool, LogError> {
    let medium = DirectoryMedium::open_read_only(&args.directory)?;
    let mut whole = true;
    let report = scan(&medium, &mut |entry| {
        if entry.sequence.0 < args.from {
            return;
        }
        let record = entry.record();
        whole &= record.is_ok();
        let _ = match (&record, args.json) {
            (Ok(record), false) => write_record(out, &entry, record),
            (Ok(record), true) => writeln!(out, "{}", record_json(&entry, record)),
            (Err(error), false) => writeln!(out, "{} UNREADABLE {error}", entry.sequence),
            (Err(error), true) => writeln!(
                out,
                "{}",
                json!({"type": "unreadable", "sequence": entry.sequence.0,
                       "error": error.to_string()})
            ),
        };
    })?;
    let _ = if args.json {
        write_report_json(out, &report)
    } else {
        write_report(out, &args.directory, &report)
    };
    Ok(whole && report.damage.is_empty())
}

fn verify(directory: &Path, out: &mut dyn Write) -> Result<bool, LogError> {
    let medium = DirectoryMedium::open_read_only(directory)?;
    let (mut bytes, mut unreadable) = (0, Vec::new());
    let report = scan(&medium, &mut |entry| {
        bytes += entry.payload.len() as u64;
        unreadable.extend(entry.record().err());
    })?;
    let _ = write_unreadable(out, &unreadable);
    let whole = unreadable.is_empty() && report.damage.is_empty();
    let _ = write_findings(out, &report);
    let _ = writeln!(
        out,
        "{}: {} records of {bytes} bytes in {} segments, {} damaged places: {}",
        directory.display(),
        report.records,
        report.segments.len(),
        report.damage.len() + unreadable.len(),
        if whole { "whole" } else { "DAMAGED" },
    );
    Ok(whole)
}

fn write_unreadable(out: &mut dyn Write, errors: &[LogError]) -> io::Result<()> {
    errors
        .iter()
        .try_for_each(|error| writeln!(out, "unreadable: {error}"))
}

fn write_record(
    out: &mut dyn Write,
    entry: &ScannedRecord<'_>,
    record: &Record<'_>,
) -> io::Result<()> {
    write!(
        out,
        "{} segment {:x} byte {} {}",
        entry.sequence,
        entry.segment,
        entry.offset,
        record.kind()
    )?;
    match record {
        Record::Accepted { envelope, content } => {
            writeln!(
                out,
                " {} from=<{}> queue_id={} {} bytes",
                envelope.id,
                envelope.reverse_path,
                envelope.queue_id,
                content.len()
            )?;
            for (number, recipient) in envelope.recipients.iter().enumerate() {
                let (format, place) = plan(recipient);
                writeln!(
                    out,
                    "    {number} to=<{}> mailbox={} uid={} gid={} {format} {place}",
                    recipient.address, recipient.mailbox, recipient.uid, recipient.gid
                )?;
            }
            Ok(())
        }
        Record::Done(entries) => {
            writeln!(out)?;
            entries.iter().try_for_each(|done| {
                let outcome = outcome(done.outcome);
                writeln!(
                    out,
                    "    {} recipient {} {outcome}",
                    done.id, done.recipient
                )
            })
        }
        Record::Confirmed(entries) => {
            writeln!(out)?;
            entries
                .iter()
                .try_for_each(|confirmed| match confirmed.recipient {
                    Some(recipient) => writeln!(out, "    {} recipient {recipient}", confirmed.id),
                    None => writeln!(out, "    {}", confirmed.id),
                })
        }
        Record::InDoubt(entries) => {
            writeln!(out)?;
            write_in_doubt(out, entries)
        }
        Record::Checkpoint(checkpoint) => {
            writeln!(out, " below {}", checkpoint.below)?;
            write_in_doubt(out, &checkpoint.in_doubt)
        }
        Record::Extent(extent) => writeln!(
            out,
            " mailbox={} uid={} gid={} at byte {}, {} bytes",
            extent.mailbox, extent.uid, extent.gid, extent.offset, extent.length
        ),
    }
}

fn write_in_doubt(out: &mut dyn Write, entries: &[InDoubt]) -> io::Result<()> {
    entries.iter().try_for_each(|entry| {
        let since = entry.since.as_secs();
        writeln!(
            out,
            "    in doubt {} recipient {} since {since}",
            entry.id, entry.recipient
        )
    })
}

fn plan(recipient: &AcceptedRecipient) -> (String, String) {
    let place = match &recipient.location {
        CopyLocation::Maildir { file_name } => file_name.clone(),
        CopyLocation::Mbox { size_before, .. } => format!("from byte {size_before}"),
        CopyLocation::Shared => "the copy of the recipient before".to_owned(),
    };
    let format = recipient.location.format();
    let format = format.map_or_else(|| "shares".to_owned(), |format| format.to_string());
    (format, place)
}

fn outcome(outcome: DoneOutcome) -> String {
    match outcome {
        DoneOutcome::Settled => "settled".to_owned(),
        DoneOutcome::Mbox { offset, length } => format!("appended {length} bytes at {offset}"),
        DoneOutcome::Refused => "refused".to_owned(),
    }
}

fn write_report(out: &mut dyn Write, directory: &Path, report: &ScanReport) -> io::Result<()> {
    for segment in &report.segments {
        writeln!(
            out,
            "{}: from record {}, {} frames, ends at byte {} of {}{}",
            segment.file,
            segment.header.first_sequence,
            segment.frames,
            segment.end,
            segment.header.segment_bytes,
            if segment.header.after_open {
                ", begun by opening"
            } else {
                ""
            },
        )?;
    }
    write_findings(out, report)?;
    writeln!(
        out,
        "{}: {} records, {} segments, {} spares, next record {}",
        directory.display(),
        report.records,
        report.segments.len(),
        report.spares.len(),
        report.next_sequence
    )
}

fn write_findings(out: &mut dyn Write, report: &ScanReport) -> io::Result<()> {
    for sequence in &report.cut {
        writeln!(out, "cut: record {sequence} was never finished")?;
    }
    for damage in &report.damage {
        writeln!(
            out,
            "DAMAGE: {} at byte {}: expected record {}, {}",
            damage.file, damage.offset, damage.expected, damage.found
        )?;
    }
    Ok(())
}

fn record_json(entry: &ScannedRecord<'_>, record: &Record<'_>) -> Value {
    let body = match record {
        Record::Accepted { envelope, content } => json!({
            "id": envelope.id.to_string(),
            "accepted_at": envelope.accepted_at.as_secs_f64(),
            "reverse_path": envelope.reverse_path,
            "queue_id": envelope.queue_id,
            "content_bytes": content.len(),
            "recipients": envelope.recipients.iter().map(|recipient| {
                let (format, place) = plan(recipient);
                json!({"address": recipient.address, "original": recipient.original,
                       "mailbox": recipient.mailbox, "uid": recipient.uid,
                       "gid": recipient.gid, "format": format, "place": place})
            }).collect::<Vec<_>>(),
        }),
        Record::Done(entries) => entries
            .iter()
            .map(|done| {
                json!({"id": done.id.to_string(), "recipient": done.recipient,
                       "outcome": outcome(done.outcome)})
            })
            .collect(),
        Record::Confirmed(entries) => entries
            .iter()
            .map(|confirmed| {
                json!({"id": confirmed.id.to_string(), "recipient": confirmed.recipient})
            })
            .collect(),
        Record::InDoubt(entries) => in_doubt_json(entries),
        Record::Checkpoint(checkpoint) => json!({
            "below": checkpoint.below.0,
            "in_doubt": in_doubt_json(&checkpoint.in_doubt),
        }),
        Record::Extent(extent) => json!({
            "mailbox": extent.mailbox, "uid": extent.uid, "gid": extent.gid,
            "offset": extent.offset, "length": extent.length,
        }),
    };
    json!({"type": "record", "sequence": entry.sequence.0, "segment": entry.segment,
           "offset": entry.offset, "frames": entry.frames, "kind": record.kind().to_string(),
           "record": body})
}

fn in_doubt_json(entries: &[InDoubt]) -> Value {
    entries
        .iter()
        .map(|entry| {
            json!({"id": entry.id.to_string(), "recipient": entry.recipient,
                   "since": entry.since.as_secs_f64()})
        })
        .collect()
}

fn write_report_json(out: &mut dyn Write, report: &ScanReport) -> io::Result<()> {
    for segment in &report.segments {
        let line = json!({"type": "segment", "file": segment.file,
            "number": segment.header.number, "first_sequence": segment.header.first_sequence,
            "frames": segment.frames, "end": segment.end,
            "segment_bytes": segment.header.segment_bytes,
            "after_open": segment.header.after_open});
        writeln!(out, "{line}")?;
    }
    for damage in &report.damage {
        let line = json!({"type": "damage", "file": damage.file, "offset": damage.offset,
            "expected": damage.expected.0, "found": damage.found});
        writeln!(out, "{line}")?;
    }
    let cut: Vec<u64> = report.cut.iter().map(|sequence| sequence.0).collect();
    let line = json!({"type": "summary", "records": report.records, "cut": cut,
        "segments": report.segments.len(), "spares": report.spares.len(),
        "damage": report.damage.len(), "next_sequence": report.next_sequence.0});
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailstow_engine::sim::{Checkpoint, LogWriter, LogWriterSettings, Sequence};
    use std::os::unix::fs::FileExt as _;

    /// A log of three checkpoints, each in a separate block.
    fn three_checkpoints() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let settings = LogWriterSettings {
            segment_bytes: 32 << 10,
            log_bytes_max: 256 << 10,
            record_bytes_max: 4 << 10,
            ..LogWriterSettings::default()
        };
        let (log, _) = LogWriter::open(directory.path(), settings).unwrap();
        for below in 1..4 {
            let record = Record::Checkpoint(Checkpoint {
                below: Sequence(below),
                in_doubt: Vec::new(),
            });
            log.append_and_wait(record.encode()).unwrap();
        }
        log.close().unwrap();
        directory
    }

    fn inspected(directory: &Path, json: bool) -> (bool, String) {
        let mut out = Vec::new();
        let args = InspectArgs {
            json,
            from: 2,
            directory: directory.to_owned(),
        };
        let whole = inspect(&args, &mut out).unwrap();
        (whole, String::from_utf8(out).unwrap())
    }

    #[test]
    fn inspect_lists_records_from_the_one_asked_for() {
        let directory = three_checkpoints();
        let (whole, text) = inspected(directory.path(), false);
        assert!(whole, "{text}");
        assert!(!text.contains("\n1 ") && !text.starts_with("1 "), "{text}");
        assert!(
            text.contains("3 segment 1 byte 12288 checkpoint below 3"),
            "{text}"
        );
        assert!(text.contains("3 records, 1 segments"), "{text}");
    }

    #[test]
    fn every_line_of_json_is_an_object_with_a_type() {
        let directory = three_checkpoints();
        let (_, text) = inspected(directory.path(), true);
        let types: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|line| line["type"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(types, ["record", "record", "segment", "summary"]);
    }

    #[test]
    fn verify_tells_a_whole_log_from_a_damaged_one() {
        let directory = three_checkpoints();
        let mut out = Vec::new();
        assert!(verify(directory.path(), &mut out).unwrap());
        let segment = directory.path().join("segment-0000000000000001.log");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(segment)
            .unwrap();
        file.write_all_at(&[0xff], 8192 + 40).unwrap();
        assert!(!verify(directory.path(), &mut out).unwrap());
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("whole\n"), "{text}");
        assert!(
            text.contains("DAMAGE: segment-0000000000000001.log at byte"),
            "{text}"
        );
        assert!(text.contains("expected record 2"), "{text}");
    }
}
