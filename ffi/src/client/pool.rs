//! Connections that wait for the next message, and those whose replies are not confirmed.
//!
//! Invariant: a connection serves one message at a time, until its replies
//! are confirmed.

use super::connection::{Connection, Lost};
use crate::results::Proof;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most idle connections; others are closed.
const IDLE_MAX: usize = 64;

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    path: PathBuf,
    /// How long an unavailable server is tried.
    timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

/// A connection whose replies are not confirmed. When it is dropped, the server notices that they
/// may be lost.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Connection,
    pool: Arc<Pool>,
}

impl Pool {
    pub(super) fn new(path: &Path, timeout: Duration) -> Self {
        Self {
            path: path.to_owned(),
            timeout,
            idle: Mutex::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an idle connection, or a new one.
    pub(super) fn take(&self, deadline: Instant) -> Result<Connection, Lost> {
        loop {
            // The lock is not held during the system call.
            let waiting = self.idle().pop();
            match waiting {
                Some(connection) if connection.is_quiet() => return Ok(connection),
                // The server ended it.
                Some(_) => {}
                None => {
                    let greeted_by = deadline.min(Instant::now() + self.timeout);
                    return Connection::open(&self.path, greeted_by);
                }
            }
        }
    }

    /// Keeps a connection without unread replies for the next message.
    pub(super) fn put(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }
}

/// Of a server: the replies wait unread in connections, one for each attempt that got some.
impl Proof for Vec<Lease> {
    fn confirm(self: Box<Self>) {
        self.into_iter().for_each(Lease::confirm);
    }
}

impl Lease {
    pub(super) fn new(connection: Connection, pool: &Arc<Pool>) -> Self {
        let pool = Arc::clone(pool);
        Self { connection, pool }
    }

    /// Confirms that the replies were passed on.
    fn confirm(mut self) {
        if self.connection.read_rest() {
            self.pool.put(self.connection);
        }
    }
}
