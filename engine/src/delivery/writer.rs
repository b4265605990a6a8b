//! A writer thread: takes batches from the queue and takes them through their rounds.
//!
//! Imports the rest of `delivery`, `io`. While the log is being flushed for one batch the writer
//! begins the next, so that it seldom waits for the disk; what is durable is answered first.
//! Invariant: a panic costs the deliveries of one round, which are answered 451, and nothing else.

use super::job::Job;
use super::logged::LoggedRound;
use super::queue::{Batch, Hold};
use super::round::Round;
use super::store::Shared;
use crate::io::{Credentials, Disk};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A batch whose records are on their way to the disk.
struct Begun<'a, D: Disk> {
    round: Option<LoggedRound<'a, D>>,
    /// What is flushed in its mailbox, and not begun at all.
    direct: Vec<Job>,
    hold: Hold,
}

/// Works until the queue is closed and empty.
pub(super) fn write_mail<D: Disk>(shared: &Shared<D>) {
    let credentials = RefCell::new(Credentials::of_own_thread());
    while let Some(batch) = shared.queue.take() {
        write_from(shared, &credentials, batch);
    }
}

/// Writes this batch, what waits when it was begun, and so on.
pub(super) fn write_from<D: Disk>(
    shared: &Shared<D>,
    credentials: &RefCell<Credentials>,
    batch: Batch,
) {
    let begin = |batch| begin(shared, credentials, batch);
    let mut begun = Some(begin(batch));
    while let Some(batch) = begun {
        begun = match batch.may_overlap() {
            true => shared.queue.take_waiting().map(begin),
            false => None,
        };
        finish(shared, credentials, batch);
    }
}

fn begin<'a, D: Disk>(
    shared: &'a Shared<D>,
    credentials: &'a RefCell<Credentials>,
    Batch { jobs, mut hold }: Batch,
) -> Begun<'a, D> {
    let (logged, direct): (Vec<Job>, Vec<Job>) =
        jobs.into_iter().partition(|job| job.promise().is_some());
    if !direct.is_empty() {
        shared.queue.leave_to_others(&mut hold);
    }
    let round = survive(|| match &shared.keeper {
        Some(keeper) if !logged.is_empty() => {
            LoggedRound::begin(shared, keeper, credentials, logged)
        }
        _ => None,
    });
    Begun {
        round: round.flatten(),
        direct,
        hold,
    }
}

impl<D: Disk> Begun<'_, D> {
    /// True while the next batch may be begun before this one is finished.
    fn may_overlap(&self) -> bool {
        let round = self.round.as_ref();
        self.direct.is_empty() && round.is_some_and(LoggedRound::may_overlap)
    }
}

fn finish<D: Disk>(
    shared: &Shared<D>,
    credentials: &RefCell<Credentials>,
    Begun {
        round,
        direct,
        hold,
    }: Begun<'_, D>,
) {
    if let Some(round) = round {
        survive(|| round.finish());
    }
    if !direct.is_empty() {
        survive(|| Round::new(shared, &mut credentials.borrow_mut()).run(direct));
    }
    shared.queue.give_back(hold);
}

/// `None` after a panic; the deliveries of the round were answered by being dropped.
fn survive<T>(step: impl FnOnce() -> T) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(step));
    if outcome.is_err() {
        tracing::error!("a writer panicked; its deliveries were answered with an error");
    }
    outcome.ok()
}
