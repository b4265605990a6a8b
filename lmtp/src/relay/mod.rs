//! Relay: messages go on to other servers over LMTP or SMTP.
//!
//! What is said is decided by files that do no I/O: `nexthop` (where to), `opening` and
//! `transaction` (the dialogue), `replies` and `outcome` (what answers mean), `content` (the bytes
//! of a message), `backoff` (whether a server is tried). Around them, `connection` talks, `backend`
//! keeps the sessions of one server, and this file has them all. Invariants: nothing here waits
//! without a bound, and a session of the server never waits here at all; each recipient is answered
//! once; trouble with one server concerns its own recipients.
//!
//! A message whose end was sent and whose reply never came may have been taken: its recipients are
//! answered 451, and may get it twice. A next server that is mailstow gets the queue id (XFORWARD),
//! recognises the repetition and stores it once. What a server said that it took, the engine
//! remembers.

mod backend;
mod backoff;
mod connection;
mod content;
mod counters;
mod envelope;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_check;
mod message;
mod nexthop;
mod opening;
mod outcome;
mod replies;
mod single;
mod stream;
mod tls;
mod transaction;
mod transport;

#[cfg(test)]
mod tests;

use backend::{Backend, Common, Job, Outcomes};
use envelope::{Envelope, Forwarded, Path as MailPath, Rcpt};
use mailstow_engine::config::Settings;
use mailstow_engine::descriptors::Descriptors;
use mailstow_engine::transport::Disposition;
use mailstow_engine::{Mail, Recipient, Status};
use message::Outgoing;
use nexthop::Place;
pub(crate) use nexthop::Protocol;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
pub(crate) use stream::LOOKUPS_MAX;
use stream::Resolver;
use tls::Tls;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Servers that are remembered. Tables may make nexthops of addresses from outside.
const BACKENDS_MAX: usize = 1000;

/// The servers that mail goes on to.
#[derive(Debug)]
pub(crate) struct Relays {
    runtime: Handle,
    common: Arc<Common>,
    queue_directory: PathBuf,
    backends: Mutex<HashMap<(Protocol, Place), Arc<Backend>>>,
}

/// A message for one nexthop.
#[derive(Debug)]
struct Request {
    mail: Arc<Mail>,
    nexthop: String,
    /// By what `outcomes` knows each, and the recipient.
    recipients: Vec<(usize, Recipient)>,
    forwarded: Forwarded,
    deadline: std::time::Instant,
    outcomes: Box<dyn Outcomes>,
}

/// Looks whether TLS can be used as configured.
///
/// # Errors
/// Says what is wrong and the remedy.
pub(crate) fn check_tls(settings: &Settings) -> Result<(), String> {
    let relay = &settings.relay;
    for level in [relay.lmtp_tls_security_level, relay.smtp_tls_security_level] {
        Tls::new(level, &relay.tls_ca_file)?;
    }
    Ok(())
}

/// Returns why a nexthop of the transport `name` names no server. An empty nexthop depends on the
/// recipient.
pub(crate) fn nexthop_problem(name: &str, nexthop: &str, settings: &Settings) -> Option<String> {
    let mut services = settings.transport.services.iter();
    let service = services.find(|service| service.name == name);
    let program = service.map_or(name, |service| service.command.as_str());
    let protocol = match program {
        "lmtp" => Protocol::Lmtp,
        "smtp" | "relay" => Protocol::Smtp,
        _ => return None,
    };
    if nexthop.is_empty() {
        return None;
    }
    let found = nexthop::parse(protocol, nexthop, &settings.transport.queue_directory);
    found.err().map(|error| error.to_string())
}

impl Relays {
    /// Servers that are talked to on `runtime`.
    ///
    /// # Errors
    /// TLS cannot be used as configured. Says what and the remedy.
    pub(crate) fn new(settings: &Settings, runtime: Handle) -> Result<Arc<Self>, String> {
        let relay = &settings.relay;
        let common = Common {
            me: settings.lmtp.hostname.clone(),
            settings: relay.clone(),
            lmtp_tls: Tls::new(relay.lmtp_tls_security_level, &relay.tls_ca_file)?,
            smtp_tls: Tls::new(relay.smtp_tls_security_level, &relay.tls_ca_file)?,
            resolver: Resolver::default(),
            sessions: Arc::new(Semaphore::new(Descriptors::plan(settings).relay_sessions())),
        };
        Ok(Arc::new(Self {
            runtime,
            common: Arc::new(common),
            queue_directory: settings.transport.queue_directory.clone(),
            backends: Mutex::default(),
        }))
    }

