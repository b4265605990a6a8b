//! Finds the recipients of a message that have it from a delivery in doubt, or for whom an earlier
//! delivery is in progress. Looks up each recipient separately, whichever recipients share its
//! copy.

use super::copies::{Copy, Named, Names};
use super::handed_over::{HandedOver, Name};
use super::in_flight::InFlight;
use super::ledger::fingerprint::{BaseDigest, ContentSketch, Digest, DuplicateKey, content_digest};
use super::ledger::logged_message::LoggedMessage;
use super::ledger::unconfirmed::{Repeated, Unconfirmed};
use super::types::{Mail, Outcome};
use crate::dsn::Disposition;
use crate::envelope::Recipient;
use crate::mailbox::MailboxName;
use crate::status::{EnhancedCode, Status};
use crate::target::MailboxTarget;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

/// Removes recipients whose deliveries repeat one in doubt, and answers them from it. The others of
/// a copy keep it.
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

/// Removes recipients for whom an earlier delivery of the message is in progress, or is made and
/// not settled: both deliveries would store a copy. The others of a copy keep it.
pub(super) fn without_in_flight(
    in_flight: &InFlight<LoggedMessage>,
    base: BaseDigest,
    mail: &Mail,
    copies: Vec<Copy>,
) -> (Vec<Copy>, Vec<(Named, MailboxTarget, ())>) {
    let keys = keys_in_flight(in_flight, mail, &copies);
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

/// Removes the recipients for whom `find` returns something. The others of a copy keep it.
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

/// Returns the keys of the deliveries in progress of messages with the same queue id. Those that
/// share no recipient are other parts of the same message, whose content is not read.
fn keys_in_flight(
    in_flight: &InFlight<LoggedMessage>,
    mail: &Mail,
    copies: &[Copy],
) -> HashSet<[u8; 32]> {
    let id = mail.queue_id.as_deref().unwrap_or_default();
    if id.is_empty() {
        return HashSet::new();
    }
    let mut earlier = in_flight.with_id(id);
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

/// Returns the digest of a message that may repeat a delivery in doubt.
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
            // The prefix does not contain the address.
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

/// Removes names whose transport took the message before, or for whom an earlier delivery is in
/// progress and has no answer yet. Checks in this order, because a message that is settled in
/// between is then in doubt.
pub(super) fn handed_over_before(
    (unconfirmed, in_flight): (&Unconfirmed, &InFlight<HandedOver>),
    base: BaseDigest,
    mail: &Mail,
    names: Vec<Name>,
) -> (Vec<Name>, Vec<(Name, Option<Repeated>)>) {
    let reverse_path = mail.reverse_path.external();
    let id = mail.queue_id.as_deref().unwrap_or_default();
    let mut earlier = match id {
        "" => Vec::new(),
        id => in_flight.with_id(id),
    };
    if !earlier.is_empty() {
        let both = names.iter().map(|name| (&name.recipient, &name.place));
        let wanted: HashSet<(&Recipient, &String)> = both.collect();
        earlier.retain(|message| {
            let mut known = message.names().iter();
            known.any(|known| wanted.contains(&(&known.recipient, &known.place)))
        });
    }
    let may_repeat = |sketch: &ContentSketch| {
        let prefix = |name: &Name| name.key(base, (&reverse_path, id), "").prefix(sketch);
        names
            .iter()
            .any(|name| unconfirmed.has_prefix(prefix(name)))
    };
    let is_known = !earlier.is_empty()
        || !unconfirmed.is_empty()
            && ContentSketch::of(&mail.message).is_ok_and(|sketch| may_repeat(&sketch));
    let digest = is_known.then(|| content_digest(&mail.message).ok());
    let Some(digest) = digest.flatten() else {
        return (names, Vec::new());
    };
    let keys: HashSet<[u8; 32]> = earlier.iter().flat_map(|message| message.keys()).collect();
    let (mut left, mut found) = (Vec::with_capacity(names.len()), Vec::new());
    for name in names {
        let address = name.recipient.address.external();
        let key = name
            .key(base, (&reverse_path, id), &address)
            .of_content(&digest);
        if keys.contains(&key) {
            found.push((name, None));
            continue;
        }
        match unconfirmed.take(&key) {
            Some(repeated) => found.push((name, Some(repeated))),
            None => left.push(name),
        }
    }
    (left, found)
}

/// Returns the outcome of a delivery that an earlier one made.
pub(super) fn known_already(base: &Path, target: &MailboxTarget) -> Outcome {
    delivered_before(MailboxName::display_of(base, target))
}

/// Returns the outcome of a delivery that is refused because an earlier one is in progress.
pub(super) fn already_in_flight(base: &Path, target: &MailboxTarget) -> Outcome {
    is_in_flight(MailboxName::display_of(base, target))
}

/// As [`known_already`], by the name of the place.
pub(super) fn delivered_before(place: String) -> Outcome {
    Outcome {
        status: Status::ok("delivered before"),
        may_appear: false,
        mailbox: Some(place),
        queued: Duration::ZERO,
        stored: Duration::ZERO,
        disposition: Disposition::default(),
    }
}

/// As [`already_in_flight`], by the name of the place.
pub(super) fn is_in_flight(place: String) -> Outcome {
    let text = "An earlier delivery of this message is in progress";
    Outcome {
        status: Status::new(451, EnhancedCode::new(4, 4, 2), text),
        may_appear: true,
        mailbox: Some(place),
        queued: Duration::ZERO,
        stored: Duration::ZERO,
        disposition: Disposition::default(),
    }
}
