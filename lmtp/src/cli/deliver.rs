//! `mailstow deliver`: one message from standard input into mailboxes, for pipe(8) and scripts.
//!
//! The message is stored and flushed before the command exits with 0. Exit statuses are those that
//! pipe(8) maps back to the same outcome (sysexits(3)); the first line on standard error begins
//! with the enhanced status code, which pipe(8) reports. Every failure of mailstow, wrong usage
//! included, is EX_TEMPFAIL: the queue keeps the mail.

use super::common::{SiteArgs, complain};
use super::sysexits;
use crate::relay::{LOOKUPS_MAX, Relays};
use clap::Args;
use mailstow_engine::address::{
    Address, AddressError, ReversePath, parse_address, parse_mailbox, parse_original_recipient,
};
use mailstow_engine::config::{Configuration, Durability, Settings};
use mailstow_engine::route::FoundTargets;
use mailstow_engine::supervisor::build_runtime;
use mailstow_engine::{
    Engine, EnhancedCode, LineEnds, Mail, Message, Recipient, Status, Target, octets,
};
use nix::sys::signal::{SigSet, Signal};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Stack of the threads that talk to other servers, in bytes.
const STACK_BYTES: usize = 512 * 1024;

/// Arguments of `deliver`.
#[derive(Debug, Args)]
pub struct DeliverArgs {
    #[command(flatten)]
    sources: SiteArgs,
    /// Envelope sender; empty, <> or MAILER-DAEMON for the null reverse-path.
    #[arg(short = 'f', value_name = "SENDER", allow_hyphen_values = true)]
    sender: OsString,
    /// The recipient before aliases, for X-Original-To; without it there is no such header.
    #[arg(
        short = 'o',
        value_name = "ORIGINAL_RECIPIENT",
        allow_hyphen_values = true
    )]
    original: Option<OsString>,
    /// Who gets the message. All recipients are looked up before the message is stored for any.
    /// They share one exit status: when one is to be tried again, all of them are. Virtual
    /// aliases are not expanded, for Postfix has done that.
    #[arg(required = true, value_name = "RECIPIENT")]
    recipient: Vec<OsString>,
}

/// Runs the subcommand.
pub fn run(args: &DeliverArgs) -> ExitCode {
    survive_file_size_limits();
    let status = match deliver(args) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(status) => status,
    };
    complain(format_args!("{} {}", status.enhanced, status.text));
    ExitCode::from(u8::try_from(status.sysexits()).unwrap_or(sysexits::TEMPORARY_FAILURE))
}

/// A file size limit shall fail the write, not kill us in the middle of an mbox. local(8) sets
/// one for the commands it runs. Must be called before any thread is started: they inherit it.
fn survive_file_size_limits() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    if let Err(error) = signals.thread_block() {
        tracing::debug!(%error, "cannot block SIGXFSZ");
    }
}

fn deliver(args: &DeliverArgs) -> Result<(), Status> {
    let mut sources = args.sources.sources();
    // What does not fit in memory waits in an unlinked file; the command keeps no other state,
    // and pipe(8) runs it as a user who may have no home.
    let scratch_directory = scratch_directory();
    sources.flags.state_directory = Some(scratch_directory.clone());
    let configuration = Configuration::load_to_deliver(&sources)
        .map_err(|error| Status::configuration(error.to_string()))?;
    let mut settings = configuration.settings;
    settings.store.writers = 1;
    // One message is flushed faster than a log is opened, and several processes share mailboxes.
    settings.store.durability = Durability::Direct;
    let engine =
        Engine::open(&settings).map_err(|error| Status::configuration(error.to_string()))?;
    for warning in engine.table_warnings() {
        tracing::warn!("{warning}");
    }
    let runtime = relay(&engine, &settings)?;
    let mut router = engine.snapshot();
    let reverse_path = reverse_path(&args.sender)?;
    let mut to: Vec<(Recipient, Target)> = Vec::new();
    let original = args
        .original
        .as_deref()
        .map(|argument| parse_original_recipient(&octets::text(argument.as_bytes())));
    for argument in &args.recipient {
        let recipient = recipient(argument)?;
        let mut found = engine.find_targets(&router, recipient.clone(), false);
        // The tables were opened just now, perhaps while another program was writing them.
        if is_refused(&found) && engine.settle_tables() {
            router = engine.snapshot();
            found = engine.find_targets(&router, recipient, false);
        }
        let targets = found.targets.map_err(|error| {
            let status = error.status();
            Status::new(status.code, status.enhanced, error.to_string())
        })?;
        for (address, target) in targets {
            let original = original.clone();
            to.push((Recipient { address, original }, target));
        }
    }
    let message = read_message(
        &engine,
        settings.routing.message_size_limit,
        &scratch_directory,
    )?;
    let mail = Arc::new(Mail {
        reverse_path,
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message,
    });
    let outcomes = engine.deliver(mail, to);
    engine.close();
    if let Some(runtime) = runtime {
        // A resolver that hangs is not waited for.
        runtime.shutdown_background();
    }
    let failure = outcomes
        .into_iter()
        .map(|outcome| outcome.status)
        .filter(|s| !s.is_success());
    // A temporary failure of one recipient decides for all: the queue tries again.
    match failure.min_by_key(Status::is_permanent) {
        None => Ok(()),
        Some(status) => Err(status),
    }
}

