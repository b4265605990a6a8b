//! `mailstow lint`: what is odd about routing tables though each of them is well formed.
//!
//! Looks at mailboxes, but creates and changes nothing. Exit
//! status: 0 nothing found, 1 something found, 78 the configuration cannot be used.

use super::common::{SiteArgs, configuration_failed};
use super::output::Output;
use clap::Args;
use mailstow_engine::config::Configuration;
use mailstow_engine::route::{MailboxTarget, Present, Router, table_context};
use mailstow_engine::table::TableCache;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Arguments of `lint`.
#[derive(Debug, Args)]
pub(super) struct LintArgs {
    #[command(flatten)]
    sources: SiteArgs,
}

/// Runs the subcommand.
pub(super) fn run(args: &LintArgs) -> ExitCode {
    let configuration = match Configuration::load(&args.sources.sources()) {
        Ok(configuration) => configuration,
        Err(error) => return configuration_failed(&error),
    };
    let routing = &configuration.settings.routing;
    let cache = TableCache::new(table_context(routing));
    let router = match Router::open(routing, &cache) {
        Ok(router) => router,
        Err(error) => return configuration_failed(&error),
    };
    let base = &routing.virtual_mailbox_base;
    let findings = router.lint(|target| present(base, target));
    let mut out = Output::shown();
    let mut print = || {
        for finding in &findings {
            writeln!(out, "{finding}")?;
        }
        match findings.len() {
            0 => writeln!(out, "nothing found")?,
            1 => writeln!(out, "1 finding")?,
            count => writeln!(out, "{count} findings")?,
        }
        out.flush()
    };
    // A reader that has seen enough is no trouble of ours.
    let _ = print();
    ExitCode::from(u8::from(!findings.is_empty()))
}

/// What is at the place of a mailbox.
fn present(base: &Path, target: &MailboxTarget) -> Present {
    if base.as_os_str().is_empty() {
        return Present::Unknown;
    }
    let path = target.below(base);
    let Ok(metadata) = fs::metadata(&path) else {
        return Present::Unknown;
    };
    let is_maildir = || {
        ["cur", "new", "tmp"]
            .iter()
            .all(|name| path.join(name).is_dir())
    };
    if metadata.is_file() {
        Present::File
    } else if metadata.is_dir() && is_maildir() {
        Present::Maildir
    } else {
        Present::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailstow_engine::route::Format;

    #[test]
    fn maildirs_files_and_nothing_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let target = MailboxTarget::new(path, Format::Mbox, 1, 1).unwrap();
            present(directory.path(), &target)
        };
        for name in ["m/cur", "m/new", "m/tmp", "plain"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("file"), "x").unwrap();
        assert_eq!(at("m"), Present::Maildir);
        assert_eq!(at("file"), Present::File);
        assert_eq!(at("plain"), Present::Unknown);
        assert_eq!(at("none"), Present::Unknown);
    }
}
