//! Deferred mail: it could not be delivered, or is not durable in its mailbox, or its writer does
//! not come back. The log keeps it past every checkpoint until it is settled.
//!
//! Invariant: before a checkpoint frees the records of such a message, the log has new copies of
//! them after it, with all that is known of its recipients. The copies may exceed the bound of the
//! log and do not count against it: mail for one lost volume must not keep the log from accepting
//! mail for others.

use super::deferred_mail::{DeferredDelivery, DeferredExtent, DeferredMail, Held, Unfinished};
use super::journal::Journal;
use super::late_ends::LateEnd;
use super::unconfirmed::Unconfirmed;
use crate::clock;
use crate::log::{DeliveryId, EncodedRecord, LogError, Record, Sequence};
use crate::sync::{Arc, Mutex};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

/// Bytes appended to the log before they are waited for.
const UNFLUSHED_BYTES_MAX: u64 = 8 << 20;
/// Bytes of a sum in an extent.
const SUM_BYTES: usize = size_of::<u32>();
/// What the log may need for a message, in bytes, beside its content: envelope, the outcomes of its
/// other recipients, and the ends of blocks.
const COPY_BYTES: u64 = 16 << 10;
/// First pause after a failed attempt to deliver; it doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Copies are limited to this rate, in bytes a second, unless the log fills up.
const COPIED_BYTES_PER_SECOND: u64 = 8 << 20;

/// Returns how many of these messages wait for a mailbox.
fn count_undelivered(mails: &[DeferredMail]) -> usize {
    let is_undelivered = |waiting: &DeferredDelivery| {
        matches!(waiting.held, Held::Undelivered | Held::ActiveBatch { .. })
    };
    let waits = |mail: &&DeferredMail| mail.recipients.iter().any(is_undelivered);
    mails.iter().filter(waits).count()
}

/// Returns how many deliveries these messages have left.
pub(in crate::delivery) fn deliveries(mails: &[DeferredMail]) -> u64 {
    mails.iter().map(|mail| mail.recipients.len() as u64).sum()
}

/// The new records of the mail, and their bytes.
#[derive(Debug)]
pub(in crate::delivery) struct Copied {
    mails: HashMap<DeliveryId, Sequence>,
    /// Extents: their earlier records, and the new ones.
    extents: HashMap<Sequence, Sequence>,
    bytes: u64,
}

/// The deferred mail of one store.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Deferred {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mails: Vec<DeferredMail>,
    extents: Vec<DeferredExtent>,
    /// Some of it was delivered since it was copied.
    is_changed: bool,
    /// The mail is not copied again before this.
    rests_until: Option<Instant>,
    /// When the next attempt to deliver is due, and the pause before it.
    attempt: Option<(Instant, Duration)>,
}

impl Deferred {
    /// Returns how many messages wait for a mailbox.
    pub(in crate::delivery) fn undelivered(&self) -> usize {
        count_undelivered(&self.state.lock().mails)
    }

    /// Returns how many deliveries wait.
    pub(in crate::delivery) fn deliveries(&self) -> u64 {
        deliveries(&self.state.lock().mails)
    }

    /// Returns true while some of it waits for disk space.
    pub(in crate::delivery) fn wants_room(&self) -> bool {
        self.state.lock().mails.iter().any(|mail| mail.wants_room)
    }

    /// Returns when the next attempt to deliver is due, `now` if none was made; `None` when nothing
    /// waits for a mailbox.
    pub(in crate::delivery) fn next_attempt(&self, now: Instant) -> Option<Instant> {
        let state = self.state.lock();
        let is_undelivered = |waiting: &DeferredDelivery| waiting.held == Held::Undelivered;
        let mut all = state.mails.iter().flat_map(|mail| &mail.recipients);
        let due = state.attempt.map_or(now, |(due, _)| due);
        let mut extents = state.extents.iter();
        (all.any(is_undelivered) || extents.any(|e| !e.has_writer())).then_some(due)
    }

    /// Notes that an attempt was made.
    pub(in crate::delivery) fn is_attempted(&self, is_in_vain: bool) {
        let mut state = self.state.lock();
        let pause = match state.attempt {
            Some((_, pause)) if is_in_vain => (pause * 2).min(PAUSE_MAX),
            _ => PAUSE,
        };
        // Space may become free at any moment.
        let wants_room = state.mails.iter().any(|mail| mail.wants_room);
        let pause = if wants_room { PAUSE } else { pause };
        state.attempt = Some((clock::now() + pause, pause));
    }

