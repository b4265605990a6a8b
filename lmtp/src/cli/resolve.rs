//! `mailstow resolve`: where mail for an address goes.
//!
//! No mailbox is touched. Exit status: 0 when every address is accepted, 1 when one is permanently
//! refused, 75 when one is deferred.

use super::check::default_transport;
use super::common::{SiteArgs, complain};
use super::output::Output;
use super::sysexits;
use crate::relay;
use clap::Args;
use mailstow_engine::address::parse_mailbox;
use mailstow_engine::config::{Configuration, Settings};
use mailstow_engine::octets;
use mailstow_engine::route::{
    AddressClass, Destination, Format, MailboxTarget, Resolution, Route, Router, Step,
    table_context,
};
use mailstow_engine::table::TableCache;
use mailstow_engine::transport::{LocalEnd, TransportTarget, problem};
use mailstow_engine::{EnhancedCode, Status, Target};
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

/// An address is refused.
const REFUSED: u8 = 1;

/// Arguments of `resolve`.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    #[command(flatten)]
    sources: SiteArgs,
    /// Print one JSON object per address.
    #[arg(long)]
    json: bool,
    /// Print every lookup and the table and line that decided.
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    /// The addresses to resolve.
    #[arg(required = true)]
    address: Vec<OsString>,
}

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    address: &'a str,
    results: Vec<Entry>,
    error: Option<Error>,
}

#[derive(Serialize)]
struct Entry {
    recipient: String,
    class: String,
    transport: String,
    nexthop: String,
    mailbox: Option<String>,
    format: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    destination: &'static str,
    command: Option<String>,
    user: Option<String>,
    sender: Option<String>,
    refusal: Option<Error>,
}

#[derive(Serialize)]
struct Error {
    code: u16,
    enhanced: String,
    text: String,
}

impl From<&Status> for Error {
    fn from(status: &Status) -> Self {
        Self {
            code: status.code,
            enhanced: status.enhanced.to_string(),
            text: status.text.to_string(),
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &ResolveArgs) -> ExitCode {
    let configuration = match Configuration::load(&args.sources.sources()) {
        Ok(configuration) => configuration,
        Err(error) => return super::common::configuration_failed(&error),
    };
    let routing = &configuration.settings.routing;
    let context = table_context(routing);
    let cache = TableCache::new(context);
    let router = match Router::open(routing, &cache) {
        Ok(router) => router,
        Err(error) => return super::common::configuration_failed(&error),
    };
    for warning in cache.warnings() {
        complain(format_args!("warning: {warning}"));
    }
    let mut out = match args.json {
        true => Output::shown(),
        false => Output::octets(),
    };
    let printed = print(args, &router, &configuration, &mut out);
    match printed.and_then(|worst| out.flush().map(|()| worst)) {
        Ok(worst) => ExitCode::from(worst),
        // A reader that went away, as head(1) does, has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!(
                "mailstow: cannot write to standard output: {error}"
            ));
            ExitCode::from(sysexits::TEMPORARY_FAILURE)
        }
    }
}

/// Prints what becomes of each address; the exit status.
fn print(
    args: &ResolveArgs,
    router: &Router,
    configuration: &Configuration,
    out: &mut impl Write,
) -> io::Result<u8> {
    let settings = &configuration.settings;
    let base = settings.routing.virtual_mailbox_base.as_path();
    let mut worst = 0;
    for argument in &args.address {
        let address = &*octets::text(argument.as_bytes());
        let (mut resolution, steps) = resolve(router, address, args.explain);
        if settings.transport.enabled {
            by_transport(router, settings, address, &mut resolution);
        }
        worst = worst.max(match &resolution.error {
            None => 0,
            Some(status) if status.is_temporary() => sysexits::TEMPORARY_FAILURE,
            Some(_) => REFUSED,
        });
        if args.json {
            print_json(address, &resolution, base, out)?;
        } else {
            writeln!(out, "{address}")?;
            for step in steps {
                writeln!(out, "    {step}")?;
            }
            print_text(&resolution, base, out)?;
            let is_stored = resolution.results.iter().any(|one| one.mailbox.is_some());
            if !is_stored
                && is_local(router, address)
                && let Some(note) = of_accounts(configuration)
            {
                writeln!(out, "  note       {note}")?;
            }
        }
    }
    Ok(worst)
}

