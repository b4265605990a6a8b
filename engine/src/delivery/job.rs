//! One delivery: a copy of a message for one mailbox, and who waits for its outcome.
//!
//! Imports `delivery` types and `copies`, `route` (targets), `mailbox` (errors), `log` (record
//! types), `status`, `sync`.
//! Invariant: every job ends in exactly one of two ways, decided by one compare-and-swap: its
//! outcome is reported once, or it was abandoned and nothing of it is ever seen.

use super::copies::{Copy, Names};
use super::doubt::Repeated;
use super::promise::Promise;
use super::queue::Queued;
use super::types::{Mail, Outcome};
use crate::clock;
use crate::log::{Done, DoneOutcome, Plan};
use crate::mailbox::{MailboxError, MailboxPath};
use crate::route::{Format, MailboxTarget};
use crate::status::Status;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU8, Ordering};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Takes the outcome of the recipient with that index. Runs on a writer thread: must be quick.
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

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const ABANDONED: u8 = 2;

/// The right to give a delivery up, and the place to say whether its reply was read. Any thread
/// may use it, at any time.
#[derive(Clone, Debug)]
pub struct Ticket {
    state: Arc<AtomicU8>,
    pub(super) origin: Origin,
}

/// Where a delivery is remembered until its reply was read.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Nowhere.
    Direct,
    /// With its message.
    Promise {
        promise: Arc<Promise>,
        /// Which of its recipients.
        recipient: usize,
    },
    /// It answered for an earlier delivery.
    Repeated(Repeated),
}

impl Ticket {
    /// Gives the delivery up, for all recipients that share the copy, if it has not begun to be
    /// published.
    ///
    /// True: it will never appear in the mailbox, and its outcome will not be reported. False:
    /// its outcome was reported or will be.
    pub fn abandon(&self) -> bool {
        let order = Ordering::AcqRel;
        let given_up = self
            .state
            .compare_exchange(WAITING, ABANDONED, order, Ordering::Acquire);
        matches!(given_up, Ok(_) | Err(ABANDONED))
    }

    /// Of a delivery whose outcome is known.
    pub(super) fn settled(repeated: Repeated) -> Self {
        Self {
            state: Arc::new(AtomicU8::new(CLAIMED)),
            origin: Origin::Repeated(repeated),
        }
    }
}

/// A delivery on its way.
pub(super) struct Job {
    pub(super) mail: Arc<Mail>,
    pub(super) target: MailboxTarget,
    /// When a lock was first found busy, and how often since.
    pub(super) lock_wait: Option<(Instant, u32)>,
    /// The log has been told that it failed.
    pub(super) is_refused_in_log: bool,
    promise: Option<Promised>,
    names: Names,
    on_outcome: Arc<OnOutcome>,
    state: Arc<AtomicU8>,
    mailbox: String,
    submitted: Instant,
    taken: Instant,
    is_claimed: bool,
    is_over: bool,
}

/// Its place in a message that goes through the log, or is remembered all the same.
#[derive(Clone, Debug)]
pub(super) struct Promised {
    pub(super) promise: Arc<Promise>,
    /// The first of its recipients that the copy is for.
    pub(super) recipient: usize,
    /// It goes through the log; else it is flushed in its mailbox.
    pub(super) through_log: bool,
}

impl Job {
    pub(super) fn new(
        mail: Arc<Mail>,
        Copy { target, names }: Copy,
        on_outcome: Arc<OnOutcome>,
        base: &Path,
    ) -> Self {
        let now = clock::now();
        Self {
            mail,
            mailbox: MailboxPath::display_of(base, &target),
            target,
            lock_wait: None,
            is_refused_in_log: false,
            promise: None,
            names,
            on_outcome,
            state: Arc::new(AtomicU8::new(WAITING)),
            submitted: now,
            taken: now,
            is_claimed: false,
            is_over: false,
        }
    }

    pub(super) fn with_promise(mut self, promised: Promised) -> Self {
        self.promise = Some(promised);
        self
    }

