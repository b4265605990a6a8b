//! Hands each recipient to its mailbox or to its transport.
//!
//! Mailboxes and transports do not import each other. This file alone splits a message between
//! them, and joins their outcomes in one submission. A message for mailboxes alone, which is the
//! usual case, costs nothing more. With a delivery log, a success of a transport is durably
//! recorded before it is reported, and a transport is asked only while the log takes records.

use super::handed_over::{HandedOver, Name};
use super::ledger::Ledger;
use super::ledger::unconfirmed::Verdict;
use super::receipt::Receipt;
use super::repetition::{delivered_before, handed_over_before, is_in_flight};
use super::reply::{OnOutcome, Ticket};
use super::store::Store;
use super::types::{Mail, Outcome};
use crate::address::Address;
use crate::dsn::{Disposition, Dsn};
use crate::envelope::Recipient;
use crate::io::Disk;
use crate::status::Status;
use crate::sync::Arc;
use crate::target::{LOCAL, MailboxTarget, Target, TransportTarget};
use crate::transport::{Done, TransportRecipient, TransportRequest, Transports, answers};
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The tickets of recipients that transports take, by their indices in the submission.
type Tickets = Vec<(usize, Ticket)>;

/// Recipients whose mail transports take, in the order in which they were submitted.
#[derive(Default)]
struct Names {
    all: Vec<Name>,
    /// Where each recipient with its place is.
    places: HashMap<(Recipient, String), usize>,
}

/// The recipients of one transport and nexthop: each address once, with its names.
struct Group {
    target: TransportTarget,
    recipients: Vec<(Recipient, Vec<usize>)>,
}

/// Takes the answers of a transport for the recipients of a group.
struct Answers<H> {
    message: Arc<HandedOver>,
    /// The names of each recipient of the group.
    names: Vec<Vec<usize>>,
    begun: Instant,
    /// Records successes.
    ledger: Option<Arc<Ledger<H>>>,
    on_outcome: Arc<OnOutcome>,
}

