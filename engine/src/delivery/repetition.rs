//! Finds the recipients of a message that have it already, from a delivery in doubt, or that an
//! earlier delivery is still being made to. Each recipient finds its delivery by itself, whoever
//! shared its copy then and now.

use super::copies::{Copy, Named, Names};
use super::digest::{BaseDigest, Digest, Outline, Way, content_digest};
use super::doubt::{Doubts, Repeated};
use super::types::{Mail, Outcome};
use super::under_way::UnderWay;
use crate::envelope::Recipient;
use crate::mailbox::MailboxName;
use crate::status::{EnhancedCode, Status};
use crate::target::MailboxTarget;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

/// Takes recipients out whose deliveries repeat one in doubt, which answers for them. The others
/// of a copy keep it.
pub(super) fn without_repeated(
    doubts: &Doubts,
    base: BaseDigest,
    mail: &Mail,
    copies: Vec<Copy>,
) -> (Vec<Copy>, Vec<(Named, MailboxTarget, Repeated)>) {
    let Some(digest) = digest_of_repetition(doubts, base, mail, &copies) else {
        return (copies, Vec::new());
    };
    take_out((base, mail), copies, |way| {
        let known = doubts.take(&way.key(&digest));
        known.or_else(|| doubts.take(&way.key_of_version_1(&digest)))
    })
}

/// Takes recipients out to whom an earlier delivery of the message is being made, or was made and
/// is not settled: each of the two would store a copy. The others of a copy keep it.
pub(super) fn without_under_way(
    under_way: &UnderWay,
    base: BaseDigest,
    mail: &Mail,
    copies: Vec<Copy>,
) -> (Vec<Copy>, Vec<(Named, MailboxTarget, ())>) {
    let keys = keys_under_way(under_way, mail, &copies);
    if keys.is_empty() {
        return (copies, Vec::new());
    }
    let Ok(digest) = content_digest(&mail.message) else {
        return (copies, Vec::new());
    };
    take_out((base, mail), copies, |way| {
        keys.contains(&way.key(&digest)).then_some(())
    })
}

/// Takes the recipients out that `find` finds something for. The others of a copy keep it.
fn take_out<T>(
    (base, mail): (BaseDigest, &Mail),
    copies: Vec<Copy>,
    mut find: impl FnMut(&Way<'_>) -> Option<T>,
) -> (Vec<Copy>, Vec<(Named, MailboxTarget, T)>) {
    let reverse_path = mail.reverse_path.external();
    let mut found = Vec::new();
    let mut left = Vec::with_capacity(copies.len());
    for Copy { target, names } in copies {
        let mut others = Vec::new();
        for name in names.into_iter() {
            let address = name.recipient.address.external();
            let to = (&name.recipient, &address[..], &target);
            match find(&way(base, mail, &reverse_path, to)) {
                Some(what) => found.push((name, target.clone(), what)),
                None => others.push(name),
            }
        }
        left.extend(Names::new(others).map(|names| Copy { target, names }));
    }
    (left, found)
}

/// Returns the keys of the deliveries under way of messages with the same queue id. Those that have
/// no recipient in common are other parts of the same message, whose content is not read.
fn keys_under_way(under_way: &UnderWay, mail: &Mail, copies: &[Copy]) -> HashSet<[u8; 32]> {
    let id = mail.queue_id.as_deref().unwrap_or_default();
    if id.is_empty() {
        return HashSet::new();
    }
    let mut earlier = under_way.with_id(id);
    if earlier.is_empty() {
        return HashSet::new();
    }
    let names = copies.iter().flat_map(|copy| copy.names.iter());
    let addresses: HashSet<String> = names.map(|n| n.recipient.address.external()).collect();
    earlier.retain(|message| {
        let mut known = message.envelope().recipients.iter();
        known.any(|to| addresses.contains(&to.address))
    });
    earlier.iter().flat_map(|message| message.keys()).collect()
}

/// Returns the digest of a message that looks as if it repeated a delivery in doubt.
fn digest_of_repetition(
    doubts: &Doubts,
    base: BaseDigest,
    mail: &Mail,
    copies: &[Copy],
) -> Option<Digest> {
    if doubts.is_empty() {
        return None;
    }
    let reverse_path = mail.reverse_path.external();
    let outline = Outline::of(&mail.message).ok()?;
    let may_repeat = |copy: &Copy| {
        copy.names.iter().any(|name| {
            // The address is no part of the shape.
            let way = way(
                base,
                mail,
                &reverse_path,
                (&name.recipient, "", &copy.target),
            );
            doubts.has_shape(way.shape(&outline))
        })
    };
    match copies.iter().any(may_repeat) {
        true => content_digest(&mail.message).ok(),
        false => None,
    }
}

fn way<'a>(
    base: BaseDigest,
    mail: &'a Mail,
    reverse_path: &'a str,
    (recipient, address, target): (&'a Recipient, &'a str, &'a MailboxTarget),
) -> Way<'a> {
    Way {
        base,
        reverse_path,
        queue_id: mail.queue_id.as_deref().unwrap_or_default(),
        original: recipient.original.as_deref().unwrap_or_default(),
        address,
        mailbox: &target.path,
    }
}

/// Returns the outcome of a delivery that was made before.
pub(super) fn known_already(base: &Path, target: &MailboxTarget) -> Outcome {
    Outcome {
        status: Status::ok("delivered before"),
        may_appear: false,
        mailbox: Some(MailboxName::display_of(base, target)),
        queued: Duration::ZERO,
        stored: Duration::ZERO,
    }
}

/// Returns the outcome of a delivery that is not made, because an earlier one is under way.
pub(super) fn under_way_already(base: &Path, target: &MailboxTarget) -> Outcome {
    let text = "An earlier delivery of this message is under way";
    Outcome {
        status: Status::new(451, EnhancedCode::new(4, 4, 2), text),
        may_appear: true,
        mailbox: Some(MailboxName::display_of(base, target)),
        queued: Duration::ZERO,
        stored: Duration::ZERO,
    }
}