    /// The ticket of the recipient that is `offset` behind the first one of the copy.
    pub(super) fn ticket(&self, offset: usize) -> Ticket {
        Ticket {
            state: Arc::clone(&self.state),
            origin: match &self.promise {
                Some(promised) => Origin::Promise {
                    promise: Arc::clone(&promised.promise),
                    recipient: promised.recipient + offset,
                },
                None => Origin::Direct,
            },
        }
    }

    /// Where the recipients that it is for were submitted, each with its offset in the copy.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let names = self.names.iter().enumerate();
        names.flat_map(|(offset, named)| named.indices().map(move |index| (index, offset)))
    }

    /// The message in the log, if it goes through it.
    pub(super) fn promise(&self) -> Option<&Arc<Promise>> {
        let promised = self.promise.as_ref().filter(|p| p.through_log)?;
        Some(&promised.promise)
    }

    /// What the log is to be told of it; nothing when the log does not know of it.
    pub(super) fn done(&self, outcome: DoneOutcome) -> Option<Done> {
        let promised = self.promise.as_ref()?;
        let promise = &promised.promise;
        promise
            .is_logged()
            .then(|| promise.done(promised.recipient, outcome))
    }

    /// The name of its file in `new/`.
    pub(super) fn planned_name(&self) -> Option<&str> {
        let promised = self.promise.as_ref()?;
        match &promised.promise.recipient(promised.recipient)?.plan {
            Plan::Maildir { file_name } => Some(file_name),
            Plan::Mbox { .. } | Plan::Shared => None,
        }
    }

    /// Trace header for a Maildir.
    pub(super) fn maildir_header(&self) -> Vec<u8> {
        match &self.promise {
            Some(promised) => promised.promise.maildir_header(promised.recipient),
            None => self.names.maildir_header(&self.mail.reverse_path),
        }
    }

    /// `From ` line and trace header for an mbox; the same bytes each time.
    pub(super) fn mbox_header(&self) -> Vec<u8> {
        match &self.promise {
            Some(promised) => promised.promise.mbox_header(promised.recipient),
            None => {
                let names = &self.names;
                names.mbox_header(&self.mail.reverse_path, clock::since_epoch())
            }
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.state.load(Ordering::Acquire) == ABANDONED
    }

    /// Its mailbox, as operators know it.
    pub(super) fn mailbox(&self) -> &str {
        &self.mailbox
    }

    /// From now on it cannot be abandoned; false when it was.
    pub(super) fn claim(&mut self) -> bool {
        if !self.is_claimed {
            let order = Ordering::AcqRel;
            self.is_claimed = self
                .state
                .compare_exchange(WAITING, CLAIMED, order, Ordering::Acquire)
                .is_ok();
        }
        self.is_claimed
    }

    /// It ends well.
    pub(super) fn succeed(mut self, text: &'static str) {
        self.end(Status::ok(text));
    }

    /// It ends with this answer, which is no success.
    pub(super) fn refuse(mut self, status: Status) {
        self.end(status);
    }

    /// It ends with an error.
    pub(super) fn fail(mut self, error: &MailboxError) {
        self.end(error.status());
    }

    fn end(&mut self, status: Status) {
        self.is_over = true;
        let is_ours = self.claim();
        if let Some(promised) = self.promise.take() {
            let recipient = promised.recipient;
            match is_ours && status.is_success() {
                true => promised.promise.stored(recipient),
                false => promised.promise.refuse(recipient, self.is_refused_in_log),
            }
        }
        if !is_ours {
            return;
        }
        let now = clock::now();
        let outcome = Outcome {
            status,
            mailbox: Some(std::mem::take(&mut self.mailbox)),
            queued: self.taken.saturating_duration_since(self.submitted),
            stored: now.saturating_duration_since(self.taken),
        };
        for index in self.names.indices() {
            let report = || (self.on_outcome)(index, outcome.clone());
            if catch_unwind(AssertUnwindSafe(report)).is_err() {
                tracing::error!("a callback that takes delivery outcomes panicked");
            }
        }
    }

    /// How long to wait before trying a busy lock again; `None` when `patience` is used up.
    pub(super) fn lock_pause(&mut self, patience: Duration) -> Option<Duration> {
        let now = clock::now();
        let (since, tries) = self.lock_wait.unwrap_or((now, 0));
        self.lock_wait = Some((since, tries.saturating_add(1)));
        let left = patience.checked_sub(now.saturating_duration_since(since))?;
        let pause = Duration::from_millis(10 << tries.min(4)).min(LOCK_PAUSE_MAX);
        (!left.is_zero()).then(|| pause.min(left))
    }
}

