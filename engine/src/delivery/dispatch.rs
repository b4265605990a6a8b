//! Hands each recipient to its mailbox or to its transport.
//!
//! Mailboxes and transports know nothing of each other: here alone a message is split between
//! them, and their outcomes become those of one submission. A message for mailboxes alone, as
//! nearly all are, costs nothing more.

use super::receipt::Receipt;
use super::reply::OnOutcome;
use super::store::Store;
use super::types::{Mail, Outcome};
use crate::envelope::Recipient;
use crate::status::Status;
use crate::sync::Arc;
use crate::target::{MailboxTarget, Target, TransportTarget};
use crate::transport::{Claim, TransportRecipient, TransportRequest, Transports, answers};
use std::time::{Duration, Instant};

/// A recipient, with its indices in the submission: more than one if it was submitted again.
type Wanted = (Vec<usize>, Recipient);

/// The recipients of one transport and nexthop.
type Group = (TransportTarget, Vec<Wanted>);

impl Store {
    /// Hands a message over for delivery, each recipient to its target; returns at once, with the
    /// receipt for the message. Transports have until `deadline`.
    pub(crate) fn dispatch<T: Into<Target>>(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, T)>,
        (transports, deadline): (&Transports, Instant),
        on_outcome: Arc<OnOutcome>,
    ) -> Receipt {
        let count = to.len();
        let mut mailboxes: Vec<(Recipient, MailboxTarget)> = Vec::with_capacity(count);
        let mut indices = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for (index, (recipient, target)) in to.into_iter().enumerate() {
            match target.into() {
                Target::Mailbox(target) => {
                    if !groups.is_empty() {
                        indices.push(index);
                    }
                    mailboxes.push((recipient, target));
                }
                Target::Transport(target) => {
                    if groups.is_empty() {
                        indices.extend(0..index);
                    }
                    let is_it = |(known, _): &&mut Group| is_same(known, &target);
                    match groups.iter_mut().find(is_it) {
                        Some((_, recipients)) => add(recipients, index, recipient),
                        None => groups.push((target, vec![(vec![index], recipient)])),
                    }
                }
            }
        }
        if groups.is_empty() {
            return self.submit_for_receipt(mail, mailboxes, on_outcome);
        }
        let of_mailbox = Arc::clone(&on_outcome);
        let positions = indices.clone();
        let on_stored = move |at: usize, outcome: Outcome| {
            if let Some(index) = positions.get(at) {
                of_mailbox(*index, outcome);
            }
        };
        let receipt = self.submit_for_receipt(Arc::clone(&mail), mailboxes, Arc::new(on_stored));
        let mut claims = Vec::new();
        for group in groups {
            let with = (transports, deadline);
            claims.extend(hand_over(&mail, group, with, Arc::clone(&on_outcome)));
        }
        claims.sort_unstable_by_key(|(index, _)| *index);
        receipt.shared(count, &indices, claims)
    }
}

/// Both lead to one destination. Case does not count in domains, but in paths of sockets.
fn is_same(a: &TransportTarget, b: &TransportTarget) -> bool {
    let (one, other) = (&a.nexthop, &b.nexthop);
    let is_domain = !one.contains(['/', ':', ' ']);
    let is_nexthop = one == other || (is_domain && one.eq_ignore_ascii_case(other));
    a.transport == b.transport && is_nexthop
}

/// Adds a recipient to those of its transport. One that is there already shares its delivery.
fn add(recipients: &mut Vec<Wanted>, index: usize, recipient: Recipient) {
    let is_it = |(_, known): &&mut Wanted| known.address == recipient.address;
    match recipients.iter_mut().find(is_it) {
        Some((indices, _)) => indices.push(index),
        None => recipients.push((vec![index], recipient)),
    }
}

/// Gives the recipients of one transport and nexthop to it.
fn hand_over(
    mail: &Arc<Mail>,
    (target, recipients): Group,
    (transports, deadline): (&Transports, Instant),
    on_outcome: Arc<OnOutcome>,
) -> Vec<(usize, Claim)> {
    let (indices, recipients): (Vec<Vec<usize>>, Vec<Recipient>) = recipients.into_iter().unzip();
    let (at, begun, place) = (indices.clone(), Instant::now(), target.to_string());
    let on_status = move |index: usize, status: Status| {
        for index in at.get(index).into_iter().flatten() {
            let outcome = Outcome {
                status: status.clone(),
                may_appear: false,
                mailbox: Some(place.clone()),
                queued: Duration::ZERO,
                stored: begun.elapsed(),
            };
            on_outcome(*index, outcome);
        }
    };
    let (done, claims) = answers(recipients.len(), on_status);
    let recipients = recipients.into_iter().enumerate();
    let recipients = recipients.map(|(index, recipient)| TransportRecipient { recipient, index });
    let request = TransportRequest {
        mail: Arc::clone(mail),
        recipients: recipients.collect(),
        deadline,
        done,
        target,
    };
    match transports.get(&request.target.transport) {
        Some(transport) => transport.deliver(request),
        None => {
            let status = Transports::unknown(&request.target);
            for recipient in &request.recipients {
                request.done.answer(recipient.index, status.clone());
            }
        }
    }
    let all = indices.into_iter().zip(claims);
    all.flat_map(|(indices, claim)| indices.into_iter().map(move |index| (index, claim.clone())))
        .collect()
}
