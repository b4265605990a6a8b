//! Refused deliveries whose refusals may not be in the log yet.
//!
//! The refusal of a delivery whose message is in the log is appended without waiting. A failing log
//! may lose it, and a recovery would make the delivery. Invariant: a refusal is remembered here
//! until the log durably has it, so that it is appended again to a log that was opened again,
//! before any other mail is accepted.

use super::journal::{Journal, done_records};
use crate::log::{Done, LogError, RecordTicket, Sequence};
use crate::sync::{Arc, Mutex};

/// The refusals of one store. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub(in crate::delivery) struct Refusals(Arc<Mutex<Vec<Refusal>>>);

#[derive(Clone, Copy, Debug)]
struct Refusal {
    done: Done,
    /// Its record; `None` when it was not appended.
    at: Option<Sequence>,
}

impl Refusals {
    /// Remembers a refusal, and the ticket of its record if one was appended.
    pub(in crate::delivery) fn add(&self, done: Done, ticket: Option<RecordTicket>) {
        let at = ticket.map(|ticket| ticket.sequence());
        self.0.lock().push(Refusal { done, at });
    }

    /// Returns true while some of them are not appended.
    pub(in crate::delivery) fn is_behind(&self) -> bool {
        self.0.lock().iter().any(|refusal| refusal.at.is_none())
    }

    /// Forgets those that the log durably has.
    pub(in crate::delivery) fn forget_durable(&self, durable: Sequence) {
        let is_durable = |refusal: &Refusal| refusal.at.is_some_and(|at| at <= durable);
        self.0.lock().retain(|refusal| !is_durable(refusal));
    }

    /// Appends those that were not appended.
    ///
    /// # Errors
    /// The log failed; all of them are still remembered.
    pub(in crate::delivery) fn append(&self, journal: &dyn Journal) -> Result<(), LogError> {
        let due = self.take(|refusal| refusal.at.is_none());
        self.append_these(journal, due).map(drop)
    }

    /// Appends all of them to a log that was opened again, and waits until they are durable.
    ///
    /// # Errors
    /// The log failed; all of them are still remembered.
    pub(in crate::delivery) fn append_again(&self, journal: &dyn Journal) -> Result<(), LogError> {
        let all = self.take(|_| true);
        if let Some(newest) = self.append_these(journal, all)? {
            self.forget_durable(journal.wait(newest)?);
        }
        Ok(())
    }

    fn take(&self, is_due: impl Fn(&Refusal) -> bool) -> Vec<Done> {
        let mut refusals = self.0.lock();
        let (due, rest) = refusals.drain(..).partition(is_due);
        *refusals = rest;
        drop(refusals);
        let due: Vec<Refusal> = due;
        due.into_iter().map(|refusal| refusal.done).collect()
    }

    /// Remembers each again with the ticket of its new record, and returns the newest. Holds no
    /// lock while the log is written.
    fn append_these(
        &self,
        journal: &dyn Journal,
        due: Vec<Done>,
    ) -> Result<Option<RecordTicket>, LogError> {
        let mut newest = Ok(None);
        for done in due {
            if newest.is_ok()
                && let Some(record) = done_records(&[done]).next()
            {
                newest = journal.append_anyway(record).map(Some);
            }
            let ticket = newest.as_ref().ok().copied().flatten();
            self.add(done, ticket);
        }
        newest
    }
}
