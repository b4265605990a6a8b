//! Deliveries whose replies the client may not have read.
//!
//! A delivery is *open* from the moment its record is in the log until the client is known to have
//! read the reply; it is *in doubt* when the connection, or the whole process, was lost before
//! that. A confirmation is *pending* until it is appended to the log, and *written* until a
//! checkpoint makes it durable. Invariants: only deliveries in doubt are matched; each answers one
//! repetition; if the reply to a repetition is lost too, the delivery stays in doubt.

use super::fingerprint::{KeyPrefix, has_queue_id};
use super::logged_message::LoggedMessage;
use crate::clock;
use crate::config::DeliveryLogSettings;
use crate::limits::IN_DOUBT_MAX;
use crate::log::{Confirmed, DeliveryId, InDoubt};
use crate::sync::{Arc, Mutex};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How many early receipts are checked with each message.
const EARLY_LOOKED_AT: usize = 64;

/// The unconfirmed deliveries of one store.
#[derive(Debug)]
pub(in crate::delivery) struct Unconfirmed {
    keep: Keep,
    /// How many deliveries in doubt are remembered at most.
    most: usize,
    state: Mutex<State>,
}

/// How long deliveries in doubt are remembered.
#[derive(Clone, Copy, Debug)]
pub(in crate::delivery) struct Keep {
    /// For messages that a queue id names.
    pub(in crate::delivery) with_id: Duration,
    /// For others: an equal message may be sent on purpose.
    pub(in crate::delivery) without_id: Duration,
}

impl From<&DeliveryLogSettings> for Keep {
    fn from(settings: &DeliveryLogSettings) -> Self {
        let with_id = settings.in_doubt_time;
        Self {
            with_id,
            without_id: settings.in_doubt_time_without_id.min(with_id),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<DeliveryId, Arc<LoggedMessage>>,
    /// Messages whose receipts came back while their deliveries were still being made, in order.
    early: VecDeque<(Arc<LoggedMessage>, Verdict)>,
    by_key: BTreeMap<[u8; 32], Vec<InDoubtDelivery>>,
    count: usize,
    /// To be appended to the log.
    pending: Vec<Confirmed>,
    /// When the oldest pending confirmation was added.
    pending_since: Option<Instant>,
    /// Appended since the last checkpoint; perhaps not durable yet.
    written: Vec<Confirmed>,
}

/// The verdict of a receipt on the replies for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum Verdict {
    /// The client has read them.
    Read,
    /// The replies may be lost.
    Lost,
}

#[derive(Clone, Debug)]
struct InDoubtDelivery {
    entry: InDoubt,
    /// Answers a repetition whose reply is not given yet.
    taken: bool,
}

/// A delivery in doubt that answers a repetition.
#[derive(Clone, Debug)]
pub(in crate::delivery) struct Repeated(InDoubt);

impl Unconfirmed {
    pub(in crate::delivery) fn new(keep: Keep, most: usize) -> Self {
        Self {
            keep,
            most,
            state: Mutex::default(),
        }
    }

    /// Notes that a message is in the log.
    pub(in crate::delivery) fn open(&self, message: &Arc<LoggedMessage>) {
        let mut state = self.state.lock();
        // A client that never confirms must not use unbounded memory.
        if state.open.len() < IN_DOUBT_MAX {
            state.open.insert(message.id(), Arc::clone(message));
        }
    }

    /// Notes that the client has read the replies for this message.
    pub(in crate::delivery) fn confirm(&self, message: &LoggedMessage) {
        let id = message.id();
        let mut state = self.state.lock();
        if state.open.remove(&id).is_some() {
            state.pending.extend(message.confirmed());
            state.pending_since.get_or_insert_with(clock::now);
            drop(state);
            message.forget_content();
        } else if state.by_key.values().flatten().any(|d| d.entry.id == id) {
            drop(state);
            // The log was recovered meanwhile, and the message is in doubt since.
            for entry in message.in_doubt() {
                self.confirm_repeated(&Repeated(entry));
            }
        }
    }

    /// Notes that the client has read the replies for this message. The replies for the recipients
    /// with the indices `doubtful` asked it to try again.
    pub(in crate::delivery) fn confirm_but(
        &self,
        message: &LoggedMessage,
        doubtful: &BTreeSet<usize>,
    ) {
        // Digests are computed without the lock.
        let all = message.in_doubt();
        let (doubtful, read): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|entry| is_one_of(entry, doubtful));
        let mut state = self.state.lock();
        if state.open.remove(&message.id()).is_some() {
            let confirmed = read.iter().map(|entry| Confirmed {
                id: entry.id,
                recipient: Some(entry.recipient),
            });
            state.pending.extend(confirmed);
            state.pending_since.get_or_insert_with(clock::now);
            for entry in doubtful {
                self.add_one(&mut state, entry, false);
            }
        } else {
            drop(state);
            // The log was recovered meanwhile, and all of them are in doubt since.
            for entry in read {
                self.confirm_repeated(&Repeated(entry));
            }
        }
    }

