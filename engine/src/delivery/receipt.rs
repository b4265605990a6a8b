//! The receipt for a message: records whether its replies were read.
//!
//! Invariant: a message is either confirmed or in doubt; dropping a receipt never confirms.

use super::ledger::Ledger;
use super::ledger::journal::in_doubt_records;
use super::ledger::logged_message::LoggedMessage;
use super::ledger::unconfirmed::{Repeated, Verdict, is_one_of};
use super::reply::{Origin, Ticket};
use crate::log::InDoubt;
use crate::sync::Arc;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Weak;

/// The receipt for one message handed over with [`Engine::submit`](crate::Engine::submit).
///
/// Call [`Receipt::confirm`] once the client has read the replies. Dropping the receipt means that
/// the replies may be lost: the deliveries are then in doubt, and when the client sends the same
/// message again, those that succeeded are answered with success and not stored a second time. Both
/// also apply to deliveries whose outcome is not known yet.
///
/// A receipt that outlives its engine leaves its deliveries in doubt.
///
/// ```
/// # mod site { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/site.inc")); }
/// # let site = site::site()?;
/// # let engine = site.engine()?;
/// # let (mail, to) = site.mail(&engine, "Subject: hello\n\nIt works.\n")?;
/// use std::sync::{Arc, mpsc};
///
/// let (replies, outcomes) = mpsc::channel();
/// let receipt = engine.submit(mail, to, Arc::new(move |_, outcome| {
///     let _ = replies.send(outcome);
/// }));
/// let outcome = outcomes.recv()?;
/// assert_eq!(outcome.status.code, 250);
/// // ... the reply is sent, and the client's next command arrives:
/// receipt.confirm();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a dropped receipt means that the client may not have read the replies; call \
    `confirm` when it has"]
pub struct Receipt {
    tickets: Vec<Ticket>,
    /// Recipients whose deliveries stay in doubt.
    doubtful: BTreeSet<usize>,
    /// Of the log, if the store has one.
    memory: Option<Weak<dyn Memory>>,
    /// Of a message that was spread.
    parts: Option<Parts>,
}

/// The receipts for the parts of a message.
#[derive(Debug)]
struct Parts {
    receipts: Vec<Receipt>,
    /// Of each recipient of the message, the receipt and the index there.
    places: Vec<Option<(usize, usize)>>,
}

/// Remembers deliveries until they are settled.
trait Memory: fmt::Debug + Send + Sync {
    /// See [`settle`].
    fn settle(&self, tickets: &[Ticket], verdict: Verdict);
    /// See [`confirm_but`].
    fn confirm_but(&self, tickets: &[Ticket], doubtful: &BTreeSet<usize>);
}

impl<H: fmt::Debug + Send + Sync + 'static> Memory for Ledger<H> {
    fn settle(&self, tickets: &[Ticket], verdict: Verdict) {
        settle(self, tickets, verdict);
    }

    fn confirm_but(&self, tickets: &[Ticket], doubtful: &BTreeSet<usize>) {
        confirm_but(self, tickets, doubtful);
    }
}

