//! A message that transports deliver, and the record of those that took it.
//!
//! A transport's success cannot be undone, and the client sends the message again when its reply is
//! lost, or when another destination of the same recipient deferred it. So a success of a transport
//! is durably in doubt before it is reported; see [`Unconfirmed`]. Invariants: the success is in
//! memory before its record is appended, so that every checkpoint includes it; it answers no
//! repetition before its own reply was given; the first verdict on a reply counts.

use super::in_flight::Settled;
use super::ledger::fingerprint::{BaseDigest, Digest, DuplicateKey, content_digest};
use super::ledger::unconfirmed::{Repeated, Unconfirmed, Verdict};
use super::types::Mail;
use crate::envelope::Recipient;
use crate::log::{DeliveryId, InDoubt};
use crate::sync::{Arc, Mutex};
use crate::target::TransportTarget;

/// A recipient whose mail a transport takes.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) recipient: Recipient,
    pub(super) target: TransportTarget,
    /// The target as it appears in keys and comparisons.
    pub(super) place: String,
    /// Its indices in the submission: several if the recipient was submitted repeatedly.
    pub(super) indices: Vec<usize>,
}

impl Name {
    pub(super) fn new(recipient: Recipient, target: TransportTarget, index: usize) -> Self {
        Self {
            recipient,
            place: place(&target),
            target,
            indices: vec![index],
        }
    }

    /// Returns the part of the key that its delivery and a repetition share, without the content.
    pub(super) fn key<'a>(
        &'a self,
        base: BaseDigest,
        (reverse_path, queue_id): (&'a str, &'a str),
        address: &'a str,
    ) -> DuplicateKey<'a> {
        DuplicateKey {
            base,
            reverse_path,
            queue_id,
            original: self.recipient.original.as_deref().unwrap_or_default(),
            address,
            mailbox: &self.place,
        }
    }
}

/// A path of a mailbox never has a NUL. Case is ignored in domains, but not in paths of sockets.
fn place(target: &TransportTarget) -> String {
    let TransportTarget { transport, nexthop } = target;
    let is_domain = !nexthop.contains(['/', ':', ' ']);
    match is_domain {
        true => format!("\0{transport}:{}", nexthop.to_ascii_lowercase()),
        false => format!("\0{transport}:{nexthop}"),
    }
}

/// The recipients of one message whose mail transports take.
#[derive(Debug)]
pub(super) struct HandedOver {
    id: DeliveryId,
    base: BaseDigest,
    reverse_path: String,
    queue_id: String,
    names: Vec<Name>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Kept as long as the content may be needed.
    mail: Option<Arc<Mail>>,
    digest: Option<Digest>,
    /// The progress of each name.
    progress: Vec<Progress>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    end: End,
    /// Whether the client has read the reply, once that is known.
    verdict: Option<Verdict>,
}

#[derive(Clone, Debug, Default)]
enum End {
    #[default]
    Open,
    /// The transport took it. `None` when its content cannot be read.
    Taken(Option<Repeated>),
    /// The transport did not take it, or was not asked.
    NotTaken,
}

impl HandedOver {
    pub(super) fn new(
        id: DeliveryId,
        base: BaseDigest,
        mail: &Arc<Mail>,
        names: Vec<Name>,
    ) -> Self {
        Self {
            id,
            base,
            reverse_path: mail.reverse_path.external(),
            queue_id: mail.queue_id.clone().unwrap_or_default(),
            state: Mutex::new(State {
                mail: Some(Arc::clone(mail)),
                digest: None,
                progress: vec![Progress::default(); names.len()],
            }),
            names,
        }
    }

    pub(super) fn names(&self) -> &[Name] {
        &self.names
    }

