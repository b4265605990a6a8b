//! A message in the delivery log, and the outcomes of its deliveries.
//!
//! The first of the recipients that share a copy identifies the copy. Invariants: the first writer
//! that takes the message appends the record, once; a delivery that fails after that is refused in
//! the log, so that recovery does not make it; the log keeps the record until every delivery has
//! ended. A message that is too long for the log is never appended, and only remembered in case its
//! reply is lost.

use super::super::copies::Copy;
use super::super::in_flight::Settled;
use super::super::types::Mail;
use super::fingerprint::{BaseDigest, Digest, DuplicateKey, content_digest};
use super::journal::Journal;
use super::late_ends::{LateEnd, LateEnds};
use super::refusals::Refusals;
use super::retention::RetentionMark;
use crate::clock;
use crate::log::{
    Accepted, AcceptedEncoder, AcceptedRecipient, Confirmed, CopyLocation, DeliveryId, Done,
    DoneOutcome, InDoubt, LogError, Record, RecordTicket, Sequence,
};
use crate::mailbox::maildir::{NameMaker, sizes};
use crate::mailbox::trace::{self, Name};
use crate::sync::{Arc, Mutex};
use crate::target::Format;
use std::fmt;
use std::sync::Weak;

/// One accepted message.
pub(in crate::delivery) struct LoggedMessage {
    envelope: Accepted,
    base: BaseDigest,
    late_ends: LateEnds,
    state: Mutex<State>,
}

/// The data needed to defer a logged message after its delivery was answered.
pub(in crate::delivery) struct HeldMessage {
    /// Its record.
    pub(in crate::delivery) at: Sequence,
    pub(in crate::delivery) envelope: Accepted,
    pub(in crate::delivery) content: Vec<u8>,
    /// Recipients that were refused.
    pub(in crate::delivery) refused: Vec<u32>,
}

struct State {
    stage: Stage,
    /// Kept as long as the content may be needed.
    mail: Option<Arc<Mail>>,
    digest: Option<Digest>,
    /// The outcome of each recipient.
    ends: Vec<End>,
    /// How many copies have deliveries that have not ended.
    open: usize,
    /// It is known whether the client has read the replies.
    is_settled: bool,
}

impl State {
    /// Releases the content unless a delivery has not ended.
    fn release_content(&mut self) {
        if self.open == 0 {
            self.mail = None;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Stored,
    Refused,
}

enum Stage {
    /// Not in the log.
    Fresh,
    Logged {
        journal: Weak<dyn Journal>,
        ticket: RecordTicket,
        refusals: Refusals,
        /// `None` once every delivery has ended.
        mark: Option<Arc<RetentionMark>>,
    },
}

impl fmt::Debug for LoggedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedMessage")
            .field("id", &self.envelope.id)
            .finish_non_exhaustive()
    }
}

/// The state of a message in the log.
pub(in crate::delivery) enum InLog {
    /// The record was appended now, and is durable when the log is durable up to this ticket.
    Appended(RecordTicket),
    /// The record was appended by an earlier delivery of the message.
    Before(RecordTicket),
    /// The record was appended to a log that failed since, and may be lost; or the delivery was
    /// given up. The delivery must stop.
    Stale,
}

impl Settled for LoggedMessage {
    fn is_settled(&self) -> bool {
        self.state.lock().is_settled
    }
}

impl LoggedMessage {
    /// Decides the name or place of each copy. Writes nothing. The recipients are those of the
    /// copies, in their order.
    pub(in crate::delivery) fn new(
        id: DeliveryId,
        mail: &Arc<Mail>,
        copies: &[Copy],
        names: &NameMaker,
        (base, without_status): (BaseDigest, bool),
        late_ends: LateEnds,
    ) -> Self {
        let reverse_path = mail.reverse_path.external();
        let mut recipients = Vec::with_capacity(copies.len());
        for Copy { target, names: to } in copies {
            let first = recipients.len();
            recipients.extend(to.iter().map(|name| AcceptedRecipient {
                address: name.recipient.address.external(),
                original: name.recipient.original.clone().unwrap_or_default(),
                mailbox: target.path.as_str().to_owned(),
                uid: target.uid,
                gid: target.gid,
                location: CopyLocation::Shared,
            }));
            let sharing = recipients.get_mut(first..).unwrap_or_default();
            let location = match target.format {
                Format::Maildir => maildir_location(&reverse_path, sharing, mail, names),
                Format::Mbox => CopyLocation::Mbox {
                    size_before: 0,
                    without_status,
                },
            };
            if let Some(first) = sharing.first_mut() {
                first.location = location;
            }
        }
        let ends = vec![End::Open; recipients.len()];
        Self {
            envelope: Accepted {
                id,
                accepted_at: clock::since_epoch(),
                reverse_path,
                queue_id: mail.queue_id.clone().unwrap_or_default(),
                recipients,
            },
            base,
            late_ends,
            state: Mutex::new(State {
                stage: Stage::Fresh,
                mail: Some(Arc::clone(mail)),
                digest: None,
                ends,
                open: copies.len(),
                is_settled: false,
            }),
        }
    }

