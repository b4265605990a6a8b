//! A batch that a writer works on, as the watchdog sees it.
//!
//! Invariant: the log frees the records of a batch only when each of its deliveries was answered
//! with an error, or is held elsewhere.

use super::delivery::Delivery;
use super::ledger::deferred_mail::DeferredExtent;
use super::ledger::lease_term::LeaseTerm;
use super::ledger::retention::RetentionMark;
use super::reply::Reply;
use crate::clock;
use crate::log::{Extent, Sequence};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use std::fmt;
use std::time::{Duration, Instant};

/// The batch waits for the log, not for a mailbox.
const WAITS_FOR_LOG: u64 = u64::MAX;
/// The step is for no delivery in particular.
const NONE: usize = usize::MAX;

/// A batch that a writer works on.
pub(super) struct ActiveBatch {
    /// The number of the writer.
    pub(super) writer: u64,
    pub(super) replies: Vec<Arc<Reply>>,
    begun: Instant,
    /// Milliseconds from `begun` to the start of the latest step in a mailbox.
    step_ms: AtomicU64,
    /// The delivery that the step is for.
    step_of: AtomicUsize,
    /// Keeps the records of the batch in the log.
    mark: Mutex<Option<Arc<RetentionMark>>>,
    /// Keeps the extents of its messages in the log.
    extent_marks: Mutex<Vec<Arc<RetentionMark>>>,
    extents: Mutex<Vec<DeferredExtent>>,
    /// Is dropped with this batch.
    alive: Arc<()>,
    /// How long its writer may use the log.
    terms: Mutex<Vec<Arc<LeaseTerm>>>,
    /// How many flushes had failed when the batch began.
    failures: AtomicU64,
    /// The watchdog answered its deliveries in place of the writer.
    is_given_up: AtomicBool,
    /// The queue leaves new deliveries to other writers.
    is_left_to_others: AtomicBool,
}

impl ActiveBatch {
    /// Numbers the deliveries.
    pub(super) fn new(writer: u64, deliveries: &mut [Delivery]) -> Self {
        let numbered = |(number, delivery): (usize, &mut Delivery)| {
            delivery.set_number(number);
            Arc::clone(delivery.reply())
        };
        Self {
            writer,
            replies: deliveries.iter_mut().enumerate().map(numbered).collect(),
            begun: clock::now(),
            step_ms: AtomicU64::new(0),
            step_of: AtomicUsize::new(NONE),
            mark: Mutex::default(),
            extent_marks: Mutex::default(),
            extents: Mutex::default(),
            alive: Arc::default(),
            terms: Mutex::default(),
            failures: AtomicU64::new(0),
            is_given_up: AtomicBool::new(false),
            is_left_to_others: AtomicBool::new(false),
        }
    }

    /// Notes that the writer begins a step in a mailbox, which may never end.
    pub(super) fn step(&self, delivery: Option<&Delivery>) {
        let of = delivery.map_or(NONE, Delivery::number);
        self.step_of.store(of, Ordering::Relaxed);
        let elapsed = self.begun.elapsed().as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(WAITS_FOR_LOG - 1);
        self.step_ms.store(elapsed, Ordering::Release);
    }

    /// Notes that the writer waits for the log.
    pub(super) fn waits_for_log(&self) {
        self.step_ms.store(WAITS_FOR_LOG, Ordering::Release);
    }

    /// Stores the mark that keeps the records in the log, and how many flushes have failed before
    /// the batch writes anything.
    pub(super) fn is_kept_by(&self, mark: &Arc<RetentionMark>, failures: u64) {
        self.failures.store(failures, Ordering::Release);
        *self.mark.lock() = Some(Arc::clone(mark));
    }

    /// Stores the mark that keeps the extents of its messages in the log.
    pub(super) fn has_extents_kept_by(&self, mark: &Arc<RetentionMark>) {
        self.extent_marks.lock().push(Arc::clone(mark));
    }