    /// Notes that the connection was lost before the replies were read. The log needs no record:
    /// without a confirmation, the delivery is in doubt.
    pub(in crate::delivery) fn reply_lost(&self, message: &LoggedMessage) {
        // Digests are computed without the lock. A checkpoint between would find the message
        // neither open nor in doubt.
        let entries = message.in_doubt();
        let mut state = self.state.lock();
        if state.open.remove(&message.id()).is_some() {
            for entry in entries {
                self.add_one(&mut state, entry, false);
            }
        }
    }

    /// Remembers the verdict on a message whose deliveries have not all ended.
    pub(in crate::delivery) fn settle_later(&self, message: &Arc<LoggedMessage>, verdict: Verdict) {
        let early = (Arc::clone(message), verdict);
        self.state.lock().early.push_back(early);
    }

    /// Takes messages whose deliveries have ended since their receipts were given back; checks a
    /// few of them each time.
    pub(in crate::delivery) fn take_early(&self) -> Vec<(Arc<LoggedMessage>, Verdict)> {
        let mut state = self.state.lock();
        let mut over = Vec::new();
        for _ in 0..state.early.len().min(EARLY_LOOKED_AT) {
            let Some(early) = state.early.pop_front() else {
                break;
            };
            match early.0.is_over() {
                true => over.push(early),
                false => state.early.push_back(early),
            }
        }
        over
    }

    /// Remembers deliveries in doubt.
    pub(in crate::delivery) fn add(&self, entries: Vec<InDoubt>) {
        let mut state = self.state.lock();
        for entry in entries {
            self.add_one(&mut state, entry, false);
        }
    }

    /// Remembers a delivery whose own reply is not given yet: it answers no repetition unless that
    /// reply is lost.
    pub(in crate::delivery) fn add_answered(&self, entry: InDoubt) -> Repeated {
        self.add_one(&mut self.state.lock(), entry, true);
        Repeated(entry)
    }

    fn add_one(&self, state: &mut State, entry: InDoubt, taken: bool) {
        if state.count < self.most && self.is_fresh(&entry) {
            let same_key = state.by_key.entry(entry.key).or_default();
            same_key.push(InDoubtDelivery { entry, taken });
            state.count += 1;
        }
        debug_assert!(
            state.count <= self.most,
            "memory for deliveries in doubt is bounded"
        );
    }

    /// Returns true while no delivery is in doubt.
    pub(in crate::delivery) fn is_empty(&self) -> bool {
        self.state.lock().count == 0
    }

    /// Returns every delivery that is in doubt, or is after a crash: its reply was not read yet.
    pub(in crate::delivery) fn ids(&self) -> HashSet<(DeliveryId, u32)> {
        let state = self.state.lock();
        let all = state.by_key.values().flatten();
        let mut ids: HashSet<_> = all.map(|d| (d.entry.id, d.entry.recipient)).collect();
        for message in state.open.values() {
            let recipients = (0..).zip(&message.envelope().recipients);
            ids.extend(recipients.map(|(recipient, _)| (message.id(), recipient)));
        }
        ids
    }

    /// Returns true while a delivery in doubt has a key with this prefix.
    pub(in crate::delivery) fn has_prefix(&self, prefix: KeyPrefix) -> bool {
        let mut from = [0; 32];
        from.iter_mut()
            .zip(prefix)
            .for_each(|(to, byte)| *to = byte);
        let state = self.state.lock();
        let next = state.by_key.range(from..).next();
        next.is_some_and(|(key, _)| key.starts_with(&prefix))
    }

    /// Returns the delivery in doubt that a delivery with this key repeats. It answers no other
    /// repetition then.
    pub(in crate::delivery) fn take(&self, key: &[u8; 32]) -> Option<Repeated> {
        let mut state = self.state.lock();
        let same_key = state.by_key.get_mut(key)?;
        let found = same_key
            .iter_mut()
            .find(|d| !d.taken && self.is_fresh(&d.entry))?;
        debug_assert_eq!(&found.entry.key, key, "a repetition has the same key");
        found.taken = true;
        Some(Repeated(found.entry))
    }

