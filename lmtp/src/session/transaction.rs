//! One mail transaction: a sender and its recipients.
//!
//! Invariant: one accepted
//! `RCPT`, one entry, in order; each is answered exactly once for the message (RFC 2033 section
//! 4.2).

use crate::admission::Begun;
use crate::command::MailCommand;
use crate::envelope_memory::EnvelopeMemory;
use mailstow_engine::Recipient;
use mailstow_engine::Target;
use mailstow_engine::address::Address;
use mailstow_engine::config::Settings;
use mailstow_engine::route::{Expansion, MailboxTarget, Router};
use mailstow_engine::transport::{Notify, RecipientDsn};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// A transaction, from `MAIL` on.
#[derive(Debug)]
pub(super) struct Transaction {
    /// `MAIL` as given.
    pub(super) mail: MailCommand,
    /// What it takes of the memory of all envelopes.
    pub(super) memory: EnvelopeMemory,
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
}

/// An accepted recipient.
#[derive(Debug)]
pub(super) struct Accepted {
    /// External form of the address as given, domain completed; for replies.
    pub(super) shown: String,
    /// Before aliases, for `X-Original-To` and the log.
    pub(super) original: String,
    /// Set when the client says which notices the sender wants.
    pub(super) dsn: Option<RecipientDsn>,
    /// What it was expanded by here.
    pub(super) expansion: Expansion,
    /// Who gets the mail, and where: the recipient itself, or, when aliases are expanded here, all
    /// addresses it expands to.
    pub(super) members: Vec<(Address, Target)>,
}

/// What is to be delivered, and whom each delivery answers for.
#[derive(Debug)]
pub(super) struct Plan {
    /// The engine makes one copy for those that have the same mailbox.
    pub(super) deliveries: Vec<(Recipient, Target)>,
    /// For every accepted recipient, in order, its deliveries.
    pub(super) answers: Vec<Answer>,
    /// What the sender asks for those that get the mail, where it asks something.
    pub(super) asked: HashMap<Recipient, RecipientDsn>,
}

/// One reply to be given.
#[derive(Debug)]
pub(super) struct Answer {
    /// External form of the address.
    pub(super) shown: String,
    /// Original recipient, for the log.
    pub(super) original: String,
    /// Set when the client says which notices the sender wants.
    pub(super) dsn: Option<RecipientDsn>,
    /// What it was expanded by here.
    pub(super) expansion: Expansion,
    /// Final recipients in external form, and the indices of their deliveries; never empty.
    pub(super) deliveries: Vec<(String, usize)>,
}

/// `None` for an empty text.
pub(super) fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Answer {
    /// The sender wants a success notice.
    pub(super) fn wants_notice(&self) -> bool {
        let notify = self.dsn.as_ref().and_then(|dsn| dsn.notify);
        notify.is_some_and(|notify| notify.success)
    }
}

impl Transaction {
    /// Takes a recipient in; false when there is no memory for it.
    pub(super) fn accept(&mut self, recipient: Accepted) -> bool {
        let Accepted {
            shown,
            original,
            members,
            dsn,
            ..
        } = &recipient;
        let notice = dsn.as_ref().map_or(0, |dsn| dsn.original.len());
        let is_counted = self
            .memory
            .add_recipient(shown.len() + original.len() + notice)
            && members.iter().all(|(address, target)| {
                let domain = address.domain.as_ref().map_or(0, String::len);
                // Each has what the sender asks for, with the original recipient.
                let asked = dsn.as_ref().map_or(0, |_| original.len() + notice);
                let texts = address.local_part.len() + domain + target.text_bytes() + asked;
                self.memory.add_recipient(texts)
            });
        if !is_counted || self.accepted.try_reserve(1).is_err() {
            return false;
        }
        self.accepted.push(recipient);
        true
    }

    /// External form of the sender.
    pub(super) fn sender(&self) -> String {
        self.mail.reverse_path.external()
    }

    /// Whether the client may be sent UTF-8.
    pub(super) fn utf8(&self) -> bool {
        self.mail.smtputf8
    }

    /// All recipients of the message, in order, and their mailbox, if they have the same.
    pub(super) fn only_mailbox(&self) -> Option<(Vec<Recipient>, &MailboxTarget)> {
        let members = || self.accepted.iter().flat_map(|one| &one.members);
        let (_, target) = members().next()?;
        let mailbox = target.mailbox()?;
        if !members().all(|(_, other)| other == target) {
            return None;
        }
        let recipients = self.accepted.iter().flat_map(|one| {
            let recipient = |(address, _): &(Address, _)| recipient(address.clone(), &one.original);
            one.members.iter().map(recipient)
        });
        Some((recipients.collect(), mailbox))
    }

