//! `mailstow serve`: the LMTP server in the foreground.
//!
//! Exit status: 0 after an orderly end, 1 when sessions had to be cut at the end, 78 (EX_CONFIG)
//! when the configuration cannot be used, 69 (EX_UNAVAILABLE) when the system refuses something, 70
//! (EX_SOFTWARE) when a thread panicked again and again.

pub use super::common::ServeArgs;
use super::common::{complain, configuration_failed, make_socket_directory, too_few_files};
use super::sysexits;
use crate::autoreply::{self, Autoreplies};
use crate::health::Health;
use crate::in_place::IN_PLACE_MESSAGES_MAX;
use crate::lifecycle::Signals;
use crate::listener::{self, Listener, Peers};
use crate::log::{self, Log, LogStartError};
use crate::relay::{LOOKUPS_MAX, Relays};
use crate::server::{Ended, Handle, Server};
use crate::started_with::StartedWith;
use crate::systemd::{self, Starting};
use crate::tasks;
use mailstow_engine::config::{Configuration, LmtpSettings, Origin, Settings, Sources};
use mailstow_engine::delivery_log::LogError;
use mailstow_engine::descriptors::Descriptors;
use mailstow_engine::supervisor::build_runtime;
use mailstow_engine::system;
use mailstow_engine::transport::kill_commands;
use mailstow_engine::{Engine, EngineError, StoreError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fmt::Display;
use std::io;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Threads that run sessions: they only move bytes, mailboxes are written by the engine's own.
const SESSION_THREADS_MAX: usize = 4;

/// Threads that read configuration and tables anew while the sessions go on; made at the start.
const RELOAD_THREADS: usize = 1;

/// Stack of a session thread, in bytes.
const SESSION_STACK_BYTES: usize = 512 * 1024;

/// How long the last log lines may take.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the server does not start.
enum Failure {
    /// The operator has to change the configuration.
    Configuration(String),
    /// The system refuses something.
    Unavailable(String),
}

fn wrong(error: impl Display) -> Failure {
    Failure::Configuration(error.to_string())
}

fn refused(error: impl Display) -> Failure {
    Failure::Unavailable(error.to_string())
}

/// Runs the subcommand.
pub fn run(args: &ServeArgs) -> ExitCode {
    match serve(args) {
        Ok(status) => status,
        Err(Failure::Configuration(text)) => configuration_failed(&text),
        Err(Failure::Unavailable(text)) => {
            complain(format_args!("mailstow: {text}"));
            ExitCode::from(sysexits::UNAVAILABLE)
        }
    }
}

fn serve(args: &ServeArgs) -> Result<ExitCode, Failure> {
    // Before there are other threads, which inherit it.
    system::keep_for_server().map_err(|error| {
        refused(format_args!(
            "cannot give up capabilities of root that it does not need: {error}"
        ))
    })?;
    let sources = args.sources();
    let mut inherited = listener::inherited().map_err(refused)?;
    let activated = !inherited.is_empty();
    let configuration = read(&sources, activated).map_err(wrong)?;
    if !activated {
        make_socket_directory(&configuration.settings).map_err(refused)?;
    }
    let started_with = StartedWith::of(&sources, &configuration);
    let users = configuration.entry("lmtp", "socket_users");
    if users.is_some_and(|entry| entry.origin != Origin::Default) {
        let peers = Peers::of(&configuration.settings.lmtp).map_err(wrong)?;
        let sockets = inherited.iter_mut();
        sockets.for_each(|listener| listener.serve_only(peers.clone()));
    }
    let Configuration {
        settings, warnings, ..
    } = configuration;
    let log = log::start(&settings.log).map_err(|error| match error {
        LogStartError::Thread(_) => refused(error),
        _ => wrong(error),
    })?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    if let Some(warning) = too_few_files(&Descriptors::plan(&settings), &settings) {
        tracing::warn!("{warning}");
    }
    // Before any thread is there that a signal could find unprepared.
    let runtime = runtime().map_err(|error| {
        refused(format_args!(
            "cannot start threads: {error}; raise the limit on processes of this user \
             (TasksMax=, LimitNPROC=, ulimit -u) or on memory (ulimit -v)"
        ))
    })?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::catch().map_err(refused)?
    };
    let relays = Relays::new(&settings, runtime.handle().clone()).map_err(wrong)?;
    let supervisor = log.supervisor().clone();
    let health = Arc::new(Health::new(started_with, supervisor));
    let (starting, is_asked) = {
        let _inside = runtime.enter();
        let watched = Arc::clone(&health);
        tasks::keep(health.supervisor(), "health watch", move || {
            Arc::clone(&watched).watch()
        });
        let answering = health.answer_on(&settings.state_directory);
        (Starting::begin(), answering.is_ok())
    };
    let Some(opened) = open(&runtime, &mut signals, &settings)? else {
        health.stops();
        systemd::stopping();
        tracing::info!(
            "stopped while the delivery log was recovered; the next start continues the recovery"
        );
        log.finish(LOG_TIMEOUT);
        // The recovery may wait for a file system that does not answer.
        std::process::exit(0);
    };
    let engine = opened.map_err(|error| match error {
        EngineError::Thread(_) | EngineError::Store(StoreError::Thread { .. }) => refused(error),
        EngineError::Store(StoreError::Log(LogError::Io { .. } | LogError::Panicked { .. })) => {
            refused(error)
        }
        _ => wrong(error),
    })?;
    let engine = Arc::new(engine);
    relays.register(&engine, &settings.transport);
    let autoreplies = Autoreplies::new(&settings, Arc::clone(&relays));
    engine.register_transport(autoreply::NAME, autoreplies.clone());
    if !is_asked {
        runtime.spawn(Arc::clone(&health).answer_later(settings.state_directory.clone()));
    }
    for warning in engine.table_warnings() {
        tracing::warn!("{warning}");
    }
    let listeners = listener::open_all(&settings.lmtp, inherited).map_err(refused)?;
    let maps = open_socketmap(&settings)?;
    let announcement = announce(&listeners, &settings);
    let addresses = settings.lmtp.listen.clone();
    let server = Server::new(Arc::clone(&engine), settings, listeners)
        .supervised_by(health.supervisor())
        .with_autoreplies(autoreplies)
        .with_socketmap(maps);
    let is_broken = Arc::new(AtomicBool::new(false));
    let ended = runtime.block_on(async {
        let reread = Arc::new(move || read(&sources, activated).map(reported));
        signals.serve(server.handle(), reread, Arc::clone(&health));
        health.serves(&engine, &relays, (&addresses, announcement));
        drop(starting);
        systemd::ready(health.supervisor());
        let handle = server.handle();
        tokio::spawn(end_when_lost(
            Arc::clone(&health),
            handle,
            Arc::clone(&is_broken),
        ));
        server.run().await
    });
    let ended = ended.map_err(refused)?;
    runtime.shutdown_timeout(LOG_TIMEOUT);
    if is_broken.load(Ordering::SeqCst) {
        kill_commands();
        log.finish(LOG_TIMEOUT);
        // What a lost thread left undone is not waited for; recovery does it.
        std::process::exit(i32::from(sysexits::SOFTWARE));
    }
    Ok(finish(ended, engine, &log))
}