    /// Notes that the reply to the repetition was read.
    pub(in crate::delivery) fn confirm_repeated(&self, repeated: &Repeated) {
        let mut state = self.state.lock();
        let InDoubt {
            id, recipient, key, ..
        } = repeated.0;
        let Some(same_key) = state.by_key.get_mut(&key) else {
            return;
        };
        let before = same_key.len();
        same_key.retain(|d| (d.entry.id, d.entry.recipient) != (id, recipient));
        let removed = before - same_key.len();
        debug_assert!(removed <= 1, "a delivery is in doubt once");
        if same_key.is_empty() {
            state.by_key.remove(&key);
        }
        state.count -= removed;
        if removed > 0 {
            let recipient = Some(recipient);
            state.pending.push(Confirmed { id, recipient });
            state.pending_since.get_or_insert_with(clock::now);
        }
    }

    /// Notes that the reply to the repetition was lost as well.
    pub(in crate::delivery) fn reply_lost_again(&self, repeated: &Repeated) {
        self.change(repeated, |doubtful| {
            doubtful.taken = false;
            // Remembered as long as the client repeats it: queues keep mail for days.
            doubtful.entry.since = clock::since_epoch();
        });
    }

    /// Notes that a delivery answers a repetition from now on.
    pub(in crate::delivery) fn may_answer(&self, repeated: &Repeated) {
        self.change(repeated, |doubtful| doubtful.taken = false);
    }

    fn change(&self, repeated: &Repeated, change: impl Fn(&mut InDoubtDelivery)) {
        let mut state = self.state.lock();
        let InDoubt {
            id, recipient, key, ..
        } = repeated.0;
        let same_key = state.by_key.get_mut(&key).into_iter().flatten();
        for doubtful in same_key {
            if (doubtful.entry.id, doubtful.entry.recipient) == (id, recipient) {
                change(doubtful);
            }
        }
    }

    /// Returns true while a confirmation is pending.
    pub(in crate::delivery) fn has_pending(&self) -> bool {
        !self.state.lock().pending.is_empty()
    }

    /// Returns when the oldest pending confirmation was added.
    pub(in crate::delivery) fn pending_since(&self) -> Option<Instant> {
        self.state.lock().pending_since
    }

    /// Takes the pending confirmations, which the caller appends to the log.
    pub(in crate::delivery) fn take_pending(&self) -> Vec<Confirmed> {
        let mut state = self.state.lock();
        let confirmed = std::mem::take(&mut state.pending);
        debug_assert!(
            confirmed.is_empty() || state.pending_since.is_some(),
            "it is known how long confirmations wait"
        );
        state.pending_since = None;
        state.written.extend_from_slice(&confirmed);
        confirmed
    }

    /// Returns how many confirmations a checkpoint that begins now makes durable.
    pub(in crate::delivery) fn written(&self) -> usize {
        self.state.lock().written.len()
    }

    /// Forgets the oldest `count` written confirmations, which are durable.
    pub(in crate::delivery) fn forget_written(&self, count: usize) {
        let mut state = self.state.lock();
        let count = count.min(state.written.len());
        state.written.drain(..count);
    }

    /// Returns all deliveries in doubt and all open ones, for a checkpoint. Forgets those that are
    /// too old.
    pub(in crate::delivery) fn snapshot(&self) -> Vec<InDoubt> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for same_key in state.by_key.values_mut() {
            same_key.retain(|d| self.is_fresh(&d.entry));
        }
        state.by_key.retain(|_, same_key| !same_key.is_empty());
        let left = state.by_key.values().map(Vec::len).sum();
        debug_assert!(
            left <= state.count,
            "every delivery in doubt is counted: {left} and {}",
            state.count
        );
        state.count = left;
        let in_doubt = state.by_key.values().flatten().map(|d| d.entry);
        let mut all: Vec<InDoubt> = in_doubt.collect();
        let now = clock::since_epoch();
        state.open.retain(|_, message| {
            now.saturating_sub(message.envelope().accepted_at) < self.keep.with_id
        });
        let open: Vec<Arc<LoggedMessage>> = state.open.values().map(Arc::clone).collect();
        drop(guard);
        // Digests are computed without the lock. Messages that are confirmed meanwhile have a
        // record after the checkpoint, which takes precedence.
        for message in open {
            if all.len() >= self.most {
                break;
            }
            all.extend(message.in_doubt());
        }
        // A crash forgets those that exceed the capacity of the log.
        all.truncate(self.most);
        all
    }

    /// Makes confirmations that a failed log may have lost pending again.
    pub(in crate::delivery) fn write_again(&self) {
        let mut state = self.state.lock();
        let written = std::mem::take(&mut state.written);
        state.pending.extend(written);
        if !state.pending.is_empty() {
            state.pending_since.get_or_insert_with(clock::now);
        }
    }

    /// Forgets all that recovery reads from the log again. Keeps confirmations, because a failed
    /// log may have lost them.
    pub(in crate::delivery) fn clear(&self) {
        let mut state = self.state.lock();
        let mut confirmed = std::mem::take(&mut state.written);
        confirmed.append(&mut state.pending);
        let early = std::mem::take(&mut state.early);
        let pending_since = (!confirmed.is_empty()).then(clock::now);
        *state = State {
            pending: confirmed,
            pending_since,
            early,
            ..State::default()
        };
    }

    /// Remembers the deliveries that recovery found in doubt, except those known to be confirmed.
    pub(in crate::delivery) fn add_recovered(&self, mut entries: Vec<InDoubt>) {
        let known: HashSet<(DeliveryId, Option<u32>)> = {
            let state = self.state.lock();
            let confirmed = state.pending.iter();
            confirmed.map(|c| (c.id, c.recipient)).collect()
        };
        entries.retain(|entry| {
            !known.contains(&(entry.id, None))
                && !known.contains(&(entry.id, Some(entry.recipient)))
        });
        self.add(entries);
    }

    fn is_fresh(&self, entry: &InDoubt) -> bool {
        let keep = match has_queue_id(&entry.key) {
            true => self.keep.with_id,
            false => self.keep.without_id,
        };
        clock::since_epoch().saturating_sub(entry.since) < keep
    }
}

