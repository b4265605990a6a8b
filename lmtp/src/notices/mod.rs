//! Success notices: the sender of a message is notified of its delivery on request.
//!
//! A server that offers DSN gets `NOTIFY=SUCCESS` from Postfix, which then sends no notice itself.
//! So DSN is offered only where notices can be sent: see [`Sendmail::find`]. A few threads hand
//! notices over; sessions wait for theirs. Invariants: a notice is handed over after its delivery
//! is durable; nothing waits here without a bound; what is not asked for costs nothing. Source: RFC
//! 3461; the decision is in the engine's `manual::notices`.

mod report;
mod sendmail;

pub(crate) use report::{Action, Delivered, HEADER_BYTES_MAX, Report};
pub(crate) use sendmail::Sendmail;

use mailstow_engine::config::{Durability, Settings, SuccessNotices};
use mailstow_engine::octets;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Notices that are handed over at once.
const THREADS: usize = 4;

/// Notices that may wait for a thread.
const WAITING_MAX: usize = 256;

/// How long handing over one notice may take.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(30);

/// How long a session waits for its notice; well below the ten minutes that Postfix waits for the
/// reply (`lmtp_data_done_timeout`).
const WAIT_LIMIT: Duration = Duration::from_secs(90);

/// Whether DSN is offered, and why not.
///
/// # Errors
/// Why it is not offered, and the remedy where it could be.
pub(crate) fn way_out(settings: &Settings) -> Result<Sendmail, String> {
    match settings.lmtp.success_notices {
        SuccessNotices::No => return Err("success_notices = no".to_owned()),
        SuccessNotices::Auto if settings.store.durability == Durability::Direct => {
            return Err(
                "with durability = \"direct\" a message whose notice fails would be stored again \
                 when it is repeated; use durability = \"logged\", or success_notices = \"yes\""
                    .to_owned(),
            );
        }
        SuccessNotices::Auto | SuccessNotices::Yes => {}
    }
    Sendmail::find(settings)
}

/// The notices of a server.
#[derive(Debug)]
pub(crate) struct Notices(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    is_offered: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    way_out: Result<Arc<Sendmail>, String>,
    waiting: VecDeque<Waiting>,
    threads: usize,
    idle: usize,
    closing: bool,
}

