//! Listen addresses: whether `serve` could open each of them now.
//!
//! Imports `running`, `listener` and the engine's configuration. Sockets are tried and closed
//! again; nothing is left behind and no socket file is touched. Those of the server that runs on
//! the same state directory are its own and are not tried.

use super::super::common::default_socket_directory;
use super::Findings;
use super::places::may_write;
use super::running::Running;
use crate::listener::{self, Listener};
use mailstow_engine::config::{Configuration, ListenAddress, LmtpSettings};
use nix::unistd::{Group, User};
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

pub(super) fn check(
    configuration: &Configuration,
    running: Option<&Running>,
    findings: &mut Findings,
) {
    let addresses = match configuration.listen() {
        Ok(addresses) => addresses,
        Err(error) => {
            findings.unset(error);
            return;
        }
    };
    let mut has_unix = false;
    let mut opened = Vec::new();
    for address in addresses {
        has_unix |= matches!(address, ListenAddress::Unix(_));
        if let Some(server) = running.filter(|server| server.has(address)) {
            findings.note(format_args!(
                "listen {address}: not tried, the server that runs on this state directory \
                 (process {}) listens there",
                server.pid
            ));
            continue;
        }
        match address {
            ListenAddress::Unix(path) => {
                unix(
                    path,
                    default_socket_directory(configuration).is_some(),
                    findings,
                );
            }
            ListenAddress::Inet { host, port } => opened.extend(inet(host, *port, findings)),
        }
    }
    if has_unix {
        ownership(&configuration.settings.lmtp, findings);
    }
}

fn unix(path: &Path, is_default: bool, findings: &mut Findings) {
    let name = format!("listen unix:{}", path.display());
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    // The directory of the default socket is made by serve.
    let made_in = directory
        .parent()
        .filter(|_| is_default && !directory.exists());
    if let Err(error) = may_write(made_in.unwrap_or(directory)) {
        findings.error(format_args!(
            "{name}: its directory cannot be written: {error}; create {} for the user mailstow \
             runs as",
            directory.display()
        ));
        return;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => findings.error(format_args!("{name}: {error}; listen elsewhere")),
        Ok(metadata) if !metadata.file_type().is_socket() => findings.error(format_args!(
            "{name}: a file that is no socket stands there; remove it or listen elsewhere"
        )),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => findings.error(format_args!(
                "{name}: another server is listening on this socket; stop it or listen elsewhere"
            )),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => findings.error(format_args!(
                "{name}: cannot tell whether another server listens there: {error}; remove the \
                 socket or listen elsewhere"
            )),
        },
    }
}

/// Opens the sockets as `serve` does; the caller keeps them, so that two addresses that exclude
/// each other are found out.
fn inet(host: &str, port: u16, findings: &mut Findings) -> Vec<Listener> {
    listener::open_host(host, port).unwrap_or_else(|error| {
        findings.error(format_args!("listen {error}"));
        Vec::new()
    })
}

/// Whether the socket's owner and group exist and may be set by us.
fn ownership(settings: &LmtpSettings, findings: &mut Findings) {
    let euid = rustix::process::geteuid().as_raw();
    let owner = id(
        "socket_owner",
        "user",
        &settings.socket_owner,
        findings,
        |name| Some(User::from_name(name).ok()??.uid.as_raw()),
    );
    if owner.is_some_and(|owner| euid != 0 && owner != euid) {
        findings.error(format_args!(
            "socket_owner = {}: only root gives a socket to another user; start as root or \
             leave it empty",
            settings.socket_owner
        ));
    }
    let group = id(
        "socket_group",
        "group",
        &settings.socket_group,
        findings,
        |name| Some(Group::from_name(name).ok()??.gid.as_raw()),
    );
    if group.is_some_and(|group| euid != 0 && !is_ours(group)) {
        findings.error(format_args!(
            "socket_group = {}: this user is no member of it; make it one or leave it empty",
            settings.socket_group
        ));
    }
}

/// The id of a user or group given by name or number; empty is nobody.
fn id(
    parameter: &str,
    what: &str,
    text: &str,
    findings: &mut Findings,
    by_name: impl Fn(&str) -> Option<u32>,
) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let id = text.parse().ok().or_else(|| by_name(text));
    if id.is_none() {
        findings.error(format_args!(
            "{parameter} = {text}: there is no such {what}; create it or give its number"
        ));
    }
    id
}

fn is_ours(group: u32) -> bool {
    let more = rustix::process::getgroups().unwrap_or_default();
    rustix::process::getegid().as_raw() == group || more.iter().any(|id| id.as_raw() == group)
}
