//! The command line: one file per subcommand, and what they share.
//!
//! Exit statuses are sysexits(3) where a program is likely to look at them.

pub mod check;
pub mod common;
pub mod config;
pub mod deliver;
mod diff;
pub mod health;
pub mod lint;
pub mod log;
#[cfg(test)]
mod manual;
pub mod map;
mod output;
mod publish;
pub mod resolve;
mod routes;
pub mod serve;
mod sysexits;
pub mod table;

use clap::{Parser, Subcommand};
use common::complain;
use std::panic::catch_unwind;
use std::process::ExitCode;

/// The mailbox store behind Postfix: accepts mail over LMTP and keeps it in Maildirs and mboxes,
/// durably.
#[derive(Debug, Parser)]
#[command(
    name = "mailstow",
    version,
    propagate_version = true,
    after_long_help = include_str!("help/mailstow.txt")
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the LMTP server in the foreground.
    #[command(after_long_help = include_str!("help/serve.txt"))]
    Serve(serve::ServeArgs),
    /// Deliver one message from standard input, for pipe(8) and scripts.
    #[command(after_long_help = include_str!("help/deliver.txt"))]
    Deliver(deliver::DeliverArgs),
    /// Show where mail for an address goes.
    #[command(after_long_help = include_str!("help/resolve.txt"))]
    Resolve(resolve::ResolveArgs),
    /// Query, print, compile, compare and replace lookup tables.
    #[command(after_long_help = include_str!("help/table.txt"))]
    Table(table::TableArgs),
    /// Print the effective settings and where each comes from.
    Config(config::ConfigArgs),
    /// Find likely mistakes in well-formed tables, such as aliases that lead nowhere.
    #[command(after_long_help = include_str!("help/lint.txt"))]
    Lint(lint::LintArgs),
    /// Validate configuration, tables and directories.
    #[command(after_long_help = include_str!("help/check.txt"))]
    Check(check::CheckArgs),
    /// Report whether the server delivers mail, for monitoring.
    #[command(after_long_help = include_str!("help/health.txt"))]
    Health(health::HealthArgs),
    /// Show the servers that mailstow forwards mail to, their state and their counters.
    #[command(after_long_help = include_str!("help/routes.txt"))]
    Routes(health::HealthArgs),
    /// Inspect, verify and recover a delivery log.
    #[command(after_long_help = include_str!("help/log.txt"))]
    Log(log::LogArgs),
    /// Build, verify and change a compiled recipient map.
    #[command(after_long_help = include_str!("help/map.txt"))]
    Map(map::MapArgs),
}

/// Parses the command line and runs the subcommand.
///
/// pipe(8) runs `deliver`, and takes every exit status it does not know for a reason to bounce,
/// and 0 for a stored message: for it, a wrong command line and a panic are temporary
/// failures too, and so is a request for help in the place of an address.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let may_ask_for_help = arguments.len() == 3;
    let is_delivery = arguments.nth(1).is_some_and(|word| word == "deliver");
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if is_delivery && (error.use_stderr() || !may_ask_for_help) => {
            complain("4.3.5 mail system configuration error: wrong command line");
            complain(error.to_string().trim_end());
            return ExitCode::from(sysexits::TEMPORARY_FAILURE);
        }
        Err(error) => error.exit(),
    };
    if !is_delivery {
        return cli.run();
    }
    catch_unwind(|| cli.run()).unwrap_or_else(|_| {
        complain("4.3.0 mail system error");
        ExitCode::from(sysexits::TEMPORARY_FAILURE)
    })
}

impl Cli {
    fn run(&self) -> ExitCode {
        match &self.command {
            Command::Serve(args) => serve::run(args),
            Command::Deliver(args) => deliver::run(args),
            Command::Resolve(args) => resolve::run(args),
            Command::Table(args) => table::run(args),
            Command::Config(args) => config::run(args),
            Command::Lint(args) => lint::run(args),
            Command::Check(args) => check::run(args),
            Command::Health(args) => health::run(args),
            Command::Routes(args) => routes::run(args),
            Command::Log(args) => log::run(args),
            Command::Map(args) => map::run(args),
        }
    }
}
