//! Which recipients of a message share a copy of it.
//!
//! Invariants: every submitted recipient belongs to exactly one copy; the recipients of a copy are
//! in the order in which they were submitted, and so are the copies, by their first recipients.

use crate::config::Copies;
use crate::envelope::{Recipient, ReversePath};
use crate::mailbox::trace::{self, Name};
use crate::target::{Format, MailboxTarget};
use std::iter::once;
use std::time::Duration;

/// One copy of a message.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) target: MailboxTarget,
    pub(super) names: Names,
}

/// The recipients of a copy; at least one.
#[derive(Debug)]
pub(super) struct Names {
    first: Named,
    more: Vec<Named>,
}

/// One recipient of a copy.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) recipient: Recipient,
    /// Its index in the submission.
    index: usize,
    /// The indices of its repetitions: the same recipient with the same mailbox.
    again: Vec<usize>,
}

impl Named {
    /// Returns its index and those of its repetitions.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        once(self.index).chain(self.again.iter().copied())
    }
}

impl Names {
    /// `None` when there are none.
    pub(super) fn new(names: impl IntoIterator<Item = Named>) -> Option<Self> {
        let mut names = names.into_iter();
        let first = names.next()?;
        let more = names.collect();
        Some(Self { first, more })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Named> {
        once(&self.first).chain(&self.more)
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = Named> {
        once(self.first).chain(self.more)
    }

    /// Returns every index that the copy answers for.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        self.iter().flat_map(Named::indices)
    }

    /// Returns the trace header of the copy in a Maildir.
    pub(super) fn maildir_header(&self, reverse_path: &ReversePath) -> Vec<u8> {
        self.with_names(|names| trace::header(&reverse_path.external(), names))
    }

    /// Returns the `From ` line and the trace header of the copy in an mbox.
    pub(super) fn mbox_header(&self, reverse_path: &ReversePath, time: Duration) -> Vec<u8> {
        self.with_names(|names| trace::mbox_header(&reverse_path.external(), names, time))
    }

    fn with_names<R>(&self, with: impl FnOnce(&mut dyn Iterator<Item = Name<'_>>) -> R) -> R {
        let addresses = self.iter().map(|name| name.recipient.address.external());
        let addresses: Vec<String> = addresses.collect();
        let both = self.iter().zip(&addresses);
        with(&mut both.map(|(name, address)| Name {
            original: name.recipient.original.as_deref().unwrap_or_default(),
            address,
        }))
    }
}

/// Returns the copies to be made of a message for these recipients.
pub(super) fn copies(to: Vec<(Recipient, MailboxTarget)>, copies: Copies) -> Vec<Copy> {
    if to.len() == 1 {
        return to.into_iter().map(|one| copy(0, one)).collect();
    }
    let mut order: Vec<usize> = (0..to.len()).collect();
    let key = |at: &usize| {
        to.get(*at)
            .map(|(recipient, target)| sort_key(recipient, target))
    };
    order.sort_by(|one, other| key(one).cmp(&key(other)).then(one.cmp(other)));
    let mut to: Vec<Option<(Recipient, MailboxTarget)>> = to.into_iter().map(Some).collect();
    let mut all: Vec<Copy> = Vec::with_capacity(to.len());
    for index in order {
        let Some((recipient, target)) = to.get_mut(index).and_then(Option::take) else {
            continue;
        };
        let last = all.last_mut().filter(|copy| copy.target == target);
        match last.map(|copy| &mut copy.names) {
            Some(names) if names.last().recipient == recipient => {
                names.last_mut().again.push(index)
            }
            Some(names) if copies == Copies::Mailbox => names.more.push(named(index, recipient)),
            _ => all.push(copy(index, (recipient, target))),
        }
    }
    for copy in &mut all {
        copy.names.sort();
    }
    all.sort_unstable_by_key(|copy| copy.names.first.index);
    all
}

impl Names {
    fn last(&self) -> &Named {
        self.more.last().unwrap_or(&self.first)
    }

    fn last_mut(&mut self) -> &mut Named {
        self.more.last_mut().unwrap_or(&mut self.first)
    }

    fn sort(&mut self) {
        self.more.sort_unstable_by_key(|name| name.index);
        let before = |name: &&mut Named| name.index < self.first.index;
        if let Some(earlier) = self.more.first_mut().filter(before) {
            std::mem::swap(&mut self.first, earlier);
            self.more.sort_unstable_by_key(|name| name.index);
        }
    }
}

fn copy(index: usize, (recipient, target): (Recipient, MailboxTarget)) -> Copy {
    let names = Names {
        first: named(index, recipient),
        more: Vec::new(),
    };
    Copy { target, names }
}

fn named(index: usize, recipient: Recipient) -> Named {
    Named {
        recipient,
        index,
        again: Vec::new(),
    }
}

/// Equal for equal recipients of equal targets, and for no others; those of one target are
/// together.
fn sort_key<'a>(
    recipient: &'a Recipient,
    target: &'a MailboxTarget,
) -> (&'a str, [u32; 3], &'a str, Option<&'a str>, Option<&'a str>) {
    let format = match target.format {
        Format::Maildir => 0,
        Format::Mbox => 1,
    };
    (
        &target.path,
        [format, target.uid, target.gid],
        &recipient.address.local_part,
        recipient.address.domain.as_deref(),
        recipient.original.as_deref(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use proptest::prelude::*;

    fn one(name: u8, original: u8, mailbox: u8) -> (Recipient, MailboxTarget) {
        let recipient = Recipient {
            address: Address::new(format!("u{name}"), Some("vm.example")),
            original: (original > 0).then(|| format!("o{original}@vm.example")),
        };
        let (path, uid) = (format!("m{}", mailbox / 2), 5000 + u32::from(mailbox % 2));
        let target = MailboxTarget::new(path, Format::Maildir, uid, 5000).unwrap();
        (recipient, target)
    }

    #[test]
    fn a_copy_names_its_recipients_in_order_each_once() {
        let to = [(3, 1, 0), (1, 2, 0), (9, 0, 7), (3, 1, 0), (1, 3, 0)];
        let to = || {
            to.map(|(name, original, mailbox)| one(name, original, mailbox))
                .into()
        };
        let all = copies(to(), Copies::Mailbox);
        let indices = |copy: &Copy| copy.names.indices().collect::<Vec<_>>();
        assert_eq!(
            all.iter().map(indices).collect::<Vec<_>>(),
            [vec![0, 3, 1, 4], vec![2]]
        );
        let header = "Return-Path: <>\n\
             X-Original-To: o1@vm.example\nDelivered-To: u3@vm.example\n\
             X-Original-To: o2@vm.example\nDelivered-To: u1@vm.example\n\
             X-Original-To: o3@vm.example\nDelivered-To: u1@vm.example\n";
        let made = all[0].names.maildir_header(&ReversePath::Null);
        assert_eq!(made, header.as_bytes());
        let each = copies(to(), Copies::Recipient);
        assert_eq!(
            each.iter().map(indices).collect::<Vec<_>>(),
            [vec![0, 3], vec![1], vec![2], vec![4]]
        );
    }

    proptest! {
        #[test]
        fn every_recipient_is_in_the_copy_of_its_mailbox(
            to in proptest::collection::vec((0u8..4, 0u8..3, 0u8..5), 0..60),
            is_each: bool,
        ) {
            let to: Vec<_> = to.into_iter().map(|(n, o, m)| one(n, o, m)).collect();
            let kind = if is_each { Copies::Recipient } else { Copies::Mailbox };
            let all = copies(to.clone(), kind);
            // A recipient with its indices, found by the simplest algorithm.
            type Plain = (Recipient, Vec<usize>);
            let mut expected: Vec<(MailboxTarget, Vec<Plain>)> = Vec::new();
            for (index, (recipient, target)) in to.into_iter().enumerate() {
                let same = expected.iter_mut().find(|(other, names)| {
                    *other == target && (!is_each || names[0].0 == recipient)
                });
                let Some((_, names)) = same else {
                    expected.push((target, vec![(recipient, vec![index])]));
                    continue;
                };
                match names.iter_mut().find(|(name, _)| *name == recipient) {
                    Some((_, indices)) => indices.push(index),
                    None => names.push((recipient, vec![index])),
                }
            }
            let found = all.into_iter().map(|copy| {
                let names = copy.names.into_iter();
                let names = names.map(|n| (n.recipient.clone(), n.indices().collect()));
                (copy.target, names.collect())
            });
            prop_assert_eq!(found.collect::<Vec<_>>(), expected);
        }
    }
}