    /// Begins to deliver a message; returns at once.
    fn deliver(self: &Arc<Self>, protocol: Protocol, request: Request) {
        let Request {
            mail,
            nexthop,
            recipients,
            forwarded,
            deadline,
            outcomes,
        } = request;
        let begun = self.backends(protocol, &nexthop).and_then(|backends| {
            let outgoing = Outgoing::new(mail, &self.common.me, "LMTP")?;
            Ok((backends, outgoing))
        });
        let (backends, outgoing) = match begun {
            Ok(begun) => begun,
            Err(status) => {
                let indices = recipients.iter().map(|(index, _)| *index);
                let none = Disposition::default();
                return indices.for_each(|index| outcomes.answer(index, status.clone(), none));
            }
        };
        let job = Arc::new(Job {
            envelope: Envelope {
                sender: MailPath::new(&outgoing.mail().reverse_path.external()),
                size: outgoing.wire_size(),
                envelope_id: outgoing.mail().dsn.envelope_id.clone(),
                returned: outgoing.mail().dsn.returned,
                forwarded,
            },
            outgoing,
            deadline: deadline.into(),
            outcomes,
        });
        let mut left = recipients.into_iter().peekable();
        let most = self.common.settings.destination_recipient_limit;
        while left.peek().is_some() {
            let asked = &job.outgoing.mail().dsn.recipients;
            let batch = left.by_ref().take(most).map(|(index, recipient)| {
                let dsn = asked.get(&recipient);
                let rcpt = Rcpt::new(recipient, dsn);
                (index, rcpt)
            });
            let batch: Vec<(usize, Rcpt)> = batch.collect();
            let (job, backends) = (Arc::clone(&job), backends.clone());
            self.runtime
                .spawn(async move { deliver_batch(&job, &batch, &backends).await });
        }
    }

    /// The servers of a nexthop, in the order in which they are tried.
    fn backends(&self, protocol: Protocol, nexthop: &str) -> Result<Vec<Arc<Backend>>, Status> {
        let places = nexthop::parse(protocol, nexthop, &self.queue_directory)
            .map_err(|error| Status::configuration(format!("{}: {error}", protocol.name())))?;
        let mut known = self.backends.lock();
        places
            .into_iter()
            .map(|place| {
                let key = (protocol, place);
                if let Some(backend) = known.get(&key) {
                    return Ok(Arc::clone(backend));
                }
                if known.len() >= BACKENDS_MAX {
                    known.retain(|_, backend| !backend.is_unused());
                }
                if known.len() >= BACKENDS_MAX {
                    let text = format!("mail goes to more than {BACKENDS_MAX} servers at once");
                    return Err(Status::system(text));
                }
                let backend = Backend::new(protocol, key.1.clone(), &self.common);
                let backend = Arc::new(backend);
                known.insert(key, Arc::clone(&backend));
                Ok(backend)
            })
            .collect()
    }

    /// What `mailstow routes` shows: one object for each server.
    pub(crate) fn report(&self) -> Vec<Value> {
        let mut backends: Vec<_> = self.backends.lock().values().cloned().collect();
        backends.sort_by(|a, b| a.name.cmp(&b.name));
        backends.iter().map(|backend| shown(backend)).collect()
    }
}

async fn deliver_batch(job: &Job, batch: &[(usize, Rcpt)], backends: &[Arc<Backend>]) {
    let mut last = Status::system("a nexthop without servers");
    for backend in backends {
        match backend.deliver(job, batch).await {
            Ok(()) => return,
            Err(status) => {
                backend.put_off(batch.len(), &status);
                last = status;
            }
        }
        if Instant::now() >= job.deadline {
            break;
        }
    }
    for (index, _) in batch {
        job.outcomes
            .answer(*index, last.clone(), Disposition::default());
    }
}

fn shown(backend: &Backend) -> Value {
    let state = backend.state();
    let totals = state.totals;
    let mut value = json!({
        "server": backend.name,
        "state": if state.down.is_some() { "down" } else { "up" },
        "busy": state.busy,
        "idle": state.idle,
        "waiting": state.waiting,
        "delivered": totals.delivered,
        "deferred": totals.deferred,
        "refused": totals.refused,
        "connections": totals.connections,
        "delivered_last_minute": totals.last_minute,
    });
    if let (Some(down), Some(value)) = (state.down, value.as_object_mut()) {
        value.insert("cause".into(), down.cause.into());
        value.insert("down_for_s".into(), down.since.as_secs().into());
        value.insert(
            "next_attempt_in_s".into(),
            down.next_in.as_secs_f64().into(),
        );
    }
    value
}
