//! Whether a server is tried: down after a failure, for a time that doubles with each.
//!
//! Does no I/O and reads no clock. While a server is down, one attempt at a time is let through
//! once its time has come. Attempts that began before the server was found down change nothing when
//! they fail, too.

use std::time::{Duration, Instant};

/// How long a server is left alone after its first failure, and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The health of one server.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    down: Option<Down>,
    /// Counts how often it went down or a trial failed.
    epoch: u64,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    wait: Duration,
    next_trial: Instant,
    is_tried: bool,
    cause: String,
}

/// An attempt that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    epoch: u64,
    is_trial: bool,
}

/// A server that is not tried now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Why it is down.
    pub(super) cause: String,
    /// When it is tried again; zero when it is being tried.
    pub(super) next_in: Duration,
    /// For how long it has been down.
    pub(super) since: Duration,
}

impl Backoff {
    /// Lets an attempt through, or says why not.
    ///
    /// # Errors
    /// The server is down.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Attempt, Refused> {
        let epoch = self.epoch;
        match &mut self.down {
            None => Ok(Attempt {
                epoch,
                is_trial: false,
            }),
            Some(down) if !down.is_tried && down.next_trial <= now => {
                down.is_tried = true;
                Ok(Attempt {
                    epoch,
                    is_trial: true,
                })
            }
            Some(_) => Err(self.state(now).unwrap_or_else(|| Refused {
                cause: String::new(),
                next_in: Duration::ZERO,
                since: Duration::ZERO,
            })),
        }
    }

    /// True while an attempt that was let through still makes sense.
    pub(super) fn still_admits(&self, attempt: Attempt) -> bool {
        self.down.is_none() || (attempt.is_trial && attempt.epoch == self.epoch)
    }

    /// The server answers.
    pub(super) fn succeeded(&mut self) {
        self.down = None;
    }

    /// The server failed.
    pub(super) fn failed(&mut self, attempt: Attempt, now: Instant, cause: &str) {
        if attempt.epoch != self.epoch {
            return;
        }
        let (since, wait) = match &self.down {
            Some(down) if attempt.is_trial => (down.since, (down.wait * 2).min(LONGEST)),
            Some(_) => return,
            None => (now, FIRST),
        };
        self.epoch += 1;
        self.down = Some(Down {
            since,
            wait,
            next_trial: now + wait,
            is_tried: false,
            cause: cause.to_owned(),
        });
    }

    /// The attempt ended without anything being known of the server.
    pub(super) fn ended(&mut self, attempt: Attempt) {
        if let Some(down) = &mut self.down
            && attempt.is_trial
            && attempt.epoch == self.epoch
        {
            down.is_tried = false;
        }
    }

    /// Returns since when and why the server is down; `None` when it is not.
    pub(super) fn state(&self, now: Instant) -> Option<Refused> {
        let down = self.down.as_ref()?;
        Some(Refused {
            cause: down.cause.clone(),
            next_in: down.next_trial.saturating_duration_since(now),
            since: now.saturating_duration_since(down.since),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_server_that_failed_is_left_alone_twice_as_long_each_time() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut attempt = backoff.admit(now).unwrap();
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.failed(attempt, now, "refused");
            assert_eq!(backoff.admit(now).unwrap_err().next_in, s(wait));
            now += s(wait);
            attempt = backoff.admit(now).unwrap();
        }
        backoff.succeeded();
        let attempt = backoff.admit(now).unwrap();
        backoff.failed(attempt, now, "refused");
        assert_eq!(backoff.admit(now).unwrap_err().next_in, s(1));
    }

    #[test]
    fn one_attempt_at_a_time_tries_a_server_that_is_down() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let attempt = backoff.admit(now).unwrap();
        backoff.failed(attempt, now, "x");
        let trial = backoff.admit(now + s(1)).unwrap();
        assert!(backoff.admit(now + s(1)).is_err());
        backoff.ended(trial);
        let trial = backoff.admit(now + s(1)).unwrap();
        assert!(backoff.still_admits(trial) && !backoff.still_admits(attempt));
    }

    #[test]
    fn failures_of_one_moment_count_once() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let attempts: Vec<_> = (0..20).map(|_| backoff.admit(now).unwrap()).collect();
        for attempt in &attempts {
            backoff.failed(*attempt, now, "x");
        }
        assert_eq!(backoff.admit(now).unwrap_err().next_in, s(1));
        let trial = backoff.admit(now + s(1)).unwrap();
        backoff.failed(attempts[0], now, "late");
        assert!(backoff.still_admits(trial), "the trial goes on");
    }

    #[test]
    fn an_old_attempt_that_succeeds_brings_a_server_back() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let attempt = backoff.admit(now).unwrap();
        backoff.failed(attempt, now, "x");
        backoff.succeeded();
        assert!(backoff.admit(now).is_ok() && backoff.state(now).is_none());
    }
}
