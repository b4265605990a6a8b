//! What `master.cf` says that concerns mailstow: overrides for the program it stands in for, and
//! an lmtp(8) that cannot see its socket.
//!
//! Imports nothing beyond this room. Sources: master(5), lmtp(8).

use std::path::{Path, PathBuf};

use super::listen::ListenAddress;
use super::postfix::Service;
use super::registry::find;
use super::settings::Settings;
use super::values::Values;

/// Warnings about the services of the `master.cf` at `path`.
pub(super) fn review_services(
    path: &Path,
    services: &[Service],
    values: &Values,
    settings: &Settings,
) -> Vec<String> {
    let mut warnings = overrides(path, services);
    warnings.extend(hidden_socket(path, services, values, settings));
    warnings
}

/// Overrides of our parameters for virtual(8).
fn overrides(path: &Path, services: &[Service]) -> Vec<String> {
    let mut warnings = Vec::new();
    for service in services {
        if service.command != "virtual" {
            continue;
        }
        for (name, _) in &service.overrides {
            if find("routing", name).is_some() {
                warnings.push(format!(
                    "{}:{}: service {} sets {name} with -o, which mailstow does not read; set \
                     it in main.cf or mailstow.toml",
                    path.display(),
                    service.line,
                    service.name
                ));
            }
        }
    }
    warnings
}

/// A socket that `virtual_transport` names outside of the root directory of a chrooted lmtp(8):
/// mail would wait in the queue with "No such file or directory".
fn hidden_socket(
    path: &Path,
    services: &[Service],
    values: &Values,
    settings: &Settings,
) -> Option<String> {
    let (transport, nexthop) = settings.routing.virtual_transport.split_once(':')?;
    let socket = nexthop.strip_prefix("unix:/")?;
    let service = services.iter().find(|service| service.name == transport)?;
    let expand = |text: &str| Some(values.expand("virtual_transport", text).ok()?.value);
    let is_chrooted = match service.chroot.as_str() {
        "-" => expand("${{$compatibility_level} <level {1} ? {y} : {n}}")? == "y",
        field => field == "y",
    };
    let queue = PathBuf::from(expand("$queue_directory")?);
    let seen = queue.join(socket);
    let listens = |address: &ListenAddress| match address {
        ListenAddress::Unix(socket) => *socket == seen,
        ListenAddress::Inet { .. } => false,
    };
    if !is_chrooted || settings.lmtp.listen.iter().any(listens) {
        return None;
    }
    Some(format!(
        "virtual_transport ({}): service {transport} is chrooted ({}:{}) and looks for the socket \
         in {}, where mailstow does not listen; listen on {} and set virtual_transport = \
         {transport}:unix:private/mailstow-lmtp",
        values.origin("routing", "virtual_transport"),
        path.display(),
        service.line,
        seen.display(),
        queue.join("private/mailstow-lmtp").display()
    ))
}