/// Returns true for an entry of one of these recipients.
pub(in crate::delivery) fn is_one_of(entry: &InDoubt, recipients: &BTreeSet<usize>) -> bool {
    let recipient = usize::try_from(entry.recipient);
    recipient.is_ok_and(|recipient| recipients.contains(&recipient))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep {
        with_id: Duration::from_secs(600),
        without_id: Duration::from_secs(60),
    };

    fn entry(id: u128, recipient: u32) -> InDoubt {
        InDoubt {
            id: DeliveryId(id),
            recipient,
            key: [7; 32],
            since: clock::since_epoch(),
        }
    }

    #[test]
    fn what_was_confirmed_is_not_in_doubt_again_because_the_log_failed() {
        let unconfirmed = Unconfirmed::new(KEEP, 10);
        unconfirmed.add(vec![entry(1, 0), entry(2, 1)]);
        unconfirmed.confirm_repeated(&Repeated(entry(1, 0)));
        // The log fails before the confirmation is durable, and is recovered.
        assert_eq!(unconfirmed.take_pending().len(), 1);
        unconfirmed.clear();
        unconfirmed.add_recovered(vec![entry(1, 0), entry(2, 1)]);
        assert!(
            unconfirmed
                .take(&[7; 32])
                .is_some_and(|taken| taken.0.id == DeliveryId(2))
        );
        assert!(unconfirmed.take(&[7; 32]).is_none());
        // It is written again until a checkpoint makes it durable.
        let again = unconfirmed.take_pending();
        assert_eq!(again.len(), 1);
        let written = unconfirmed.written();
        unconfirmed.forget_written(written);
        unconfirmed.clear();
        assert!(!unconfirmed.has_pending());
    }

    #[test]
    fn a_delivery_is_remembered_as_long_as_its_client_repeats_it() {
        let unconfirmed = Unconfirmed::new(KEEP, 10);
        let nearly_forgotten = KEEP.with_id - Duration::from_secs(10);
        unconfirmed.add(vec![InDoubt {
            since: clock::since_epoch() - nearly_forgotten,
            ..entry(1, 0)
        }]);
        let repeated = unconfirmed.take(&[7; 32]).unwrap();
        unconfirmed.reply_lost_again(&repeated);
        let again = unconfirmed.snapshot();
        assert_eq!(again.len(), 1);
        let age = clock::since_epoch().saturating_sub(again[0].since);
        assert!(age < nearly_forgotten, "{age:?}");
    }

    #[test]
    fn a_delivery_without_a_queue_id_is_in_doubt_for_a_shorter_time() {
        let unconfirmed = Unconfirmed::new(KEEP, 10);
        let aged = |id: u128, last: u8, seconds: u64| InDoubt {
            key: [last; 32],
            since: clock::since_epoch() - Duration::from_secs(seconds),
            ..entry(id, 0)
        };
        let (named, unnamed) = (7, 8);
        unconfirmed.add(vec![
            aged(1, unnamed, 50),
            aged(2, unnamed, 70),
            aged(3, named, 70),
            aged(4, named, 610),
        ]);
        assert_eq!(unconfirmed.snapshot().len(), 2);
        for (last, id) in [(unnamed, 1), (named, 3)] {
            let taken = unconfirmed.take(&[last; 32]);
            assert!(taken.is_some_and(|taken| taken.0.id == DeliveryId(id)));
            assert!(unconfirmed.take(&[last; 32]).is_none());
        }
    }
}
