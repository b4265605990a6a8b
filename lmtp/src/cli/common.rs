//! Arguments that subcommands share, and how a configuration that cannot be used is reported.
//!
//! Imports the engine's configuration.

use clap::Args;
use mailstow_engine::config::{Configuration, Flags, ListenAddress, Origin, Settings, Sources};
use mailstow_engine::descriptors::Descriptors;
use mailstow_engine::octets;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// EX_CONFIG of sysexits(3).
const CONFIGURATION_ERROR: u8 = 78;

/// Which files to read, or which domains and mailboxes there are without files.
#[derive(Clone, Debug, Default, Args)]
pub struct SiteArgs {
    /// Read this mailstow.toml. Without --config, --postfix and --domain,
    /// /etc/mailstow/mailstow.toml is read.
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

/// Writes a line to standard error. That nobody can be told is no reason to stop, nor to end with
/// another exit status, as eprintln! would.
pub fn complain(text: impl Display) {
    let text = text.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", octets::shown(&text));
}

/// Reports on standard error why the configuration cannot be used, one line for each cause.
pub fn configuration_failed(error: &dyn Display) -> ExitCode {
    for line in error.to_string().lines() {
        complain(format_args!("mailstow: {line}"));
    }
    ExitCode::from(CONFIGURATION_ERROR)
}

/// Makes the directory of the default socket when it is missing. Directories of sockets that
/// were configured are the operator's business.
///
/// # Errors
/// As mkdir(2).
pub fn make_socket_directory(configuration: &Configuration) -> io::Result<()> {
    let Some(directory) = default_socket_directory(configuration) else {
        return Ok(());
    };
    match std::fs::DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The directory of the default socket, if that is where the server listens.
pub(super) fn default_socket_directory(configuration: &Configuration) -> Option<PathBuf> {
    let entry = configuration.entry("lmtp", "listen")?;
    match configuration.settings.lmtp.listen.as_slice() {
        [ListenAddress::Unix(path)] if entry.origin == Origin::Default => {
            Some(path.parent()?.to_owned())
        }
        _ => None,
    }
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
