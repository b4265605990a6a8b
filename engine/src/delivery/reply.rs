//! The reply of a delivery, which is given exactly once.
//!
//! Invariant: one compare-and-swap decides how a delivery is answered. Its outcome is reported; or
//! it is abandoned, and never visible; or it is given up because its writer does not come back,
//! which is reported, and it is never visible; or success is reported before its writer comes back,
//! because the log has the message.

use super::copies::Names;
use super::error::DeliveryError;
use super::handed_over::HandedOver;
use super::ledger::logged_message::LoggedMessage;
use super::ledger::unconfirmed::Repeated;
use super::types::Outcome;
use crate::dsn::Disposition;
use crate::mailbox::MailboxName;
use crate::status::Status;
use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::transport::Claim;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Takes the outcome of the recipient with that index. Runs on a writer thread, so it must return
/// quickly.
///
/// ```
/// use mailstow_engine::{OnOutcome, Outcome};
/// use std::sync::{Arc, mpsc};
///
/// let (sender, outcomes) = mpsc::channel();
/// let on_outcome: Arc<OnOutcome> = Arc::new(move |recipient, outcome: Outcome| {
///     let _ = sender.send((recipient, outcome.status.code));
/// });
/// # drop((on_outcome, outcomes));
/// ```
pub type OnOutcome = dyn Fn(usize, Outcome) + Send + Sync;

/// No writer has begun to publish the message.
const WAITING: u8 = 0;
/// A writer publishes the message.
const CLAIMED: u8 = 1;
/// The caller abandoned the delivery.
const ABANDONED: u8 = 2;
/// The watchdog answered it with an error, because its writer does not come back.
const GIVEN_UP: u8 = 3;
/// The watchdog answered it with success while a writer publishes the message.
const ANSWERED: u8 = 4;
/// Its writer answered it.
const OVER: u8 = 5;

/// The right to give a delivery up, and to record whether its reply was read. Any thread may use it
/// at any time.
#[derive(Clone, Debug)]
pub struct Ticket {
    state: Arc<AtomicU8>,
    pub(super) origin: Origin,
}

/// Where a delivery is remembered until its reply is read.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Nowhere.
    Direct,
    /// With its message.
    Message {
        message: Arc<LoggedMessage>,
        /// The index of its recipient in the message.
        recipient: usize,
    },
    /// With the earlier delivery that answered it.
    Repeated(Repeated),
    /// With the successes of transports for its message.
    HandedOver {
        message: Arc<HandedOver>,
        /// The index of its name.
        name: usize,
        /// The right to give a delivery up.
        claim: Claim,
    },
}

impl Ticket {
    /// Gives the delivery up, for all recipients that share the copy, if its publication has not
    /// begun.
    ///
    /// Returns true if the message never appears in the mailbox; its outcome is then not reported.
    /// Returns false if its outcome was or will be reported.
    pub fn abandon(&self) -> bool {
        if let Origin::HandedOver {
            message,
            name,
            claim,
        } = &self.origin
        {
            let is_abandoned = claim.abandon();
            if is_abandoned {
                message.not_taken(&[*name]);
            }
            return is_abandoned;
        }
        let state = change(&self.state, WAITING, ABANDONED);
        matches!(state, Ok(()) | Err(ABANDONED))
    }

    /// Returns the ticket of a recipient whose mail a transport takes.
    pub(super) fn handed_over(message: Arc<HandedOver>, name: usize, claim: Claim) -> Self {
        Self {
            state: Arc::new(AtomicU8::new(OVER)),
            origin: Origin::HandedOver {
                message,
                name,
                claim,
            },
        }
    }

    /// Returns the ticket of a delivery that is not made.
    pub(super) fn not_made() -> Self {
        Self {
            state: Arc::new(AtomicU8::new(OVER)),
            origin: Origin::Direct,
        }
    }

    /// Returns the ticket of a delivery whose outcome is known.
    pub(super) fn settled(repeated: Repeated) -> Self {
        Self {
            state: Arc::new(AtomicU8::new(OVER)),
            origin: Origin::Repeated(repeated),
        }
    }
}

/// How a delivery ends: where its message is stored, or why it is not.
pub(super) type Ending = Result<Stored, DeliveryError>;

/// Where a delivery that succeeded has put its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Maildir,
    Mbox,
    /// In the delivery log, because the mailbox does not answer.
    Log,
}

impl Stored {
    /// Returns the status that virtual(8) reports for it.
    pub(super) fn status(self) -> Status {
        Status::ok(match self {
            Self::Maildir => "delivered to maildir",
            Self::Mbox => "delivered to mailbox",
            Self::Log => "accepted; the mailbox does not answer yet",
        })
    }
}

/// The part of a message in one delivery: the message is in the log, or is remembered in case its
/// reply is lost.
#[derive(Clone, Debug)]
pub(super) struct MessagePart {
    pub(super) message: Arc<LoggedMessage>,
    /// The first of the recipients that the copy is for.
    pub(super) recipient: usize,
    /// The log makes the delivery durable; otherwise it is flushed in its mailbox.
    pub(super) through_log: bool,
}

