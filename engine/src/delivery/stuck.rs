//! Mail that recovery could not deliver: kept in the log past every checkpoint until it can be.
//!
//! Imports the rest of `delivery`, `log`, `clock`, `sync`. Invariant: before a checkpoint frees the
//! records of such a message, they stand in the log again behind it, with all that is known of its
//! recipients. It takes the room it needs, past the bound of the log, and is not counted: what one
//! lost volume holds up must not keep mail from all others.

use super::doubt::Doubts;
use super::journal::{Journal, confirmed_records, done_records};
use crate::clock;
use crate::log::{
    Accepted, Confirmed, DeliveryId, Done, DoneOutcome, EncodedRecord, LogError, Record, Sequence,
};
use crate::sync::{Arc, Mutex};
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

/// Bytes handed to the log before they are waited for.
const UNFLUSHED_BYTES_MAX: u64 = 8 << 20;
/// What the log may take for a message, in bytes, beside its content: envelope, what became of its
/// other recipients, and the ends of blocks.
const COPY_BYTES: u64 = 16 << 10;
/// It is copied at most at this rate, in bytes a second, unless the log fills up.
const COPIED_BYTES_PER_SECOND: u64 = 8 << 20;

/// A message with deliveries that could not be done yet.
#[derive(Clone, Debug)]
pub(super) struct Stuck {
    /// Its record in the log, the newest one.
    pub(super) at: Sequence,
    pub(super) envelope: Accepted,
    pub(super) content: Arc<[u8]>,
    pub(super) recipients: Vec<Waiting>,
    /// Recipients that the client was refused.
    pub(super) refused: Vec<u32>,
    /// Some of them wait for space on a disk.
    pub(super) wants_room: bool,
}

/// One of its deliveries, and where in the mbox it may stand: offset and length.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) recipient: u32,
    pub(super) places: Vec<(u64, u64)>,
    pub(super) held: Held,
}

/// Why a delivery is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It could not be made.
    Undelivered,
    /// It was made, and may not be durable, because a flush of its file system failed.
    Unflushed {
        device: u64,
        /// It could not be flushed by itself either.
        is_left_over: bool,
    },
}

impl Stuck {
    /// Adds deliveries, but for those it has.
    fn add(&mut self, recipients: Vec<Waiting>) {
        for waiting in recipients {
            let is_it = |known: &Waiting| known.recipient == waiting.recipient;
            if !self.recipients.iter().any(is_it) {
                self.recipients.push(waiting);
            }
        }
    }

    /// What keeps it in the log past a checkpoint: the message again, where it may stand, that
    /// the other recipients are settled, and whose replies were read.
    fn records(
        &self,
        in_doubt: &HashSet<(DeliveryId, u32)>,
    ) -> impl Iterator<Item = EncodedRecord> + use<> {
        let id = self.envelope.id;
        let done = |recipient, outcome| Done {
            id,
            recipient,
            outcome,
        };
        let count = u32::try_from(self.envelope.recipients.len()).unwrap_or(u32::MAX);
        let waiting: HashSet<u32> = self.recipients.iter().map(|w| w.recipient).collect();
        let mut ends: Vec<Done> = (0..count)
            .filter(|recipient| self.envelope.copy_of(*recipient) == *recipient)
            .filter(|recipient| !waiting.contains(recipient))
            .map(|recipient| done(recipient, DoneOutcome::Maildir))
            .collect();
        let refused = self.refused.iter();
        ends.extend(refused.map(|recipient| done(*recipient, DoneOutcome::Refused)));
        for Waiting {
            recipient, places, ..
        } in &self.recipients
        {
            let places = places.iter();
            ends.extend(places.map(|(offset, length)| {
                let (offset, length) = (*offset, *length);
                done(*recipient, DoneOutcome::Mbox { offset, length })
            }));
        }
        let confirmed: Vec<Confirmed> = (0..count)
            .filter(|recipient| !in_doubt.contains(&(id, *recipient)))
            .map(|recipient| Confirmed {
                id,
                recipient: Some(recipient),
            })
            .collect();
        let accepted = Record::Accepted {
            envelope: self.envelope.clone(),
            content: self.content.as_ref().into(),
        };
        let mut records = vec![accepted.encode()];
        records.extend(done_records(&ends));
        records.extend(confirmed_records(&confirmed));
        records.into_iter()
    }
}

/// How many of these messages wait for a mailbox.
fn count_undelivered(mails: &[Stuck]) -> usize {
    let is_undelivered = |waiting: &Waiting| waiting.held == Held::Undelivered;
    let waits = |mail: &&Stuck| mail.recipients.iter().any(is_undelivered);
    mails.iter().filter(waits).count()
}

/// How many deliveries these messages have left.
pub(super) fn deliveries(mails: &[Stuck]) -> u64 {
    mails.iter().map(|mail| mail.recipients.len() as u64).sum()
}

/// The mail with its new records, and their bytes.
#[derive(Debug)]
pub(super) struct Copied {
    mails: Vec<Stuck>,
    bytes: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct StuckMail {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mails: Vec<Stuck>,
    /// So many were taken out and are being tried.
    taken: usize,
    /// Some of it was delivered since it was copied.
    is_changed: bool,
    /// It is not copied again before this.
    rests_until: Option<Instant>,
}

impl StuckMail {
    /// How many messages wait.
    pub(super) fn count(&self) -> usize {
        let state = self.state.lock();
        state.mails.len() + state.taken
    }

    /// How many messages wait for a mailbox.
    pub(super) fn undelivered(&self) -> usize {
        let state = self.state.lock();
        count_undelivered(&state.mails) + state.taken
    }

    /// How many deliveries wait.
    pub(super) fn deliveries(&self) -> u64 {
        deliveries(&self.state.lock().mails)
    }