/// Returns what to know of mail for accounts of this machine.
fn of_accounts(configuration: &Configuration) -> Option<String> {
    match configuration.settings.transport.enabled {
        true => default_transport(configuration),
        false => Some(
            "Postfix delivers this mail: mailstow takes none for accounts of this machine while \
             [transport] is not enabled"
                .to_owned(),
        ),
    }
}

/// Whether mail for an address goes by `local_transport`, before aliases lead it elsewhere.
fn is_local(router: &Router, address: &str) -> bool {
    let Ok(address) = parse_mailbox(address) else {
        return false;
    };
    let domain = router.complete(address).domain.unwrap_or_default();
    router
        .class(&domain)
        .is_ok_and(|class| class == AddressClass::Local)
}

fn resolve(router: &Router, address: &str, explain: bool) -> (Resolution, Vec<Step>) {
    match parse_mailbox(address) {
        Ok(address) if explain => {
            let (resolution, trace) = router.explain(&address);
            (resolution, trace.steps().to_vec())
        }
        Ok(address) => (router.resolve(&address), Vec::new()),
        Err(error) => {
            let code = EnhancedCode::new(5, 1, 3);
            let resolution = Resolution {
                error: Some(Status::new(501, code, error.to_string())),
                ..Resolution::default()
            };
            (resolution, Vec::new())
        }
    }
}

/// Corrects a resolution where mail goes by transports: what another one than mailstow's own takes
/// is not stored, and mail that no transport here takes is deferred.
fn by_transport(router: &Router, settings: &Settings, address: &str, resolution: &mut Resolution) {
    let Ok(address) = parse_mailbox(address) else {
        return;
    };
    let is_own = |transport: &str, nexthop: &str| settings.is_own_socket(transport, nexthop);
    // Behind Postfix, mailstow gets the final recipients.
    let finals = resolution.results.iter();
    let finals = finals.filter_map(|route| parse_mailbox(&route.recipient).ok());
    let finals: Vec<_> = match settings.lmtp.expand_aliases || resolution.results.is_empty() {
        true => vec![address],
        false => finals.collect(),
    };
    let expand_aliases = settings.lmtp.expand_aliases;
    let mut targets = Vec::new();
    (resolution.error, resolution.reason) = (None, None);
    for address in finals {
        match router
            .find_targets(address, expand_aliases, &is_own)
            .targets
        {
            Ok(found) => targets.extend(found),
            Err(error) => {
                resolution.error = Some(error.status());
                resolution.reason = Some(error.to_string());
                return;
            }
        }
    }
    for (recipient, target) in targets {
        // Where local delivery takes mail is said as it is, also what is sent on from there.
        if let Target::Local(target) = target {
            if let LocalEnd::Transport(target) = target.end {
                note_problem(&target, settings, resolution);
            }
            continue;
        }
        let recipient = recipient.external();
        let mut routes = resolution.results.iter_mut();
        let Some(route) = routes.find(|route| route.recipient == recipient) else {
            continue;
        };
        match target {
            Target::Mailbox(mailbox) => {
                route.mailbox = Some(mailbox);
                route.destination = Destination::Mailbox;
            }
            Target::Transport(target) => {
                route.mailbox = None;
                route.destination = Destination::Transport;
                note_problem(&target, settings, resolution);
            }
            Target::Local(_) => {}
        }
    }
}

/// Notes that nothing here takes mail by a transport, or that its nexthop names no server.
fn note_problem(target: &TransportTarget, settings: &Settings, resolution: &mut Resolution) {
    let TransportTarget { transport, nexthop } = target;
    let found = problem(transport, settings)
        .or_else(|| relay::nexthop_problem(transport, nexthop, settings));
    if let Some(cause) = found {
        let text = "mail system configuration error";
        resolution.error = Some(Status::configuration(text));
        resolution.reason = Some(format!("transport {transport}: {cause}"));
    }
}