/// A notice and the session that waits for it.
#[derive(Debug)]
struct Waiting {
    report: Report,
    way_out: Arc<Sendmail>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Notices {
    /// The notices that `settings` ask for.
    pub(crate) fn new(settings: &Settings) -> Self {
        let notices = Self(Arc::new(Shared {
            is_offered: AtomicBool::new(false),
            state: Mutex::new(State {
                way_out: Err(String::new()),
                waiting: VecDeque::new(),
                threads: 0,
                idle: 0,
                closing: false,
            }),
            changed: Condvar::new(),
        }));
        notices.reload(settings);
        notices
    }

    /// Takes new settings into use, for sessions that greet from now on.
    pub(crate) fn reload(&self, settings: &Settings) {
        let way_out = way_out(settings).map(Arc::new);
        let is_offered = way_out.is_ok() || settings.lmtp.success_notices == SuccessNotices::Yes;
        let mut state = self.0.state.lock();
        if let Err(cause) = &way_out
            && state.way_out.as_ref().err() != Some(cause)
        {
            match is_offered {
                true => tracing::warn!("success notices cannot be sent: {cause}"),
                false => tracing::info!("DSN is not offered: {cause}"),
            }
        }
        if is_offered && state.threads == 0 {
            // One at once: a later one may lack rights that this process gives up.
            self.0.add_thread(&mut state);
        }
        state.way_out = way_out;
        self.0.is_offered.store(is_offered, Ordering::Relaxed);
    }

    /// Whether DSN is offered to clients.
    pub(crate) fn is_offered(&self) -> bool {
        self.0.is_offered.load(Ordering::Relaxed)
    }

    /// Sends a notice; waits until the mail server has it.
    ///
    /// # Errors
    /// Why it was not sent, or may not have been.
    pub(crate) async fn send(&self, report: Report) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        self.0.queue(report, done)?;
        match tokio::time::timeout(WAIT_LIMIT, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("the thread that sends notices failed".to_owned()),
            Err(_) => Err(format!("not sent within {} s", WAIT_LIMIT.as_secs())),
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.0.state.lock().closing = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn queue(
        self: &Arc<Self>,
        report: Report,
        done: oneshot::Sender<Result<(), String>>,
    ) -> Result<(), String> {
        let mut state = self.state.lock();
        let way_out = Arc::clone(state.way_out.as_ref().map_err(String::clone)?);
        if state.waiting.len() >= WAITING_MAX {
            return Err("too many notices wait to be sent".to_owned());
        }
        state.waiting.push_back(Waiting {
            report,
            way_out,
            done,
        });
        if state.idle < state.waiting.len() && state.threads < THREADS {
            self.add_thread(&mut state);
        }
        if state.threads == 0 {
            state.waiting.pop_back();
            return Err("no thread can be made".to_owned());
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Adds a thread, unless the system refuses one; it is asked again with the next notice.
    fn add_thread(self: &Arc<Self>, state: &mut State) {
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name("mailstow-notice".into())
            .stack_size(256 * 1024)
            .spawn(move || shared.work());
        match thread {
            Ok(_) => state.threads += 1,
            Err(error) => tracing::error!("cannot start a thread for notices: {error}"),
        }
    }

    /// Hands notices over until the server ends.
    fn work(&self) {
        loop {
            let mut state = self.state.lock();
            let waiting = loop {
                if let Some(waiting) = state.waiting.pop_front() {
                    break waiting;
                }
                if state.closing {
                    return;
                }
                state.idle += 1;
                self.changed.wait(&mut state);
                state.idle -= 1;
            };
            drop(state);
            if waiting.done.is_closed() {
                // Its session told the client to try again.
                continue;
            }
            let hand_over = || {
                let recipient = octets::octets(&waiting.report.sender);
                let message = waiting.report.message();
                waiting
                    .way_out
                    .hand_over(&recipient, &message, HAND_OVER_LIMIT)
            };
            let outcome = catch_unwind(AssertUnwindSafe(hand_over))
                .unwrap_or_else(|_| Err("making the notice failed".to_owned()));
            // The session may be gone.
            let _ = waiting.done.send(outcome);
        }
    }
}

/// Whether a notice can be sent to that address. sendmail(1) reads its arguments as lists of
/// addresses: one whose domain holds what separates them could make of one recipient many.
pub(crate) fn can_be_told(sender: &mailstow_engine::address::Address) -> bool {
    let separates = |c: char| c.is_ascii_control() || " ()<>@,;:\\\"".contains(c);
    sender.domain.as_deref().is_none_or(|domain| {
        let literal = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']'));
        match literal {
            Some(inside) => !inside.replace(':', "").contains(separates),
            None => !domain.contains(separates),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailstow_engine::address::Address;
    use std::os::unix::fs::PermissionsExt;

    fn report() -> Report {
        Report {
            sender: "s@x".into(),
            host: "h".into(),
            id: "1".into(),
            queue_id: String::new(),
            envelope_id: None,
            arrived: String::new(),
            delivered: String::new(),
            utf8: false,
            recipients: Vec::new(),
            header: Vec::new(),
        }
    }

    /// Settings whose sendmail is this script.
    fn settings(directory: &std::path::Path, script: &str) -> Settings {
        let path = directory.join("sendmail");
        std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
        // Written by another process, see the tests of `sendmail`.
        let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", write, "sh", script]).arg(&path);
        assert!(shell.status().unwrap().success());
        let mut settings = Settings::default();
        settings.routing.sendmail_path = path;
        settings
    }

    #[tokio::test]
    async fn many_notices_are_sent_by_few_threads() {
        let directory = tempfile::tempdir().unwrap();
        let notices = Arc::new(Notices::new(&settings(directory.path(), "cat > /dev/null")));
        assert!(notices.is_offered());
        let send = |_| {
            let notices = Arc::clone(&notices);
            tokio::spawn(async move { notices.send(report()).await })
        };
        let sent: Vec<_> = (0..40).map(send).collect();
        for sent in sent {
            assert_eq!(sent.await.unwrap(), Ok(()));
        }
        assert!(notices.0.state.lock().threads <= THREADS);
    }

    #[tokio::test]
    async fn a_notice_that_cannot_be_handed_over_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let notices = Notices::new(&settings(directory.path(), "exit 75"));
        assert!(notices.send(report()).await.is_err());
    }

    #[tokio::test]
    async fn dsn_is_offered_where_there_is_a_way_out_only() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path(), "exit 0");
        let notices = Notices::new(&settings);
        let offered = |settings: &Settings| {
            notices.reload(settings);
            notices.is_offered()
        };
        settings.store.durability = Durability::Direct;
        assert!(!offered(&settings));
        settings.lmtp.success_notices = SuccessNotices::Yes;
        assert!(offered(&settings));
        settings.store.durability = Durability::Logged;
        settings.lmtp.success_notices = SuccessNotices::No;
        assert!(!offered(&settings));
        settings.lmtp.success_notices = SuccessNotices::Auto;
        assert!(offered(&settings));
        settings.routing.sendmail_path = "/nonexistent".into();
        assert!(!offered(&settings));
        assert!(notices.send(report()).await.is_err());
    }

    #[test]
    fn a_sender_whose_domain_could_be_read_as_more_addresses_is_not_told() {
        for (domain, can) in [
            (Some("x"), true),
            (Some("host#1"), true),
            (Some("[IPv6:::1]"), true),
            (Some(""), true),
            (None, true),
            (Some("x,y@z"), false),
            (Some("x y"), false),
            (Some("x>"), false),
            (Some("x:25"), false),
        ] {
            assert_eq!(
                can_be_told(&Address::new("a, b", domain)),
                can,
                "{domain:?}"
            );
        }
    }
}
