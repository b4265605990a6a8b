//! Reports whether the server delivers, and if not why, to systemd and to `mailstow health`.
//!
//! A socket in the
//! state directory answers each connection with one line of JSON and closes it. It is asked live,
//! so that there is no state of a dead server to be taken for that of a living one, and a server
//! that hangs is known by its silence. Invariant: nothing here keeps the server from starting,
//! serving or ending.

use crate::clock;
use crate::listen_error::ListenError;
use crate::relay::Relays;
use crate::socket_file::{self, Permissions};
use crate::started_with::StartedWith;
use crate::systemd;
use crate::tasks;
use mailstow_engine::config::ListenAddress;
use mailstow_engine::supervisor::{Supervisor, ThreadFailure};
use mailstow_engine::{Engine, FileSystemFailure, LogState};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

/// The socket, in the state directory.
const SOCKET_NAME: &str = "health";
/// Paths of sockets are shorter than this (unix(7)).
const SOCKET_PATH_BYTES: usize = 100;
/// How often systemd is notified of changes.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client may take to read the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// After how many failed attempts to open the socket, and how far apart, a warning is logged.
const ANSWER_ATTEMPTS: u32 = 5;
const ANSWER_REST: Duration = Duration::from_secs(1);
/// How long accepting rests after the system refused it.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the server is doing.
#[derive(Debug)]
enum Phase {
    Recovering,
    Serving(Serving),
    Stopping,
}

/// A server that takes mail.
#[derive(Debug)]
struct Serving {
    engine: Weak<Engine>,
    /// Where it listens, for people.
    announcement: String,
    /// The addresses as they are configured.
    addresses: Vec<String>,
    /// Where mail goes on to.
    relays: Arc<Relays>,
}

/// The health of one server.
#[derive(Debug)]
pub struct Health {
    started_with: StartedWith,
    phase: Mutex<Phase>,
    /// Of what belongs to the server, and not to its engine.
    supervisor: Supervisor,
    started: Duration,
}

/// The path of the socket, and what has to stay open as long as that is used: where it is too
/// long for a socket, it goes through a descriptor of the directory.
///
/// # Errors
/// The directory cannot be opened.
pub fn socket_path(state_directory: &Path) -> io::Result<(PathBuf, Option<File>)> {
    use std::os::fd::AsRawFd;
    let path = state_directory.join(SOCKET_NAME);
    if path.as_os_str().len() < SOCKET_PATH_BYTES {
        return Ok((path, None));
    }
    let directory = File::open(state_directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd());
    Ok((path.into(), Some(directory)))
}

impl Health {
    /// The health of a server that recovers its delivery log, and whose own threads and tasks
    /// `supervisor` watches.
    pub fn new(started_with: StartedWith, supervisor: Supervisor) -> Self {
        Self {
            started_with,
            phase: Mutex::new(Phase::Recovering),
            supervisor,
            started: clock::since_epoch(),
        }
    }

    /// Supervises the server's own threads and tasks.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Waits until a thread or task is lost that the server needs.
    pub async fn lost(&self) -> ThreadFailure {
        loop {
            let lost = self.failures().into_iter().find(|failure| failure.is_lost);
            match lost {
                Some(lost) => return lost,
                None => tokio::time::sleep(WATCH_INTERVAL).await,
            }
        }
    }

    /// Of the server and of its engine, if that is open.
    fn failures(&self) -> Vec<ThreadFailure> {
        let mut failures = self.supervisor.failures();
        let engine = match &*self.phase.lock() {
            Phase::Serving(serving) => serving.engine.upgrade(),
            Phase::Recovering | Phase::Stopping => None,
        };
        if let Some(engine) = engine {
            failures.extend(engine.health().threads);
        }
        failures
    }

