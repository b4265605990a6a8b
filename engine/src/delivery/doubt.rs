//! Deliveries that the client may not know of.
//!
//! Imports `log` (record types), the rest of `delivery`, `sync`, `clock`. A delivery is *open* from
//! the moment its record is in the log until the client is known to have read the reply; it is *in
//! doubt* when the connection, or the whole process, was lost before that. Invariants: only
//! deliveries in doubt are matched; each answers for one repetition; a repetition whose reply is
//! lost in turn leaves the delivery in doubt.

use super::digest::{Shape, has_queue_id};
use super::logged_message::LoggedMessage;
use crate::clock;
use crate::config::DeliveryLogSettings;
use crate::limits::IN_DOUBT_MAX;
use crate::log::{Confirmed, DeliveryId, InDoubt};
use crate::sync::{Arc, Mutex};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How many receipts given back early are looked at with each message.
const EARLY_LOOKED_AT: usize = 64;

/// The memory of one store.
#[derive(Debug)]
pub(super) struct Doubts {
    keep: Keep,
    /// Most that are remembered.
    most: usize,
    state: Mutex<State>,
}

/// How long deliveries in doubt are remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    /// Of messages that a queue id names.
    pub(super) with_id: Duration,
    /// Of others: an equal one may well be sent on purpose.
    pub(super) without_id: Duration,
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
    /// Settled by their receipts while deliveries were still being made; in order.
    early: VecDeque<(Arc<LoggedMessage>, Verdict)>,
    by_key: BTreeMap<[u8; 32], Vec<Doubtful>>,
    count: usize,
    /// To be told to the log.
    confirmed: Vec<Confirmed>,
    /// Since when the oldest of these wait.
    news_since: Option<Instant>,
    /// Told to the log since the last checkpoint; perhaps not durable yet.
    told: Vec<Confirmed>,
}

/// What a receipt says of the replies for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client has read them.
    Read,
    /// They may be lost.
    Lost,
}

#[derive(Clone, Debug)]
struct Doubtful {
    entry: InDoubt,
    /// Answers for a repetition whose reply is under way.
    taken: bool,
}

/// A delivery in doubt that answers for a repetition.
#[derive(Clone, Debug)]
pub(super) struct Repeated(InDoubt);

impl Doubts {
    pub(super) fn new(keep: Keep, most: usize) -> Self {
        Self {
            keep,
            most,
            state: Mutex::default(),
        }
    }

    /// The message is in the log.
    pub(super) fn open(&self, message: &Arc<LoggedMessage>) {
        let mut state = self.state.lock();
        // Whoever never confirms costs no memory without bound.
        if state.open.len() < IN_DOUBT_MAX {
            state.open.insert(message.id(), Arc::clone(message));
        }
    }

    /// The client has read the replies for this message.
    pub(super) fn confirm(&self, message: &LoggedMessage) {
        let id = message.id();
        let mut state = self.state.lock();
        if state.open.remove(&id).is_some() {
            state.confirmed.extend(message.confirmed());
            state.news_since.get_or_insert_with(clock::now);
            drop(state);
            message.forget_content();
        } else if state.by_key.values().flatten().any(|d| d.entry.id == id) {
            drop(state);
            // The log was recovered meanwhile, which took it to be in doubt.
            for entry in message.doubts() {
                self.confirm_repeated(&Repeated(entry));
            }
        }
    }

