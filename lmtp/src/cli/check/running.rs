//! The server that runs on the same state directory, if there is one.
//!
//! Imports `health`.

use super::super::health::ask;
use mailstow_engine::config::ListenAddress;
use std::path::Path;

/// What a running server says of itself.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: u64,
    /// Where it listens, as that was configured.
    addresses: Vec<String>,
}

impl Running {
    /// `None` also when it does not answer or may not be asked.
    pub(super) fn on(state_directory: &Path) -> Option<Self> {
        let answer = ask(state_directory).ok()?;
        let addresses = answer.get("listen")?.as_array()?.iter();
        Some(Self {
            pid: answer.get("pid")?.as_u64()?,
            addresses: addresses
                .filter_map(|address| Some(address.as_str()?.to_owned()))
                .collect(),
        })
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