/// Longest pause between two attempts at a busy lock.
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(100);

impl Queued for Job {
    fn is_abandoned(&self) -> bool {
        Self::is_abandoned(self)
    }

    fn mbox(&self) -> Option<&str> {
        match self.target.format {
            Format::Mbox => Some(&self.target.path),
            Format::Maildir => None,
        }
    }

    fn take(&mut self) {
        self.taken = clock::now();
    }

    fn bytes(&self) -> u64 {
        self.mail.message.size()
    }
}

impl Drop for Job {
    /// Whoever waits is never left without an answer, not even when a writer panics.
    fn drop(&mut self) {
        if !self.is_over {
            let mailbox = self.mailbox.clone();
            self.end(MailboxError::Interrupted { mailbox }.status());
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("mailbox", &self.mailbox)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::copies::copies;
    use super::*;
    use crate::address::{Address, ReversePath};
    use crate::config::{Copies, Limits};
    use crate::envelope::Recipient;
    use crate::io::StateDirectory;
    use crate::message::Spool;
    use crate::sync::Mutex;

    fn job(seen: &Arc<Mutex<Vec<String>>>) -> Job {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(dir.path()).unwrap();
        let spool = Spool::new(Arc::new(state), &Limits::default(), Arc::new(|| false));
        let mail = Mail {
            reverse_path: ReversePath::Null,
            queue_id: None,
            message: spool.message().finish().unwrap(),
        };
        let recipient = |name| Recipient {
            address: Address::new(name, Some("vm.example")),
            original: None,
        };
        let target = MailboxTarget {
            path: "info".into(),
            format: Format::Mbox,
            uid: 5000,
            gid: 5000,
        };
        let seen = Arc::clone(seen);
        let report = move |index: usize, outcome: Outcome| {
            seen.lock().push(format!("{index}: {}", outcome.status));
        };
        let to = ["info", "sales", "info"].map(|name| (recipient(name), target.clone()));
        let copy = copies(to.into(), Copies::Mailbox).remove(0);
        Job::new(Arc::new(mail), copy, Arc::new(report), Path::new("/base"))
    }

    #[test]
    fn a_job_lost_on_the_way_is_answered_all_the_same() {
        let seen = Arc::default();
        drop(job(&seen));
        let answers = seen.lock().clone();
        assert_eq!(answers.len(), 3, "one for each recipient");
        assert!(answers[0].starts_with("0: 451 4.3.0 mailbox /base/info: "));
    }

    #[test]
    fn a_job_is_reported_once_or_abandoned_never_both() {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let one = job(&seen);
        let ticket = one.ticket(0);
        one.succeed("stored");
        assert!(!ticket.abandon());
        let indices = |text: &String| text.split(':').next().unwrap().to_owned();
        assert_eq!(seen.lock().iter().map(indices).collect::<String>(), "021");
        let mut two = job(&seen);
        assert!(two.ticket(0).abandon());
        assert!(two.ticket(0).abandon(), "for every recipient of the copy");
        assert!(!two.claim());
        two.succeed("stored");
        assert_eq!(seen.lock().len(), 3);
    }

    #[test]
    fn busy_locks_are_tried_quickly_at_first_and_not_for_ever() {
        let seen = Arc::default();
        let mut job = job(&seen);
        let patience = Duration::from_secs(1000);
        let pauses: Vec<u128> = (0..6)
            .map(|_| job.lock_pause(patience).unwrap().as_millis())
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 100, 100]);
        assert_eq!(job.lock_pause(Duration::ZERO), None);
    }
}