    pub(in crate::delivery) fn id(&self) -> DeliveryId {
        self.envelope.id
    }

    pub(in crate::delivery) fn envelope(&self) -> &Accepted {
        &self.envelope
    }

    /// Returns the recipient in the form of the log.
    pub(in crate::delivery) fn recipient(&self, index: usize) -> Option<&AcceptedRecipient> {
        self.envelope.recipients.get(index)
    }

    /// Appends the record to the log, unless that was done. The mark keeps the record in the log
    /// until it is dropped. Later refusals of recipients are noted in `refusals`.
    pub(in crate::delivery) fn append_to(
        &self,
        journal: &Arc<dyn Journal>,
        (mark, refusals): (&Arc<RetentionMark>, &Refusals),
        mail: &Mail,
    ) -> Result<InLog, LogError> {
        let mut state = self.state.lock();
        if let Stage::Logged {
            journal: holder,
            ticket,
            ..
        } = &state.stage
        {
            let same = std::ptr::addr_eq(Weak::as_ptr(holder), Arc::as_ptr(journal));
            return Ok(if same {
                InLog::Before(*ticket)
            } else {
                InLog::Stale
            });
        }
        if mark.is_closed() {
            return Ok(InLog::Stale);
        }
        let content_bytes = usize::try_from(mail.message.size()).unwrap_or(0);
        let mut encoder = AcceptedEncoder::new(&self.envelope, content_bytes);
        mail.message
            .copy_to(&mut encoder)
            .map_err(|error| LogError::Io {
                operation: "read",
                object: "the message".to_owned(),
                source: Arc::new(error),
            })?;
        let ticket = journal.append(encoder.finish())?;
        state.stage = Stage::Logged {
            journal: Arc::downgrade(journal),
            ticket,
            refusals: refusals.clone(),
            mark: (state.open > 0).then(|| Arc::clone(mark)),
        };
        // Abandoned before the record was written.
        let refused: Vec<Done> = self.refused(&state);
        drop(state);
        for done in refused {
            append_refusal(Some(journal.as_ref()), refusals, done);
        }
        Ok(InLog::Appended(ticket))
    }

    /// Replaces the mark that keeps the record in the log, if it is `from`. No record may rely on
    /// `from` later, so the caller must close it.
    pub(in crate::delivery) fn move_mark(
        &self,
        from: &Arc<RetentionMark>,
        to: &Arc<RetentionMark>,
    ) {
        debug_assert!(
            from.is_closed(),
            "otherwise a record may rely on it after this"
        );
        let mut state = self.state.lock();
        if let Stage::Logged {
            mark: Some(mark), ..
        } = &mut state.stage
            && Arc::ptr_eq(mark, from)
        {
            *mark = Arc::clone(to);
        }
    }

    /// Returns the data needed to defer the message after its delivery; `None` if the log does not
    /// durably have it, or the content cannot be read.
    pub(in crate::delivery) fn held(&self) -> Option<HeldMessage> {
        let state = self.state.lock();
        let Stage::Logged {
            journal, ticket, ..
        } = &state.stage
        else {
            return None;
        };
        let at = ticket.sequence();
        let is_durable = journal.upgrade()?.durable_up_to() >= at;
        let message = &state.mail.as_ref()?.message;
        let mut content = Vec::with_capacity(usize::try_from(message.size()).ok()?);
        message.copy_to(&mut content).ok()?;
        let refused = self.refused(&state).into_iter();
        is_durable.then(|| HeldMessage {
            at,
            envelope: self.envelope.clone(),
            content,
            refused: refused.map(|done| done.recipient).collect(),
        })
    }

