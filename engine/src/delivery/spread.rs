//! Spreads a message over the destinations that local delivery has for its recipients.
//!
//! Local delivery may change the sender of a message and adds a `Delivered-To` field. Each version
//! of the message is submitted as a separate message, and its recipients are answered like any
//! others. Mailboxes of accounts are in a second store. A message that was delivered to a local
//! recipient before is refused as a loop. A message without local recipients costs nothing more.

use super::receipt::Receipt;
use super::reply::OnOutcome;
use super::store::Store;
use super::types::{Mail, Outcome};
use crate::address::{ReversePath, parse_address};
use crate::dsn::{Disposition, Dsn};
use crate::envelope::Recipient;
use crate::octets;
use crate::status::{EnhancedCode, Status};
use crate::sync::Arc;
use crate::target::{LocalEnd, LocalTarget, MailboxTarget, Target};
use crate::transport::{Transports, delivered_to};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// The stores of an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stores<'a> {
    /// The store of virtual mailboxes.
    pub(crate) mailboxes: &'a Store,
    /// The store of mailboxes of accounts; `None` where local delivery is not in use.
    pub(crate) accounts: Option<&'a Store>,
}

/// How a message differs for some of its recipients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Difference {
    sender: Option<String>,
    sent_on_from: Vec<String>,
}

/// Those who get the same message, in the order of their first recipients.
#[derive(Default)]
struct Parts {
    all: Vec<(Difference, Part)>,
    /// Where each is.
    places: HashMap<Difference, usize>,
}

/// Recipients who get the same message.
#[derive(Default)]
struct Part {
    /// In mailboxes of accounts.
    accounts: Recipients<MailboxTarget>,
    /// Recipients elsewhere.
    others: Recipients<Target>,
}

/// Recipients with their indices in the submission, and how operators name their places, where that
/// differs from the target.
struct Recipients<T> {
    to: Vec<(Recipient, T)>,
    indices: Vec<(usize, Option<String>)>,
}

impl<T> Default for Recipients<T> {
    fn default() -> Self {
        Self {
            to: Vec::new(),
            indices: Vec::new(),
        }
    }
}

impl<T> Recipients<T> {
    fn push(&mut self, index: usize, recipient: Recipient, target: T, place: Option<String>) {
        self.to.push((recipient, target));
        self.indices.push((index, place));
    }
}

impl Stores<'_> {
    /// Hands a message over for delivery, each recipient to its target. Returns the receipt for the
    /// message at once. Transports have until the deadline.
    pub(crate) fn submit(
        self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, Target)>,
        with: (&Transports, Instant),
        on_outcome: Arc<OnOutcome>,
    ) -> Receipt {
        if !to
            .iter()
            .any(|(_, target)| matches!(target, Target::Local(_)))
        {
            return self.mailboxes.dispatch(mail, to, with, on_outcome);
        }
        let count = to.len();
        let had = delivered_to(&mail.message);
        let mut parts = Parts::default();
        for (index, (recipient, target)) in to.into_iter().enumerate() {
            let target = match target {
                Target::Local(target) => target,
                target => {
                    let part = parts.of(Difference::default());
                    part.others.push(index, recipient, target, None);
                    continue;
                }
            };
            if let Some(status) = self.put(&mut parts, (index, recipient), *target, &had) {
                on_outcome(index, outcome(status));
            }
        }
        let mut receipts = Vec::new();
        for (difference, part) in parts.all {
            let mail = difference.apply(&mail);
            let Recipients { to, indices } = part.others;
            if !to.is_empty() {
                let on_outcome = of_part(&indices, &on_outcome);
                let receipt = self
                    .mailboxes
                    .dispatch(Arc::clone(&mail), to, with, on_outcome);
                receipts.push((of(&indices), receipt));
            }
            let Recipients { to, indices } = part.accounts;
            if let (false, Some(accounts)) = (to.is_empty(), self.accounts) {
                let on_outcome = of_part(&indices, &on_outcome);
                let receipt = accounts.submit_for_receipt(mail, to, on_outcome);
                receipts.push((of(&indices), receipt));
            }
        }
        Receipt::spread(count, receipts)
    }

    /// Adds a recipient to the part with its destination; returns its status if it has none.
    fn put(
        self,
        parts: &mut Parts,
        (index, mut recipient): (usize, Recipient),
        target: LocalTarget,
        had: &HashSet<String>,
    ) -> Option<Status> {
        if let Some(looping) = target.passed.iter().find(|one| had.contains(*one)) {
            let text = format!("mail forwarding loop for {looping}");
            return Some(Status::new(550, EnhancedCode::new(5, 4, 6), text));
        }
        if let Some(original) = target.original {
            recipient.original = Some(original).filter(|original| !original.is_empty());
        }
        let part = parts.of(Difference {
            sender: target.sender,
            sent_on_from: target.sent_on_from,
        });
        match target.end {
            LocalEnd::Failed(status) => return Some(status),
            LocalEnd::Discarded => return Some(Status::ok("discarded")),
            LocalEnd::Account(_) if self.accounts.is_none() => {
                let text = "mail system configuration error: local delivery is not in use";
                return Some(Status::configuration(text));
            }
            LocalEnd::Account(target) => part.accounts.push(index, recipient, target, None),
            LocalEnd::Mailbox(target) => {
                part.others
                    .push(index, recipient, Target::Mailbox(target), None);
            }
            LocalEnd::Transport(target) => {
                part.others
                    .push(index, recipient, Target::Transport(target), None);
            }
            LocalEnd::Command(target) => {
                let place = Some(target.to_string());
                let target = Target::Transport(target.transport());
                part.others.push(index, recipient, target, place);
            }
        }
        None
    }
}

