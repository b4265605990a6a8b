//! The server that runs on the same state directory, if there is one.

use super::super::health::ask;
use crate::started_with::StartedWith;
use mailstow_engine::config::ListenAddress;
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a running server says of itself.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: u64,
    /// Where it listens, as that was configured.
    addresses: Vec<String>,
    started_with: StartedWith,
    /// It serves the configuration that is checked.
    pub(super) is_ours: bool,
}

impl Running {
    /// `None` also when it does not answer or may not be asked.
    pub(super) fn on(state_directory: &Path) -> Option<Self> {
        let answer = ask(state_directory).ok()?;
        // A server that recovers or stops does not say it.
        let addresses = answer.get("listen").and_then(Value::as_array);
        let started_with = answer.get("started_with").cloned().unwrap_or_default();
        Some(Self {
            pid: answer.get("pid")?.as_u64()?,
            is_ours: false,
            started_with: serde_json::from_value(started_with).unwrap_or_default(),
            addresses: addresses
                .into_iter()
                .flatten()
                .filter_map(|address| Some(address.as_str()?.to_owned()))
                .collect(),
        })
    }

    /// What it was started with.
    pub(super) fn started_with(&self) -> &StartedWith {
        &self.started_with
    }

    /// It serves this site.
    pub(super) fn serves(&self, site: &StartedWith) -> bool {
        self.started_with.is_same_site(site)
    }

    /// The server that reads the same configuration, found by its command line: its state
    /// directory may be named nowhere else.
    pub(super) fn of_site(site: &StartedWith) -> Option<Self> {
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes
            .filter_map(|process| started_in(&process.path()))
            .find_map(|directory| Self::on(&directory).filter(|server| server.serves(site)))
    }

    /// It is this address's server.
    pub(super) fn has(&self, address: &ListenAddress) -> bool {
        self.addresses.contains(&address.to_string())
    }

    /// It listens on sockets that others opened: which, is not known.
    pub(super) fn is_activated(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Where it listens, for people.
    pub(super) fn listens(&self) -> String {
        self.addresses.join(", ")
    }
}

/// The state directory that the command line of a process names, if it is `mailstow serve`.
fn started_in(process: &Path) -> Option<PathBuf> {
    let line = std::fs::read(process.join("cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let program = Path::new(words.next()?).file_name()?;
    if program != "mailstow" || words.next()? != "serve" {
        return None;
    }
    const FLAG: &[u8] = b"--state-directory";
    while let Some(word) = words.next() {
        let named = match word.as_bytes().strip_prefix(FLAG) {
            Some([]) => words.next()?,
            Some([b'=', path @ ..]) => OsStr::from_bytes(path),
            _ => continue,
        };
        let directory = std::fs::read_link(process.join("cwd")).ok()?;
        return Some(directory.join(named));
    }
    None
}
