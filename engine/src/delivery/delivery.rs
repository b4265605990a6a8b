//! One delivery: a copy of a message for one mailbox, owned by a writer.
//!
//! Invariant: a delivery is answered before it is dropped, or by being dropped; see [`Reply`].

use super::copies::Copy;
use super::ledger::logged_message::LoggedMessage;
use super::queue::Queued;
use super::reply::{Ending, MessagePart, OnOutcome, Reply, Ticket};
use super::types::Mail;
use crate::clock;
use crate::log::{CopyLocation, Done, DoneOutcome};
use crate::mailbox::{MailboxError, MailboxName};
use crate::status::Status;
use crate::sync::Arc;
use crate::target::{Format, MailboxTarget, Owner};
use std::fmt;
use std::path::Path;
use std::time::Instant;

/// A delivery that has not ended.
pub(super) struct Delivery {
    pub(super) mail: Arc<Mail>,
    pub(super) target: MailboxTarget,
    /// The log knows durably that recovery must not make this delivery.
    is_refused_in_log: bool,
    reply: Arc<Reply>,
    /// Its index in its batch.
    number: usize,
    taken: Instant,
    is_claimed: bool,
    /// The watchdog or the writer alone may answer it from now on.
    is_closed: bool,
    is_over: bool,
}

impl Delivery {
    pub(super) fn new(
        mail: Arc<Mail>,
        Copy { target, names }: Copy,
        part: Option<MessagePart>,
        on_outcome: Arc<OnOutcome>,
        base: &Path,
    ) -> Self {
        let now = clock::now();
        let is_mbox = target.format == Format::Mbox;
        let mailbox = (MailboxName::of(base, &target), is_mbox);
        Self {
            mail,
            target,
            is_refused_in_log: false,
            reply: Arc::new(Reply::new(names, part, on_outcome, mailbox, now)),
            number: 0,
            taken: now,
            is_claimed: false,
            is_closed: false,
            is_over: false,
        }
    }

    /// Returns the ticket of the recipient that is `offset` behind the first one of the copy.
    pub(super) fn ticket(&self, offset: usize) -> Ticket {
        self.reply.ticket(offset)
    }

    /// Returns the reply of the delivery.
    pub(super) fn reply(&self) -> &Arc<Reply> {
        &self.reply
    }

    /// Sets its index in its batch.
    pub(super) fn set_number(&mut self, number: usize) {
        self.number = number;
    }

    /// Returns its index in its batch.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Returns the indices of the recipients in the submission, each with its offset in the copy.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let names = self.reply.names.iter().enumerate();
        names.flat_map(|(offset, named)| named.indices().map(move |index| (index, offset)))
    }

    fn part(&self) -> Option<&MessagePart> {
        self.reply.part.as_ref()
    }

    /// Returns true if the log makes it durable.
    pub(super) fn is_through_log(&self) -> bool {
        self.part().is_some_and(|part| part.through_log)
    }

    /// Returns its message, if the log makes it durable.
    pub(super) fn logged_message(&self) -> Option<&Arc<LoggedMessage>> {
        let part = self.part().filter(|part| part.through_log)?;
        Some(&part.message)
    }

    /// Returns the log's record of its outcome; `None` when the log does not have its message.
    pub(super) fn done(&self, outcome: DoneOutcome) -> Option<Done> {
        let part = self.part()?;
        let message = &part.message;
        message
            .is_logged()
            .then(|| message.done(part.recipient, outcome))
    }

    /// Returns the name that the log gives its file in `new/`.
    pub(super) fn planned_name(&self) -> Option<&str> {
        let part = self.part()?;
        match &part.message.recipient(part.recipient)?.location {
            CopyLocation::Maildir { file_name } => Some(file_name),
            CopyLocation::Mbox { .. } | CopyLocation::Shared => None,
        }
    }

    /// Returns the trace header for a Maildir.
    pub(super) fn maildir_header(&self) -> Vec<u8> {
        match self.part() {
            Some(part) => part.message.maildir_header(part.recipient),
            None => self.reply.names.maildir_header(&self.mail.reverse_path),
        }
    }

    /// Returns the `From ` line and the trace header for an mbox; the same bytes each time.
    pub(super) fn mbox_header(&self) -> Vec<u8> {
        match self.part() {
            Some(part) => part.message.mbox_header(part.recipient),
            None => {
                let names = &self.reply.names;
                names.mbox_header(&self.mail.reverse_path, clock::since_epoch())
            }
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_abandoned()
    }

    /// Returns its mailbox, as operators know it.
    pub(super) fn mailbox(&self) -> &str {
        self.reply.mailbox.display()
    }

    /// Returns its mailbox.
    pub(super) fn mailbox_name(&self) -> &MailboxName {
        &self.reply.mailbox
    }

    /// Returns the user and group that own its mailbox.
    pub(super) fn owner(&self) -> Owner {
        self.target.owner()
    }

    /// Prevents that the delivery is abandoned; returns false when it was abandoned before.
    pub(super) fn claim(&mut self) -> bool {
        if !self.is_claimed {
            self.is_claimed = self.reply.claim();
        }
        self.is_claimed
    }

    /// Prevents that the watchdog answers the delivery with success; returns false when it did so
    /// before.
    pub(super) fn close(&mut self) -> bool {
        if !self.is_closed && self.claim() {
            self.is_closed = self.reply.close();
            return self.is_closed;
        }
        true
    }

    /// Notes that the log durably has the refusal of this delivery.
    pub(super) fn refusal_is_logged(&mut self) {
        self.is_refused_in_log = true;
    }

    /// Ends the delivery, and reports the outcome unless it was abandoned.
    pub(super) fn finish(mut self, ending: Ending) {
        match ending {
            Ok(stored) => self.end(&stored.status(), false),
            Err(error) => self.end(&error.status(), error.may_be_stored()),
        }
    }

    fn end(&mut self, status: &Status, may_be_stored: bool) {
        self.is_over = true;
        let is_ours = self.claim();
        let is_answered = !self.close();
        let mut may_appear = may_be_stored;
        if let Some(MessagePart {
            message, recipient, ..
        }) = self.part()
        {
            let is_refused = !is_ours || !status.is_success();
            may_appear |= is_refused && message.may_be_recovered(self.is_refused_in_log);
            match is_ours && status.is_success() {
                stored if is_answered => {
                    message.ended_late(*recipient, stored, self.reply.device())
                }
                true => message.stored(*recipient),
                false => message.refuse(*recipient, self.is_refused_in_log),
            }
        }
        if is_ours && !is_answered {
            let now = clock::now();
            let queued = self.taken.saturating_duration_since(self.reply.submitted);
            let stored = now.saturating_duration_since(self.taken);
            self.reply.report(status, may_appear, (queued, stored));
        }
    }

    /// Returns the error of a delivery that a bug interrupted.
    pub(super) fn interrupted(&self) -> MailboxError {
        MailboxError::Interrupted {
            mailbox: self.mailbox().to_owned(),
        }
    }

    /// Returns the error of a delivery whose mbox is locked by another program.
    pub(super) fn busy(&self, lock: &'static str) -> MailboxError {
        MailboxError::Busy {
            mailbox: self.mailbox().to_owned(),
            lock,
        }
    }
}