impl Parts {
    /// Returns the part for those whose message differs so.
    fn of(&mut self, difference: Difference) -> &mut Part {
        let next = self.all.len();
        let at = *self.places.entry(difference.clone()).or_insert(next);
        if at == next {
            self.all.push((difference, Part::default()));
        }
        // The position of one that is there.
        #[allow(clippy::indexing_slicing, reason = "it was found, or pushed")]
        &mut self.all[at].1
    }
}

fn of(indices: &[(usize, Option<String>)]) -> Vec<usize> {
    indices.iter().map(|(index, _)| *index).collect()
}

/// Returns a callback that reports the outcomes of a part for the recipients of the submission.
fn of_part(indices: &[(usize, Option<String>)], on_outcome: &Arc<OnOutcome>) -> Arc<OnOutcome> {
    let (indices, on_outcome) = (indices.to_vec(), Arc::clone(on_outcome));
    Arc::new(move |at: usize, mut outcome: Outcome| {
        if let Some((index, place)) = indices.get(at) {
            if place.is_some() {
                outcome.mailbox.clone_from(place);
            }
            on_outcome(*index, outcome);
        }
    })
}

fn outcome(status: Status) -> Outcome {
    Outcome {
        status,
        may_appear: false,
        mailbox: None,
        queued: Duration::ZERO,
        stored: Duration::ZERO,
        disposition: Disposition::default(),
    }
}

impl Difference {
    fn apply(&self, mail: &Arc<Mail>) -> Arc<Mail> {
        if *self == Self::default() {
            return Arc::clone(mail);
        }
        let mut mail = Mail::clone(mail);
        if let Some(sender) = &self.sender {
            // An invalid address can take no failure notices.
            mail.reverse_path = parse_address(sender).unwrap_or(ReversePath::Null);
            // That one asks for nothing.
            mail.dsn = Dsn::default();
        }
        let mut lines = Vec::new();
        for from in self.sent_on_from.iter().rev() {
            lines.extend_from_slice(b"Delivered-To: ");
            let is_line_end = |octet: &u8| matches!(octet, b'\n' | b'\r' | b'\0');
            let octets = octets::octets(from);
            let shown = octets.iter().map(|octet| match is_line_end(octet) {
                true => b'?',
                false => *octet,
            });
            lines.extend(shown);
            lines.push(b'\n');
        }
        if !lines.is_empty() {
            mail.message = mail.message.headed(lines);
        }
        Arc::new(mail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_whose_message_differs_in_the_same_way_are_one_part() {
        let mut parts = Parts::default();
        let difference = |number: usize| Difference {
            sender: Some(format!("owner-{number}@x")),
            sent_on_from: Vec::new(),
        };
        for index in 0..1000 {
            let address = crate::address::Address::new("a", Some("x"));
            let recipient = Recipient {
                address,
                original: None,
            };
            let target = Target::transport("t", "x");
            let part = parts.of(difference(index % 400));
            part.others.push(index, recipient, target, None);
        }
        assert_eq!(parts.all.len(), 400);
        for (number, (of_part, part)) in parts.all.iter().enumerate() {
            assert_eq!(*of_part, difference(number));
            let expected: Vec<usize> = (number..1000).step_by(400).collect();
            assert_eq!(of(&part.others.indices), expected);
        }
    }
}