    /// Makes the next attempt due now.
    #[cfg(test)]
    pub(in crate::delivery) fn hurry(&self) {
        self.state.lock().attempt = None;
    }

    /// Returns how much a checkpoint of everything before `below` may cover: less, if there is no
    /// room for a copy of the deferred mail.
    pub(in crate::delivery) fn coverable(
        &self,
        journal: &dyn Journal,
        below: Sequence,
    ) -> Sequence {
        let state = self.state.lock();
        let mails = state.mails.iter();
        let mails = mails.map(|mail| (mail.at, mail.content.len()));
        let extents = state.extents.iter();
        let extents = extents.map(|waiting| (waiting.at, waiting.extent.sums.len() * SUM_BYTES));
        let all: Vec<(Sequence, usize)> = mails.chain(extents).collect();
        let wanted = all.iter().map(|(_, bytes)| *bytes as u64 + COPY_BYTES);
        if all.is_empty() || journal.has_room_for(wanted.sum()) {
            return below;
        }
        // Deferred mail keeps its records.
        let oldest = all.iter().map(|(at, _)| *at).min();
        oldest.map_or(below, |oldest| oldest.min(below))
    }

    /// Forgets all of it, because the log is read again.
    pub(in crate::delivery) fn clear(&self) {
        *self.state.lock() = State::default();
    }

    /// Adds what recovery could not do.
    pub(in crate::delivery) fn add(&self, unfinished: Unfinished) {
        debug_assert!(
            unfinished.mails.iter().all(|m| !m.recipients.is_empty()),
            "mail is deferred for a recipient"
        );
        let mut state = self.state.lock();
        state.mails.extend(unfinished.mails);
        state.extents.extend(unfinished.extents);
    }

    /// Returns the messages of which the log has only the sums, except those that writers work on.
    pub(in crate::delivery) fn extents(&self) -> Vec<DeferredExtent> {
        let state = self.state.lock();
        let free = state.extents.iter().filter(|e| !e.has_writer());
        free.cloned().collect()
    }

    /// Forgets the extents that are not in `left`, because their mboxes were checked.
    pub(in crate::delivery) fn settle_extents(
        &self,
        tried: &[DeferredExtent],
        left: &[DeferredExtent],
    ) {
        // A checkpoint may have copied the records meanwhile.
        let has = |all: &[DeferredExtent], one: &DeferredExtent| {
            all.iter().any(|other| other.extent == one.extent)
        };
        let mut state = self.state.lock();
        let before = state.extents.len();
        state
            .extents
            .retain(|kept| !has(tried, kept) || has(left, kept));
        state.is_changed |= state.extents.len() < before;
    }

    /// Returns the mail that is held for this reason, for another attempt; it stays held meanwhile.
    /// See [`Deferred::settle`].
    pub(in crate::delivery) fn snapshot(
        &self,
        is_meant: impl Fn(Held) -> bool,
    ) -> Vec<DeferredMail> {
        let state = self.state.lock();
        let meant = state.mails.iter().filter_map(|mail| {
            let recipients = mail
                .recipients
                .iter()
                .filter(|waiting| is_meant(waiting.held));
            let recipients: Vec<DeferredDelivery> = recipients.cloned().collect();
            (!recipients.is_empty()).then(|| DeferredMail {
                at: mail.at,
                envelope: mail.envelope.clone(),
                content: Arc::clone(&mail.content),
                recipients,
                refused: mail.refused.clone(),
                wants_room: mail.wants_room,
            })
        });
        meant.collect()
    }

