//! One server: its sessions, those who wait for one, and its health.
//!
//! Invariants: never more sessions than allowed, with it and with all servers together; what waits
//! is bounded, in number and in time; a server that cannot be reached costs its own recipients a
//! reply 4xx and others nothing. A session that the server closed while it was idle is replaced,
//! for nothing was sent over it.

use super::backoff::{Attempt, Backoff, Refused};
use super::connection::{Connection, Dial, End, Limits};
use super::counters::{Counters, Totals};
use super::envelope::{Envelope, Rcpt};
use super::message::Outgoing;
use super::nexthop::{Place, Protocol};
use super::outcome::{Lost, Stage};
use super::stream::Resolver;
use super::tls::Tls;
use super::transaction::{Session, Transaction};
use mailstow_engine::config::RelaySettings;
use mailstow_engine::transport::Disposition;
use mailstow_engine::{EnhancedCode, Status};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// What all servers share.
#[derive(Debug)]
pub(super) struct Common {
    /// The name we greet with.
    pub(super) me: String,
    pub(super) settings: RelaySettings,
    pub(super) lmtp_tls: Tls,
    pub(super) smtp_tls: Tls,
    pub(super) resolver: Resolver,
    /// Sessions with all servers that may be open at once.
    pub(super) sessions: Arc<Semaphore>,
}

/// Takes what becomes of recipients.
pub(super) trait Outcomes: Send + Sync + std::fmt::Debug {
    /// Something is done for a recipient that cannot be taken back; returns false if the recipient
    /// was given up.
    fn begin(&self, index: usize) -> bool;
    /// Answers for a recipient, with what a success means for the sender.
    fn answer(&self, index: usize, status: Status, disposition: Disposition);
}

/// A message for one nexthop.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) outgoing: Outgoing,
    pub(super) envelope: Envelope,
    pub(super) deadline: Instant,
    pub(super) outcomes: Box<dyn Outcomes>,
}

/// Recipients of one transaction: by what [`Outcomes`] knows each, and its address.
pub(super) type Batch = [(usize, Rcpt)];

/// A session without mail.
#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Debug, Default)]
struct IdleSessions {
    sessions: Vec<Idle>,
    /// A task closes those that are idle for too long.
    is_swept: bool,
}

/// A server.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: String,
    place: Place,
    protocol: Protocol,
    common: Arc<Common>,
    permits: Semaphore,
    waiting: AtomicUsize,
    idle: Mutex<IdleSessions>,
    health: Mutex<Backoff>,
    counters: Counters,
}

/// The state of a server for operators.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) down: Option<Refused>,
    pub(super) busy: usize,
    pub(super) idle: usize,
    pub(super) waiting: usize,
    pub(super) totals: Totals,
}

impl Backend {
    pub(super) fn new(protocol: Protocol, place: Place, common: &Arc<Common>) -> Self {
        Self {
            name: format!("{}:{place}", protocol.name()),
            place,
            protocol,
            common: Arc::clone(common),
            permits: Semaphore::new(common.settings.destination_concurrency_limit),
            waiting: AtomicUsize::new(0),
            idle: Mutex::default(),
            health: Mutex::default(),
            counters: Counters::new(std::time::Instant::now()),
        }
    }