    /// Some of it waits for space on a disk.
    pub(super) fn wants_room(&self) -> bool {
        self.state.lock().mails.iter().any(|mail| mail.wants_room)
    }

    /// What a checkpoint may cover that would cover everything before `below`: less, if there is no
    /// room for a copy of what waits.
    pub(super) fn coverable(&self, journal: &dyn Journal, below: Sequence) -> Sequence {
        let state = self.state.lock();
        let mails = state.mails.iter();
        let wanted = mails.map(|mail| mail.content.len() as u64 + COPY_BYTES);
        if state.mails.is_empty() || journal.has_room_for(wanted.sum()) {
            return below;
        }
        let oldest = state.mails.iter().map(|mail| mail.at).min();
        oldest.map_or(below, |oldest| oldest.min(below))
    }

    /// Forgets all of it: the log is read again.
    pub(super) fn clear(&self) {
        *self.state.lock() = State::default();
    }

    /// What waits now; taken out to be tried again, and put back with what is left.
    pub(super) fn take(&self) -> Vec<Stuck> {
        let mut state = self.state.lock();
        state.taken = count_undelivered(&state.mails);
        std::mem::take(&mut state.mails)
    }

    /// What is left after it was tried.
    pub(super) fn put(&self, mails: Vec<Stuck>, is_changed: bool) {
        let mut state = self.state.lock();
        state.mails = mails;
        state.taken = 0;
        state.is_changed |= is_changed;
    }

    /// Keeps mail that was stored on a file system whose flush failed.
    pub(super) fn hold(&self, mails: Vec<Stuck>) {
        let mut state = self.state.lock();
        for mail in mails {
            let id = mail.envelope.id;
            match state.mails.iter_mut().find(|kept| kept.envelope.id == id) {
                Some(kept) => kept.add(mail.recipients),
                None => state.mails.push(mail),
            }
        }
    }

    /// Lets go of what was made durable on a file system.
    pub(super) fn is_flushed(&self, device: u64) {
        let flushed = Held::Unflushed {
            device,
            is_left_over: false,
        };
        let mut state = self.state.lock();
        for mail in &mut state.mails {
            mail.recipients.retain(|waiting| waiting.held != flushed);
        }
        let before = state.mails.len();
        state.mails.retain(|mail| !mail.recipients.is_empty());
        state.is_changed |= state.mails.len() < before;
    }

    /// How many deliveries are held for a file system.
    pub(super) fn held_for(&self, device: u64) -> usize {
        let state = self.state.lock();
        let all = state.mails.iter().flat_map(|mail| &mail.recipients);
        let is_there = |waiting: &&Waiting| matches!(waiting.held, Held::Unflushed { device: on, .. } if on == device);
        all.filter(is_there).count()
    }

    /// The file systems of what could not be flushed by itself.
    pub(super) fn left_overs(&self) -> BTreeSet<u64> {
        let state = self.state.lock();
        let all = state.mails.iter().flat_map(|mail| &mail.recipients);
        all.filter_map(|waiting| match waiting.held {
            Held::Unflushed {
                device,
                is_left_over: true,
            } => Some(device),
            Held::Unflushed { .. } | Held::Undelivered => None,
        })
        .collect()
    }

    /// Has recovery make again what is held for a file system, for something else was mounted in
    /// its place.
    pub(super) fn is_undelivered(&self, on: u64) {
        let mut state = self.state.lock();
        let all = state.mails.iter_mut().flat_map(|mail| &mut mail.recipients);
        for waiting in all {
            if matches!(waiting.held, Held::Unflushed { device, .. } if device == on) {
                waiting.held = Held::Undelivered;
            }
        }
    }

    /// Some of it need not be in the log any more.
    pub(super) fn is_changed(&self) -> bool {
        self.state.lock().is_changed
    }

    /// It is so much that a checkpoint, which copies it, had better wait.
    pub(super) fn rests(&self) -> bool {
        let rests_until = self.state.lock().rests_until;
        rests_until.is_some_and(|until| clock::now() < until)
    }

    /// Appends to the log again what stands there before `below`, so that a checkpoint may free
    /// that. Callers of [`Self::count`] do not wait for the disk meanwhile. Returns the mail with
    /// its new records, which count once the checkpoint is durable: see [`Self::is_copied`].
    pub(super) fn copy(
        &self,
        journal: &dyn Journal,
        doubts: &Doubts,
        below: Sequence,
    ) -> Result<Copied, LogError> {
        let mut mails = self.state.lock().mails.clone();
        let in_doubt = match mails.is_empty() {
            true => HashSet::new(),
            false => doubts.ids(),
        };
        let (mut bytes, mut unflushed) = (0, 0);
        for mail in mails.iter_mut().filter(|mail| mail.at < below) {
            let mut first = None;
            for record in mail.records(&in_doubt) {
                let length = record.payload().len() as u64;
                let ticket = journal.append_anyway(record)?;
                mail.at = *first.get_or_insert(ticket.sequence());
                bytes += length;
                unflushed += length;
                if unflushed > UNFLUSHED_BYTES_MAX {
                    journal.wait(ticket)?;
                    unflushed = 0;
                }
            }
        }
        journal.set_uncounted(bytes);
        Ok(Copied { mails, bytes })
    }

    /// Notes that a checkpoint durably stands behind the copies.
    pub(super) fn is_copied(&self, Copied { mails, bytes }: Copied) {
        let rest = Duration::from_secs(bytes / COPIED_BYTES_PER_SECOND);
        let mut state = self.state.lock();
        state.is_changed = false;
        state.mails = mails;
        state.rests_until = (!rest.is_zero()).then(|| clock::now() + rest);
    }
}
