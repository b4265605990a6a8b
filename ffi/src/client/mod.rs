//! The mode in which a running server stores the mail: LMTP on its UNIX-domain socket.
//!
//! Many processes share the server's
//! delivery log in this way, and one flush acknowledges the mail of all of them. Invariants: a
//! message is sent again, with the same retry key, until every recipient has its reply or is out
//! of time; replies that the host has not confirmed stay unread in their connection, by which the
//! server knows that they may be lost. Sources: RFC 2033, RFC 2920, XFORWARD_README.

mod connection;
mod deliver;
mod pool;
mod reply;
mod submission;
mod transaction;
mod workers;

pub(crate) use submission::Submission;

use crate::completions::Completions;
use crate::counters::Counters;
use crate::failure::Failure;
use crate::result::MAILSTOW_CONFIG;
use crate::results::Results;
use mailstow_engine::config::ListenAddress;
use mailstow_engine::{MessageBuilder, Router, Routing, Settings, Spool};
use pool::Pool;
use std::path::Path;
use std::sync::Arc;
use workers::Workers;

/// A server that stores the mail, and the tables for looking recipients up.
#[derive(Debug)]
pub(crate) struct Client {
    pool: Arc<Pool>,
    spool: Spool,
    /// `None` where the server alone decides.
    routing: Option<Routing>,
    workers: Workers,
}

impl Client {
    /// Finds the server's socket in the settings and opens the tables. Does not connect yet.
    pub(crate) fn open(
        settings: &Settings,
        completions: &Arc<Completions>,
        counters: &Arc<Counters>,
    ) -> Result<Self, Failure> {
        let socket = Self::socket(settings)?;
        let pool = Arc::new(Pool::new(socket, settings.lmtp.connect_timeout));
        Ok(Self {
            spool: Spool::open(&settings.state_directory, &settings.limits)?,
            routing: routing(settings)?,
            workers: Workers::new(&pool, completions, counters),
            pool,
        })
    }

    /// The socket of the server.
    ///
    /// # Errors
    /// None is configured.
    pub(crate) fn socket(settings: &Settings) -> Result<&Path, Failure> {
        socket(&settings.lmtp.listen).ok_or_else(|| {
            let text = "lmtp.listen names no UNIX-domain socket; set it to that of the server, as \
                        unix:/run/mailstow/lmtp";
            Failure::new(MAILSTOW_CONFIG, text)
        })
    }

    /// The settings to look recipients up by: the server's socketmap where one is configured, else
    /// the tables; `None` when there are neither.
    pub(crate) fn looking_up(settings: &Settings) -> Option<Settings> {
        looking_up(settings)
    }

    /// Returns the current tables.
    pub(crate) fn snapshot(&self) -> Option<Arc<Router>> {
        self.routing.as_ref().map(Routing::snapshot)
    }

    /// Takes new settings of the tables into use.
    pub(crate) fn reload(&self, settings: &Settings) -> Result<(), Failure> {
        if let (Some(routing), Some(wanted)) = (&self.routing, looking_up(settings)) {
            for complaint in routing.reload(&wanted)? {
                tracing::warn!("{complaint}");
            }
        }
        Ok(())
    }

    pub(crate) fn new_message(&self) -> MessageBuilder {
        self.spool.message()
    }

    /// Delivers and waits.
    pub(crate) fn deliver(&self, submission: Submission, counters: &Arc<Counters>) -> Results {
        deliver::deliver(&self.pool, submission, counters)
    }

    /// Starts a thread for submitted messages, if there is none.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        self.workers.start()
    }

    /// Delivers by another thread, after [`Client::start`].
    pub(crate) fn submit(&self, submission: Submission, token: u64) {
        self.workers.put(submission, token);
    }

    /// Waits for the submitted messages.
    pub(crate) fn close(&self) {
        self.workers.close();
    }
}

fn socket(listen: &[ListenAddress]) -> Option<&Path> {
    listen.iter().find_map(|address| match address {
        ListenAddress::Unix(path) => Some(path.as_path()),
        _ => None,
    })
}

fn routing(settings: &Settings) -> Result<Option<Routing>, Failure> {
    match looking_up(settings) {
        Some(settings) => Ok(Some(Routing::open(&settings)?)),
        None => Ok(None),
    }
}

/// The settings to look recipients up by: the server's socketmap where one is configured, else the
/// tables; `None` when there are neither.
fn looking_up(settings: &Settings) -> Option<Settings> {
    let mut settings = settings.clone();
    if let Some(path) = socket(&settings.socketmap.listen) {
        let path = path.display().to_string();
        let routing = &mut settings.routing;
        for name in Router::published_names() {
            let table = format!("socketmap:unix:{path}:{name}");
            let place = match *name {
                "virtual_mailbox_maps" => &mut routing.virtual_mailbox_maps,
                "virtual_uid_maps" => &mut routing.virtual_uid_maps,
                "virtual_gid_maps" => &mut routing.virtual_gid_maps,
                "virtual_alias_maps" => &mut routing.virtual_alias_maps,
                "virtual_mailbox_domains" => &mut routing.virtual_mailbox_domains,
                "virtual_alias_domains" => &mut routing.virtual_alias_domains,
                "relay_domains" => &mut routing.relay_domains,
                "mydestination" => &mut routing.mydestination,
                "relay_recipient_maps" => &mut routing.relay_recipient_maps,
                "local_recipient_maps" => &mut routing.local_recipient_maps,
                _ => continue,
            };
            *place = table;
        }
        return Some(settings);
    }
    let routing = &settings.routing;
    let has_tables = !routing.virtual_mailbox_maps.is_empty()
        || !routing.virtual_mailbox_domains.is_empty()
        || !routing.virtual_alias_maps.is_empty();
    has_tables.then_some(settings)
}