/// Opens the engine on a separate thread, since recovery may take long. Returns `None` if the
/// server got a signal to end meanwhile.
fn open(
    runtime: &Runtime,
    signals: &mut Signals,
    settings: &Settings,
) -> Result<Option<Result<Engine, EngineError>>, Failure> {
    let (sender, opened) = tokio::sync::oneshot::channel();
    let settings = settings.clone();
    let thread = std::thread::Builder::new().name("mailstow-open".to_owned());
    thread
        .spawn(move || drop(sender.send(Engine::open(&settings))))
        .map_err(|error| {
            refused(format_args!(
                "cannot start a thread: {error}; raise the limit on processes of this user \
                 (TasksMax=, LimitNPROC=, ulimit -u)"
            ))
        })?;
    runtime.block_on(async {
        tokio::select! {
            opened = opened => match opened {
                Ok(opened) => Ok(Some(opened)),
                Err(_) => Err(refused("a bug ended the recovery of the delivery log; see the log")),
            },
            () = signals.end() => Ok(None),
        }
    })
}

/// The sockets on which Postfix asks for our tables.
fn open_socketmap(settings: &Settings) -> Result<Vec<Listener>, Failure> {
    let sockets = LmtpSettings {
        listen: settings.socketmap.listen.clone(),
        ..settings.lmtp.clone()
    };
    listener::open_all(&sockets, Vec::new()).map_err(refused)
}