impl<D: Disk> Store<D> {
    /// Hands a message over for delivery, each recipient to its target. Returns the receipt for the
    /// message at once. Transports have until `deadline`.
    pub(crate) fn dispatch<T: Into<Target>>(
        &self,
        mail: Arc<Mail>,
        to: Vec<(Recipient, T)>,
        with: (&Transports, Instant),
        on_outcome: Arc<OnOutcome>,
    ) -> Receipt {
        let count = to.len();
        let mut mailboxes: Vec<(Recipient, MailboxTarget)> = Vec::with_capacity(count);
        let mut indices = Vec::new();
        let mut names = Names::default();
        for (index, (recipient, target)) in to.into_iter().enumerate() {
            let target = match target.into() {
                // Local targets were spread before; this store delivers none.
                Target::Local(_) => Target::transport(LOCAL, ""),
                target => target,
            };
            match target {
                Target::Local(_) => {}
                Target::Mailbox(target) => {
                    if !names.all.is_empty() {
                        indices.push(index);
                    }
                    mailboxes.push((recipient, target));
                }
                Target::Transport(target) => {
                    if names.all.is_empty() {
                        indices.extend(0..index);
                    }
                    names.add(Name::new(recipient, target, index));
                }
            }
        }
        let names = names.all;
        if names.is_empty() {
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
        let handed_over = self.hand_over(&mail, names, with, &on_outcome);
        receipt.shared(count, &indices, handed_over)
    }

    /// Hands a message to the transports of these names, except for names that already have it.
    fn hand_over(
        &self,
        mail: &Arc<Mail>,
        mut names: Vec<Name>,
        with: (&Transports, Instant),
        on_outcome: &Arc<OnOutcome>,
    ) -> Tickets {
        let mut tickets = Tickets::new();
        let base = self.base_digest();
        let ledger = self.ledger();
        if let Some(ledger) = ledger {
            let mut answer = |name: &Name, ticket: Ticket, outcome: Outcome| {
                for index in &name.indices {
                    tickets.push((*index, ticket.clone()));
                    report(on_outcome, *index, outcome.clone());
                }
            };
            let memory = (&ledger.unconfirmed, self.handed_over());
            let (left, earlier) = handed_over_before(memory, base, mail, names);
            names = left;
            for (name, repeated) in earlier {
                let place = name.target.to_string();
                match repeated {
                    Some(repeated) => {
                        // Whether the next server sends a notice is not remembered: two are better
                        // than none.
                        let before = Outcome {
                            disposition: Disposition::Relayed,
                            ..delivered_before(place)
                        };
                        answer(&name, Ticket::settled(repeated), before);
                    }
                    None => answer(&name, Ticket::not_made(), is_in_flight(place)),
                }
            }
            // Without the log, the success of a transport could not be recorded.
            if let Err(error) = ledger.log.lease() {
                for name in names.drain(..) {
                    let outcome = outcome(error.status(), &name.target, Duration::ZERO);
                    answer(&name, Ticket::not_made(), outcome);
                }
            }
        }
        if names.is_empty() {
            return tickets;
        }
        let message = Arc::new(HandedOver::new(self.next_id(), base, mail, names));
        if let (Some(_), Some(id)) = (ledger, &mail.queue_id) {
            self.handed_over().add(id, &message);
        }
        for group in groups(message.names(), &mail.dsn) {
            let Group { target, recipients } = group;
            let (recipients, names): (Vec<Recipient>, Vec<Vec<usize>>) =
                recipients.into_iter().unzip();
            let to = Arc::new(Answers {
                message: Arc::clone(&message),
                names,
                begun: Instant::now(),
                ledger: ledger.cloned(),
                on_outcome: Arc::clone(on_outcome),
            });
            tickets.extend(begin(mail, (target, recipients), with, to));
        }
        tickets
    }
}

impl Names {
    /// Adds a recipient. One that is there already, for the same original recipient, is the same.
    fn add(&mut self, name: Name) {
        let next = self.all.len();
        let key = (name.recipient.clone(), name.place.clone());
        let at = *self.places.entry(key).or_insert(next);
        match self.all.get_mut(at) {
            Some(known) => known.indices.extend(name.indices),
            None => self.all.push(name),
        }
    }
}

/// Returns what each transport and nexthop gets of a message: every address once, whatever the
/// original recipients are. Of several for one address, the transport gets one that asks for
/// notices of failures, if one does.
fn groups(names: &[Name], dsn: &Dsn) -> Vec<Group> {
    let wants_failure = |recipient: &Recipient| {
        let asked = dsn.recipients.get(recipient);
        asked
            .and_then(|asked| asked.notify)
            .is_none_or(|notify| notify.failure)
    };
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut known: HashMap<(usize, &Address), usize> = HashMap::new();
    for (number, name) in names.iter().enumerate() {
        let next = groups.len();
        let at = *places.entry(&name.place).or_insert(next);
        if at == next {
            groups.push(Group {
                target: name.target.clone(),
                recipients: Vec::new(),
            });
        }
        let Some(Group { recipients, .. }) = groups.get_mut(at) else {
            continue;
        };
        let next = recipients.len();
        let at = *known.entry((at, &name.recipient.address)).or_insert(next);
        match recipients.get_mut(at) {
            Some((recipient, names)) => {
                if !wants_failure(recipient) && wants_failure(&name.recipient) {
                    recipient.clone_from(&name.recipient);
                }
                names.push(number);
            }
            None => recipients.push((name.recipient.clone(), vec![number])),
        }
    }
    groups
}

/// Gives the recipients of one transport and nexthop to that transport.
fn begin<H: fmt::Debug + Send + Sync + 'static>(
    mail: &Arc<Mail>,
    (target, recipients): (TransportTarget, Vec<Recipient>),
    (transports, deadline): (&Transports, Instant),
    to: Arc<Answers<H>>,
) -> Tickets {
    let of_transport = Arc::clone(&to);
    let on_status = move |at, status, how| of_transport.take(at, (status, how));
    let (done, claims) = answers(recipients.len(), on_status);
    let mut tickets = Tickets::new();
    for (names, claim) in to.names.iter().zip(claims) {
        for name in names {
            let indices = to.message.names().get(*name).map(|name| &name.indices);
            for index in indices.into_iter().flatten() {
                let message = Arc::clone(&to.message);
                let ticket = Ticket::handed_over(message, *name, claim.clone());
                tickets.push((*index, ticket));
            }
        }
    }
    let recipients = recipients.into_iter().enumerate();
    let recipients = recipients.map(|(index, recipient)| TransportRecipient { recipient, index });
    let request = TransportRequest {
        mail: Arc::clone(mail),
        recipients: recipients.collect(),
        deadline,
        done,
        target,
    };
    deliver(transports, request);
    tickets
}

fn deliver(transports: &Transports, request: TransportRequest) {
    if let Some(transport) = transports.get(&request.target.transport) {
        return transport.deliver(request);
    }
    let done: &Done = &request.done;
    let status = Transports::unknown(&request.target);
    for recipient in &request.recipients {
        done.answer(recipient.index, status.clone());
    }
}

