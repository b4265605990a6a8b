//! `mailstow resolve`: where mail for an address goes.
//!
//! Imports the engine's router only; no mailbox is touched. Exit status: 0 when every address
//! is accepted, 1 when one is refused for good, 75 when one is deferred.

use super::common::SiteArgs;
use clap::Args;
use mailstow_engine::address::parse_mailbox;
use mailstow_engine::config::Configuration;
use mailstow_engine::route::{
    Format, MailboxTarget, Resolution, Route, RouteError, Router, table_context,
};
use mailstow_engine::status::{EnhancedCode, Status};
use mailstow_engine::table::TableCache;
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

/// Arguments of `resolve`.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    #[command(flatten)]
    sources: SiteArgs,
    /// Print one JSON object per address.
    #[arg(long)]
    json: bool,
    /// The addresses.
    #[arg(required = true)]
    address: Vec<String>,
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
}

#[derive(Serialize)]
struct Error {
    code: u16,
    enhanced: String,
    text: String,
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
        eprintln!("warning: {warning}");
    }
    let mut worst = 0;
    for address in &args.address {
        let resolution = resolve(&router, address);
        worst = worst.max(match &resolution.error {
            None => 0,
            Some(status) if status.is_temporary() => 75,
            Some(_) => 1,
        });
        if args.json {
            print_json(address, &resolution, &routing.virtual_mailbox_base);
        } else {
            print_text(address, &resolution, &routing.virtual_mailbox_base);
            if let Some(reason) = reason(&router, address) {
                println!("  because    {reason}");
            }
        }
    }
    ExitCode::from(worst)
}

fn resolve(router: &Router, address: &str) -> Resolution {
    match parse_mailbox(address) {
        Ok(address) => router.resolve(&address),
        Err(error) => Resolution {
            results: Vec::new(),
            error: Some(Status::new(
                501,
                EnhancedCode::new(5, 1, 3),
                error.to_string(),
            )),
        },
    }
}

/// Why there is no mailbox, as the log would say it, where clients are told less.
fn reason(router: &Router, address: &str) -> Option<String> {
    let address = router.complete(parse_mailbox(address).ok()?);
    match router.mailbox(&address) {
        Ok(_) | Err(RouteError::UnknownUser { .. }) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// The mailbox as an operator writes it: a Maildir ends in `/`.
fn mailbox_path(base: &Path, target: &MailboxTarget) -> String {
    let slash = if target.format == Format::Maildir {
        "/"
    } else {
        ""
    };
    format!("{}{slash}", base.join(&target.path).display())
}

fn print_json(address: &str, resolution: &Resolution, base: &Path) {
    let result = |route: &Route| Entry {
        recipient: route.recipient.clone(),
        class: route.class.to_string(),
        transport: route.transport.clone(),
        nexthop: route.nexthop.clone(),
        mailbox: route
            .mailbox
            .as_ref()
            .map(|target| mailbox_path(base, target)),
        format: route
            .mailbox
            .as_ref()
            .map(|target| target.format.to_string()),
        uid: route.mailbox.as_ref().map(|target| target.uid),
        gid: route.mailbox.as_ref().map(|target| target.gid),
    };
    let line = Line {
        address,
        results: resolution.results.iter().map(result).collect(),
        error: resolution.error.as_ref().map(|status| Error {
            code: status.code,
            enhanced: status.enhanced.to_string(),
            text: status.text.to_string(),
        }),
    };
    match serde_json::to_string(&line) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("error: {address}: cannot be written as JSON: {error}"),
    }
}

fn print_text(address: &str, resolution: &Resolution, base: &Path) {
    println!("{address}");
    for route in &resolution.results {
        println!("  recipient  {}", route.recipient);
        println!("  class      {}", route.class);
        println!("  transport  {}:{}", route.transport, route.nexthop);
        if let Some(target) = &route.mailbox {
            println!("  mailbox    {}", mailbox_path(base, target));
            println!("  format     {}", target.format);
            println!("  uid, gid   {}, {}", target.uid, target.gid);
        }
    }
    if let Some(status) = &resolution.error {
        println!("  refused    {status}");
    }
}