    /// Notes what is left of the mail after an attempt; mail that was added meanwhile stays.
    pub(in crate::delivery) fn settle(&self, tried: &[DeferredMail], left: Vec<DeferredMail>) {
        let key =
            |mail: &DeferredMail, waiting: &DeferredDelivery| (mail.envelope.id, waiting.recipient);
        let mut after: HashMap<(DeliveryId, u32), (DeferredDelivery, bool)> = HashMap::new();
        for mail in left {
            for waiting in &mail.recipients {
                after.insert(key(&mail, waiting), (waiting.clone(), mail.wants_room));
            }
        }
        let tried = tried
            .iter()
            .flat_map(|mail| mail.recipients.iter().map(move |w| (mail, w)));
        let tried: HashSet<(DeliveryId, u32)> = tried.map(|(mail, w)| key(mail, w)).collect();
        let mut is_changed = false;
        let mut state = self.state.lock();
        for mail in &mut state.mails {
            let id = mail.envelope.id;
            let (mut was_tried, mut wants_room) = (false, false);
            mail.recipients.retain_mut(|waiting| {
                let key = (id, waiting.recipient);
                if !tried.contains(&key) {
                    return true;
                }
                was_tried = true;
                match after.remove(&key) {
                    Some((left, wants)) => {
                        *waiting = left;
                        wants_room |= wants;
                        true
                    }
                    None => {
                        is_changed = true;
                        false
                    }
                }
            });
            if was_tried {
                mail.wants_room = wants_room;
            }
        }
        state.mails.retain(|mail| !mail.recipients.is_empty());
        state.is_changed |= is_changed;
        debug_assert!(
            after.is_empty() || !tried.is_empty(),
            "an attempt leaves nothing that was not tried"
        );
    }

    /// Notes the outcomes of deliveries whose writers came back.
    pub(in crate::delivery) fn note_ends(&self, ends: &[LateEnd]) {
        if ends.is_empty() {
            return;
        }
        let of = |end: &LateEnd| ((end.id, end.recipient), (end.is_stored, end.device));
        let ends: HashMap<_, _> = ends.iter().map(of).collect();
        let mut state = self.state.lock();
        for mail in &mut state.mails {
            let id = mail.envelope.id;
            for waiting in &mut mail.recipients {
                let Some((is_stored, device)) = ends.get(&(id, waiting.recipient)) else {
                    continue;
                };
                let failures = match waiting.held {
                    Held::ActiveBatch { failures } => failures,
                    _ => 0,
                };
                waiting.held = match is_stored {
                    true => Held::Made {
                        failures,
                        device: *device,
                    },
                    false => Held::Undelivered,
                };
            }
        }
    }

    /// Returns the deliveries that the next flush makes durable.
    pub(in crate::delivery) fn made(&self) -> HashSet<(DeliveryId, u32)> {
        let state = self.state.lock();
        let all = state.mails.iter().flat_map(|mail| {
            let made = mail
                .recipients
                .iter()
                .filter(|waiting| matches!(waiting.held, Held::Made { .. }));
            made.map(|waiting| (mail.envelope.id, waiting.recipient))
        });
        all.collect()
    }

    /// Notes that these deliveries were flushed, with every file system they may be on. Deliveries
    /// that an earlier flush may have dropped are to be written again: `flushes_failed` have failed
    /// until now.
    pub(in crate::delivery) fn made_is_flushed(
        &self,
        made: &HashSet<(DeliveryId, u32)>,
        flushes_failed: u64,
    ) {
        let mut durable = HashSet::new();
        let mut state = self.state.lock();
        for DeferredMail {
            envelope,
            recipients,
            ..
        } in &mut state.mails
        {
            for waiting in recipients {
                let key = (envelope.id, waiting.recipient);
                if !made.contains(&key) {
                    continue;
                }
                let Held::Made { failures, device } = waiting.held else {
                    continue;
                };
                if failures == flushes_failed {
                    durable.insert(key);
                    continue;
                }
                // Another file system may be mounted there now.
                waiting.held = match device {
                    Some(device) => Held::Unflushed {
                        device,
                        after: 0,
                        is_left_over: true,
                    },
                    None => Held::Undelivered,
                };
            }
        }
        drop(state);
        self.forget(&durable);
    }

    /// Forgets deliveries that are durable.
    pub(in crate::delivery) fn forget(&self, durable: &HashSet<(DeliveryId, u32)>) {
        if durable.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for mail in &mut state.mails {
            let id = mail.envelope.id;
            mail.recipients
                .retain(|waiting| !durable.contains(&(id, waiting.recipient)));
        }
        state.mails.retain(|mail| !mail.recipients.is_empty());
        state.is_changed = true;
    }

