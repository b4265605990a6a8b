//! Checks that the delivery log is whole, and no other program's.
//!
//! The log is read and not touched; one that a server is using is left to that server.

use super::findings::Findings;
use super::running::Running;
use mailstow_engine::config::{ListenAddress, Settings};
use mailstow_engine::delivery_log::{DirectoryMedium, LogError, scan_records};
use std::path::Path;

pub(super) fn check(settings: &Settings, running: Option<&Running>, findings: &mut Findings) {
    if let Some(server) = running {
        another(settings, server, findings);
        return;
    }
    let directory = settings.state_directory.join("delivery-log");
    if directory.is_dir()
        && let Err(error) = read(&directory)
    {
        findings.error(error.in_directory(&directory));
    }
}

/// Reads all of it.
fn read(directory: &Path) -> Result<(), LogError> {
    let medium = DirectoryMedium::open_read_only(directory)?;
    let damage = scan_records(&medium)?.damage_error();
    damage.map_or(Ok(()), Err)
}

/// A server of another site has the state directory. One that does not say what it was started with
/// is of another site when it listens nowhere where we would.
fn another(settings: &Settings, server: &Running, findings: &mut Findings) {
    if server.is_ours {
        return;
    }
    let listen: &[ListenAddress] = &settings.lmtp.listen;
    let is_told = !listen.is_empty() && !server.is_activated();
    if is_told && !listen.iter().any(|address| server.has(address)) {
        findings.error(format_args!(
            "state directory {} is in use by the server that listens on {} (process {}); stop \
             that, or name another directory with --state-directory",
            settings.state_directory.display(),
            server.listens(),
            server.pid
        ));
    }
}
