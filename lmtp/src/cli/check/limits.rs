//! Limits of the system: whether the connections that are configured can be admitted.
//!
//! Of a running server the limits are its own; else they are those of the shell that asks, and a
//! service may have others.

use super::super::common::too_few_files;
use super::findings::Findings;
use super::running::Running;
use mailstow_engine::config::Settings;
use mailstow_engine::descriptors::Descriptors;
use nix::sys::resource::{Resource, getrlimit};

pub(super) fn check(settings: &Settings, running: Option<&Running>, findings: &mut Findings) {
    let limit = match running {
        Some(server) => files_of(server.pid),
        None => getrlimit(Resource::RLIMIT_NOFILE)
            .ok()
            .map(|(_, hard)| hard),
    };
    let Some(limit) = limit else { return };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if let Some(warning) = too_few_files(&Descriptors::within(limit, settings), settings) {
        findings.warning(warning);
    }
}

/// Files that a process may have open (proc(5), `limits`); `None` for no limit, and when it cannot
/// be asked.
fn files_of(pid: u64) -> Option<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_process_is_read_from_the_system() {
        let own = getrlimit(Resource::RLIMIT_NOFILE).unwrap().0;
        assert_eq!(files_of(u64::from(std::process::id())), Some(own));
        assert_eq!(files_of(0), None);
    }
}
