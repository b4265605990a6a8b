//! A writer thread: takes deliveries from the queue and takes them through the phases of a batch.
//!
//! While the log is being flushed for one batch the writer begins the next, so that it seldom waits
//! for the disk; the batch that was begun first is finished first. Invariant: a panic costs the
//! deliveries of one batch, which are answered 451, and nothing else.

use super::batch::{Batch, Commit};
use super::context::Context;
use super::delivery::Delivery;
use super::keeper::Keeper;
use super::queue::{Hold, Queue, Taken};
use crate::io::{Credentials, Disk};
use crate::sync::Arc;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the writers of a store share.
#[derive(Debug)]
pub(super) struct Shared<D: Disk> {
    pub(super) context: Context<D>,
    pub(super) queue: Queue<Delivery>,
    /// Of the delivery log, for `durability = "logged"`.
    pub(super) keeper: Option<Arc<Keeper<D::Handle>>>,
}

/// What was taken from the queue, after its first phases.
struct Begun<'a, D: Disk> {
    /// Waits for the log.
    logged: Option<Batch<'a, D>>,
    /// Deliveries that are flushed in their mailboxes, which are not begun at all.
    direct: Vec<Delivery>,
    hold: Hold,
}

/// Works until the queue is closed and empty.
pub(super) fn write_mail<D: Disk>(shared: &Shared<D>) {
    let credentials = RefCell::new(Credentials::of_own_thread());
    while let Some(taken) = shared.queue.take() {
        write_from(shared, &credentials, taken);
    }
}

/// Writes these deliveries, those that came since, and so on.
pub(super) fn write_from<D: Disk>(
    shared: &Shared<D>,
    credentials: &RefCell<Credentials>,
    taken: Taken<Delivery>,
) {
    let begin = |taken| begin(shared, credentials, taken);
    let mut begun = Some(begin(taken));
    while let Some(first) = begun {
        begun = match first.may_overlap() {
            true => shared.queue.take_waiting().map(begin),
            false => None,
        };
        finish(shared, credentials, first);
    }
}

fn begin<'a, D: Disk>(
    shared: &'a Shared<D>,
    credentials: &'a RefCell<Credentials>,
    Taken { jobs, mut hold }: Taken<Delivery>,
) -> Begun<'a, D> {
    let (logged, direct): (Vec<Delivery>, Vec<Delivery>) =
        jobs.into_iter().partition(Delivery::is_through_log);
    if !direct.is_empty() {
        shared.queue.leave_to_others(&mut hold);
    }
    let logged = survive(|| match &shared.keeper {
        Some(keeper) if !logged.is_empty() => begin_logged(shared, keeper, credentials, logged),
        _ => None,
    });
    Begun {
        logged: logged.flatten(),
        direct,
        hold,
    }
}

/// Begins a batch through the log; `None` when the log is out of service, and every delivery was
/// answered.
fn begin_logged<'a, D: Disk>(
    shared: &'a Shared<D>,
    keeper: &'a Keeper<D::Handle>,
    credentials: &'a RefCell<Credentials>,
    deliveries: Vec<Delivery>,
) -> Option<Batch<'a, D>> {
    let Shared { context, queue, .. } = shared;
    match Commit::through_log(keeper) {
        Ok(commit) => Some(Batch::begin(
            context,
            queue,
            credentials,
            commit,
            deliveries,
        )),
        Err(error) => {
            for delivery in deliveries {
                delivery.finish(Err(error.clone().into()));
            }
            None
        }
    }
}

impl<D: Disk> Begun<'_, D> {
    /// Returns true while the next batch may be begun before this one is finished.
    fn may_overlap(&self) -> bool {
        self.direct.is_empty() && self.logged.as_ref().is_some_and(Batch::may_overlap)
    }
}

fn finish<D: Disk>(
    shared: &Shared<D>,
    credentials: &RefCell<Credentials>,
    Begun {
        logged,
        direct,
        hold,
    }: Begun<'_, D>,
) {
    if let Some(batch) = logged {
        survive(|| batch.finish());
    }
    if !direct.is_empty() {
        let Shared {
            context,
            queue,
            keeper,
        } = shared;
        survive(|| {
            let commit = Commit::in_mailboxes(keeper.as_deref());
            Batch::begin(context, queue, credentials, commit, direct).finish();
        });
    }
    shared.queue.give_back(hold);
}

/// `None` after a panic; the deliveries of the batch were answered by being dropped.
fn survive<T>(step: impl FnOnce() -> T) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(step));
    if outcome.is_err() {
        tracing::error!("a writer panicked; its deliveries were answered with an error");
    }
    outcome.ok()
}