    /// Returns true while some mail only waits for a flush.
    pub(in crate::delivery) fn awaits_flush(&self) -> bool {
        let state = self.state.lock();
        let mut all = state.mails.iter().flat_map(|mail| &mail.recipients);
        all.any(|waiting| matches!(waiting.held, Held::Made { .. }))
    }

    /// Keeps mail that was stored on a file system whose flush failed.
    pub(in crate::delivery) fn hold(&self, mails: Vec<DeferredMail>) {
        let mut state = self.state.lock();
        // Their number is bounded by the size of the log.
        let kept = state.mails.iter().enumerate();
        let mut places: HashMap<DeliveryId, usize> = kept
            .map(|(place, mail)| (mail.envelope.id, place))
            .collect();
        for mail in mails {
            let place = *places.entry(mail.envelope.id).or_insert(state.mails.len());
            match state.mails.get_mut(place) {
                Some(kept) => kept.add(mail.recipients),
                None => state.mails.push(mail),
            }
        }
    }

    /// Forgets mail that a flush of a file system made durable: mail that was held before the flush
    /// began.
    pub(in crate::delivery) fn is_flushed(&self, device: u64, flush: u64) {
        let is_flushed = |waiting: &DeferredDelivery| match waiting.held {
            Held::Unflushed {
                device: on,
                after,
                is_left_over: false,
            } => on == device && after < flush,
            _ => false,
        };
        let mut state = self.state.lock();
        for mail in &mut state.mails {
            mail.recipients.retain(|waiting| !is_flushed(waiting));
        }
        let before = state.mails.len();
        state.mails.retain(|mail| !mail.recipients.is_empty());
        state.is_changed |= state.mails.len() < before;
    }

    /// Returns how many deliveries are held for a file system.
    pub(in crate::delivery) fn held_for(&self, device: u64) -> usize {
        let state = self.state.lock();
        let all = state.mails.iter().flat_map(|mail| &mail.recipients);
        let is_there = |waiting: &&DeferredDelivery| matches!(waiting.held, Held::Unflushed { device: on, .. } if on == device);
        all.filter(is_there).count()
    }

    /// Returns how many bytes of messages are held for a file system.
    pub(in crate::delivery) fn bytes_held_for(&self, device: u64) -> u64 {
        let state = self.state.lock();
        let is_there = |waiting: &DeferredDelivery| matches!(waiting.held, Held::Unflushed { device: on, .. } if on == device);
        let mails = state.mails.iter();
        let held = mails.filter(|mail| mail.recipients.iter().any(is_there));
        held.map(|mail| mail.content.len() as u64).sum()
    }

    /// Returns the file systems of mail that a separate flush of its file did not make durable.
    pub(in crate::delivery) fn left_overs(&self) -> BTreeSet<u64> {
        let state = self.state.lock();
        let all = state.mails.iter().flat_map(|mail| &mail.recipients);
        all.filter_map(|waiting| match waiting.held {
            Held::Unflushed {
                device,
                is_left_over: true,
                ..
            } => Some(device),
            _ => None,
        })
        .collect()
    }

    /// Marks the mail that is held for a file system as undelivered, because another file system
    /// was mounted in its place.
    pub(in crate::delivery) fn is_undelivered(&self, on: u64) {
        let mut state = self.state.lock();
        let all = state.mails.iter_mut().flat_map(|mail| &mut mail.recipients);
        for waiting in all {
            if matches!(waiting.held, Held::Unflushed { device, .. } if device == on) {
                waiting.held = Held::Undelivered;
            }
        }
    }

    /// Returns true when the log need no longer keep some of it.
    pub(in crate::delivery) fn is_changed(&self) -> bool {
        self.state.lock().is_changed
    }

    /// Returns true while a checkpoint should wait because it would copy a large amount of mail.
    pub(in crate::delivery) fn rests(&self) -> bool {
        let rests_until = self.state.lock().rests_until;
        rests_until.is_some_and(|until| clock::now() < until)
    }

