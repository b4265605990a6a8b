//! One mail transaction: a sender, its recipients, and the message if it comes in chunks.
//!
//! Imports `command`, `admission`, the engine's routing. Invariant: one accepted `RCPT`, one entry,
//! in order; each is answered exactly once for the message (RFC 2033 section 4.2).

use super::body::Body;
use crate::admission::Begun;
use crate::command::MailCommand;
use mailstow_engine::LineEnds;
use mailstow_engine::Recipient;
use mailstow_engine::address::Address;
use mailstow_engine::config::Settings;
use mailstow_engine::route::{MailboxTarget, Router};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// A transaction, from `MAIL` on.
#[derive(Debug)]
pub(super) struct Transaction {
    /// `MAIL` as given.
    pub(super) mail: MailCommand,
    /// Counts it among those of the peer.
    pub(super) _begun: Begun,
    /// The one snapshot of tables that all recipients see.
    pub(super) router: Arc<Router>,
    /// The settings of the moment.
    pub(super) settings: Arc<Settings>,
    /// Our id.
    pub(super) id: String,
    /// When `MAIL` came.
    pub(super) started: Instant,
    /// Accepted recipients.
    pub(super) accepted: Vec<Accepted>,
    /// The message, once its first chunk has come.
    pub(super) chunks: Option<Chunks>,
}

/// An accepted recipient.
#[derive(Debug)]
pub(super) struct Accepted {
    /// External form of the address as given, domain completed; for replies.
    pub(super) shown: String,
    /// Before aliases, for `X-Original-To` and the log.
    pub(super) original: String,
    /// Who gets the mail, and where: the recipient itself, or, when aliases are expanded here,
    /// everyone it stands for.
    pub(super) members: Vec<(Address, MailboxTarget)>,
}

/// A message that comes by `BDAT`.
#[derive(Debug)]
pub(super) struct Chunks {
    /// Where it goes; `None` when nobody is to get it.
    pub(super) body: Option<Body>,
    /// Converts its line ends.
    pub(super) line_ends: LineEnds,
}

/// What is to be delivered, and whom each delivery answers for.
#[derive(Debug)]
pub(super) struct Plan {
    /// One for each mailbox: two addresses of one mailbox get one copy.
    pub(super) deliveries: Vec<(Recipient, MailboxTarget)>,
    /// For every accepted recipient, in order, its delivery.
    pub(super) answers: Vec<Answer>,
}

/// One reply to be given.
#[derive(Debug)]
pub(super) struct Answer {
    /// External form of the address.
    pub(super) shown: String,
    /// Original recipient, for the log.
    pub(super) original: String,
    /// Final recipients in external form, and the indices of their deliveries; never empty.
    pub(super) deliveries: Vec<(String, usize)>,
}

/// `None` for an empty text.
pub(super) fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Up to this many deliveries a plain search beats a hash table.
const SEARCHED_MAX: usize = 16;

impl Transaction {
    /// External form of the sender.
    pub(super) fn sender(&self) -> String {
        self.mail.reverse_path.external()
    }

    /// Whether the client may be sent UTF-8.
    pub(super) fn utf8(&self) -> bool {
        self.mail.smtputf8
    }

    /// The delivery that [`Transaction::plan`] will come to, if it is only one.
    pub(super) fn only_delivery(&self) -> Option<(Recipient, &MailboxTarget)> {
        let first = self.accepted.first()?;
        let (address, target) = first.members.first()?;
        let mut members = self.accepted.iter().flat_map(|one| &one.members);
        members.all(|(_, other)| other == target).then(|| {
            let (address, original) = (address.clone(), non_empty(&first.original));
            (Recipient { address, original }, target)
        })
    }

    /// Plans the deliveries: the first `RCPT` of a mailbox decides its header fields.
    pub(super) fn plan(accepted: Vec<Accepted>) -> Plan {
        let mut deliveries: Vec<(Recipient, MailboxTarget)> = Vec::with_capacity(accepted.len());
        let mut answers = Vec::with_capacity(accepted.len());
        let mut known: HashMap<MailboxTarget, usize> = HashMap::new();
        for one in accepted {
            let mut indices = Vec::with_capacity(one.members.len());
            for (address, target) in one.members {
                let found = if deliveries.len() <= SEARCHED_MAX {
                    deliveries.iter().position(|(_, other)| *other == target)
                } else {
                    if known.is_empty() {
                        let targets = deliveries.iter().map(|(_, target)| target.clone());
                        known.extend(targets.zip(0..));
                    }
                    known.get(&target).copied()
                };
                let delivery = found.unwrap_or(deliveries.len());
                indices.push((address.external(), delivery));
                if found.is_none() {
                    if !known.is_empty() {
                        known.insert(target.clone(), delivery);
                    }
                    let original = non_empty(&one.original);
                    deliveries.push((Recipient { address, original }, target));
                }
            }
            answers.push(Answer {
                shown: one.shown,
                original: one.original,
                deliveries: indices,
            });
        }
        Plan {
            deliveries,
            answers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailstow_engine::route::Format;

    fn accepted(name: &str, mailboxes: &[usize]) -> Accepted {
        let member = |mailbox: &usize| {
            let target = MailboxTarget {
                path: format!("m{mailbox}"),
                format: Format::Maildir,
                uid: 1,
                gid: 1,
            };
            (Address::new(name, Some("x")), target)
        };
        Accepted {
            shown: format!("{name}@x"),
            original: format!("{name}@original"),
            members: mailboxes.iter().map(member).collect(),
        }
    }

    fn indices(answer: &Answer) -> Vec<usize> {
        answer.deliveries.iter().map(|(_, index)| *index).collect()
    }

    #[test]
    fn one_copy_for_each_mailbox_and_one_answer_for_each_recipient() {
        let names = [("a", 0), ("b", 1), ("a", 0), ("alias-of-b", 1)];
        let plan = Transaction::plan(names.iter().map(|(n, m)| accepted(n, &[*m])).collect());
        let shown: Vec<_> = plan.answers.iter().map(|a| a.shown.as_str()).collect();
        assert_eq!(shown, ["a@x", "b@x", "a@x", "alias-of-b@x"]);
        let deliveries: Vec<_> = plan.answers.iter().flat_map(indices).collect();
        assert_eq!(deliveries, [0, 1, 0, 1]);
        assert_eq!(plan.deliveries[1].0.original.as_deref(), Some("b@original"));
    }

    #[test]
    fn an_expanded_alias_is_answered_once_for_all_its_mailboxes() {
        let plan = Transaction::plan(vec![accepted("a", &[0, 1]), accepted("list", &[1, 2, 1])]);
        assert_eq!(plan.deliveries.len(), 3);
        assert_eq!(indices(&plan.answers[0]), [0, 1]);
        assert_eq!(indices(&plan.answers[1]), [1, 2, 1]);
    }

    #[test]
    fn many_recipients_are_planned_as_few_are() {
        let mailboxes: Vec<usize> = (0..200).map(|n| n % 61).collect();
        let plan = Transaction::plan(mailboxes.iter().map(|m| accepted("u", &[*m])).collect());
        assert_eq!(plan.deliveries.len(), 61);
        for (answer, mailbox) in plan.answers.iter().zip(&mailboxes) {
            assert_eq!(
                plan.deliveries[indices(answer)[0]].1.path,
                format!("m{mailbox}")
            );
        }
    }
}
