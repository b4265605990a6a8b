//! The server: accepts connections, runs their sessions, comes to an end without losing one.
//!
//! Invariant: the order to drain stops accepting at once and is over after `drain_timeout`;
//! deliveries in progress finish, and waiting clients are answered 421.

use crate::accept::{self, Accepting, Protocol};
use crate::autoreply::Autoreplies;
use crate::listener::Listener;
use crate::reload_error::ReloadError;
use crate::shared::Shared;
use mailstow_engine::Engine;
use mailstow_engine::config::Settings;
use mailstow_engine::supervisor::Supervisor;
use std::io;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};

/// A server that is about to run.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<(Protocol, Listener)>,
}

/// Steers a running server; clones steer the same one.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every session came to its end.
    Drained,
    /// So many sessions were still busy after `drain_timeout`; their messages were not
    /// acknowledged.
    TimedOut(usize),
}

impl Server {
    /// A server that stores through `engine` what comes in on `listeners`.
    pub fn new(engine: Arc<Engine>, settings: Settings, listeners: Vec<Listener>) -> Self {
        Self {
            shared: Arc::new(Shared::new(engine, settings)),
            listeners: with(Protocol::Lmtp, listeners),
        }
    }

    /// Answers requests for tables on `listeners`, too.
    #[must_use]
    pub fn with_socketmap(mut self, listeners: Vec<Listener>) -> Self {
        self.listeners.extend(with(Protocol::Socketmap, listeners));
        self
    }

    /// Has `autoreplies` follow the settings, too.
    #[must_use]
    pub(crate) fn with_autoreplies(mut self, autoreplies: Arc<Autoreplies>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.autoreplies = Some(autoreplies);
        }
        self
    }

    /// Lets `supervisor` watch the tasks that accept connections.
    #[must_use]
    pub fn supervised_by(mut self, supervisor: &Supervisor) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.supervisor = supervisor.clone();
        }
        self
    }

    /// What its sessions share, for checks that run a session without a listener.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// What steers this server.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Runs until [`Handle::stop`] and the end of the sessions. Must be called in a tokio runtime
    /// with I/O and time.
    ///
    /// # Errors
    /// A listener cannot be used.
    pub async fn run(self) -> io::Result<Ended> {
        for (protocol, listener) in self.listeners {
            let shared = Arc::clone(&self.shared);
            match listener {
                Listener::Unix {
                    socket,
                    file,
                    peers,
                } => {
                    socket.set_nonblocking(true)?;
                    let socket = UnixListener::from_std(socket)?;
                    let accepting = Accepting::Unix {
                        listener: socket,
                        peers,
                        _file: file,
                    };
                    accept::accept(shared, accepting, protocol);
                }
                Listener::Inet { socket } => {
                    socket.set_nonblocking(true)?;
                    let socket = TcpListener::from_std(socket)?;
                    accept::accept(shared, Accepting::Inet(socket), protocol);
                }
            }
        }
        self.shared.drain.cancelled().await;
        self.shared.engine.prepare_close();
        let limit = self.shared.settings().lmtp.drain_timeout;
        let gone = tokio::time::timeout(limit, self.shared.admission.fewer_than(1));
        Ok(match gone.await {
            Ok(()) => Ended::Drained,
            Err(_) => Ended::TimedOut(self.shared.admission.count()),
        })
    }
}

impl Handle {
    /// Orders the server to come to an end.
    pub fn stop(&self) {
        self.0.drain.cancel();
    }

    /// Takes new settings into use, from the next transaction on, and reads tables again.
    /// Returns what an operator should know, such as settings that need a restart. May take as
    /// long as reading the tables does.
    ///
    /// # Errors
    /// The new settings or tables cannot be used; the old ones stay in force.
    pub fn reload(&self, settings: Settings) -> Result<Vec<String>, ReloadError> {
        if let Some(error) = ReloadError::of(&self.0.settings(), &settings) {
            return Err(error);
        }
        let mut warnings = self.0.engine.reload(&settings)?;
        for what in needs_restart(&self.0.started_with, &settings) {
            warnings.push(format!(
                "{what} was changed; the change takes effect when the server is restarted"
            ));
        }
        self.0.notices.reload(&settings);
        if let Some(autoreplies) = &self.0.autoreplies {
            autoreplies.reload(&settings);
        }
        self.0.set_settings(settings);
        Ok(warnings)
    }
}

/// The settings that differ and are read at the start only.
fn needs_restart<'a>(old: &Settings, new: &'a Settings) -> impl Iterator<Item = &'a str> {
    let (before, after) = (&old.routing, &new.routing);
    let (memory_before, memory_after) = (&old.limits, &new.limits);
    [
        ("listen", old.lmtp.listen != new.lmtp.listen),
        ("[socketmap]", old.socketmap != new.socketmap),
        ("socket_mode", old.lmtp.socket_mode != new.lmtp.socket_mode),
        (
            "socket_owner",
            old.lmtp.socket_owner != new.lmtp.socket_owner,
        ),
        (
            "socket_group",
            old.lmtp.socket_group != new.lmtp.socket_group,
        ),
        (
            "socket_users",
            old.lmtp.socket_users != new.lmtp.socket_users,
        ),
        ("[store]", old.store != new.store),
        ("[delivery_log]", old.delivery_log != new.delivery_log),
        (
            "the settings of other servers in [transport]",
            old.relay != new.relay,
        ),
        ("[log]", old.log != new.log),
        (
            "state_directory",
            old.state_directory != new.state_directory,
        ),
        (
            "virtual_mailbox_base",
            before.virtual_mailbox_base != after.virtual_mailbox_base,
        ),
        (
            "virtual_mailbox_limit",
            before.virtual_mailbox_limit != after.virtual_mailbox_limit,
        ),
        (
            "virtual_mailbox_lock",
            before.virtual_mailbox_lock != after.virtual_mailbox_lock,
        ),
        (
            "strict_mailbox_ownership",
            before.strict_mailbox_ownership != after.strict_mailbox_ownership,
        ),
        (
            "deliver_lock_attempts",
            before.deliver_lock_attempts != after.deliver_lock_attempts,
        ),
        (
            "deliver_lock_delay",
            before.deliver_lock_delay != after.deliver_lock_delay,
        ),
        (
            "stale_lock_time",
            before.stale_lock_time != after.stale_lock_time,
        ),
        (
            "message_memory_bytes",
            memory_before.message_memory_bytes != memory_after.message_memory_bytes,
        ),
        (
            "memory_bytes",
            memory_before.memory_bytes != memory_after.memory_bytes,
        ),
        (
            "queued_deliveries",
            memory_before.queued_deliveries != memory_after.queued_deliveries,
        ),
    ]
    .into_iter()
    .filter_map(|(what, differs)| differs.then_some(what))
}

fn with(protocol: Protocol, listeners: Vec<Listener>) -> Vec<(Protocol, Listener)> {
    let listeners = listeners.into_iter();
    listeners.map(|listener| (protocol, listener)).collect()
}