/// The mailbox as an operator writes it: a Maildir ends in `/`.
fn mailbox_path(base: &Path, target: &MailboxTarget) -> String {
    let slash = if target.format == Format::Maildir {
        "/"
    } else {
        ""
    };
    // As text, which may hold any octets.
    let base = base.to_string_lossy();
    format!("{}/{}{slash}", base.trim_end_matches('/'), target.path)
}

/// Where the mail of a final recipient is written, in which format and as whom.
fn store(route: &Route, base: &Path) -> Option<(String, Format, u32, u32)> {
    match (&route.mailbox, &route.destination) {
        (Some(target), _) => {
            let path = mailbox_path(base, target);
            Some((path, target.format, target.uid, target.gid))
        }
        (
            None,
            Destination::User {
                path,
                format,
                rights,
            },
        )
        | (
            None,
            Destination::File {
                path,
                format,
                rights,
            },
        ) => {
            let path = path.display().to_string();
            Some((path, *format, rights.uid, rights.gid))
        }
        (None, _) => None,
    }
}

/// The name of a destination, for programs.
fn kind(destination: &Destination) -> &'static str {
    match destination {
        Destination::Transport => "transport",
        Destination::Mailbox | Destination::User { .. } => "mailbox",
        Destination::File { .. } => "file",
        Destination::Command { .. } => "command",
        Destination::Discarded => "discarded",
        Destination::Refused(_) => "refused",
        _ => "other",
    }
}

fn print_json(
    address: &str,
    resolution: &Resolution,
    base: &Path,
    out: &mut impl Write,
) -> io::Result<()> {
    let result = |route: &Route| {
        let store = store(route, base);
        Entry {
            recipient: route.recipient.clone(),
            class: route.class.to_string(),
            transport: route.transport.clone(),
            nexthop: route.nexthop.clone(),
            mailbox: store.as_ref().map(|(path, ..)| path.clone()),
            format: store.as_ref().map(|(_, format, ..)| format.to_string()),
            uid: store.as_ref().map(|(_, _, uid, _)| *uid),
            gid: store.as_ref().map(|(.., gid)| *gid),
            destination: kind(&route.destination),
            command: match &route.destination {
                Destination::Command { command, .. } => Some(command.clone()),
                _ => None,
            },
            user: match &route.destination {
                Destination::Command { rights, .. }
                | Destination::File { rights, .. }
                | Destination::User { rights, .. } => Some(rights.user.to_string()),
                _ => None,
            },
            sender: route.sender.clone(),
            refusal: match &route.destination {
                Destination::Refused(status) => Some(status.into()),
                _ => None,
            },
        }
    };
    let line = Line {
        address,
        results: resolution.results.iter().map(result).collect(),
        error: resolution.error.as_ref().map(Error::from),
    };
    writeln!(out, "{}", serde_json::to_string(&line)?)
}

fn print_text(resolution: &Resolution, base: &Path, out: &mut impl Write) -> io::Result<()> {
    for route in &resolution.results {
        writeln!(out, "  recipient  {}", route.recipient)?;
        writeln!(out, "  class      {}", route.class)?;
        writeln!(out, "  transport  {}:{}", route.transport, route.nexthop)?;
        if let Some((path, format, uid, gid)) = store(route, base) {
            writeln!(out, "  mailbox    {path}")?;
            writeln!(out, "  format     {format}")?;
            writeln!(out, "  uid, gid   {uid}, {gid}")?;
        }
        match &route.destination {
            Destination::Command { command, rights } => {
                writeln!(out, "  command    {command}")?;
                writeln!(out, "  run as     {}", rights.user)?;
            }
            Destination::Discarded => {
                writeln!(out, "  discarded  there is no one to deliver it to")?
            }
            Destination::Refused(status) if resolution.error.as_ref() != Some(status) => {
                writeln!(out, "  returned   {status}")?;
            }
            _ => {}
        }
        if let Some(sender) = &route.sender {
            let sender = if sender.is_empty() { "<>" } else { sender };
            writeln!(out, "  sender     {sender}")?;
        }
    }
    if let Some(status) = &resolution.error {
        writeln!(out, "  refused    {status}")?;
    }
    if let Some(reason) = &resolution.reason {
        writeln!(out, "  because    {reason}")?;
    }
    Ok(())
}