    /// Delivers to some recipients, and answers for each.
    ///
    /// # Errors
    /// The server takes no mail now. Nothing was sent, and no recipient was answered: another
    /// server may be tried. The reply for recipients if there is none.
    pub(super) async fn deliver(self: &Arc<Self>, job: &Job, batch: &Batch) -> Result<(), Status> {
        let mut trial = self.admit()?;
        let _permit = self.permit(job.deadline).await?;
        // It may have failed while this waited.
        trial.still_makes_sense()?;
        let mut may_reuse = true;
        loop {
            let idle = if may_reuse {
                self.take_idle().await
            } else {
                None
            };
            let is_reused = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => {
                    let limit = Instant::now() + self.common.settings.connect_timeout;
                    let limit = limit.min(job.deadline);
                    let session = self.session_permit(limit).await?;
                    let opened = self.connect(session, limit).await;
                    opened.inspect_err(|status| trial.failed(&status.text))?
                }
            };
            let wanted: Vec<&(usize, Rcpt)> = batch
                .iter()
                .filter(|(index, _)| job.outcomes.begin(*index))
                .collect();
            if wanted.is_empty() {
                self.keep(connection);
                return Ok(());
            }
            let recipients: Vec<Rcpt> = wanted.iter().map(|(_, rcpt)| rcpt.clone()).collect();
            let peer = Arc::clone(&connection.peer);
            let reset = connection.needs_reset();
            let mut transaction = Transaction::new(&peer, &job.envelope, &recipients, reset);
            let limits = Limits {
                deadline: job.deadline,
                reply: self.common.settings.reply_timeout,
            };
            let end = connection
                .run(&mut transaction, &job.outgoing, limits)
                .await;
            let is_early = transaction.stage() == Stage::Commands;
            match end {
                End::Over(session) => {
                    trial.succeeded();
                    if session != Session::Closes {
                        self.keep(connection);
                    }
                }
                // The server gave the session up before it had any mail.
                End::Lost(Lost::Closed(_) | Lost::Broken(..)) | End::Closing(_)
                    if is_reused && is_early =>
                {
                    may_reuse = false;
                    continue;
                }
                End::Closing(status) => {
                    if is_early {
                        trial.failed(&status.text);
                    }
                    transaction.fail(&status);
                }
                End::Lost(lost) => {
                    // One message may be too much for a server that is well, or one mailbox.
                    if is_early {
                        trial.failed(&lost.to_string());
                    }
                    transaction.lost(&lost);
                }
            }
            let outcomes = transaction.outcomes();
            self.counters
                .count(outcomes.iter(), std::time::Instant::now());
            for ((index, rcpt), status) in wanted.iter().zip(outcomes) {
                // A server that offers DSN sends the notice, if it was asked for one.
                let is_asked = rcpt.notify.is_some_and(|notify| notify.success);
                let disposition = match is_asked && peer.extensions.dsn {
                    true => Disposition::RelayedWithDsn,
                    false => Disposition::Relayed,
                };
                job.outcomes.answer(*index, status, disposition);
            }
            return Ok(());
        }
    }

    /// Counts recipients that were deferred because the server takes no mail.
    pub(super) fn put_off(&self, count: usize, status: &Status) {
        let outcomes = std::iter::repeat_n(status, count);
        self.counters.count(outcomes, std::time::Instant::now());
    }

    /// True when nothing is remembered of the server that matters.
    pub(super) fn is_unused(&self) -> bool {
        let state = self.state();
        state.down.is_none() && state.busy + state.idle + state.waiting == 0
    }

    /// Returns the state for operators.
    pub(super) fn state(&self) -> State {
        let now = std::time::Instant::now();
        let most = self.common.settings.destination_concurrency_limit;
        State {
            down: self.health.lock().state(now),
            busy: most.saturating_sub(self.permits.available_permits()),
            idle: self.idle.lock().sessions.len(),
            waiting: self.waiting.load(Ordering::Relaxed),
            totals: self.counters.totals(now),
        }
    }

    fn admit(&self) -> Result<Trial<'_>, Status> {
        let admitted = self.health.lock().admit(std::time::Instant::now());
        match admitted {
            Ok(attempt) => Ok(Trial {
                backend: self,
                attempt,
                is_settled: false,
            }),
            Err(refused) => Err(self.down(&refused)),
        }
    }

    fn down(&self, refused: &Refused) -> Status {
        let text = format!(
            "{} takes no mail: {}; tried again in {} s",
            self.name,
            refused.cause,
            refused.next_in.as_secs_f32().ceil()
        );
        Status::new(451, EnhancedCode::new(4, 4, 1), text)
    }

    /// Waits for the right to use a session.
    async fn permit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Status> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= self.common.settings.destination_queue_limit {
            let text = format!("Too many messages wait for {}", self.name);
            return Err(Status::new(451, EnhancedCode::new(4, 3, 2), text));
        }
        let acquired = timeout_at(deadline, self.permits.acquire()).await;
        let Ok(Ok(permit)) = acquired else {
            let text = format!("{} had no session free in time", self.name);
            return Err(Status::new(451, EnhancedCode::new(4, 4, 5), text));
        };
        Ok(permit)
    }

    /// Waits until one more session may be open.
    async fn session_permit(&self, until: Instant) -> Result<OwnedSemaphorePermit, Status> {
        let sessions = Arc::clone(&self.common.sessions);
        let Ok(Ok(permit)) = timeout_at(until, sessions.acquire_owned()).await else {
            let text = "Too many sessions with other servers are open; see the limit on open files";
            return Err(Status::new(451, EnhancedCode::new(4, 3, 2), text));
        };
        Ok(permit)
    }

    async fn connect(
        &self,
        session: OwnedSemaphorePermit,
        until: Instant,
    ) -> Result<Connection, Status> {
        let dial = Dial {
            place: &self.place,
            protocol: self.protocol,
            name: &self.name,
            me: &self.common.me,
            tls: match self.protocol {
                Protocol::Lmtp => &self.common.lmtp_tls,
                Protocol::Smtp => &self.common.smtp_tls,
            },
            resolver: &self.common.resolver,
        };
        let connection = Connection::open(&dial, session, until).await?;
        self.counters.connected();
        Ok(connection)
    }

    /// Takes the session that was used last, if it still lives.
    async fn take_idle(&self) -> Option<Connection> {
        loop {
            let mut idle = self.idle.lock().sessions.pop()?;
            let is_old = idle.since.elapsed() > self.common.settings.connection_idle_time;
            if !is_old && !idle.connection.is_stale().await {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a session for the next message, and sees that it is closed some time.
    fn keep(self: &Arc<Self>, connection: Connection) {
        let mut idle = self.idle.lock();
        idle.sessions.push(Idle {
            connection,
            since: Instant::now(),
        });
        if !std::mem::replace(&mut idle.is_swept, true) {
            let backend = Arc::downgrade(self);
            let time = self.common.settings.connection_idle_time;
            tokio::spawn(async move {
                let mut wait = time;
                loop {
                    tokio::time::sleep(wait).await;
                    let Some(backend) = backend.upgrade() else {
                        return;
                    };
                    let (old, next) = backend.take_old(time);
                    for connection in old {
                        connection.quit().await;
                    }
                    match next {
                        Some(next) => wait = next,
                        None => return,
                    }
                }
            });
        }
    }

    /// Takes the sessions out that were idle for too long. Returns them, and when the next one
    /// will be; `None` when there is none.
    fn take_old(&self, time: Duration) -> (Vec<Connection>, Option<Duration>) {
        let mut idle = self.idle.lock();
        let (old, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut idle.sessions)
            .into_iter()
            .partition(|idle| idle.since.elapsed() >= time);
        idle.sessions = kept;
        let oldest = idle.sessions.iter().map(|idle| idle.since).min();
        idle.is_swept = oldest.is_some();
        let next = oldest.map(|since| time.saturating_sub(since.elapsed()));
        let old = old.into_iter().map(|idle| idle.connection);
        (old.collect(), next)
    }
}

/// An attempt to use a server. Dropped without a result, it says nothing of the server.
#[derive(Debug)]
struct Trial<'a> {
    backend: &'a Backend,
    attempt: Attempt,
    is_settled: bool,
}

impl Trial<'_> {
    fn still_makes_sense(&self) -> Result<(), Status> {
        let health = self.backend.health.lock();
        if health.still_admits(self.attempt) {
            return Ok(());
        }
        let state = health.state(std::time::Instant::now());
        drop(health);
        state.map_or(Ok(()), |refused| Err(self.backend.down(&refused)))
    }

    fn succeeded(&mut self) {
        self.is_settled = true;
        let mut health = self.backend.health.lock();
        if let Some(down) = health.state(std::time::Instant::now()) {
            let seconds = down.since.as_secs();
            tracing::info!("{} takes mail again after {seconds} s", self.backend.name);
        }
        health.succeeded();
    }

    fn failed(&mut self, cause: &str) {
        self.is_settled = true;
        let mut health = self.backend.health.lock();
        let now = std::time::Instant::now();
        let was_down = health.state(now).is_some();
        health.failed(self.attempt, now, cause);
        if !was_down {
            let name = &self.backend.name;
            tracing::warn!("{name} takes no mail: {cause}; its mail is answered 451");
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.backend.health.lock().ended(self.attempt);
        }
    }
}

/// Counts those who wait for a session.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Ordering::Relaxed);
        Self { count, before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