/// The configuration from the sources. When systemd opened our sockets, the built-in default of
/// where to listen is not meant.
fn read(sources: &Sources, activated: bool) -> Result<Configuration, String> {
    let mut configuration = Configuration::load_to_deliver(sources).map_err(|e| e.to_string())?;
    configuration.state_directory().map_err(|e| e.to_string())?;
    let listens_by_default = configuration
        .entry("lmtp", "listen")
        .is_none_or(|entry| entry.origin == Origin::Default);
    if !activated {
        configuration.listen().map_err(|e| e.to_string())?;
        configuration.warnings.extend(configuration.handover.take());
    } else if listens_by_default {
        configuration.settings.lmtp.listen.clear();
    }
    Ok(configuration)
}

fn reported(configuration: Configuration) -> Settings {
    for warning in configuration.warnings {
        tracing::warn!("{warning}");
    }
    configuration.settings
}

/// Says where the server listens and where mail goes; returns it as one line.
fn announce(listeners: &[Listener], settings: &Settings) -> String {
    let names: Vec<String> = listeners.iter().map(Listener::name).collect();
    let names = names.join(", ");
    let routing = &settings.routing;
    let shown = |text: &str| match text {
        "" => "(empty)".to_owned(),
        text => text.to_owned(),
    };
    let mut out = std::io::stdout().lock();
    // A standard output that is closed is no reason not to serve.
    let _ = writeln!(
        out,
        "mailstow {}: listening on {names}",
        env!("CARGO_PKG_VERSION")
    );
    let _ = writeln!(
        out,
        "mail for {} goes below {} (virtual_mailbox_maps = {})",
        shown(&routing.virtual_mailbox_domains),
        routing.virtual_mailbox_base.display(),
        shown(&routing.virtual_mailbox_maps),
    );
    let _ = out.flush();
    format!("listening on {names}")
}

/// The runtime of the sessions. Some of its threads that wait for tables are made now: later the
/// system may give none.
fn runtime() -> io::Result<Runtime> {
    let count = session_threads() + RELOAD_THREADS;
    let runtime = build_runtime((count, SESSION_STACK_BYTES), || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(session_threads())
            .thread_stack_size(SESSION_STACK_BYTES)
            // One more for each message that waits for its mailbox while it arrives, and for each
            // name of a server that is looked up.
            .max_blocking_threads(RELOAD_THREADS + IN_PLACE_MESSAGES_MAX + LOOKUPS_MAX)
            // Those that were made stay.
            .thread_keep_alive(Duration::MAX)
            .thread_name("mailstow-lmtp")
            .enable_all()
            .build()
    })?;
    // The thread for reloads is there before it is needed.
    runtime.spawn_blocking(|| ());
    Ok(runtime)
}

/// Ends the server as SIGTERM does when a thread is lost that it cannot do without.
async fn end_when_lost(health: Arc<Health>, handle: Handle, is_broken: Arc<AtomicBool>) {
    let lost = health.lost().await;
    is_broken.store(true, Ordering::SeqCst);
    tracing::error!(
        thread = lost.name,
        "the server ends because it needs this thread; restart it"
    );
    handle.stop();
}

fn session_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(SESSION_THREADS_MAX)
}

/// Lets the server open as many files as it ever may.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where that fails, the soft limit is what there is.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The end: deliveries in progress are finished, unless they are the threads that did not end.
fn finish(ended: Ended, engine: Arc<Engine>, log: &Log) -> ExitCode {
    match ended {
        Ended::Drained => {
            drop(engine);
            tracing::info!("stopped");
            log.finish(LOG_TIMEOUT);
            ExitCode::SUCCESS
        }
        Ended::TimedOut(sessions) => {
            tracing::error!(
                "{sessions} sessions did not end within drain_timeout and were cut; their \
                 messages stay with the sender"
            );
            // What they started would live on, and do once more what they do when the mail comes
            // again.
            kill_commands();
            log.finish(LOG_TIMEOUT);
            // Waiting for the engine could take as long again as it took already.
            std::process::exit(1)
        }
    }
}