    /// Notes the outcome of a delivery that was answered before it ended, and its file system.
    pub(in crate::delivery) fn ended_late(
        &self,
        index: usize,
        is_stored: bool,
        device: Option<u64>,
    ) {
        self.late_ends.add(LateEnd {
            id: self.envelope.id,
            recipient: u32::try_from(index).unwrap_or(u32::MAX),
            is_stored,
            device,
        });
    }

    fn refused(&self, state: &State) -> Vec<Done> {
        let ends = state.ends.iter().zip(&self.envelope.recipients).enumerate();
        ends.filter(|(_, (end, to))| **end == End::Refused && to.location != CopyLocation::Shared)
            .map(|(index, _)| self.done(index, DoneOutcome::Refused))
            .collect()
    }

    /// Returns true when its record was appended.
    pub(in crate::delivery) fn is_logged(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Logged { .. })
    }

    /// Returns true when every delivery has ended.
    pub(in crate::delivery) fn is_over(&self) -> bool {
        self.state.lock().open == 0
    }

    /// Returns true when its record was appended and the log may lack the refusal of the delivery:
    /// recovery may make it.
    pub(in crate::delivery) fn may_be_recovered(&self, is_refused_in_log: bool) -> bool {
        !is_refused_in_log && self.is_logged()
    }

    /// Returns the keys of the recipients that were not refused; a repetition has equal keys.
    pub(in crate::delivery) fn keys(&self) -> Vec<[u8; 32]> {
        let Some(digest) = self.settle_digest() else {
            return Vec::new();
        };
        let state = self.state.lock();
        let ends = (0..).zip(&state.ends);
        ends.filter(|(_, end)| **end != End::Refused)
            .filter_map(|(index, _)| in_doubt_entry(self.base, &self.envelope, index, &digest))
            .map(|entry| entry.key)
            .collect()
    }

    /// Notes that the store remembers elsewhere which replies the client has read.
    pub(in crate::delivery) fn settled(&self) {
        self.state.lock().is_settled = true;
    }

    /// Returns the trace header of a copy in a Maildir.
    pub(in crate::delivery) fn maildir_header(&self, index: usize) -> Vec<u8> {
        maildir_header(&self.envelope, index)
    }

    /// Returns the `From ` line and the trace header of a copy in an mbox.
    pub(in crate::delivery) fn mbox_header(&self, index: usize) -> Vec<u8> {
        mbox_header(&self.envelope, index)
    }

    /// Returns the log's record of the outcome of a copy.
    pub(in crate::delivery) fn done(&self, index: usize, outcome: DoneOutcome) -> Done {
        Done {
            id: self.envelope.id,
            recipient: u32::try_from(index).unwrap_or(u32::MAX),
            outcome,
        }
    }

    /// Notes that a copy was stored.
    pub(in crate::delivery) fn stored(&self, index: usize) {
        self.end(index, End::Stored);
    }

    /// Notes that a copy was not stored, and appends that to the log without waiting, unless the
    /// log has it (`is_logged`).
    pub(in crate::delivery) fn refuse(&self, index: usize, is_logged: bool) {
        let holder = self.end(index, End::Refused);
        if let (false, Some((journal, refusals))) = (is_logged, holder) {
            let done = self.done(index, DoneOutcome::Refused);
            append_refusal(journal.as_deref(), &refusals, done);
        }
    }

    /// Notes the end of a copy. Returns the log with the record, unless that log was closed since,
    /// and the memory of refusals.
    fn end(&self, index: usize, end: End) -> Option<(Option<Arc<dyn Journal>>, Refusals)> {
        let sharing = self.envelope.sharing(index).len();
        let mut state = self.state.lock();
        let ends = state.ends.get_mut(index..index + sharing);
        match ends {
            Some(ends) if ends.first() == Some(&End::Open) => ends.fill(end),
            _ => return None,
        }
        state.open -= 1;
        let is_last = state.open == 0;
        if state.digest.is_some() {
            state.release_content();
        }
        match &mut state.stage {
            Stage::Fresh => None,
            Stage::Logged {
                journal,
                refusals,
                mark,
                ..
            } => {
                let holder = (journal.upgrade(), refusals.clone());
                let mark = if is_last { mark.take() } else { None };
                drop(state);
                drop(mark);
                Some(holder)
            }
        }
    }

    /// Returns the entries for the log once the client has read the replies; they exclude
    /// deliveries that were refused. If the log lacks a refusal, recovery makes that delivery, and
    /// the in-doubt memory must answer the repetition.
    pub(in crate::delivery) fn confirmed(&self) -> Vec<Confirmed> {
        let id = self.envelope.id;
        let state = self.state.lock();
        let stored = |end: &&End| **end == End::Stored;
        if state.ends.iter().all(|end| stored(&end)) {
            let recipient = None;
            return vec![Confirmed { id, recipient }];
        }
        let ends = (0..).zip(&state.ends);
        ends.filter(|(_, end)| stored(end))
            .map(|(recipient, _)| Confirmed {
                id,
                recipient: Some(recipient),
            })
            .collect()
    }

    /// Returns the recipients whose success the client may not know.
    pub(in crate::delivery) fn in_doubt(&self) -> Vec<InDoubt> {
        let Some(digest) = self.settle_digest() else {
            return Vec::new();
        };
        let state = self.state.lock();
        let stored = state.ends.iter().enumerate();
        stored
            .filter(|(_, end)| **end == End::Stored)
            .filter_map(|(index, _)| {
                in_doubt_entry(
                    self.base,
                    &self.envelope,
                    u32::try_from(index).ok()?,
                    &digest,
                )
            })
            .collect()
    }

    /// Computes the digest of the content, and releases the content if no delivery needs it; `None`
    /// when it cannot be read.
    fn settle_digest(&self) -> Option<Digest> {
        let mut state = self.state.lock();
        if state.digest.is_none()
            && let Some(mail) = &state.mail
        {
            state.digest = content_digest(&mail.message).ok();
        }
        state.release_content();
        state.digest
    }

    /// Releases the content, because the client has read the reply.
    pub(in crate::delivery) fn forget_content(&self) {
        self.state.lock().mail = None;
    }
}

