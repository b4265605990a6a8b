//! The transports of an engine, by name.
//!
//! A service of type pipe takes precedence over a transport that the embedding program registers,
//! and that over the built-in ones: `error`, `retry`, `discard`. A service of another program in
//! master.cf, such as a second `smtp`, uses the registered transport with the name of that program.

use super::pipe::{self, LocalCommands, Pipe};
use super::refusing::Refusing;
use super::{Transport, TransportTarget};
use crate::config::Settings;
use crate::status::Status;
use crate::suggest::suggest;
use crate::sync::{Arc, Mutex};
use crate::target::LOCAL;
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
    /// The services of type pipe.
    pipes: HashMap<String, Arc<Pipe>>,
    /// The programs of the other services.
    programs: HashMap<String, String>,
    /// The commands of local delivery, where that is in use.
    commands: Option<Arc<LocalCommands>>,
}

impl Transports {
    /// Registers a transport; replaces one of the same name.
    pub(crate) fn register(&self, name: String, transport: Arc<dyn Transport>) {
        self.known.lock().by_program.insert(name, transport);
    }

    /// Takes the services of the configuration into use. Unchanged services continue.
    pub(crate) fn configure(&self, settings: &Settings) {
        let services = settings.transport.services.iter();
        let pipes = services.filter(|service| service.command == "pipe");
        let pipes = pipes.filter(|_| settings.transport.enabled);
        // Before the lock is taken: the lookup of users may take long.
        let made: Vec<(String, Arc<Pipe>)> = pipes
            .map(|service| {
                let pipe = Pipe::new(service, settings);
                (service.name.clone(), Arc::new(pipe))
            })
            .collect();
        let commands = settings
            .delivers_locally()
            .then(|| Arc::new(LocalCommands::new(settings)));
        let others = settings.transport.services.iter();
        let others = others.filter(|service| service.command != "pipe");
        let mut known = self.known.lock();
        known.programs = others
            .map(|service| (service.name.clone(), service.command.clone()))
            .collect();
        known.commands = match (known.commands.take(), commands) {
            (Some(kept), Some(made)) if kept.does_as(&made) => Some(kept),
            (_, made) => made,
        };
        let mut old = std::mem::take(&mut known.pipes);
        for (name, made) in made {
            let kept = old.remove(&name).filter(|kept| kept.does_as(&made));
            known.pipes.insert(name, kept.unwrap_or(made));
        }
    }

    /// Waits until the deliveries of the configured services have ended.
    pub(crate) fn close(&self) {
        let mut known = self.known.lock();
        let pipes = std::mem::take(&mut known.pipes);
        let commands = known.commands.take();
        drop(known);
        if let Some(commands) = commands {
            commands.close();
        }
        for pipe in pipes.into_values() {
            pipe.close();
        }
    }

    /// Returns a transport.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn Transport>> {
        let known = self.known.lock();
        if let Some(pipe) = known.pipes.get(name) {
            let pipe = Arc::clone(pipe);
            return Some(pipe);
        }
        if let Some(commands) = known.commands.as_ref().filter(|_| name == LOCAL) {
            let commands = Arc::clone(commands);
            return Some(commands);
        }
        let program = known.programs.get(name).map_or(name, String::as_str);
        let found = known.by_program.get(name);
        if let Some(transport) = found.or_else(|| known.by_program.get(program)) {
            return Some(Arc::clone(transport));
        }
        Some(Arc::new(match name {
            "error" => Refusing::Error,
            "retry" => Refusing::Retry,
            "discard" => Refusing::Discard,
            _ => return None,
        }))
    }

    /// Returns why mail for a target is refused, if its transport is unknown.
    pub(crate) fn unknown(target: &TransportTarget) -> Status {
        let TransportTarget { transport, .. } = target;
        Status::configuration(format!(
            "mail system configuration error: unknown transport {transport}"
        ))
    }
}

/// Returns why the transport `name` can deliver no mail; `None` when it can, as far as that is
/// known before there is mail. `mailstow serve` registers `lmtp`, `smtp`, `relay` and `autoreply`.
pub fn problem(name: &str, settings: &Settings) -> Option<String> {
    let mut services = settings.transport.services.iter();
    let service = services.find(|service| service.name == name);
    let program = service.map_or(name, |service| service.command.as_str());
    match (service, program) {
        (Some(service), "pipe") => pipe::problem(service, settings),
        (_, "virtual" | "local") if name == program => None,
        (_, "error" | "retry" | "discard") if name == program || name == "retry" => None,
        (_, "lmtp" | "smtp") | (None, "relay") => None,
        (None, "autoreply") if !settings.autoreply.directory.as_os_str().is_empty() => None,
        (None, "autoreply") => Some(
            "directory is not set in [autoreply], and master.cf has no such service".to_owned(),
        ),
        (None, _) => Some(no_such_service(name, settings)),
        (Some(_), program) => Some(format!("what {program}(8) does is not done here")),
    }
}

fn no_such_service(name: &str, settings: &Settings) -> String {
    let services = settings.transport.services.iter();
    let services = services.map(|service| service.name.as_str());
    let others = ["lmtp", "smtp", "relay", "autoreply", "error", "retry"];
    let known = services.chain(others).chain(["discard", "virtual", LOCAL]);
    match suggest(name, known, 2) {
        Some(meant) => format!("master.cf has no such service; did you mean {meant}?"),
        None => "master.cf has no such service".to_owned(),
    }
}