impl<H: fmt::Debug + Send + Sync + 'static> Answers<H> {
    /// Takes what a transport answers for a recipient. A success is reported once it is durably
    /// remembered.
    fn take(self: &Arc<Self>, at: usize, (status, how): (Status, Disposition)) {
        let Some(names) = self.names.get(at) else {
            return;
        };
        let Some(ledger) = self.ledger.as_ref().filter(|_| status.is_success()) else {
            self.message.not_taken(names);
            return self.report(at, &status, how, false);
        };
        let entries = self.message.taken(names, &ledger.unconfirmed);
        if entries.is_empty() {
            return self.report(at, &status, how, false);
        }
        let to = Arc::clone(self);
        let then = move |durable: Result<_, _>| match durable {
            Ok(_) => to.report(at, &status, how, false),
            Err(error) => to.is_not_durable(at, &error),
        };
        ledger.append_in_doubt(&entries, Box::new(then));
    }

    /// Defers a recipient whose success the log did not take. The process remembers the success,
    /// and the repetition by the client finds it.
    fn is_not_durable(&self, at: usize, error: &crate::log::LogError) {
        let Some(ledger) = &self.ledger else { return };
        for name in self.names.get(at).into_iter().flatten() {
            let unconfirmed = &ledger.unconfirmed;
            self.message.settle(*name, Verdict::Lost, unconfirmed);
        }
        self.report(at, &error.status(), Disposition::default(), true);
    }

    fn report(&self, at: usize, status: &Status, disposition: Disposition, may_appear: bool) {
        let known = self.message.names();
        let names = self.names.get(at).into_iter().flatten();
        for name in names.filter_map(|name| known.get(*name)) {
            let outcome = Outcome {
                may_appear,
                disposition,
                ..outcome(status.clone(), &name.target, self.begun.elapsed())
            };
            for index in &name.indices {
                report(&self.on_outcome, *index, outcome.clone());
            }
        }
    }
}

fn outcome(status: Status, target: &TransportTarget, stored: Duration) -> Outcome {
    Outcome {
        status,
        may_appear: false,
        mailbox: Some(target.to_string()),
        queued: Duration::ZERO,
        stored,
        disposition: Disposition::default(),
    }
}

/// Reports an outcome, perhaps on a thread of the log, which a panic must not end.
fn report(on_outcome: &Arc<OnOutcome>, index: usize, outcome: Outcome) {
    let report = || on_outcome(index, outcome);
    if catch_unwind(AssertUnwindSafe(report)).is_err() {
        tracing::error!("a callback that takes delivery outcomes panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsn::{Notify, RecipientDsn};

    #[test]
    fn a_name_that_is_submitted_again_is_one_and_so_is_an_address_of_one_nexthop() {
        let name = |index: usize| {
            let recipient = Recipient {
                address: Address::new(format!("u{}", index % 300), Some("x")),
                original: (index % 600 >= 300).then(|| "original@x".to_owned()),
            };
            let nexthop = ["One.example", "unix:/two"][index % 2];
            let Target::Transport(target) = Target::transport("lmtp", nexthop) else {
                panic!("a transport");
            };
            Name::new(recipient, target, index)
        };
        let mut names = Names::default();
        (0..1200).for_each(|index| names.add(name(index)));
        let names = names.all;
        assert_eq!(names.len(), 600);
        for (number, name) in names.iter().enumerate() {
            assert_eq!(name.indices, [number, number + 600]);
        }
        let groups = groups(&names, &Dsn::default());
        assert_eq!(groups.len(), 2);
        for (parity, group) in groups.iter().enumerate() {
            assert_eq!(group.recipients.len(), 150);
            for (at, (_, names)) in group.recipients.iter().enumerate() {
                let first = 2 * at + parity;
                assert_eq!(*names, [first, first + 300]);
            }
        }
    }

    #[test]
    fn an_address_that_is_named_twice_keeps_the_wish_for_failure_notices() {
        let name = |index: usize, original: &str| {
            let recipient = Recipient {
                address: Address::new("u", Some("x")),
                original: Some(original.to_owned()),
            };
            let Target::Transport(target) = Target::transport("lmtp", "one.example") else {
                panic!("a transport");
            };
            Name::new(recipient, target, index)
        };
        let names = [name(0, "never@x"), name(1, "silent@x")];
        let never = RecipientDsn {
            notify: Some(Notify::default()),
            original: String::new(),
        };
        let asked = HashMap::from([(names[0].recipient.clone(), never)]);
        let dsn = Dsn {
            recipients: Arc::new(asked),
            ..Dsn::default()
        };
        let groups = groups(&names, &dsn);
        let (recipient, numbers) = &groups[0].recipients[0];
        assert_eq!(recipient.original.as_deref(), Some("silent@x"));
        assert_eq!(*numbers, [0, 1]);
    }
}
