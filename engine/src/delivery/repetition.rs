//! Finds the recipients of a message that have it from a delivery in doubt, or to whom an earlier
//! delivery is under way. Each recipient is looked up separately, whichever recipients share its
//! copy.

use super::copies::{Copy, Named, Names};
use super::ledger::fingerprint::{BaseDigest, ContentSketch, Digest, DuplicateKey, content_digest};
use super::ledger::unconfirmed::{Repeated, Unconfirmed};
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
    unconfirmed: &Unconfirmed,
    base: BaseDigest,
    mail: &Mail,
    copies: Vec<Copy>,
) -> (Vec<Copy>, Vec<(Named, MailboxTarget, Repeated)>) {
    let Some(digest) = digest_of_repetition(unconfirmed, base, mail, &copies) else {
        return (copies, Vec::new());
    };
    take_out((base, mail), copies, |key| {
        let known = unconfirmed.take(&key.of_content(&digest));
        known.or_else(|| unconfirmed.take(&key.key_of_version_1(&digest)))
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
    take_out((base, mail), copies, |key| {
        keys.contains(&key.of_content(&digest)).then_some(())
    })
}

/// Takes the recipients out that `find` finds something for. The others of a copy keep it.
fn take_out<T>(
    (base, mail): (BaseDigest, &Mail),
    copies: Vec<Copy>,
    mut find: impl FnMut(&DuplicateKey<'_>) -> Option<T>,
) -> (Vec<Copy>, Vec<(Named, MailboxTarget, T)>) {
    let reverse_path = mail.reverse_path.external();
    let mut found = Vec::new();
    let mut left = Vec::with_capacity(copies.len());
    for Copy { target, names } in copies {
        let mut others = Vec::new();
        for name in names.into_iter() {
            let address = name.recipient.address.external();
            let to = (&name.recipient, &address[..], &target);
            match find(&key_of(base, mail, &reverse_path, to)) {
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
    unconfirmed: &Unconfirmed,
    base: BaseDigest,
    mail: &Mail,
    copies: &[Copy],
) -> Option<Digest> {
    if unconfirmed.is_empty() {
        return None;
    }
    let reverse_path = mail.reverse_path.external();
    let sketch = ContentSketch::of(&mail.message).ok()?;
    let may_repeat = |copy: &Copy| {
        copy.names.iter().any(|name| {
            // The address is no part of the prefix.
            let key = key_of(
                base,
                mail,
                &reverse_path,
                (&name.recipient, "", &copy.target),
            );
            unconfirmed.has_prefix(key.prefix(&sketch))
        })
    };
    match copies.iter().any(may_repeat) {
        true => content_digest(&mail.message).ok(),
        false => None,
    }
}

fn key_of<'a>(
    base: BaseDigest,
    mail: &'a Mail,
    reverse_path: &'a str,
    (recipient, address, target): (&'a Recipient, &'a str, &'a MailboxTarget),
) -> DuplicateKey<'a> {
    DuplicateKey {
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
