//! Finds the recipients of a message that have it already, from a delivery in doubt. Each recipient
//! finds its delivery by itself, whoever shared its copy then and now.

use super::copies::{Copy, Named, Names};
use super::digest::{BaseDigest, Digest, Outline, Way, content_digest};
use super::doubt::{Doubts, Repeated};
use super::types::{Mail, Outcome};
use crate::envelope::Recipient;
use crate::mailbox::MailboxName;
use crate::status::Status;
use crate::target::MailboxTarget;
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
    let reverse_path = mail.reverse_path.external();
    let mut repeated = Vec::new();
    let mut left = Vec::with_capacity(copies.len());
    for Copy { target, names } in copies {
        let mut others = Vec::new();
        for name in names.into_iter() {
            let address = name.recipient.address.external();
            let to = (&name.recipient, &address[..], &target);
            let way = way(base, mail, &reverse_path, to);
            let known = doubts.take(&way.key(&digest));
            match known.or_else(|| doubts.take(&way.key_of_version_1(&digest))) {
                Some(known) => repeated.push((name, target.clone(), known)),
                None => others.push(name),
            }
        }
        left.extend(Names::new(others).map(|names| Copy { target, names }));
    }
    (left, repeated)
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
        mailbox: Some(MailboxName::display_of(base, target)),
        queued: Duration::ZERO,
        stored: Duration::ZERO,
    }
}