    /// The client has read the replies for this message, and the recipients with the indices
    /// `doubtful` were told to try again.
    pub(super) fn confirm_but(&self, message: &LoggedMessage, doubtful: &[usize]) {
        // Digests are computed without the lock.
        let all = message.doubts();
        let (doubtful, read): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|entry| is_one_of(entry, doubtful));
        let mut state = self.state.lock();
        if state.open.remove(&message.id()).is_some() {
            let confirmed = read.iter().map(|entry| Confirmed {
                id: entry.id,
                recipient: Some(entry.recipient),
            });
            state.confirmed.extend(confirmed);
            state.news_since.get_or_insert_with(clock::now);
            drop(state);
            self.add(doubtful);
        } else {
            drop(state);
            // The log was recovered meanwhile, which took all of them to be in doubt.
            for entry in read {
                self.confirm_repeated(&Repeated(entry));
            }
        }
    }

    /// The connection was lost before that. The log says so already: nothing confirms it.
    pub(super) fn doubt(&self, message: &LoggedMessage) {
        if self.state.lock().open.remove(&message.id()).is_some() {
            self.add(message.doubts());
        }
    }

    /// Remembers what the receipt said of a message whose deliveries have not all ended.
    pub(super) fn settle_later(&self, message: &Arc<LoggedMessage>, verdict: Verdict) {
        let early = (Arc::clone(message), verdict);
        self.state.lock().early.push_back(early);
    }

    /// Takes messages whose deliveries have ended since their receipts were given back; looks at
    /// a few of them each time.
    pub(super) fn take_early(&self) -> Vec<(Arc<LoggedMessage>, Verdict)> {
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
    pub(super) fn add(&self, entries: Vec<InDoubt>) {
        let mut state = self.state.lock();
        for entry in entries {
            if state.count < self.most && self.is_fresh(&entry) {
                let taken = false;
                let same_key = state.by_key.entry(entry.key).or_default();
                same_key.push(Doubtful { entry, taken });
                state.count += 1;
            }
        }
    }

    /// True while a repetition may come.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().count == 0
    }

    /// Every delivery in doubt.
    pub(super) fn ids(&self) -> HashSet<(DeliveryId, u32)> {
        let state = self.state.lock();
        let all = state.by_key.values().flatten();
        all.map(|d| (d.entry.id, d.entry.recipient)).collect()
    }

    /// True while a delivery in doubt has a key that begins like this.
    pub(super) fn has_shape(&self, shape: Shape) -> bool {
        let mut from = [0; 32];
        from.iter_mut().zip(shape).for_each(|(to, byte)| *to = byte);
        let state = self.state.lock();
        let next = state.by_key.range(from..).next();
        next.is_some_and(|(key, _)| key.starts_with(&shape))
    }

    /// Is this the repetition of a delivery in doubt? That one answers for no other then.
    pub(super) fn take(&self, key: &[u8; 32]) -> Option<Repeated> {
        let mut state = self.state.lock();
        let same_key = state.by_key.get_mut(key)?;
        let found = same_key
            .iter_mut()
            .find(|d| !d.taken && self.is_fresh(&d.entry))?;
        found.taken = true;
        Some(Repeated(found.entry))
    }

    /// The reply to the repetition was read.
    pub(super) fn confirm_repeated(&self, repeated: &Repeated) {
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
        if same_key.is_empty() {
            state.by_key.remove(&key);
        }
        state.count -= removed;
        if removed > 0 {
            let recipient = Some(recipient);
            state.confirmed.push(Confirmed { id, recipient });
            state.news_since.get_or_insert_with(clock::now);
        }
    }

    /// The reply to the repetition was lost as well.
    pub(super) fn doubt_repeated(&self, repeated: &Repeated) {
        let mut state = self.state.lock();
        let InDoubt {
            id, recipient, key, ..
        } = repeated.0;
        let same_key = state.by_key.get_mut(&key).into_iter().flatten();
        for doubtful in same_key {
            if (doubtful.entry.id, doubtful.entry.recipient) == (id, recipient) {
                doubtful.taken = false;
            }
        }
    }

    /// Something was confirmed that the log has not been told yet.
    pub(super) fn has_news(&self) -> bool {
        !self.state.lock().confirmed.is_empty()
    }

    /// Since when the log has not been told of something.
    pub(super) fn news_since(&self) -> Option<Instant> {
        self.state.lock().news_since
    }

    /// What the log has not been told yet.
    pub(super) fn take_confirmed(&self) -> Vec<Confirmed> {
        let mut state = self.state.lock();
        let confirmed = std::mem::take(&mut state.confirmed);
        state.news_since = None;
        state.told.extend_from_slice(&confirmed);
        confirmed
    }

    /// How many confirmations a checkpoint begun now makes durable.
    pub(super) fn told(&self) -> usize {
        self.state.lock().told.len()
    }

    /// The oldest `count` confirmations are durable.
    pub(super) fn told_durably(&self, count: usize) {
        let mut state = self.state.lock();
        let count = count.min(state.told.len());
        state.told.drain(..count);
    }

    /// Everything in doubt, and everything open, for a checkpoint. What is too old is forgotten.
    pub(super) fn snapshot(&self) -> Vec<InDoubt> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for same_key in state.by_key.values_mut() {
            same_key.retain(|d| self.is_fresh(&d.entry));
        }
        state.by_key.retain(|_, same_key| !same_key.is_empty());
        state.count = state.by_key.values().map(Vec::len).sum();
        let in_doubt = state.by_key.values().flatten().map(|d| d.entry);
        let mut all: Vec<InDoubt> = in_doubt.collect();
        let now = clock::since_epoch();
        state.open.retain(|_, message| {
            now.saturating_sub(message.envelope().accepted_at) < self.keep.with_id
        });
        let open: Vec<Arc<LoggedMessage>> = state.open.values().map(Arc::clone).collect();
        drop(guard);
        // Digests are computed without the lock. What is confirmed meanwhile is told to the log,
        // which takes that as the last word.
        for message in open {
            if all.len() >= self.most {
                break;
            }
            all.extend(message.doubts());
        }
        // More than the log takes are forgotten with a crash.
        all.truncate(self.most);
        all
    }

    /// Has the log told again what it may have lost when it failed.
    pub(super) fn tell_again(&self) {
        let mut state = self.state.lock();
        let told = std::mem::take(&mut state.told);
        state.confirmed.extend(told);
    }

    /// Forgets everything that recovery reads from the log again. What was confirmed is not
    /// forgotten, because a log that failed may have lost it.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        let mut confirmed = std::mem::take(&mut state.told);
        confirmed.append(&mut state.confirmed);
        let early = std::mem::take(&mut state.early);
        *state = State {
            confirmed,
            early,
            ..State::default()
        };
    }

    /// Remembers what recovery found in doubt, but for what is known to be confirmed.
    pub(super) fn add_recovered(&self, mut entries: Vec<InDoubt>) {
        let known: HashSet<(DeliveryId, Option<u32>)> = {
            let state = self.state.lock();
            let confirmed = state.confirmed.iter();
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

/// Whether an entry is that of one of these recipients.
pub(super) fn is_one_of(entry: &InDoubt, recipients: &[usize]) -> bool {
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
        let doubts = Doubts::new(KEEP, 10);
        doubts.add(vec![entry(1, 0), entry(2, 1)]);
        doubts.confirm_repeated(&Repeated(entry(1, 0)));
        // The log is told, fails before that is durable, and is recovered.
        assert_eq!(doubts.take_confirmed().len(), 1);
        doubts.clear();
        doubts.add_recovered(vec![entry(1, 0), entry(2, 1)]);
        assert!(
            doubts
                .take(&[7; 32])
                .is_some_and(|taken| taken.0.id == DeliveryId(2))
        );
        assert!(doubts.take(&[7; 32]).is_none());
        // It is told once more, until a checkpoint holds.
        let again = doubts.take_confirmed();
        assert_eq!(again.len(), 1);
        let told = doubts.told();
        doubts.told_durably(told);
        doubts.clear();
        assert!(!doubts.has_news());
    }
    #[test]
    fn a_delivery_without_a_queue_id_is_in_doubt_for_a_shorter_time() {
        let doubts = Doubts::new(KEEP, 10);
        let aged = |id: u128, last: u8, seconds: u64| InDoubt {
            key: [last; 32],
            since: clock::since_epoch() - Duration::from_secs(seconds),
            ..entry(id, 0)
        };
        let (named, unnamed) = (7, 8);
        doubts.add(vec![
            aged(1, unnamed, 50),
            aged(2, unnamed, 70),
            aged(3, named, 70),
            aged(4, named, 610),
        ]);
        assert_eq!(doubts.snapshot().len(), 2);
        for (last, id) in [(unnamed, 1), (named, 3)] {
            let taken = doubts.take(&[last; 32]);
            assert!(taken.is_some_and(|taken| taken.0.id == DeliveryId(id)));
            assert!(doubts.take(&[last; 32]).is_none());
        }
    }
}