/// The reply of one delivery, for all recipients that share its copy.
pub(super) struct Reply {
    state: Arc<AtomicU8>,
    pub(super) names: Names,
    pub(super) part: Option<MessagePart>,
    on_outcome: Arc<OnOutcome>,
    pub(super) mailbox: MailboxName,
    pub(super) is_mbox: bool,
    pub(super) submitted: Instant,
    /// Its places in an mbox by the log: offset and length.
    places: Mutex<Vec<(u64, u64)>>,
    /// The file system that its writer writes to; [`NO_DEVICE`] until that is known.
    device: AtomicU64,
}

const NO_DEVICE: u64 = u64::MAX;

impl Reply {
    pub(super) fn new(
        names: Names,
        part: Option<MessagePart>,
        on_outcome: Arc<OnOutcome>,
        (mailbox, is_mbox): (MailboxName, bool),
        submitted: Instant,
    ) -> Self {
        Self {
            state: Arc::new(AtomicU8::new(WAITING)),
            names,
            part,
            on_outcome,
            mailbox,
            is_mbox,
            submitted,
            places: Mutex::default(),
            device: AtomicU64::new(NO_DEVICE),
        }
    }

    /// Returns the ticket of the recipient that is `offset` behind the first one of the copy.
    pub(super) fn ticket(&self, offset: usize) -> Ticket {
        Ticket {
            state: Arc::clone(&self.state),
            origin: match &self.part {
                Some(part) => Origin::Message {
                    message: Arc::clone(&part.message),
                    recipient: part.recipient + offset,
                },
                None => Origin::Direct,
            },
        }
    }

    /// Returns true if its message must not be published.
    pub(super) fn is_abandoned(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), ABANDONED | GIVEN_UP)
    }

    /// Lets the writer publish it, after which it cannot be abandoned. Returns false when it was
    /// abandoned before.
    pub(super) fn claim(&self) -> bool {
        change(&self.state, WAITING, CLAIMED).is_ok()
    }

    /// Lets the writer that claimed it answer it. Returns false when the watchdog answered it with
    /// success before.
    pub(super) fn close(&self) -> bool {
        change(&self.state, CLAIMED, OVER).is_ok()
    }

    /// Returns true once its writer has answered it, or it was abandoned.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), OVER | ABANDONED)
    }

    /// Notes the file system that its writer writes to.
    pub(super) fn is_on(&self, device: u64) {
        self.device.store(device, Ordering::Relaxed);
    }

    /// Returns the file system that [`Reply::is_on`] noted.
    pub(super) fn device(&self) -> Option<u64> {
        let device = self.device.load(Ordering::Relaxed);
        (device != NO_DEVICE).then_some(device)
    }

    /// Notes its place in an mbox by the log.
    pub(super) fn goes_to(&self, place: (u64, u64)) {
        self.places.lock().push(place);
    }

    /// Returns the places that [`Reply::goes_to`] noted.
    pub(super) fn places(&self) -> Vec<(u64, u64)> {
        self.places.lock().clone()
    }

    /// Answers it with an error if no writer publishes the message. No writer will after that.
    pub(super) fn give_up(&self, status: &Status, waited: Duration) -> bool {
        if change(&self.state, WAITING, GIVEN_UP).is_err() {
            return false;
        }
        let mut may_appear = false;
        if let Some(part) = &self.part {
            may_appear = part.message.may_be_recovered(false);
            part.message.refuse(part.recipient, false);
        }
        self.report(status, may_appear, (waited, Duration::ZERO));
        true
    }

    /// Answers it with success while a writer publishes the message and ends later. The message
    /// must be deferred before.
    pub(super) fn answer_early(&self, waited: Duration) -> bool {
        if change(&self.state, CLAIMED, ANSWERED).is_err() {
            return false;
        }
        if let Some(part) = &self.part {
            part.message.stored(part.recipient);
        }
        self.report(&Stored::Log.status(), false, (waited, Duration::ZERO));
        true
    }

    /// Reports the outcome for each recipient.
    pub(super) fn report(
        &self,
        status: &Status,
        may_appear: bool,
        (queued, stored): (Duration, Duration),
    ) {
        for index in self.names.indices() {
            let outcome = Outcome {
                status: status.clone(),
                may_appear,
                mailbox: Some(self.mailbox.display().to_owned()),
                queued,
                stored,
                disposition: Disposition::default(),
            };
            let report = || (self.on_outcome)(index, outcome);
            if catch_unwind(AssertUnwindSafe(report)).is_err() {
                tracing::error!("a callback that takes delivery outcomes panicked");
            }
        }
    }
}

/// Changes a state, or returns the current one.
fn change(state: &AtomicU8, from: u8, to: u8) -> Result<(), u8> {
    let order = (Ordering::AcqRel, Ordering::Acquire);
    state
        .compare_exchange(from, to, order.0, order.1)
        .map(|_| ())
}
