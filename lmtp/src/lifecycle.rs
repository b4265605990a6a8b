//! The signals of the server.
//!
//! SIGTERM and SIGINT drain, SIGHUP reloads, and SIGXFSZ is an error of write(2) instead of the
//! end. Source: signal(7).

use crate::health::Health;
use crate::server::Handle;
use crate::systemd;
use crate::tasks;
use mailstow_engine::config::Settings;
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

/// Reads the configuration again; the error says what is wrong with it.
pub type ReadSettings = dyn Fn() -> Result<Settings, String> + Send + Sync;

/// The signals, caught from the moment this exists.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Caught, never waited for: a file size limit shall fail the write, not kill the server.
    file_size: Signal,
    /// Caught, never waited for: the parent process may ignore it, which is inherited, and the exit
    /// statuses of commands that take mail would be lost.
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

    /// Waits for a signal to end.
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
                    "stopping: deliveries in progress are finished, waiting clients are answered \
                     421"
                );
                health.stops();
                systemd::stopping();
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
    systemd::reloading();
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
    systemd::reloaded();
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
