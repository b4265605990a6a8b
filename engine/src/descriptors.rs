//! File descriptors: how many the engine needs, and how many are left for connections.
//!
//! The system gives a process so many open files (`RLIMIT_NOFILE`) and no more; a server that
//! accepts connections must leave the engine what it needs, else idle connections keep mail from
//! being stored. Invariant: reserve, connections and scratch files together are never more than the
//! limit. Where the limit is low, writers take smaller batches, so that they need fewer files at
//! once.

use crate::config::Settings;
use nix::sys::resource::{Resource, getrlimit};

/// Standard streams, the event queue and signals of a server, its listening sockets, and a few
/// connections that get the reason for a refusal.
const PROCESS: usize = 16;
/// The log's directory and lock, the segment in use, the next one, a spare that is being made, one
/// that is read, a ring, and what the log holds in reserve itself.
const LOG: usize = 18;
/// Two witnesses of each file system with mailboxes: of this checkpoint, and of the next.
const CHECKPOINT: usize = 2 * 4;
/// The mailbox that recovery works on, and the segment that it reads.
const RECOVERY: usize = 8;
/// Tables that are read again, and maps that are merged.
const TABLES: usize = 4;
/// Connections to databases and servers behind tables, where the limit allows.
const TABLE_SERVERS: usize = 64;
/// Of one delivery in a writer's hands: the message, its mailbox, and directories above it that
/// are used for the first time.
const DELIVERY: usize = 4;
/// Of each batch besides: the base, and the mailbox being opened.
const BATCH: usize = 2;
/// A writer begins a batch while the one before it is flushed.
const BATCHES: usize = 2;
/// The reserve is at most this part of the limit, unless even the least is more.
const RESERVE_PART: usize = 4;
/// Messages that wait in files get this part of what is left, if it is not enough for everybody.
const SCRATCH_PART: usize = 4;
/// Else one for each connection, and at least so many.
const SCRATCH_FILES: usize = 4096;

/// Sessions with other servers get this part of what is left, and at most so many.
const RELAY_PART: usize = 4;
const RELAY_SESSIONS: usize = 1024;

/// How the descriptors of the process are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    limit: usize,
    reserved: usize,
    connections: usize,
    scratch_files: usize,
    relay_sessions: usize,
    batch: usize,
}

impl Descriptors {
    /// By the limit that the process has now.
    pub fn plan(settings: &Settings) -> Self {
        let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        Self::within(usize::try_from(soft).unwrap_or(usize::MAX), settings)
    }

    /// By this limit.
    pub fn within(limit: usize, settings: &Settings) -> Self {
        // Mailboxes of accounts have a store, with a log and writers.
        let stores = 1 + usize::from(settings.delivers_locally());
        let needed = |batch: usize| {
            let batches = settings.store.writers.max(1) * BATCHES;
            let each = batch.saturating_mul(DELIVERY).saturating_add(BATCH);
            let writers = batches.saturating_mul(each).saturating_mul(stores);
            let logs = stores * (LOG + CHECKPOINT + RECOVERY);
            writers.saturating_add(PROCESS + TABLES + logs)
        };
        let most = (limit / RESERVE_PART).max(needed(1));
        let mut batch = settings.store.batch.max(1);
        while batch > 1 && needed(batch) > most {
            batch /= 2;
        }
        let reserved = needed(batch).saturating_add(TABLE_SERVERS);
        let reserved = reserved.min(most).min(limit);
        let left = limit - reserved;
        let relay_sessions = match settings.transport.enabled {
            true => (left / RELAY_PART).min(RELAY_SESSIONS),
            false => 0,
        };
        let left = left - relay_sessions;
        let wanted = settings.limits.connections;
        let scratch_files = (left / SCRATCH_PART).max(left.saturating_sub(wanted));
        let scratch_files = scratch_files.min(wanted.max(SCRATCH_FILES)).min(left);
        Self {
            limit,
            reserved,
            connections: left - scratch_files,
            scratch_files,
            relay_sessions,
            batch,
        }
    }

    /// Files the process may have open at once.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Files kept for the delivery log, checkpoints, recovery, tables and writers.
    pub fn reserved(&self) -> usize {
        self.reserved
    }

    /// Connections that may be open at once; fewer than `limits.connections` where the limit is
    /// low.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Messages that may be held in files while they arrive and wait.
    pub fn scratch_files(&self) -> usize {
        self.scratch_files
    }

    /// Sessions with other servers that may be open at once; 0 where no mail goes on to any.
    pub fn relay_sessions(&self) -> usize {
        self.relay_sessions
    }

    /// Deliveries that a writer takes at once: `store.batch`, or fewer.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The limit with which all of `settings` holds.
    pub fn limit_for(settings: &Settings) -> usize {
        let mut limit = settings.limits.connections;
        while Self::within(limit, settings).connections < settings.limits.connections {
            limit = limit.saturating_add(limit / 8 + 64);
        }
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(connections: usize) -> Settings {
        let mut settings = Settings::default();
        settings.limits.connections = connections;
        settings
    }

    #[test]
    fn all_parts_together_are_within_the_limit_whatever_it_is() {
        for connections in [1, 100, 10_000, 1_000_000] {
            let mut settings = settings(connections);
            settings.transport.enabled = connections != 100;
            for limit in (0..4000).chain([20_000, 65_536, 1 << 20, usize::MAX]) {
                let plan = Descriptors::within(limit, &settings);
                let sum = plan.reserved.checked_add(plan.connections);
                let sum = sum.and_then(|sum| sum.checked_add(plan.scratch_files));
                let sum = sum.and_then(|sum| sum.checked_add(plan.relay_sessions));
                assert_eq!(sum.map(|sum| sum <= limit), Some(true), "{plan:?}");
                assert!(plan.batch >= 1, "{plan:?}");
            }
        }
    }

    #[test]
    fn a_high_limit_leaves_every_setting_as_it_is() {
        let settings = settings(10_000);
        let plan = Descriptors::within(65_536, &settings);
        assert_eq!(plan.batch, settings.store.batch);
        assert!(plan.connections >= 10_000 && plan.scratch_files >= 10_000);
    }

    #[test]
    fn a_low_limit_takes_from_connections_and_batches_and_not_from_the_log() {
        let settings = settings(10_000);
        for (limit, connections, batch) in [(128, 20, 1), (256, 100, 1), (1024, 500, 4)] {
            let plan = Descriptors::within(limit, &settings);
            assert!(plan.connections >= connections, "{plan:?}");
            assert!(plan.batch >= batch && plan.batch < 64, "{plan:?}");
            assert!(plan.reserved > LOG + CHECKPOINT + RECOVERY, "{plan:?}");
        }
    }

    #[test]
    fn the_limit_that_is_advised_is_enough() {
        for connections in [1, 500, 10_000] {
            let settings = settings(connections);
            let limit = Descriptors::limit_for(&settings);
            assert!(Descriptors::within(limit, &settings).connections >= connections);
            assert!(limit < 2 * connections + 1000, "{limit}");
        }
    }
}
