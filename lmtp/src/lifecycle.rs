//! What the system tells the server, and what the server tells the system.
//!
//! Imports `server`, `health`, `tasks`. SIGTERM and SIGINT drain, SIGHUP reloads, SIGXFSZ is an
//! error of write(2) instead of the end; systemd is told about readiness, reloading, stopping, and
//! that we live. Sources: signal(7), sd_notify(3), systemd.service(5) `Type=notify-reload`.

use crate::health::Health;
use crate::server::Handle;
use crate::tasks;
use mailstow_engine::config::Settings;
use mailstow_engine::supervisor::Supervisor;
use sd_notify::NotifyState;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

/// Reads the configuration again; the error says what is wrong with it.
pub type ReadSettings = dyn Fn() -> Result<Settings, String> + Send + Sync;

/// How much longer the start may take, in microseconds, and how often that is said.
const START_EXTENSION_US: u32 = 30_000_000;
const START_INTERVAL: Duration = Duration::from_secs(10);

/// The signals, caught from the moment this exists.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Caught, never waited for: a file size limit shall fail the write, not kill the server.
    file_size: Signal,
    /// Caught, never waited for: whoever started this program may ignore it, which is inherited,
    /// and the exit statuses of commands that take mail would be lost.
    child: Signal,
}

impl Signals {
    /// Catches the signals; must be called in a tokio runtime with I/O.
    ///
    /// # Errors
    /// The system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            file_size: signal(SignalKind::from_raw(
                nix::sys::signal::Signal::SIGXFSZ as i32,
            ))?,
            child: signal(SignalKind::child())?,
        })
    }

    /// Waits until the server is told to end.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Serves the signals for as long as the runtime lives.
    pub fn serve(self, handle: Handle, read: Arc<ReadSettings>, health: Arc<Health>) {
        let Self {
            terminate,
            interrupt,
            hangup,
            file_size,
            child,
        } = self;
        let supervisor = health.supervisor().clone();
        let stopped = handle.clone();
        let ends = Arc::new(Mutex::new((terminate, interrupt, file_size, child)));
        tasks::keep(&supervisor, "SIGTERM", move || {
            let (ends, health, stopped) = (Arc::clone(&ends), Arc::clone(&health), stopped.clone());
            async move {
                let (terminate, interrupt, ..) = &mut *ends.lock().await;
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!(
                    "stopping: deliveries under way are finished, waiting clients are told 421"
                );
                health.stops();
                notify(&[NotifyState::Stopping]);
                stopped.stop();
            }
        });
        let hangup = Arc::new(Mutex::new(hangup));
        tasks::keep(&supervisor, "SIGHUP", move || {
            let (hangup, handle, read) = (Arc::clone(&hangup), handle.clone(), Arc::clone(&read));
            async move {
                while hangup.lock().await.recv().await.is_some() {
                    reload(handle.clone(), Arc::clone(&read)).await;
                }
            }
        });
    }
}

async fn reload(handle: Handle, read: Arc<ReadSettings>) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
    let reloaded = tokio::task::spawn_blocking(move || {
        let settings = read()?;
        handle.reload(settings).map_err(|error| error.to_string())
    });
    match reloaded.await {
        Ok(Ok(warnings)) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!("reloaded");
        }
        Ok(Err(error)) => {
            tracing::error!("not reloaded, everything stays as it was: {error}");
        }
        Err(error) => tracing::error!("not reloaded, everything stays as it was: {error}"),
    }
    notify(&[NotifyState::Ready]);
}

/// Tells systemd that the server ends.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells systemd what the server is doing.
pub fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// Tells systemd that the start takes longer, until this is dropped: a recovery that is killed
/// begins again.
#[derive(Debug)]
pub struct Starting(tokio::task::JoinHandle<()>);

impl Starting {
    /// Begins to tell. Must be called in a tokio runtime with time.
    pub fn begin() -> Self {
        Self(tokio::spawn(async {
            loop {
                notify(&[NotifyState::ExtendTimeoutUsec(START_EXTENSION_US)]);
                tokio::time::sleep(START_INTERVAL).await;
            }
        }))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells systemd that the server is ready, and from now on that it lives. A server whose delivery
/// log failed lives: it opens the log again by itself, and being restarted would do no more.
pub fn ready(supervisor: &Supervisor) {
    notify(&[NotifyState::Ready]);
    let mut interval_us = 0;
    if sd_notify::watchdog_enabled(false, &mut interval_us) && interval_us > 0 {
        let interval = Duration::from_micros(interval_us) / 2;
        tasks::keep(supervisor, "watchdog", move || async move {
            loop {
                notify(&[NotifyState::Watchdog]);
                tokio::time::sleep(interval).await;
            }
        });
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::warn!("cannot tell systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal as Number;

    #[tokio::test]
    async fn exit_statuses_of_commands_are_kept_whatever_the_parent_ignored() {
        let _signals = Signals::catch().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
        assert_ne!(caught & 1 << (Number::SIGCHLD as i32 - 1), 0);
    }
}