/// Appends a refusal without waiting. When the log fails, the refusal is appended to the log that
/// is opened next.
fn append_refusal(journal: Option<&dyn Journal>, refusals: &Refusals, done: Done) {
    let record = Record::Done(vec![done]).encode();
    let ticket = journal.and_then(|journal| journal.append(record).ok());
    refusals.add(done, ticket);
}

/// Returns the in-doubt entry of a delivery.
pub(in crate::delivery) fn in_doubt_entry(
    base: BaseDigest,
    envelope: &Accepted,
    recipient: u32,
    content: &Digest,
) -> Option<InDoubt> {
    let at = usize::try_from(recipient).ok()?;
    let to = envelope.recipients.get(at)?;
    let key = DuplicateKey {
        base,
        reverse_path: &envelope.reverse_path,
        queue_id: &envelope.queue_id,
        original: &to.original,
        address: &to.address,
        mailbox: &to.mailbox,
    };
    Some(InDoubt {
        id: envelope.id,
        recipient,
        key: key.of_content(content),
        since: envelope.accepted_at,
    })
}

/// Returns the trace header of the copy for recipient `index` and those that share it, in a
/// Maildir.
pub(in crate::delivery) fn maildir_header(envelope: &Accepted, index: usize) -> Vec<u8> {
    let names = envelope.sharing(index).iter().map(name_of);
    trace::header(&envelope.reverse_path, names)
}

/// As [`maildir_header`], with the `From ` line, in an mbox; the same bytes each time.
pub(in crate::delivery) fn mbox_header(envelope: &Accepted, index: usize) -> Vec<u8> {
    let names = envelope.sharing(index).iter().map(name_of);
    trace::mbox_header(&envelope.reverse_path, names, envelope.accepted_at)
}

fn name_of(recipient: &AcceptedRecipient) -> Name<'_> {
    Name {
        original: &recipient.original,
        address: &recipient.address,
    }
}

fn maildir_location(
    reverse_path: &str,
    sharing: &[AcceptedRecipient],
    mail: &Mail,
    names: &NameMaker,
) -> CopyLocation {
    let message = &mail.message;
    let header = trace::header(reverse_path, sharing.iter().map(name_of));
    let (size, wire_size) = sizes(&header, message.size(), message.bare_newlines());
    CopyLocation::Maildir {
        file_name: names.next(size, wire_size),
    }
}