    /// Notes that a transport took the mail of these names. Returns the entries that must be
    /// durable before the success is reported.
    pub(super) fn taken(&self, names: &[usize], unconfirmed: &Unconfirmed) -> Vec<InDoubt> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let digest = state.digest();
        if digest.is_none() {
            tracing::error!(
                "a message that a transport took cannot be read again: a repetition of it will \
                 not be recognised"
            );
        }
        let mut entries = Vec::new();
        for name in names {
            let entry = digest.and_then(|digest| self.entry(*name, &digest));
            let Some(progress) = state.progress.get_mut(*name) else {
                continue;
            };
            progress.end = End::Taken(None);
            let (Some(entry), None | Some(Verdict::Lost)) = (entry, progress.verdict) else {
                continue;
            };
            let repeated = unconfirmed.add_answered(entry);
            if progress.verdict.is_some() {
                unconfirmed.may_answer(&repeated);
            }
            progress.end = End::Taken(Some(repeated));
            entries.push(entry);
        }
        state.release_content();
        entries
    }

    /// Notes that no transport took the mail of these names.
    pub(super) fn not_taken(&self, names: &[usize]) {
        let mut state = self.state.lock();
        for name in names {
            if let Some(progress) = state.progress.get_mut(*name)
                && matches!(progress.end, End::Open)
            {
                progress.end = End::NotTaken;
            }
        }
        state.release_content();
    }

    /// Notes whether the client has read the reply for this name. The verdict also counts for a
    /// success that comes later.
    pub(super) fn settle(&self, name: usize, verdict: Verdict, unconfirmed: &Unconfirmed) {
        let mut state = self.state.lock();
        let Some(progress) = state.progress.get_mut(name) else {
            return;
        };
        if progress.verdict.is_some() {
            return;
        }
        progress.verdict = Some(verdict);
        if let End::Taken(Some(repeated)) = &progress.end {
            match verdict {
                Verdict::Read => unconfirmed.confirm_repeated(repeated),
                Verdict::Lost => unconfirmed.reply_lost_again(repeated),
            }
        }
    }

    /// Returns the keys of the names that have no final reply yet.
    pub(super) fn keys(&self) -> Vec<[u8; 32]> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(digest) = state.digest() else {
            return Vec::new();
        };
        let progress = state.progress.iter().enumerate();
        progress
            .filter(|(_, progress)| progress.is_in_flight())
            .filter_map(|(name, _)| self.entry(name, &digest))
            .map(|entry| entry.key)
            .collect()
    }

    fn entry(&self, name: usize, digest: &Digest) -> Option<InDoubt> {
        let known = self.names.get(name)?;
        let address = known.recipient.address.external();
        let key = known.key(self.base, (&self.reverse_path, &self.queue_id), &address);
        Some(InDoubt {
            id: self.id,
            recipient: u32::try_from(name).ok()?,
            key: key.of_content(digest),
            since: crate::clock::since_epoch(),
        })
    }
}

impl Settled for HandedOver {
    fn is_settled(&self) -> bool {
        let state = self.state.lock();
        !state.progress.iter().any(Progress::is_in_flight)
    }
}

impl State {
    /// Returns the digest of the content; `None` when it cannot be read.
    fn digest(&mut self) -> Option<Digest> {
        if self.digest.is_none()
            && let Some(mail) = &self.mail
        {
            self.digest = content_digest(&mail.message).ok();
        }
        self.digest
    }

    /// Releases the content unless a transport has not answered.
    fn release_content(&mut self) {
        if !self.progress.iter().any(|one| matches!(one.end, End::Open)) {
            self.mail = None;
        }
    }
}

impl Progress {
    fn is_in_flight(&self) -> bool {
        match self.end {
            End::Open => true,
            End::Taken(_) => self.verdict.is_none(),
            End::NotTaken => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_as_postfix_tells_nexthops_apart() {
        let place = |transport: &str, nexthop: &str| {
            place(&TransportTarget {
                transport: transport.to_owned(),
                nexthop: nexthop.to_owned(),
            })
        };
        assert_eq!(
            place("lmtp", "Store.example"),
            place("lmtp", "store.example")
        );
        assert_ne!(place("lmtp", "unix:A"), place("lmtp", "unix:a"));
        assert_ne!(place("lmtp", "a"), place("smtp", "a"));
        assert!(place("lmtp", "a").starts_with('\0'));
    }
}
