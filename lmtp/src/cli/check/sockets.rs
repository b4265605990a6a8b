//! Listen addresses: whether `serve` could open each of them now.
//!
//! Sockets are tried and closed again; nothing is left behind and no socket file is touched. Those
//! of the server that runs on the same state directory are its own and are not tried.

use super::super::common::is_made;
use super::access;
use super::findings::Findings;
use super::places::may_write;
use super::running::Running;
use crate::dial::dial;
use crate::listener::{self, Listener};
use mailstow_engine::config::{Configuration, ListenAddress};
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
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
        if let Some(server) = running.filter(|server| server.is_ours && !server.is_activated()) {
            findings.note(format_args!(
                "listen {address}: the server that runs with this configuration (process {}) \
                 listens on {} only; restart it",
                server.pid,
                server.listens()
            ));
        }
        match address {
            ListenAddress::Unix(path) => {
                unix(path, findings);
            }
            ListenAddress::Inet { host, port } => opened.extend(inet(host, *port, findings)),
        }
    }
    let maps = &configuration.settings.socketmap.listen;
    has_unix |= maps.iter().any(|map| matches!(map, ListenAddress::Unix(_)));
    if has_unix {
        access::check(configuration, findings);
    }
}

fn unix(path: &Path, findings: &mut Findings) {
    let name = format!("listen unix:{}", path.display());
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    // The directory of the default socket is made by serve.
    let made_in = directory
        .parent()
        .filter(|_| is_made(directory) && !directory.exists());
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
            "{name}: the file is no socket; remove it or listen elsewhere"
        )),
        Ok(_) => match dial(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => findings.error(format_args!(
                "{name}: the server that listens on this socket accepts no connection; see whether \
                 it is stopped"
            )),
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
