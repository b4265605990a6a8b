//! Arguments that subcommands share, and how a configuration that cannot be used is reported.

use super::sysexits;
use clap::Args;
use mailstow_engine::config::{Flags, ListenAddress, Settings, Sources};
use mailstow_engine::descriptors::Descriptors;
use mailstow_engine::octets;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Which files to read, or which domains and mailboxes there are without files.
#[derive(Clone, Debug, Default, Args)]
pub struct SiteArgs {
    /// Read this mailstow.toml. The default is /etc/mailstow/mailstow.toml, which is not read with
    /// --postfix or --domain.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read main.cf in this directory (Postfix's configuration directory).
    #[arg(long, value_name = "DIR")]
    postfix: Option<PathBuf>,
    /// Accept mail for this domain; without tables every local part has a Maildir. May be
    /// repeated.
    #[arg(long, value_name = "DOMAIN")]
    domain: Vec<String>,
    /// Keep mailboxes below this directory.
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
}

impl SiteArgs {
    /// What to load.
    pub fn sources(&self) -> Sources {
        Sources {
            by_program: false,
            config: self.config.clone(),
            postfix: self.postfix.clone(),
            flags: Flags {
                domains: self.domain.clone(),
                base: self.base.clone(),
                ..Flags::default()
            },
            settings: Vec::new(),
        }
    }
}

/// Which files to read, and settings that win over what they say.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    site: SiteArgs,
    /// Listen here: unix:PATH, inet:HOST:PORT, or a path. May be repeated.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Keep mailstow's own files here.
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,
}

impl ServeArgs {
    /// What to load.
    pub fn sources(&self) -> Sources {
        let mut sources = self.site.sources();
        sources.flags.listen.clone_from(&self.listen);
        sources
            .flags
            .state_directory
            .clone_from(&self.state_directory);
        sources
    }
}

/// Writes a line to standard error. Unlike eprintln!, it ignores an error, so that the command goes
/// on and keeps its exit status.
pub fn complain(text: impl Display) {
    let text = text.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", octets::shown(&text));
}

/// Reports on standard error why the configuration cannot be used, one line for each cause.
pub fn configuration_failed(error: &dyn Display) -> ExitCode {
    for line in error.to_string().lines() {
        complain(format_args!("mailstow: {line}"));
    }
    ExitCode::from(sysexits::CONFIGURATION)
}

/// The directory of the default socket, which is gone after a restart of the machine.
const SOCKET_DIRECTORY: &str = "/run/mailstow";

/// Makes the directory of the default socket when it is missing and a socket goes there, by
/// default or because it is configured. Other directories are the operator's business.
///
/// # Errors
/// As mkdir(2).
pub fn make_socket_directory(settings: &Settings) -> io::Result<()> {
    let mut sockets = settings
        .lmtp
        .listen
        .iter()
        .chain(&settings.socketmap.listen);
    let is_needed = sockets.any(|address| match address {
        ListenAddress::Unix(path) => path.parent().is_some_and(is_made),
        ListenAddress::Inet { .. } => false,
    });
    if !is_needed {
        return Ok(());
    }
    let made = std::fs::DirBuilder::new()
        .mode(0o755)
        .create(SOCKET_DIRECTORY);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let text = format!(
                "{SOCKET_DIRECTORY}: {error}; create it for the user mailstow runs as, or listen \
                 elsewhere"
            );
            Err(io::Error::new(error.kind(), text))
        }
        _ => Ok(()),
    }
}

/// Whether the server makes this directory for its sockets.
pub(super) fn is_made(directory: &Path) -> bool {
    directory == Path::new(SOCKET_DIRECTORY)
}

/// What it means when not so many files may be open as the settings want.
pub(super) fn too_few_files(plan: &Descriptors, settings: &Settings) -> Option<String> {
    let wanted = settings.limits.connections;
    (plan.connections() < wanted).then(|| {
        format!(
            "only {} files may be open, of which the store needs {}: {} connections are admitted, \
             not limits.connections = {wanted}; raise LimitNOFILE= (ulimit -n) to {}, or lower \
             limits.connections",
            plan.limit(),
            plan.reserved(),
            plan.connections(),
            Descriptors::limit_for(settings)
        )
    })
}
