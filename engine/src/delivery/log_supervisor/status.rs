//! What operators see of the log and of the file systems.

use super::super::health::{FileSystemFailure, LogFailure, LogState, hung_failure, no_answer};
use super::super::ledger::dirty_file_systems::SuspectState;
use super::LogSupervisor;
use crate::clock;
use crate::log::LogError;
use std::fmt;
use std::time::Duration;

impl<H: fmt::Debug + Send + Sync + 'static> LogSupervisor<H> {
    /// Returns whether the log is in service, how many messages wait, and which file systems fail.
    pub(in crate::delivery) fn health(&self) -> (LogState, usize, Vec<FileSystemFailure>) {
        let waiting = self.ledger.deferred.undelivered();
        let file_systems = self.failing_file_systems();
        let log = match self.ledger.log.status() {
            Ok(journal) => {
                let usage = journal.usage();
                LogState::InService {
                    bytes_used: usage.segments_live * usage.segment_bytes,
                    bytes_max: usage.log_bytes_max,
                }
            }
            Err(failure) => {
                let now = clock::now();
                let failure = failure.as_ref();
                LogState::Failed(LogFailure {
                    cause: failure.map_or(LogError::Closed, |f| f.cause.clone()),
                    since: failure.map_or_else(clock::since_epoch, |f| f.since),
                    attempts: failure.map_or(0, |f| f.attempts),
                    next_attempt_in: failure.map_or(Duration::ZERO, |f| {
                        f.next_attempt.saturating_duration_since(now)
                    }),
                })
            }
        };
        (log, waiting, file_systems)
    }

    fn failing_file_systems(&self) -> Vec<FileSystemFailure> {
        let now = clock::now();
        let failure = |(device, suspect): (u64, SuspectState)| FileSystemFailure {
            mount_point: suspect.mount_point,
            cause: suspect.cause,
            since: suspect.since,
            attempts: suspect.attempts.into(),
            next_attempt_in: suspect.next_attempt.saturating_duration_since(now),
            held: self.ledger.deferred.held_for(device),
        };
        let suspects = self.ledger.file_systems.suspects();
        let mut failures: Vec<FileSystemFailure> = suspects.into_iter().map(failure).collect();
        let limit = self.jobs.limit();
        for unanswered in self.ledger.file_systems.unanswered() {
            let is_known = |known: &FileSystemFailure| known.mount_point == unanswered.mount_point;
            let is_late = clock::since_epoch().saturating_sub(unanswered.since) > limit;
            if is_late && !failures.iter().any(is_known) {
                failures.push(FileSystemFailure {
                    mount_point: unanswered.mount_point,
                    cause: no_answer(),
                    since: unanswered.since,
                    attempts: 0,
                    next_attempt_in: Duration::ZERO,
                    held: self.ledger.deferred.held_for(unanswered.device),
                });
            }
        }
        for hung in self.pools.hung() {
            let is_known = |known: &FileSystemFailure| known.mount_point == hung.mount_point;
            if !failures.iter().any(is_known) {
                failures.push(hung_failure(hung));
            }
        }
        failures
    }
}
