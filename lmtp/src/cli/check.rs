//! `mailstow check`: what is wrong with the configuration and its environment, and how to fix it.
//!
//! Nothing is created or changed. Exit status 0 when `serve` would work with the same arguments.

mod access;
mod autoreplies;
mod delivery_log;
mod findings;
mod limits;
mod local;
mod mailboxes;
mod notices;
mod owners;
mod places;
mod running;
mod sockets;
mod table_lists;
mod transports;

use super::common::ServeArgs;
use crate::started_with::StartedWith;
use clap::Args;
use findings::Findings;
pub(super) use local::default_transport;
use mailstow_engine::config::{ConfigError, Configuration, Origin, Problem, Sources};
use mailstow_engine::route::{Owners, Router, table_context};
use mailstow_engine::table::{KeyInValues, TableCache, TableSet};
use running::Running;
use std::io::{self, Write};
use std::process::ExitCode;
use table_lists::open;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Also list what main.cf sets for other programs.
    #[arg(long, short)]
    verbose: bool,
}

/// Runs the subcommand.
pub fn run(args: &CheckArgs) -> ExitCode {
    let mut findings = Findings::default();
    let mut others = Vec::new();
    match inspect_beside_server(args.serve.sources(), &mut findings) {
        Ok((configuration, problems, running)) => {
            inspect(&configuration, &problems, running.as_ref(), &mut findings);
            others = configuration.other_parameters;
        }
        Err(error) => error
            .problems
            .iter()
            .for_each(|problem| findings.error(problem)),
    }
    let mut out = io::stdout().lock();
    if args.verbose && !others.is_empty() {
        let _ = writeln!(
            out,
            "main.cf sets for other programs: {}",
            others.join(", ")
        );
    }
    // The exit status says it too, if this cannot be written.
    let _ = write!(out, "{findings}");
    match findings.errors.as_slice() {
        [] => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The configuration as the server sees it that runs with it already, if one does: with what that
/// was started with, as far as our command line does not say otherwise.
fn inspect_beside_server(
    mut sources: Sources,
    findings: &mut Findings,
) -> Result<(Configuration, Vec<Problem>, Option<Running>), ConfigError> {
    let (configuration, problems) = Configuration::inspect(&sources)?;
    let site = StartedWith::of(&sources, &configuration);
    let directory = &configuration.settings.state_directory;
    let is_default = |section: &str, name: &str| is_default(&configuration, section, name);
    // Who names a state directory, in a file or a flag, asks for the server that uses this one.
    let of_site = || match is_default("", "state_directory") {
        true => Running::of_site(&site),
        false => None,
    };
    let has_listen = !is_default("lmtp", "listen");
    let mut server = match Running::on(directory) {
        Some(server) if server.serves(&site) => server,
        there => match of_site().or(there) {
            Some(server) => server,
            None => return Ok((configuration, problems, None)),
        },
    };
    if !server.serves(&site) {
        return Ok((configuration, problems, Some(server)));
    }
    server.is_ours = true;
    let added = server.started_with().complete(&mut sources, has_listen);
    if added.is_empty() {
        return Ok((configuration, problems, Some(server)));
    }
    findings.note(format_args!(
        "the server that runs with this configuration (process {}) was started with {}: checked \
         with that, too",
        server.pid,
        added.join(" ")
    ));
    let (configuration, problems) = Configuration::inspect(&sources)?;
    Ok((configuration, problems, Some(server)))
}

/// Whether a parameter is not set.
fn is_default(configuration: &Configuration, section: &str, name: &str) -> bool {
    let entry = configuration.entry(section, name);
    entry.is_none_or(|entry| entry.origin == Origin::Default)
}

/// Everything that is wrong with a configuration and its surroundings.
fn inspect(
    configuration: &Configuration,
    problems: &[Problem],
    running: Option<&Running>,
    findings: &mut Findings,
) {
    findings.partial = !problems.is_empty();
    problems.iter().for_each(|problem| findings.error(problem));
    check(configuration, running, findings);
}

fn check(configuration: &Configuration, running: Option<&Running>, findings: &mut Findings) {
    let settings = &configuration.settings;
    configuration
        .warnings
        .iter()
        .chain(&configuration.handover)
        .for_each(|warning| findings.warning(warning));
    configuration
        .advice
        .iter()
        .for_each(|advice| findings.note(advice));
    tables(configuration, findings);
    let before = findings.errors.len();
    let has_base = !settings.routing.virtual_mailbox_base.as_os_str().is_empty();
    let owners = match has_base || settings.needs_base() {
        true => owners::check(&settings.routing, findings),
        // Who would own what is stored nowhere?
        false => Owners::default(),
    };
    let owners_known = findings.errors.len() == before;
    places::base(settings, &owners, findings);
    places::state(configuration, findings);
    delivery_log::check(settings, running, findings);
    limits::check(settings, running, findings);
    mailboxes::check(&settings.routing, owners_known, findings);
    notices::check(settings, findings);
    sockets::check(configuration, running, findings);
    transports::check(settings, findings);
    autoreplies::check(settings, findings);
    local::check(configuration, findings);
}

/// Opens every table, each parameter by itself so that all that fail are named.
fn tables(configuration: &Configuration, findings: &mut Findings) {
    let settings = &configuration.settings;
    let routing = &settings.routing;
    let context = table_context(routing);
    let cache = TableCache::new(context);
    let mut failed = Vec::new();
    let mut lists = vec![
        ("virtual_mailbox_maps", &routing.virtual_mailbox_maps),
        ("virtual_uid_maps", &routing.virtual_uid_maps),
        ("virtual_gid_maps", &routing.virtual_gid_maps),
    ];
    if settings.transport.enabled {
        lists.push(("transport_maps", &routing.transport_maps));
    }
    if settings.lmtp.expand_aliases {
        lists.push(("virtual_alias_maps", &routing.virtual_alias_maps));
    }
    for (name, list) in lists {
        match open(&cache, name, list, &routing.default_database_type) {
            Ok(tables) if name.ends_with("id_maps") => owners_of_senders(name, &tables, findings),
            Ok(_) => {}
            Err(error) => {
                let error = format!("{name}: {error}");
                findings.error(&error);
                failed.push(error);
            }
        }
    }
    if settings.delivers_locally()
        && let Some(error) = local::alias_error(configuration, &cache)
    {
        match is_default(configuration, "routing", "alias_maps") {
            // Machines without aliases have no file at the place that is the default.
            true => findings.note(error),
            false => findings.error(error),
        }
    }
    let mut warned = Vec::new();
    match Router::open(routing, &cache) {
        Ok(router) => warned.extend_from_slice(router.warnings()),
        Err(error) if failed.contains(&error.to_string()) => {}
        Err(error) => findings.error(error),
    }
    warned.extend(cache.warnings());
    maps(&cache, findings);
    warned.retain(|warning| !findings.errors.contains(warning));
    warned.iter().for_each(|warning| findings.warning(warning));
    if routing.virtual_mailbox_maps.is_empty() && !settings.delivers_elsewhere() {
        findings.unset(
            "virtual_mailbox_maps is empty: every recipient is refused; name a table of \
             mailboxes, or use --domain",
        );
    }
}

/// Tables that make an owner out of the address, which is refused when mail comes.
fn owners_of_senders(parameter: &str, tables: &TableSet, findings: &mut Findings) {
    for table in tables.tables() {
        if table.key_in_values() == KeyInValues::Always {
            findings.error(format_args!(
                "{parameter}: table {} makes the id from the address (result_format), so that a \
                 sender would choose the owner: its mail is deferred; take the id from the table \
                 alone",
                table.name()
            ));
        }
    }
}

/// Reads every recipient map from its first byte to its last.
fn maps(cache: &TableCache, findings: &mut Findings) {
    for defect in cache.defects() {
        findings.error(defect);
    }
    for map in cache.maps() {
        let view = map.view();
        let verified = view.reader().verify(|_, _| {});
        if let Err(error) = verified {
            findings.error(format_args!("{}: {error}", map.path().display()));
        }
    }
}

#[cfg(test)]
#[path = "check/tests.rs"]
mod tests;
