//! The counters of a handle, and the bound of its concurrent work.
//!
//! Invariant: deliveries count from the moment they are handed over until their results are freed,
//! so that neither deliveries in flight nor unread results use unbounded memory.

use crate::outcome::{MAILSTOW_DURABLE, MAILSTOW_IN_DOUBT, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Figures of one handle. All are statistics but `in_flight` and `open`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages: AtomicU64,
    pub(crate) durable: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) deferred: AtomicU64,
    pub(crate) in_doubt: AtomicU64,
    pub(crate) lookups: AtomicU64,
    pub(crate) busy: AtomicU64,
    in_flight: AtomicUsize,
    open: AtomicUsize,
    envelopes: AtomicUsize,
}

/// The right to so many deliveries, or to a message under construction.
#[derive(Debug)]
pub(crate) struct Permit {
    counters: Arc<Counters>,
    deliveries: usize,
    is_open: bool,
    /// Memory of the envelope, in bytes.
    bytes: usize,
}

impl Counters {
    /// Counts one outcome.
    pub(crate) fn count(&self, outcome: &Outcome) {
        let counter = match outcome.state {
            MAILSTOW_DURABLE => &self.durable,
            MAILSTOW_IN_DOUBT => &self.in_doubt,
            _ if outcome.status.is_permanent() => &self.refused,
            _ => &self.deferred,
        };
        add(counter);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns the right to `deliveries` more, if no more than `most` are in flight then. One
    /// message is always allowed.
    pub(crate) fn deliver(self: &Arc<Self>, deliveries: usize, most: usize) -> Option<Permit> {
        self.take(&self.in_flight, deliveries, most)?;
        Some(Permit {
            counters: Arc::clone(self),
            deliveries,
            is_open: false,
            bytes: 0,
        })
    }

    /// Returns the right to construct one more message.
    pub(crate) fn open(self: &Arc<Self>, most: usize) -> Option<Permit> {
        self.take(&self.open, 1, most)?;
        Some(Permit {
            counters: Arc::clone(self),
            deliveries: 0,
            is_open: true,
            bytes: 0,
        })
    }

    fn take(&self, counter: &AtomicUsize, more: usize, most: usize) -> Option<()> {
        let fits = |now: usize| (now == 0 || now + more <= most).then_some(now + more);
        // Relaxed: the number says nothing of other memory.
        let taken = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if taken.is_err() {
            add(&self.busy);
        }
        taken.ok().map(|_| ())
    }
}

impl Permit {
    /// Returns the right to nothing.
    pub(crate) fn empty(counters: &Arc<Counters>) -> Self {
        Self {
            counters: Arc::clone(counters),
            deliveries: 0,
            is_open: false,
            bytes: 0,
        }
    }

    /// Counts so many more bytes for the envelope, if the total is no more than `most` then.
    pub(crate) fn add_bytes(&mut self, more: usize, most: usize) -> bool {
        let fits = |now: usize| now.checked_add(more).filter(|sum| *sum <= most);
        let counter = &self.counters.envelopes;
        // Relaxed: the number says nothing of other memory.
        let added = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if added.is_ok() {
            self.bytes += more;
        }
        added.is_ok()
    }

    /// Returns the counted memory of the envelope, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stops counting the bytes beyond this number.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let more = self.bytes.saturating_sub(bytes);
        self.bytes -= more;
        self.counters.envelopes.fetch_sub(more, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let counters = &self.counters;
        if self.is_open {
            counters.open.fetch_sub(1, Ordering::Relaxed);
        }
        if self.bytes > 0 {
            counters.envelopes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        counters
            .in_flight
            .fetch_sub(self.deliveries, Ordering::Relaxed);
    }
}

/// Counts one more.
pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
