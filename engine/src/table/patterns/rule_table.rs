//! `regexp:` and `pcre:` tables: quick searches at once, slow ones aside.
//!
//! A lookup is tried at once with little effort, which is enough for nearly all. One that needs
//! more is done on one of a few threads of the table, with a deadline, and holds up only those who
//! ask for it. Invariant: the answer is that of all rules in order, or an error, which defers; a
//! search that was given up is never "no match".

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::effort::Effort;
use super::rules::{Rules, Unanswered};
use crate::clock;
use crate::limits::{
    PATTERN_BRIEF_TIME, PATTERN_THREADS_MAX, PATTERN_TIMEOUT, PATTERN_WARNING_INTERVAL,
};
use crate::sync::{Arc, Mutex};
use crate::table::attempt::{Answer, Asker, Asking, Reply};
use crate::table::remote::pool::{Pool, Threads};
use crate::table::{KeyInValues, LookupTable, Matching, TableError};

/// After so many patterns the time is looked at.
const PATTERNS_PER_LOOK: usize = 16;

/// A table of patterns.
pub(in crate::table) struct RuleTable {
    rules: Arc<Rules>,
    slow: Arc<Slow>,
    asker: Asker,
    pool: Arc<Pool>,
    warnings: Vec<String>,
}

/// What is known of slow searches of a table.
#[derive(Debug, Default)]
struct Slow {
    /// Line of the last pattern that took too long; 0 for none.
    line: AtomicUsize,
    told: Mutex<Option<Instant>>,
}

impl RuleTable {
    /// A table of `rules`.
    pub(in crate::table) fn new(name: &str, rules: Rules, warnings: Vec<String>) -> Self {
        Self {
            rules: Arc::new(rules),
            slow: Arc::default(),
            asker: Asker::new(name),
            pool: Arc::new(Pool::new(Threads {
                most: PATTERN_THREADS_MAX,
                most_of_user: PATTERN_THREADS_MAX,
                yielding: true,
                hang_after: None,
            })),
            warnings,
        }
    }

    /// Tries with little effort.
    fn at_once(&self, key: &str) -> Result<Option<String>, Unanswered> {
        let mut patterns = 0;
        let mut end = None;
        self.rules.answer(key, Effort::Brief, &mut |line| {
            patterns += 1;
            if patterns % PATTERNS_PER_LOOK == 0 {
                let now = clock::now();
                let end = *end.get_or_insert(now + PATTERN_BRIEF_TIME);
                if now > end {
                    return Err(Unanswered::Slow(line));
                }
            }
            Ok(())
        })
    }

    /// Asks a thread of this table.
    fn aside(&self, key: &str) -> Answer {
        let searched = Arc::new(AtomicUsize::new(0));
        let (rules, slow) = (Arc::clone(&self.rules), Arc::clone(&self.slow));
        let late = {
            let (rules, slow) = (Arc::clone(&rules), Arc::clone(&slow));
            let searched = Arc::clone(&searched);
            move || slow.late(&rules, searched.load(Ordering::Relaxed))
        };
        let (name, pool) = (Arc::clone(self.asker.name()), Arc::clone(&self.pool));
        let key_asked = key.to_owned();
        let start = move |reply: Reply| {
            let end = clock::now() + PATTERN_TIMEOUT;
            let name = name.to_string();
            let refused = |cause| TableError::Unavailable { name, cause };
            pool.ask(PATTERN_TIMEOUT, reply, refused, move || {
                with_all_effort(&rules, &slow, &key_asked, &searched, end)
            });
        };
        let asking = Asking {
            start,
            timeout: PATTERN_TIMEOUT,
            late,
        };
        self.asker.answer(key, asking)
    }
}

/// Searches on a separate thread. `searched` holds the line that is being searched.
fn with_all_effort(
    rules: &Rules,
    slow: &Slow,
    key: &str,
    searched: &AtomicUsize,
    end: Instant,
) -> Answer {
    let answer = rules.answer(key, Effort::Full, &mut |line| {
        searched.store(line, Ordering::Relaxed);
        match clock::now() > end {
            // Who asked has been answered.
            true => Err(Unanswered::Slow(line)),
            false => Ok(()),
        }
    });
    answer.map_err(|unanswered| match unanswered {
        Unanswered::Failed(error) => error,
        Unanswered::Slow(line) => {
            slow.line.store(line, Ordering::Relaxed);
            rules.unavailable(line, "it backtracks too much; simplify it")
        }
    })
}

impl Slow {
    /// The error of a search that has not ended in time; it is logged at most once a minute.
    fn late(&self, rules: &Rules, line: usize) -> TableError {
        let seconds = PATTERN_TIMEOUT.as_secs();
        let error = if line > 0 {
            self.line.store(line, Ordering::Relaxed);
            rules.unavailable(line, &format!("no end within {seconds} s; simplify it"))
        } else {
            let slow = self.line.load(Ordering::Relaxed);
            let cause = "searches of it for other recipients have not ended; simplify it";
            match slow {
                // None of them has been waited for long enough to be known.
                0 => rules.unavailable_by("its threads for slow patterns are all in use"),
                slow => rules.unavailable(slow, cause),
            }
        };
        let mut told = self.told.lock();
        let now = clock::now();
        let is_due = |at: &Instant| now.saturating_duration_since(*at) >= PATTERN_WARNING_INTERVAL;
        if told.as_ref().is_none_or(is_due) {
            *told = Some(now);
            tracing::warn!("{error}; its recipients are deferred");
        }
        error
    }
}

impl LookupTable for RuleTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        match self.at_once(key) {
            Ok(found) => Ok(found),
            Err(Unanswered::Failed(error)) => Err(error),
            Err(Unanswered::Slow(_)) => self.aside(key),
        }
    }

    fn matching(&self) -> Matching {
        Matching::Pattern
    }

    fn name(&self) -> &str {
        self.asker.name()
    }

    fn key_in_values(&self) -> KeyInValues {
        self.rules.key_in_values()
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Debug for RuleTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleTable")
            .field("name", &self.asker.name())
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "rule_table_tests.rs"]
mod tests;