impl Receipt {
    pub(super) fn new<H: fmt::Debug + Send + Sync + 'static>(
        tickets: Vec<Ticket>,
        ledger: Option<&Arc<Ledger<H>>>,
    ) -> Self {
        let memory = ledger.map(|ledger| {
            let memory: Weak<dyn Memory> = Arc::<Ledger<H>>::downgrade(ledger);
            memory
        });
        Self {
            tickets,
            doubtful: BTreeSet::new(),
            memory,
            parts: None,
        }
    }

    /// Returns the receipt of a message for `count` recipients, parts of whom have receipts, each
    /// with the indices of its recipients.
    pub(super) fn spread(count: usize, parts: Vec<(Vec<usize>, Self)>) -> Self {
        let mut places = vec![None; count];
        let mut receipts = Vec::with_capacity(parts.len());
        for (at, (indices, receipt)) in parts.into_iter().enumerate() {
            for (place, index) in indices.into_iter().enumerate() {
                if let Some(known) = places.get_mut(index) {
                    *known = Some((at, place));
                }
            }
            receipts.push(receipt);
        }
        Self {
            tickets: Vec::new(),
            doubtful: BTreeSet::new(),
            memory: None,
            parts: Some(Parts { receipts, places }),
        }
    }

    fn memory(&self) -> Option<Arc<dyn Memory>> {
        self.memory.as_ref().and_then(Weak::upgrade)
    }

    /// Returns the receipt of a message that mailboxes and transports share. `tickets` are in the
    /// order of `indices`; the names of `handed_over` have their own indices; together they are all
    /// indices below `count`.
    pub(super) fn shared(
        mut self,
        count: usize,
        indices: &[usize],
        handed_over: Vec<(usize, Ticket)>,
    ) -> Self {
        let mut tickets = Vec::new();
        tickets.resize_with(count, Ticket::not_made);
        let stored = indices
            .iter()
            .copied()
            .zip(std::mem::take(&mut self.tickets));
        for (index, ticket) in stored.chain(handed_over) {
            if let Some(slot) = tickets.get_mut(index) {
                *slot = ticket;
            }
        }
        self.tickets = tickets;
        self
    }

    /// Notes that the client has read the replies: the message is settled, and an equal message
    /// that arrives later is a new message.
    pub fn confirm(mut self) {
        if let Some(Parts { receipts, .. }) = self.parts.take() {
            return receipts.into_iter().for_each(Self::confirm);
        }
        let tickets = std::mem::take(&mut self.tickets);
        if let Some(memory) = self.memory() {
            match self.doubtful.is_empty() {
                true => memory.settle(&tickets, Verdict::Read),
                false => memory.confirm_but(&tickets, &self.doubtful),
            }
        }
    }

    /// Notes that the reply for the recipient with this index asks the client to try again,
    /// although its delivery succeeded or may still succeed: a later step or another destination of
    /// the recipient failed. The delivery stays in doubt, whether the replies are read or not.
    pub fn doubt(&mut self, index: usize) {
        let Some(Parts { receipts, places }) = &mut self.parts else {
            self.doubtful.insert(index);
            return;
        };
        if let Some((at, place)) = places.get(index).copied().flatten()
            && let Some(part) = receipts.get_mut(at)
        {
            part.doubt(place);
        }
    }

    /// Gives up the delivery to the recipient with this index, and to those who share its copy, if
    /// its publication has not begun.
    ///
    /// Returns true if the message never appears in the mailbox; its outcome is then not reported.
    /// Returns false if its outcome was or will be reported. Returns true for an index without a
    /// recipient.
    pub fn abandon(&self, index: usize) -> bool {
        if let Some(Parts { receipts, places }) = &self.parts {
            let part = places.get(index).copied().flatten();
            let part = part.and_then(|(at, place)| Some((receipts.get(at)?, place)));
            return part.is_none_or(|(part, place)| part.abandon(place));
        }
        self.tickets.get(index).is_none_or(Ticket::abandon)
    }

    /// Returns the number of recipients.
    pub fn recipients(&self) -> usize {
        let parts = self.parts.as_ref();
        parts.map_or(self.tickets.len(), |parts| parts.places.len())
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.tickets.is_empty() {
            return;
        }
        if let Some(memory) = self.memory() {
            memory.settle(&self.tickets, Verdict::Lost);
        }
    }
}

/// Settles deliveries of one message. After [`Verdict::Read`] an equal message is a new message;
/// after [`Verdict::Lost`] the deliveries that succeeded answer a repetition, and are not made a
/// second time.
pub(super) fn settle<H: fmt::Debug + Send + Sync + 'static>(
    ledger: &Ledger<H>,
    tickets: &[Ticket],
    verdict: Verdict,
) {
    let mut last: Option<&Arc<LoggedMessage>> = None;
    for ticket in tickets {
        match &ticket.origin {
            Origin::Direct => {}
            Origin::Repeated(repeated) => match verdict {
                Verdict::Read => ledger.unconfirmed.confirm_repeated(repeated),
                Verdict::Lost => ledger.unconfirmed.reply_lost_again(repeated),
            },
            Origin::HandedOver { message, name, .. } => {
                message.settle(*name, verdict, &ledger.unconfirmed);
            }
            Origin::Message { message, .. } => {
                if last.is_none_or(|last| !Arc::ptr_eq(last, message)) {
                    match message.is_over() {
                        true => settle_message(ledger, message, verdict),
                        false => ledger.unconfirmed.settle_later(message, verdict),
                    }
                    last = Some(message);
                }
            }
        }
    }
}