    /// Plans the deliveries: one for each member of each accepted recipient, in order.
    pub(super) fn plan(accepted: Vec<Accepted>) -> Plan {
        let mut deliveries: Vec<(Recipient, Target)> = Vec::with_capacity(accepted.len());
        let mut answers = Vec::with_capacity(accepted.len());
        let mut asked = HashMap::new();
        for one in accepted {
            let mut indices = Vec::with_capacity(one.members.len());
            // The notice says that the alias was expanded; members cause none.
            let of_members = one.dsn.clone().map(|mut dsn| {
                let notify = dsn.notify.filter(|_| one.expansion != Expansion::None);
                dsn.notify = notify.map(Notify::without_success).or(dsn.notify);
                dsn
            });
            for (address, target) in one.members {
                indices.push((address.external(), deliveries.len()));
                let recipient = recipient(address, &one.original);
                ask(&mut asked, &recipient, of_members.as_ref());
                deliveries.push((recipient, target));
            }
            answers.push(Answer {
                shown: one.shown,
                original: one.original,
                dsn: one.dsn,
                expansion: one.expansion,
                deliveries: indices,
            });
        }
        Plan {
            deliveries,
            answers,
            asked,
        }
    }
}

/// Notes what the sender asks for a recipient. If it is named twice, a request for notices of
/// failures counts for both.
fn ask(
    asked: &mut HashMap<Recipient, RecipientDsn>,
    recipient: &Recipient,
    dsn: Option<&RecipientDsn>,
) {
    let wants_failure = |dsn: &RecipientDsn| dsn.notify.is_none_or(|notify| notify.failure);
    match (dsn, asked.get(recipient)) {
        (Some(dsn), known) if known.is_none_or(|known| !wants_failure(known)) => {
            asked.insert(recipient.clone(), dsn.clone());
        }
        // Without NOTIFY, the sender gets notices of failures.
        (None, Some(known)) if !wants_failure(known) => {
            asked.remove(recipient);
        }
        _ => {}
    }
}

fn recipient(address: Address, original: &str) -> Recipient {
    let original = non_empty(original);
    Recipient { address, original }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailstow_engine::route::Format;

    fn accepted(name: &str, mailboxes: &[usize]) -> Accepted {
        let member = |mailbox: &usize| {
            let target = MailboxTarget::new(format!("m{mailbox}"), Format::Maildir, 1, 1).unwrap();
            (Address::new(name, Some("x")), target.into())
        };
        Accepted {
            shown: format!("{name}@x"),
            original: format!("{name}@original"),
            dsn: None,
            expansion: Expansion::None,
            members: mailboxes.iter().map(member).collect(),
        }
    }

    fn indices(answer: &Answer) -> Vec<usize> {
        answer.deliveries.iter().map(|(_, index)| *index).collect()
    }

    #[test]
    fn every_member_of_an_accepted_recipient_is_delivered_to() {
        let plan = Transaction::plan(vec![accepted("a", &[0, 1]), accepted("list", &[1, 2, 1])]);
        assert_eq!(plan.deliveries.len(), 5);
        assert_eq!(indices(&plan.answers[0]), [0, 1]);
        assert_eq!(indices(&plan.answers[1]), [2, 3, 4]);
        let (recipient, target) = &plan.deliveries[3];
        assert_eq!(recipient.original.as_deref(), Some("list@original"));
        assert_eq!(target.mailbox().unwrap().path, "m2");
        assert_eq!(plan.answers[1].shown, "list@x");
    }

    #[test]
    fn a_recipient_that_is_named_twice_keeps_the_wish_for_failure_notices() {
        let asks = |failure: bool| {
            let notify = Notify {
                failure,
                ..Notify::default()
            };
            RecipientDsn {
                notify: Some(notify),
                original: String::new(),
            }
        };
        let one = |dsn: Option<RecipientDsn>| Accepted {
            dsn,
            ..accepted("a", &[0])
        };
        for (first, second, told) in [
            (Some(asks(false)), Some(asks(true)), Some(asks(true))),
            (Some(asks(true)), Some(asks(false)), Some(asks(true))),
            (Some(asks(false)), None, None),
            (Some(asks(true)), None, Some(asks(true))),
        ] {
            let plan = Transaction::plan(vec![one(first), one(second)]);
            let (recipient, _) = &plan.deliveries[0];
            assert_eq!(plan.asked.get(recipient), told.as_ref());
        }
    }

    #[test]
    fn members_of_an_alias_ask_for_no_notice_of_success() {
        for (expansion, shown) in [
            (Expansion::None, "SUCCESS,DELAY"),
            (Expansion::Alias, "DELAY"),
            (Expansion::List, "DELAY"),
        ] {
            let notify = Notify {
                success: true,
                failure: false,
                delay: true,
            };
            let dsn = RecipientDsn {
                notify: Some(notify),
                original: "rfc822;o@x".into(),
            };
            let one = Accepted {
                dsn: Some(dsn),
                expansion,
                ..accepted("a", &[0])
            };
            let plan = Transaction::plan(vec![one, accepted("b", &[1])]);
            let asked = plan.deliveries.iter().map(|(to, _)| plan.asked.get(to));
            let asked: Vec<_> = asked
                .map(|dsn| dsn?.notify.map(|n| n.to_string()))
                .collect();
            assert_eq!(asked, [Some(shown.to_owned()), None]);
            assert!(plan.answers[0].wants_notice() && !plan.answers[1].wants_notice());
        }
    }
}