    /// Notes the extent of a message that is about to be appended. Returns false if the batch was
    /// given up: then the log may free the record, and nothing may be appended.
    pub(super) fn has_extent(&self, at: Sequence, extent: Extent) -> bool {
        let mut extents = self.extents.lock();
        if self.is_given_up() {
            return false;
        }
        let writer = Arc::downgrade(&self.alive);
        extents.push(DeferredExtent { at, extent, writer });
        true
    }

    /// Takes the extents of a batch that was given up, and the marks that keep them in the log.
    pub(super) fn take_extents(&self) -> (Vec<DeferredExtent>, Vec<Arc<RetentionMark>>) {
        debug_assert!(self.is_given_up(), "its writer adds no more");
        let extents = std::mem::take(&mut *self.extents.lock());
        let marks = std::mem::take(&mut *self.extent_marks.lock());
        (extents, marks)
    }

    /// Notes how long its writer may use the log; false if it is given up.
    pub(super) fn uses_log(&self, term: &Arc<LeaseTerm>) -> bool {
        self.terms.lock().push(Arc::clone(term));
        !self.is_given_up()
    }

    /// Takes the terms that [`Self::uses_log`] stored.
    pub(super) fn take_terms(&self) -> Vec<Arc<LeaseTerm>> {
        std::mem::take(&mut *self.terms.lock())
    }

    /// Notes that the part of the batch that goes through the log has ended.
    pub(super) fn needs_log_no_more(&self) {
        *self.mark.lock() = None;
    }

    /// Returns when the writer's current step began; `None` while the writer waits for the log.
    pub(super) fn since(&self) -> Option<Instant> {
        match self.step_ms.load(Ordering::Acquire) {
            WAITS_FOR_LOG => None,
            elapsed => Some(self.begun + Duration::from_millis(elapsed)),
        }
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Returns how many flushes had failed when the batch began.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Returns the reply of the delivery that the writer works on.
    fn current(&self) -> Option<&Arc<Reply>> {
        self.replies.get(self.step_of.load(Ordering::Relaxed))
    }

    /// Returns true if the writer has that mailbox locked, or does not come back from it.
    pub(super) fn blocks(&self, mailbox: &str) -> bool {
        let is_it = |reply: &&Arc<Reply>| reply.mailbox.as_str() == mailbox;
        self.current().is_some_and(|current| is_it(&current))
            || self
                .replies
                .iter()
                .any(|reply| reply.is_mbox && is_it(&reply))
    }

    /// Returns the mboxes, each once.
    pub(super) fn mboxes(&self) -> Vec<&str> {
        let mboxes = self.replies.iter().filter(|reply| reply.is_mbox);
        let mut mboxes: Vec<&str> = mboxes.map(|reply| reply.mailbox.as_str()).collect();
        mboxes.sort_unstable();
        mboxes.dedup();
        mboxes
    }

    /// Gives the writer up; returns false if the writer was given up before.
    pub(super) fn give_up(&self) -> bool {
        !self.is_given_up.swap(true, Ordering::AcqRel)
    }

    /// Leaves new deliveries to other writers; returns false if they were left before.
    pub(super) fn leave_to_others(&self) -> bool {
        !self.is_left_to_others.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// Allows the log to free the records of this batch once every delivery was answered. Records
    /// that other deliveries need stay.
    pub(super) fn let_go_of_log(&self) {
        let Some(mark) = self.mark.lock().take() else {
            return;
        };
        let own = Arc::new(mark.again());
        mark.close();
        for reply in &self.replies {
            if let Some(part) = &reply.part {
                part.message.move_mark(&mark, &own);
            }
        }
        mark.give_back();
    }
}

impl fmt::Debug for ActiveBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveBatch")
            .field("writer", &self.writer)
            .field("deliveries", &self.replies.len())
            .finish_non_exhaustive()
    }
}