/// As [`settle`] with [`Verdict::Read`], except for the recipients with the indices `doubtful`,
/// which stay in doubt.
fn confirm_but<H: fmt::Debug + Send + Sync + 'static>(
    ledger: &Ledger<H>,
    tickets: &[Ticket],
    doubtful: &BTreeSet<usize>,
) {
    // A name may have several tickets; the doubtful one counts.
    for is_doubtful in [true, false] {
        let verdict = match is_doubtful {
            true => Verdict::Lost,
            false => Verdict::Read,
        };
        for (index, ticket) in tickets.iter().enumerate() {
            if let Origin::HandedOver { message, name, .. } = &ticket.origin
                && doubtful.contains(&index) == is_doubtful
            {
                message.settle(*name, verdict, &ledger.unconfirmed);
            }
        }
    }
    // Each message with its recipients that stay in doubt.
    let mut messages: Vec<(&Arc<LoggedMessage>, BTreeSet<usize>)> = Vec::new();
    for (index, ticket) in tickets.iter().enumerate() {
        match &ticket.origin {
            Origin::Direct | Origin::HandedOver { .. } => {}
            Origin::Repeated(repeated) if doubtful.contains(&index) => {
                ledger.unconfirmed.reply_lost_again(repeated);
            }
            Origin::Repeated(repeated) => ledger.unconfirmed.confirm_repeated(repeated),
            Origin::Message { message, recipient } => {
                let at = messages
                    .iter()
                    .position(|(known, _)| Arc::ptr_eq(known, message));
                let stays = doubtful.contains(&index).then_some(*recipient);
                match at.and_then(|at| messages.get_mut(at)) {
                    Some((_, recipients)) => recipients.extend(stays),
                    None => messages.push((message, stays.into_iter().collect())),
                }
            }
        }
    }
    for (message, doubtful) in messages {
        if !message.is_over() {
            ledger.unconfirmed.settle_later(message, Verdict::Lost);
            continue;
        }
        if message.is_logged() {
            ledger.unconfirmed.confirm_but(message, &doubtful);
        } else {
            let mut entries = message.in_doubt();
            entries.retain(|entry| is_one_of(entry, &doubtful));
            note_in_doubt(ledger, &entries);
        }
        message.settled();
    }
}

/// Settles messages whose receipts were given back before their deliveries had ended.
pub(super) fn settle_early<H: fmt::Debug + Send + Sync + 'static>(ledger: &Ledger<H>) {
    for (message, verdict) in ledger.unconfirmed.take_early() {
        settle_message(ledger, &message, verdict);
    }
}

/// Settles a message whose deliveries have all ended.
fn settle_message<H: fmt::Debug + Send + Sync + 'static>(
    ledger: &Ledger<H>,
    message: &Arc<LoggedMessage>,
    verdict: Verdict,
) {
    match verdict {
        Verdict::Read => ledger.unconfirmed.confirm(message),
        Verdict::Lost if message.is_logged() => ledger.unconfirmed.reply_lost(message),
        Verdict::Lost => note_in_doubt(ledger, &message.in_doubt()),
    }
    message.settled();
}

/// Remembers deliveries in doubt that are not in the log, and appends them to it.
///
/// They are remembered first, because a checkpoint voids what records before it say and writes
/// what is remembered. They answer for no repetition before they are appended, because the
/// repetition's confirmation would be voided by a checkpoint between it and their record.
fn note_in_doubt<H: fmt::Debug + Send + Sync + 'static>(ledger: &Ledger<H>, entries: &[InDoubt]) {
    let unconfirmed = &ledger.unconfirmed;
    let remembered = entries.iter().map(|entry| unconfirmed.add_answered(*entry));
    let remembered: Vec<Repeated> = remembered.collect();
    if let (false, Ok(lease)) = (entries.is_empty(), ledger.log.lease()) {
        for record in in_doubt_records(entries) {
            // Not waited for: when a crash loses it, the message comes twice.
            drop(lease.journal.append(record));
        }
    }
    for delivery in &remembered {
        unconfirmed.may_answer(delivery);
    }
}
