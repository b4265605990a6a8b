//! A message in flight in this process: collects its outcomes, and gives late deliveries up.
//!
//! Invariant: the results of a message are handed over once, when every delivery has an outcome and
//! its receipt is here; a delivery that was given up never appears, and one that could not be given
//! up is in doubt only after a grace period.

use crate::counters::{Counters, Permit};
use crate::message::Accepted;
use crate::outcome::{MAILSTOW_NOT_STORED, Outcome};
use crate::results::{Proof, Results};
use mailstow_engine::{EnhancedCode, Receipt, Status};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a delivery that can no longer be given up may take past its deadline.
const GRACE: Duration = Duration::from_secs(60);

/// A message in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    state: Mutex<State>,
    /// Waited on by a blocking call.
    landed: Condvar,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct State {
    recipients: Vec<Accepted>,
    /// One for each delivery.
    slots: Vec<Option<Outcome>>,
    deadlines: Vec<Deadline>,
    open: usize,
    receipt: Option<Receipt>,
    permit: Option<Permit>,
    is_begun: bool,
    has_landed: bool,
}

/// When a delivery is late.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    limit: Duration,
    /// It could not be given up when it was late.
    was_missed: bool,
}

impl Flight {
    /// Begins a message that will be submitted for so many `deliveries`.
    pub(crate) fn new(
        recipients: Vec<Accepted>,
        deliveries: usize,
        permit: Permit,
        counters: &Arc<Counters>,
    ) -> Self {
        let now = Instant::now();
        let limit = |delivery: usize| {
            let of = recipients
                .iter()
                .filter(|r| r.deliveries.contains(&delivery));
            of.map(|recipient| recipient.deadline)
                .min()
                .unwrap_or(GRACE)
        };
        let deadlines = (0..deliveries).map(limit).map(|limit| Deadline {
            at: now + limit,
            limit,
            was_missed: false,
        });
        let deadlines = deadlines.collect();
        let mut slots = Vec::new();
        slots.resize_with(deliveries, || None);
        Self {
            state: Mutex::new(State {
                recipients,
                slots,
                deadlines,
                open: deliveries,
                receipt: None,
                permit: Some(permit),
                is_begun: false,
                has_landed: false,
            }),
            landed: Condvar::new(),
            counters: Arc::clone(counters),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the outcome of a delivery. Returns the results if it was the last one.
    pub(crate) fn put(&self, delivery: usize, outcome: Outcome) -> Option<Results> {
        let mut state = self.state();
        state.put(delivery, outcome);
        self.land(state)
    }

    /// Takes the receipt of the message that was submitted. Returns the results if all outcomes
    /// are there by now.
    pub(crate) fn begin(&self, receipt: Option<Receipt>) -> Option<Results> {
        let mut state = self.state();
        state.receipt = receipt;
        state.is_begun = true;
        self.land(state)
    }

    /// Gives late deliveries up. Returns the results if no other delivery was left.
    pub(crate) fn expire(&self, now: Instant) -> Option<Results> {
        let mut state = self.state();
        state.expire(now);
        self.land(state)
    }

    /// Waits for the results, after [`Flight::begin`] returned none.
    pub(crate) fn wait(&self) -> Option<Results> {
        let mut state = self.state();
        loop {
            if state.is_over() {
                return self.land(state);
            }
            let now = Instant::now();
            state.expire(now);
            if state.is_over() {
                return self.land(state);
            }
            let next = state.next_look(now);
            let waited = self.landed.wait_timeout(state, next);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn land(&self, mut state: MutexGuard<'_, State>) -> Option<Results> {
        if !state.is_over() || state.has_landed {
            return None;
        }
        state.has_landed = true;
        let recipients = std::mem::take(&mut state.recipients);
        let slots = std::mem::take(&mut state.slots);
        let receipt = state.receipt.take();
        let permit = state.permit.take()?;
        drop(state);
        let outcomes = recipients.iter().map(|recipient| {
            let own = recipient.deliveries.iter();
            let own = own.filter_map(|at| slots.get(*at)?.as_ref());
            // The first of equally bad ones, which is the only one unless aliases are expanded.
            let worst = own.reduce(|worst, next| match next.rank() > worst.rank() {
                true => next,
                false => worst,
            });
            let worst = worst.cloned().unwrap_or_else(lost);
            (recipient.address.external(), worst)
        });
        let outcomes: Vec<(String, Outcome)> = outcomes.collect();
        let outcomes = outcomes.iter().map(|(to, o)| (to.as_str(), o.clone()));
        let proof = receipt.map(|receipt| Box::new(receipt) as Box<dyn Proof>);
        let results = Results::new(outcomes, proof, permit, &self.counters);
        Some(results)
    }

    /// Wakes a blocking call: an outcome came by another thread, which must not build the results.
    pub(crate) fn put_and_wake(&self, delivery: usize, outcome: Outcome) {
        let mut state = self.state();
        state.put(delivery, outcome);
        if state.is_over() {
            self.landed.notify_one();
        }
    }
}

/// For a recipient without deliveries, which cannot occur.
fn lost() -> Outcome {
    Outcome::refused(Status::system("the delivery was lost"))
}

impl State {
    fn is_over(&self) -> bool {
        self.is_begun && self.open == 0
    }

    fn put(&mut self, delivery: usize, outcome: Outcome) {
        if let Some(slot) = self.slots.get_mut(delivery)
            && slot.is_none()
        {
            *slot = Some(outcome);
            self.open -= 1;
        }
    }

    fn expire(&mut self, now: Instant) {
        let Some(receipt) = &self.receipt else {
            return;
        };
        let slots = self.slots.iter_mut().zip(&mut self.deadlines);
        for (delivery, (slot, deadline)) in slots.enumerate() {
            if slot.is_some() || deadline.at > now {
                continue;
            }
            let mut outcome = Outcome::refused(late(deadline.limit));
            if deadline.was_missed {
                tracing::error!("a delivery is stuck in the system; see whether the disk answers");
                outcome = Outcome::in_doubt(late(deadline.limit));
            } else if !receipt.abandon(delivery) {
                // Its true outcome is worth waiting for: a message that is answered 4xx and then
                // appears is stored twice.
                deadline.was_missed = true;
                deadline.at = now + GRACE;
                continue;
            }
            debug_assert!(outcome.state >= MAILSTOW_NOT_STORED, "it is late");
            *slot = Some(outcome);
            self.open -= 1;
        }
    }

    /// Returns how long no delivery is late.
    fn next_look(&self, now: Instant) -> Duration {
        let open = self.slots.iter().zip(&self.deadlines);
        let open = open.filter(|(slot, _)| slot.is_none());
        let next = open.map(|(_, deadline)| deadline.at).min();
        let next = next.map_or(GRACE, |next| next.saturating_duration_since(now));
        next.max(Duration::from_millis(1))
    }
}

/// `451 4.2.1`
pub(crate) fn late(limit: Duration) -> Status {
    let seconds = limit.as_secs_f64();
    let text = format!("Mailbox was not available within {seconds} s");
    Status::new(451, EnhancedCode::new(4, 2, 1), text)
}