    /// Appends copies of the records before `below` to the log, so that a checkpoint may free the
    /// originals. Holds no lock while it writes. Returns the new records, which count once the
    /// checkpoint is durable: see [`Self::is_copied`].
    pub(in crate::delivery) fn copy(
        &self,
        journal: &dyn Journal,
        unconfirmed: &Unconfirmed,
        below: Sequence,
    ) -> Result<Copied, LogError> {
        let mut state = self.state.lock();
        state.is_changed = false;
        let (mails, extents) = (state.mails.clone(), state.extents.clone());
        drop(state);
        let in_doubt = match mails.is_empty() {
            true => HashSet::new(),
            false => unconfirmed.ids(),
        };
        let (mut bytes, mut unflushed) = (0, 0);
        let mut append = |record: EncodedRecord| {
            let length = record.payload().len() as u64;
            let ticket = journal.append_anyway(record)?;
            let at = ticket.sequence();
            debug_assert!(at >= below, "a copy comes after all that is freed");
            bytes += length;
            unflushed += length;
            if unflushed > UNFLUSHED_BYTES_MAX {
                journal.wait(ticket)?;
                unflushed = 0;
            }
            Ok::<Sequence, LogError>(at)
        };
        let (mut of_mails, mut of_extents) = (HashMap::new(), HashMap::new());
        for mail in mails.iter().filter(|mail| mail.at < below) {
            for record in mail.records(&in_doubt) {
                let at = append(record)?;
                of_mails.entry(mail.envelope.id).or_insert(at);
            }
        }
        for DeferredExtent { at, extent, .. } in extents.into_iter().filter(|e| e.at < below) {
            of_extents.insert(at, append(Record::Extent(extent).encode())?);
        }
        journal.set_uncounted(bytes);
        Ok(Copied {
            mails: of_mails,
            extents: of_extents,
            bytes,
        })
    }

    /// Notes that a checkpoint durably follows the copies.
    pub(in crate::delivery) fn is_copied(
        &self,
        Copied {
            mails,
            extents,
            bytes,
        }: Copied,
    ) {
        let rest = Duration::from_secs(bytes / COPIED_BYTES_PER_SECOND);
        let mut state = self.state.lock();
        for mail in &mut state.mails {
            if let Some(at) = mails.get(&mail.envelope.id) {
                debug_assert!(*at > mail.at, "the newest record counts");
                mail.at = *at;
            }
        }
        for waiting in &mut state.extents {
            if let Some(at) = extents.get(&waiting.at) {
                debug_assert!(*at > waiting.at, "the newest record counts");
                waiting.at = *at;
            }
        }
        state.rests_until = (!rest.is_zero()).then(|| clock::now() + rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Accepted;

    const WRITTEN_TO: u64 = 7;

    /// A message that a writer took after one failed flush, and finished late.
    fn made_late() -> (Deferred, HashSet<(DeliveryId, u32)>) {
        let id = DeliveryId(1);
        let envelope = Accepted {
            id,
            accepted_at: Duration::ZERO,
            reverse_path: String::new(),
            queue_id: String::new(),
            recipients: Vec::new(),
        };
        let deferred = Deferred::default();
        deferred.hold(vec![DeferredMail {
            at: Sequence(1),
            envelope,
            content: Vec::new().into(),
            recipients: vec![DeferredDelivery {
                recipient: 0,
                places: Vec::new(),
                held: Held::ActiveBatch { failures: 1 },
            }],
            refused: Vec::new(),
            wants_room: false,
        }]);
        deferred.note_ends(&[LateEnd {
            id,
            recipient: 0,
            is_stored: true,
            device: Some(WRITTEN_TO),
        }]);
        (deferred, HashSet::from([(id, 0)]))
    }

    #[test]
    fn what_a_writer_made_late_is_durable_after_a_flush_if_none_failed_meanwhile() {
        let (deferred, made) = made_late();
        assert_eq!(deferred.made(), made);
        deferred.made_is_flushed(&made, 1);
        assert_eq!(deferred.deliveries(), 0);
    }

    #[test]
    fn what_a_failed_flush_may_have_dropped_is_held_for_the_file_system_it_was_written_to() {
        let (deferred, made) = made_late();
        deferred.made_is_flushed(&made, 2);
        assert_eq!(deferred.held_for(WRITTEN_TO), 1);
        assert_eq!(deferred.left_overs(), BTreeSet::from([WRITTEN_TO]));
    }
}
