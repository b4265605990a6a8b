//! The memory that the envelopes of all transactions share.
//!
//! One bound is for all of them, half of it for those of one peer; past either, recipients are
//! answered 452. An envelope counts from `MAIL` until its replies are known to be read, because the
//! engine remembers it for as long. Invariant: what is counted is given back when it is dropped.
//! Memory is counted in steps, so that a short envelope asks for it once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is counted at first, in bytes: enough for most transactions.
const FIRST_BYTES: usize = 2048;
/// What is counted at a time beyond that.
const STEP_BYTES: usize = 16 * 1024;
/// A transaction without its addresses.
const TRANSACTION_BYTES: usize = 512;
/// A recipient, or a mailbox of one, without its texts.
const RECIPIENT_BYTES: usize = 256;
/// Copies of a text: in the transaction, in the delivery, and in the memory of what is in doubt.
const COPIES: usize = 3;

/// Bytes counted for envelopes.
#[derive(Debug, Default)]
pub(crate) struct Counted(AtomicUsize);

impl Counted {
    /// Counts so many more, if that is not more than `most` in all.
    fn add(&self, more: usize, most: usize) -> bool {
        // Relaxed: the number guards no other memory.
        let added = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
                bytes.checked_add(more).filter(|sum| *sum <= most)
            });
        added.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        let before = self.0.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "{bytes} of {before} bytes are given back");
    }

    /// Bytes that count now.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The memory of one envelope.
#[derive(Debug)]
pub(crate) struct EnvelopeMemory {
    of_all: Arc<Counted>,
    of_peer: Arc<Counted>,
    /// Bound of all envelopes, in bytes.
    most: usize,
    counted: usize,
    used: usize,
}

impl EnvelopeMemory {
    /// Of an envelope that begins; `most` bytes are for all of them.
    pub(crate) fn new(of_all: Arc<Counted>, of_peer: Arc<Counted>, most: usize) -> Self {
        Self {
            of_all,
            of_peer,
            most,
            counted: 0,
            used: 0,
        }
    }

    /// Counts a transaction with so many bytes of text; false when there is no room for it.
    pub(crate) fn add_transaction(&mut self, texts: usize) -> bool {
        self.add(TRANSACTION_BYTES + COPIES * texts)
    }

    /// Counts a recipient, or one of its mailboxes, with so many bytes of text; false when there is
    /// no room for it.
    pub(crate) fn add_recipient(&mut self, texts: usize) -> bool {
        self.add(RECIPIENT_BYTES + COPIES * texts)
    }

    fn add(&mut self, bytes: usize) -> bool {
        let used = self.used.saturating_add(bytes);
        if used > self.counted {
            let needed = used - self.counted;
            let step = if self.counted == 0 {
                FIRST_BYTES
            } else {
                STEP_BYTES
            };
            let in_step = needed.next_multiple_of(step);
            if !self.count(in_step) && !self.count(needed) {
                return false;
            }
        }
        self.used = used;
        true
    }

    fn count(&mut self, more: usize) -> bool {
        if !self.of_peer.add(more, self.most / 2) {
            return false;
        }
        if !self.of_all.add(more, self.most) {
            self.of_peer.give_back(more);
            return false;
        }
        self.counted += more;
        true
    }
}

impl Drop for EnvelopeMemory {
    fn drop(&mut self) {
        self.of_all.give_back(self.counted);
        self.of_peer.give_back(self.counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 64 * 1024;

    fn memory(of_all: &Arc<Counted>, of_peer: &Arc<Counted>) -> EnvelopeMemory {
        EnvelopeMemory::new(Arc::clone(of_all), Arc::clone(of_peer), MOST)
    }

    #[test]
    fn one_peer_gets_half_of_the_memory_and_gives_it_back() {
        let all = Arc::<Counted>::default();
        let (one, two) = (Arc::<Counted>::default(), Arc::<Counted>::default());
        let mut envelope = memory(&all, &one);
        let recipients = (0..).take_while(|_| envelope.add_recipient(1000)).count();
        assert_eq!(recipients, MOST / 2 / (RECIPIENT_BYTES + COPIES * 1000));
        assert!(!memory(&all, &one).add_transaction(2000));
        let mut other = memory(&all, &two);
        while other.add_recipient(1000) {}
        assert!(!memory(&all, &Arc::default()).add_transaction(2000));
        drop((envelope, other));
        assert_eq!((all.bytes(), one.bytes()), (0, 0));
        assert!(memory(&all, &one).add_transaction(2000));
    }

    #[test]
    fn a_short_envelope_is_counted_once() {
        let all = Arc::<Counted>::default();
        let mut envelope = memory(&all, &Arc::default());
        assert!(envelope.add_transaction(40) && envelope.add_recipient(100));
        assert_eq!(all.bytes(), FIRST_BYTES);
    }
}
