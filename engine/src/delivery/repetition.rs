//! Finding the recipients of a message that have it already, from a delivery in doubt.
//!
//! Imports `copies`, `digest`, `doubt`, `keeper`, `store` (shared state). Each recipient finds its
//! delivery by itself, whoever shares its copy then and now.

use super::copies::{Copy, Named, Names};
use super::digest::{Digest, Outline, Way, content_digest};
use super::doubt::Repeated;
use super::keeper::Keeper;
use super::store::Shared;
use super::types::{Mail, Outcome};
use crate::envelope::Recipient;
use crate::io::Disk;
use crate::mailbox::MailboxPath;
use crate::route::MailboxTarget;
use crate::status::Status;
use std::path::Path;
use std::time::Duration;

impl<D: Disk> Shared<D> {
    /// Takes recipients out whose deliveries repeat one in doubt, which answers for them. The
    /// others of a copy keep it.
    pub(super) fn without_repeated(
        &self,
        mail: &Mail,
        copies: Vec<Copy>,
    ) -> (Vec<Copy>, Vec<(Named, MailboxTarget, Repeated)>) {
        let Some(keeper) = &self.keeper else {
            return (copies, Vec::new());
        };
        self.settle_early();
        let Some(digest) = self.digest_of_repetition(keeper, mail, &copies) else {
            return (copies, Vec::new());
        };
        let reverse_path = mail.reverse_path.external();
        let mut repeated = Vec::new();
        let mut left = Vec::with_capacity(copies.len());
        for Copy { target, names } in copies {
            let mut others = Vec::new();
            for name in names.into_iter() {
                let address = name.recipient.address.external();
                let way = self.way(mail, &reverse_path, (&name.recipient, &address, &target));
                let doubts = &keeper.doubts;
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
        &self,
        keeper: &Keeper<D::Handle>,
        mail: &Mail,
        copies: &[Copy],
    ) -> Option<Digest> {
        if keeper.doubts.is_empty() {
            return None;
        }
        let reverse_path = mail.reverse_path.external();
        let outline = Outline::of(&mail.message).ok()?;
        let may_repeat = |copy: &Copy| {
            copy.names.iter().any(|name| {
                // The address is no part of the shape.
                let way = self.way(mail, &reverse_path, (&name.recipient, "", &copy.target));
                keeper.doubts.has_shape(way.shape(&outline))
            })
        };
        match copies.iter().any(may_repeat) {
            true => content_digest(&mail.message).ok(),
            false => None,
        }
    }

    fn way<'a>(
        &self,
        mail: &'a Mail,
        reverse_path: &'a str,
        (recipient, address, target): (&'a Recipient, &'a str, &'a MailboxTarget),
    ) -> Way<'a> {
        Way {
            base: self.base,
            reverse_path,
            queue_id: mail.queue_id.as_deref().unwrap_or_default(),
            original: recipient.original.as_deref().unwrap_or_default(),
            address,
            mailbox: &target.path,
        }
    }
}

/// The outcome of a delivery that was done before.
pub(super) fn known_already(base: &Path, target: &MailboxTarget) -> Outcome {
    Outcome {
        status: Status::ok("delivered before"),
        mailbox: Some(MailboxPath::display_of(base, target)),
        queued: Duration::ZERO,
        stored: Duration::ZERO,
    }
}