impl Queued for Delivery {
    fn is_abandoned(&self) -> bool {
        Self::is_abandoned(self)
    }

    fn mailbox(&self) -> &str {
        &self.target.path
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

    fn submitted(&self) -> Instant {
        self.reply.submitted
    }

    fn refuse(self, lock: &'static str) {
        let error = self.busy(lock);
        self.finish(Err(error.into()));
    }
}

impl Drop for Delivery {
    /// Answers a delivery that was dropped early, for instance because a writer panicked.
    fn drop(&mut self) {
        if !self.is_over {
            let error = self.interrupted();
            self.end(&error.status(), true);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("mailbox", &self.mailbox())
            .field("names", &self.reply.names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Delivery {
    /// An empty message to an mbox, for three recipients.
    pub(super) fn of_nothing(on_outcome: Arc<OnOutcome>) -> Self {
        use crate::address::Address;
        use crate::config::{Copies, Limits};
        let dir = tempfile::tempdir().unwrap();
        let state = crate::io::StateDirectory::open(dir.path()).unwrap();
        let (limits, no_room) = (Limits::default(), Arc::new(|| false));
        let spool = crate::message::Spool::new(Arc::new(state), &limits, no_room);
        let mail = Mail {
            reverse_path: crate::address::ReversePath::Null,
            queue_id: None,
            client: Default::default(),
            dsn: Default::default(),
            message: spool.message().finish().unwrap(),
        };
        let recipient = |name| crate::envelope::Recipient {
            address: Address::new(name, Some("vm.example")),
            original: None,
        };
        let target = MailboxTarget::new("info", Format::Mbox, 5000, 5000).unwrap();
        let to = ["info", "sales", "info"].map(|name| (recipient(name), target.clone()));
        let copy = super::copies::copies(to.into(), Copies::Mailbox).remove(0);
        Self::new(Arc::new(mail), copy, None, on_outcome, Path::new("/base"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::Stored;
    use super::super::types::Outcome;
    use super::*;
    use crate::sync::Mutex;

    fn delivery(seen: &Arc<Mutex<Vec<String>>>) -> Delivery {
        let seen = Arc::clone(seen);
        Delivery::of_nothing(Arc::new(move |index: usize, outcome: Outcome| {
            seen.lock().push(format!("{index}: {}", outcome.status));
        }))
    }

    #[test]
    fn a_delivery_lost_on_the_way_is_answered_all_the_same() {
        let seen = Arc::default();
        drop(delivery(&seen));
        let answers = seen.lock().clone();
        assert_eq!(answers.len(), 3, "one for each recipient");
        assert!(answers[0].starts_with("0: 451 4.3.0 mailbox /base/info: "));
    }

    #[test]
    fn a_delivery_is_reported_once_or_abandoned_never_both() {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let one = delivery(&seen);
        let ticket = one.ticket(0);
        one.finish(Ok(Stored::Mbox));
        assert!(!ticket.abandon());
        let indices = |text: &String| text.split(':').next().unwrap().to_owned();
        assert_eq!(seen.lock().iter().map(indices).collect::<String>(), "021");
        let mut two = delivery(&seen);
        assert!(two.ticket(0).abandon());
        assert!(two.ticket(0).abandon(), "for every recipient of the copy");
        assert!(!two.claim());
        two.finish(Ok(Stored::Mbox));
        assert_eq!(seen.lock().len(), 3);
    }
}
