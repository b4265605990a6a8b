//! Takes the outcomes of a transport, and lets callers give recipients up.
//!
//! Invariant: a recipient is answered once, or was given up before the transport did anything for
//! it.

use crate::dsn::Disposition;
use crate::status::Status;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU8, Ordering};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Nothing was done for the recipient yet.
const WAITING: u8 = 0;
/// The transport is doing something for it that cannot be undone.
const BEGUN: u8 = 1;
/// The caller gave it up, and nothing was done.
const GIVEN_UP: u8 = 2;
/// It was answered.
const ANSWERED: u8 = 3;

/// Takes the outcome of a recipient.
type OnStatus = dyn Fn(usize, Status, Disposition) + Send + Sync;

struct Answers {
    states: Vec<AtomicU8>,
    on_status: Box<OnStatus>,
}

impl Answers {
    fn answer(&self, index: usize, status: Status, disposition: Disposition) {
        let Some(state) = self.states.get(index) else {
            return;
        };
        let answered = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            matches!(state, WAITING | BEGUN).then_some(ANSWERED)
        });
        if answered.is_ok() {
            let report = || (self.on_status)(index, status, disposition);
            if catch_unwind(AssertUnwindSafe(report)).is_err() {
                tracing::error!("a callback that takes delivery outcomes panicked");
            }
        }
    }
}

/// Answers the remaining recipients when the last user is dropped.
struct Rest(Arc<Answers>);

impl Drop for Rest {
    fn drop(&mut self) {
        for index in 0..self.0.states.len() {
            let status = Status::system("the transport gave no answer");
            self.0.answer(index, status, Disposition::default());
        }
    }
}

/// Takes the outcome of each recipient of a request, once. Clones take the outcomes of the same
/// request. When the last of them is dropped, the remaining recipients are answered 451 4.3.0.
#[derive(Clone)]
pub struct Done(Arc<Rest>);

impl Done {
    /// Notes that the transport begins something for a recipient that cannot be undone. Returns
    /// false if the caller gave the recipient up: then the transport must do nothing.
    pub fn begin(&self, index: usize) -> bool {
        self.0.0.states.get(index).is_some_and(|state| {
            let order = (Ordering::AcqRel, Ordering::Acquire);
            let begun = state.compare_exchange(WAITING, BEGUN, order.0, order.1);
            matches!(begun, Ok(_) | Err(BEGUN))
        })
    }

    /// Answers for a recipient; a success is the end of its way. Only the first answer counts.
    pub fn answer(&self, index: usize, status: Status) {
        self.answer_as(index, status, Disposition::Delivered);
    }

    /// As [`Done::answer`], with what a success means for the sender.
    pub fn answer_as(&self, index: usize, status: Status, disposition: Disposition) {
        self.0.0.answer(index, status, disposition);
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done").finish_non_exhaustive()
    }
}

/// The right to give a recipient up.
#[derive(Clone)]
pub(crate) struct Claim {
    answers: Arc<Answers>,
    index: usize,
}

impl Claim {
    /// Gives the recipient up if nothing was done for it. Returns true if it was given up: nothing
    /// will be done, and no outcome is reported.
    pub(crate) fn abandon(&self) -> bool {
        self.answers.states.get(self.index).is_none_or(|state| {
            let order = (Ordering::AcqRel, Ordering::Acquire);
            let given_up = state.compare_exchange(WAITING, GIVEN_UP, order.0, order.1);
            matches!(given_up, Ok(_) | Err(GIVEN_UP))
        })
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.index).finish()
    }
}

/// Returns a place for the outcomes of `count` recipients, and for each the right to give it up.
pub(crate) fn answers(
    count: usize,
    on_status: impl Fn(usize, Status, Disposition) + Send + Sync + 'static,
) -> (Done, Vec<Claim>) {
    let mut states = Vec::new();
    states.resize_with(count, || AtomicU8::new(WAITING));
    let answers = Arc::new(Answers {
        states,
        on_status: Box::new(on_status),
    });
    let claim = |index| Claim {
        answers: Arc::clone(&answers),
        index,
    };
    let claims = (0..count).map(claim).collect();
    (Done(Arc::new(Rest(answers))), claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;

    fn seen(count: usize) -> (Done, Vec<Claim>, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let (done, claims) = answers(count, move |index, status, _| {
            sink.lock().push(format!("{index}: {status}"));
        });
        (done, claims, seen)
    }

    #[test]
    fn a_recipient_is_answered_once_and_those_that_are_forgotten_are_answered_451() {
        let (done, _, seen) = seen(2);
        done.clone().answer(0, Status::ok("taken"));
        done.answer(0, Status::system("again"));
        done.answer(7, Status::ok("nobody"));
        drop(done);
        let seen = seen.lock().clone();
        let lost = "1: 451 4.3.0 the transport gave no answer";
        assert_eq!(seen, ["0: 250 2.0.0 taken", lost]);
    }

    #[test]
    fn a_recipient_is_given_up_only_before_something_is_done_for_it() {
        let (done, claims, seen) = seen(2);
        assert!(claims[0].abandon() && claims[0].abandon());
        assert!(!done.begin(0));
        assert!(done.begin(1) && done.begin(1));
        assert!(!claims[1].abandon());
        done.answer(0, Status::ok("late"));
        done.answer(1, Status::ok("taken"));
        drop(done);
        assert_eq!(*seen.lock(), ["1: 250 2.0.0 taken"]);
    }
}