    /// The engine is open and mail is taken on `addresses`, which `announcement` tells people.
    pub(crate) fn serves(
        &self,
        engine: &Arc<Engine>,
        relays: &Arc<Relays>,
        (addresses, announcement): (&[ListenAddress], String),
    ) {
        *self.phase.lock() = Phase::Serving(Serving {
            engine: Arc::downgrade(engine),
            announcement,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            relays: Arc::clone(relays),
        });
    }

    /// Listens in the state directory and answers from now on. Must be called in a tokio runtime
    /// with I/O and time. A server without this socket still serves: the caller gets the reason.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn answer_on(self: &Arc<Self>, state_directory: &Path) -> Result<(), ListenError> {
        let path = state_directory.join(SOCKET_NAME);
        let failed = |source| {
            let remedy = "see that the state directory can be written to";
            ListenError::unix(&path, "be asked for health there", source, remedy)
        };
        let unsafe_path = |error| ListenError::Path { error };
        let directory = Engine::make_state_directory(state_directory).map_err(unsafe_path)?;
        let permissions = Permissions {
            mode: 0o600,
            owner: None,
            group: None,
        };
        let name = OsStr::new(SOCKET_NAME);
        let (socket, file) = socket_file::bind_in(directory.handle(), name, &path, permissions)?;
        let socket = UnixListener::from_std(socket.into()).map_err(failed)?;
        let health = Arc::clone(self);
        let held = Arc::new((socket, file));
        tasks::keep(&self.supervisor, "health socket", move || {
            let (health, held) = (Arc::clone(&health), Arc::clone(&held));
            async move { health.answer_all(&held.0).await }
        });
        Ok(())
    }

    /// Tries [`Self::answer_on`] again until the socket is free: a server that was started at the
    /// same time and found the delivery log taken may have it.
    pub async fn answer_later(self: Arc<Self>, state_directory: PathBuf) {
        let mut attempts = 0;
        loop {
            tokio::time::sleep(ANSWER_REST).await;
            let Err(error) = self.answer_on(&state_directory) else {
                return;
            };
            attempts += 1;
            if attempts == ANSWER_ATTEMPTS {
                tracing::warn!("mailstow health is not available yet: {error}");
            }
        }
    }

    async fn answer_all(&self, socket: &UnixListener) {
        loop {
            let Ok((mut stream, _)) = socket.accept().await else {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            };
            let line = format!("{}\n", self.report());
            let answered = async {
                stream.write_all(line.as_bytes()).await?;
                stream.shutdown().await
            };
            // The client may not read it.
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
        }
    }

    /// Tells systemd whenever what the server is doing changes, as long as the runtime lives.
    pub async fn watch(self: Arc<Self>) {
        let mut told = String::new();
        loop {
            let report = self.report();
            let text = report
                .get("text")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if text != told {
                systemd::status(text);
                text.clone_into(&mut told);
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    /// The server got a signal to end.
    pub fn stops(&self) {
        *self.phase.lock() = Phase::Stopping;
    }

    /// What the server is doing: `text` for people, `healthy` for programs.
    fn report(&self) -> Value {
        let phase = self.phase.lock();
        let serving = match &*phase {
            Phase::Recovering => {
                return self.line("recovering", "recovering the delivery log", json!({}));
            }
            Phase::Stopping => {
                let text = "stopping: deliveries in progress are finished, waiting clients are answered \
                     421";
                return self.line("stopping", text, json!({}));
            }
            Phase::Serving(serving) => serving.engine.upgrade().map(|engine| {
                let announcement = serving.announcement.clone();
                let relays = Arc::clone(&serving.relays);
                (engine, relays, announcement, serving.addresses.clone())
            }),
        };
        drop(phase);
        let Some((engine, relays, announcement, addresses)) = serving else {
            return self.line("stopping", "stopping", json!({}));
        };
        let health = engine.health();
        drop(engine);
        let mut failures = self.supervisor.failures();
        failures.extend(health.threads);
        let waiting = health.waiting;
        let mut text = match &health.log {
            LogState::InService { .. } | LogState::Direct => format!("delivering; {announcement}"),
            LogState::Failed(failure) => format!(
                "not delivering {}: the delivery log is out of service: {}; mail is answered 451 \
                 4.3.0 until the server has opened and recovered it again",
                since(failure.since),
                failure.cause
            ),
        };
        if waiting > 0 {
            let of = if waiting == 1 { "message" } else { "messages" };
            text += &format!(
                "; {waiting} {of} found by recovery cannot be stored yet, see the log for their \
                 mailboxes"
            );
        }
        text.extend(health.file_systems.iter().map(failed_file_system));
        let (state, log) = match health.log {
            LogState::Direct => ("delivering", Value::Null),
            LogState::InService {
                bytes_used,
                bytes_max,
            } => {
                let log = json!({"bytes_used": bytes_used, "bytes_max": bytes_max});
                ("delivering", log)
            }
            LogState::Failed(failure) => {
                let log = json!({
                    "cause": failure.cause.to_string(),
                    "since": failure.since.as_secs_f64(),
                    "attempts": failure.attempts,
                    "next_attempt_in_s": failure.next_attempt_in.as_secs_f64(),
                });
                ("log_failed", log)
            }
        };
        let puts_off = |failure: &FileSystemFailure| failure.attempts > 0;
        let state = match (state, failures.as_slice()) {
            ("delivering", [_, ..]) => "thread_failed",
            ("delivering", []) if health.file_systems.iter().any(puts_off) => "file_system_failed",
            (state, _) => state,
        };
        let file_systems: Vec<Value> = health.file_systems.iter().map(file_system).collect();
        text.extend(failures.iter().map(failed_thread));
        text.extend(
            health.tables.iter().map(|cause| {
                format!("; {cause}; recipients that would be unknown are answered 451")
            }),
        );
        let threads: Vec<&str> = failures.iter().map(|failure| &*failure.name).collect();
        self.line(
            state,
            &text,
            json!({
                "waiting": waiting, "log": log, "listen": addresses, "failed_threads": threads,
                "failed_file_systems": file_systems, "held_tables": health.tables,
                "routes": relays.report(),
            }),
        )
    }

    fn line(&self, state: &str, text: &str, more: Value) -> Value {
        let mut line = json!({
            "healthy": state == "delivering",
            "state": state,
            "text": text,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "started": self.started.as_secs_f64(),
            "started_with": self.started_with,
        });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        line
    }
}

/// What people should know of a file system that could not be flushed.
fn failed_file_system(failure: &FileSystemFailure) -> String {
    let mount_point = failure.mount_point.display();
    let cause = &failure.cause;
    let effect = match failure.attempts {
        0 => "",
        _ => "; mail for its mailboxes is answered 4xx",
    };
    format!(
        "; the file system on {mount_point} could not be flushed {}: {cause}; the delivery log \
         keeps {} of its deliveries until they are durable{effect}",
        since(failure.since),
        failure.held
    )
}

/// The same for programs.
fn file_system(failure: &FileSystemFailure) -> Value {
    json!({
        "mount_point": failure.mount_point.display().to_string(),
        "cause": failure.cause.to_string(),
        "since": failure.since.as_secs_f64(),
        "attempts": failure.attempts,
        "next_attempt_in_s": failure.next_attempt_in.as_secs_f64(),
        "held": failure.held,
    })
}

/// What people should know of a thread that failed.
fn failed_thread(failure: &ThreadFailure) -> String {
    let (name, panics) = (&failure.name, failure.panics);
    let end = match failure.is_lost {
        true => "and is given up: the server ends and needs a restart",
        false => "and begins again; report the panic, which is in the log",
    };
    let times = if panics == 1 { "time" } else { "times" };
    format!("; the thread {name} panicked {panics} {times} {end}")
}

/// How long ago, in words that change rarely.
fn since(then: Duration) -> String {
    match clock::since_epoch().saturating_sub(then).as_secs() / 60 {
        0 => "since less than a minute".to_owned(),
        minutes => format!("since {minutes} min"),
    }
}
