//! `mailstow health`: whether the server that runs on a state directory delivers.
//!
//! Exit status: 0 it delivers; 75 (EX_TEMPFAIL) it runs and does not deliver now, or does not
//! answer; 69 (EX_UNAVAILABLE) none is running; 78 (EX_CONFIG) the configuration cannot be read.

use super::common::{SiteArgs, complain, configuration_failed};
use super::sysexits;
use crate::dial::dial;
use crate::health::socket_path;
use clap::Args;
use mailstow_engine::config::Configuration;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A server that says nothing for so long is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Arguments of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    #[command(flatten)]
    site: SiteArgs,
    /// The state directory of the server; no configuration is read then.
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

/// Runs the subcommand.
pub fn run(args: &HealthArgs) -> ExitCode {
    let (answer, status) = match answer(args) {
        Ok(answered) => answered,
        Err(status) => return status,
    };
    let mut out = io::stdout().lock();
    // The exit status says it too, if this cannot be written.
    let _ = if args.json {
        writeln!(out, "{answer}")
    } else {
        let text = answer
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default();
        match answer.get("pid").and_then(Value::as_u64) {
            Some(pid) => writeln!(out, "mailstow, process {pid}: {text}"),
            None => writeln!(out, "mailstow: {text}"),
        }
    };
    if out.flush().is_err() {
        complain("mailstow: the answer could not be written");
    }
    ExitCode::from(status)
}

/// What the server says of itself, and the exit status for it.
///
/// # Errors
/// The configuration that names its state directory cannot be read; that was said.
pub(super) fn answer(args: &HealthArgs) -> Result<(Value, u8), ExitCode> {
    let directory = match &args.state_directory {
        Some(directory) => directory.clone(),
        None => match Configuration::load(&args.site.sources()) {
            Ok(configuration) => configuration.settings.state_directory,
            Err(error) => {
                let status = configuration_failed(&error);
                complain(
                    "mailstow: or use only --state-directory DIR with the directory of the \
                    server",
                );
                return Err(status);
            }
        },
    };
    Ok(match ask(&directory) {
        Ok(answer) => {
            let is_healthy = answer.get("healthy").and_then(Value::as_bool) == Some(true);
            (
                answer,
                if is_healthy {
                    0
                } else {
                    sysexits::TEMPORARY_FAILURE
                },
            )
        }
        Err(error) => unanswered(&directory, &error),
    })
}

/// What the server on a state directory says of itself.
///
/// # Errors
/// None runs there, it does not answer, or it may not be asked.
pub(super) fn ask(directory: &Path) -> io::Result<Value> {
    let (path, _held) = socket_path(directory)?;
    let stream = dial(&path)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// What it means that there is no answer.
fn unanswered(directory: &Path, error: &io::Error) -> (Value, u8) {
    let shown = directory.display();
    let (state, text, status) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused if is_log_locked(directory) => (
            "unknown",
            format!(
                "a server has the delivery log in {shown}, but does not answer: see its log; the \
                 file system may be full"
            ),
            sysexits::TEMPORARY_FAILURE,
        ),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => (
            "not_running",
            format!("no server runs on {shown}; start one with mailstow serve"),
            sysexits::UNAVAILABLE,
        ),
        io::ErrorKind::PermissionDenied => (
            "unknown",
            format!("{shown}: {error}; run this as root or as the user of the server"),
            sysexits::UNAVAILABLE,
        ),
        _ => (
            "silent",
            format!(
                "the server on {shown} does not answer ({error}); it is stopped or stuck: see \
                 its log, or restart it"
            ),
            sysexits::TEMPORARY_FAILURE,
        ),
    };
    let answer = json!({"healthy": false, "state": state, "text": text});
    (answer, status)
}

/// Whether some process has locked the delivery log, as the kernel lists it (proc_locks(5)): to try
/// the lock could keep a server from starting.
fn is_log_locked(directory: &Path) -> bool {
    let Ok(lock) = std::fs::metadata(directory.join("delivery-log/lock")) else {
        return false;
    };
    let (major, minor) = (
        nix::sys::stat::major(lock.dev()),
        nix::sys::stat::minor(lock.dev()),
    );
    let file = format!("{major:02x}:{minor:02x}:{}", lock.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut words = locks.lines().map(str::split_whitespace);
    words.any(|mut words| words.nth(1) == Some("FLOCK") && words.any(|word| word == file))
}
