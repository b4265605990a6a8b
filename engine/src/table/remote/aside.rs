//! Tables whose lookups block: asked on a few separate threads.
//!
//! `tcp:`, `socketmap:` and `unix:` wait for a server or for the account database. A server that
//! hangs blocks only the threads of its table.

use super::pool::{Pool, Threads};
use crate::limits::SERVER_THREADS_MAX;
use crate::sync::Arc;
use crate::table::attempt::{Answer, Asker, Asking, Reply};
use crate::table::{KeyInValues, LookupTable, Matching, TableError};
use std::time::Duration;

/// How long a lookup waits for a thread; the server gives up a recipient after as long.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);

/// A table that is asked on separate threads.
#[derive(Debug)]
pub(crate) struct Aside<T> {
    table: Arc<T>,
    asker: Asker,
    pool: Arc<Pool>,
}

impl<T: LookupTable> Aside<T> {
    /// Puts `table` aside.
    pub(crate) fn new(table: T) -> Self {
        Self {
            asker: Asker::new(table.name()),
            table: Arc::new(table),
            pool: Arc::new(Pool::new(Threads {
                most: SERVER_THREADS_MAX,
                most_of_user: SERVER_THREADS_MAX,
                yielding: false,
                hang_after: Some(QUEUE_TIMEOUT),
            })),
        }
    }
}

impl<T: LookupTable + 'static> LookupTable for Aside<T> {
    fn lookup(&self, key: &str) -> Answer {
        let (table, pool) = (Arc::clone(&self.table), Arc::clone(&self.pool));
        let asked = key.to_owned();
        let start = move |reply: Reply| {
            let name = table.name().to_owned();
            let refused = |cause| TableError::Unavailable { name, cause };
            pool.ask(QUEUE_TIMEOUT, reply, refused, move || table.lookup(&asked));
        };
        self.asker
            .answer(key, Asking::of_server(&self.asker, start))
    }

    fn matching(&self) -> Matching {
        self.table.matching()
    }

    fn name(&self) -> &str {
        self.table.name()
    }

    fn warnings(&self) -> &[String] {
        self.table.warnings()
    }

    fn key_in_values(&self) -> KeyInValues {
        self.table.key_in_values()
    }

    fn may_block(&self) -> bool {
        self.table.may_block()
    }
}