/// Has the engine take mail on to other servers, where transports are in use. Returns what they are
/// talked to on.
fn relay(engine: &Engine, settings: &Settings) -> Result<Option<Runtime>, Status> {
    if !settings.transport.enabled {
        return Ok(None);
    }
    let failed = |error: std::io::Error| Status::system(format!("cannot start threads: {error}"));
    let runtime = build_runtime((1, STACK_BYTES), || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_stack_size(STACK_BYTES)
            .max_blocking_threads(LOOKUPS_MAX)
            .enable_all()
            .build()
    });
    let runtime = runtime.map_err(failed)?;
    let relays = Relays::new(settings, runtime.handle().clone()).map_err(Status::configuration)?;
    relays.register(engine, &settings.transport);
    Ok(Some(runtime))
}

/// Whether the recipient is permanently refused.
fn is_refused(found: &FoundTargets) -> bool {
    let error = found.targets.as_ref().err();
    error.is_some_and(|error| error.status().is_permanent())
}

/// Reads a recipient as pipe(8) passes it: in external form with its `q` flag, else unquoted.
fn recipient(argument: &OsStr) -> Result<Address, Status> {
    let text = octets::text(argument.as_bytes());
    parse_mailbox(&text).map_err(|error| bad_address(3, &text, error))
}

/// Reads the sender; the null sender of pipe(8) is `MAILER-DAEMON` (`null_sender`).
fn reverse_path(argument: &OsStr) -> Result<ReversePath, Status> {
    if argument.eq_ignore_ascii_case("MAILER-DAEMON") {
        return Ok(ReversePath::Null);
    }
    let text = octets::text(argument.as_bytes());
    parse_address(&text).map_err(|error| bad_address(7, &text, error))
}

fn bad_address(detail: u16, text: &str, error: AddressError) -> Status {
    let code = EnhancedCode::new(5, 1, detail);
    let text = octets::shown(text);
    Status::new(501, code, format!("<{text}>: bad address: {error}"))
}

/// Where large messages wait: `$TMPDIR`, or `/tmp` when that is no directory. Without either only
/// large messages fail.
fn scratch_directory() -> PathBuf {
    [std::env::temp_dir(), PathBuf::from("/tmp")]
        .into_iter()
        .find(|directory| directory.is_dir())
        .unwrap_or_else(|| PathBuf::from("/"))
}

/// Reads the message from standard input; `limit` in bytes, 0 for none.
fn read_message(engine: &Engine, limit: u64, scratch_directory: &Path) -> Result<Message, Status> {
    let unreadable =
        |error: std::io::Error| Status::system(format!("cannot read the message: {error}"));
    let spill = |error: std::io::Error| {
        Status::storage_full(format!(
            "cannot keep the message in {}: {error}",
            scratch_directory.display()
        ))
    };
    let mut message = engine.new_message().without_envelope_line();
    let mut line_ends = LineEnds::default();
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; 64 * 1024];
    let mut size: u64 = 0;
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        size += count as u64;
        if limit > 0 && size > limit {
            return Err(Status::new(
                552,
                EnhancedCode::new(5, 3, 4),
                format!("message is larger than message_size_limit = {limit} bytes"),
            ));
        }
        let piece = buffer.get_mut(..count).unwrap_or_default();
        let converted = line_ends.convert(piece);
        if converted.cr_first {
            message.write(b"\r").map_err(spill)?;
        }
        let piece = piece.get(..converted.produced).unwrap_or_default();
        message.write(piece).map_err(spill)?;
    }
    if line_ends.finish() {
        message.write(b"\r").map_err(spill)?;
    }
    message.finish().map_err(spill)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_address_from_pipe_is_taken_by_its_last_at_sign() {
        let address = recipient(OsStr::new("user@domain.tld@auto.example")).unwrap();
        assert_eq!(address.external(), "\"user@domain.tld\"@auto.example");
        let address = recipient(OsStr::new("two words@vm.example")).unwrap();
        assert_eq!(address.local_part, "two words");
        assert!(recipient(OsStr::new("")).is_err());
    }

    #[test]
    fn the_null_sender_has_three_spellings() {
        for sender in ["", "<>", "MAILER-DAEMON"] {
            let parsed = reverse_path(OsStr::new(sender));
            assert_eq!(parsed, Ok(ReversePath::Null), "{sender:?}");
        }
        assert!(matches!(
            reverse_path(OsStr::from_bytes(b"\xfc@b c#1")),
            Ok(ReversePath::Address(_))
        ));
    }
}
