//! Which transports there are.
//!
//! Those of the program around the engine win over those that the configuration names, and these
//! over what is there always: `error`, `retry`, `discard`.

use super::refusing::Refusing;
use super::{Transport, TransportTarget};
use crate::status::Status;
use crate::sync::{Arc, Mutex};
use std::collections::HashMap;

type Known = HashMap<String, Arc<dyn Transport>>;

/// The transports of an engine, by their names.
#[derive(Debug, Default)]
pub(crate) struct Transports {
    known: Mutex<Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    by_program: Known,
    by_settings: Known,
}

impl Transports {
    /// Takes a transport in; one of the same name is replaced.
    pub(crate) fn register(&self, name: String, transport: Arc<dyn Transport>) {
        self.known.lock().by_program.insert(name, transport);
    }

    /// Returns a transport.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn Transport>> {
        let known = self.known.lock();
        let found = known.by_program.get(name);
        if let Some(transport) = found.or_else(|| known.by_settings.get(name)) {
            return Some(Arc::clone(transport));
        }
        Some(Arc::new(match name {
            "error" => Refusing::Error,
            "retry" => Refusing::Retry,
            "discard" => Refusing::Discard,
            _ => return None,
        }))
    }

    /// Returns why mail for a target is not taken, if its transport is not known.
    pub(crate) fn unknown(target: &TransportTarget) -> Status {
        let TransportTarget { transport, .. } = target;
        Status::configuration(format!(
            "mail system configuration error: transport {transport} is not known here"
        ))
    }
}
