//! Notifications to systemd: readiness, reloading, stopping, and that the server lives.
//!
//! Source: sd_notify(3), systemd.service(5) `Type=notify-reload`.

use crate::tasks;
use mailstow_engine::supervisor::Supervisor;
use sd_notify::NotifyState;
use std::time::Duration;

/// How much longer the start may take, in microseconds, and how often that is said.
const START_EXTENSION_US: u32 = 30_000_000;
const START_INTERVAL: Duration = Duration::from_secs(10);

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
    if let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) {
        let interval = limit / 2;
        tasks::keep(supervisor, "watchdog", move || async move {
            loop {
                notify(&[NotifyState::Watchdog]);
                tokio::time::sleep(interval).await;
            }
        });
    }
}

/// Tells systemd that the configuration is read anew.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Tells systemd that the server serves, with the new configuration or the old one.
pub(crate) fn reloaded() {
    notify(&[NotifyState::Ready]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell systemd: {error}");
    }
}
