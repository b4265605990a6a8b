//! Which connections are admitted: bounds on all of them and on those of each peer.
//!
//! A peer is the user behind a UNIX socket (SO_PEERCRED, unix(7)), or the address behind TCP, of
//! IPv6 the network of 64 bits that one host has. Invariants: only peers with a connection are
//! remembered; the lock on them is taken when a connection comes and goes, never for a message.

use crate::envelope_memory::{Counted, EnvelopeMemory};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Without a setting, one peer gets all connections but this part, which is left for others.
const OTHERS_PART: usize = 8;
/// And at most so many.
const PEER_CONNECTIONS_MAX: usize = 2000;
/// Refusals of one kind are logged at most so often, with their number.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// A user of this machine.
    User(u32),
    /// An address; of IPv6 its first 64 bits.
    Address(IpAddr),
    /// The system does not say.
    Unknown,
}

impl Peer {
    /// The peer at an address.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Address(IpAddr::V6(network)) => write!(f, "{network}/64"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Unknown => f.write_str("an unknown peer"),
        }
    }
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are too many already.
    Full,
    /// This peer has too many already.
    PeerFull,
}

/// Bounds in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections of all peers.
    pub(crate) connections: usize,
    /// Of one peer; 0 leaves a part of all for others.
    pub(crate) of_peer: usize,
}

impl Bounds {
    fn of_peer(self) -> usize {
        match self.of_peer {
            0 => {
                let others = self.connections / OTHERS_PART;
                (self.connections - others).min(PEER_CONNECTIONS_MAX)
            }
            set => set,
        }
    }
}

/// Counts the connections that there are.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    counts: Mutex<Counts>,
    changed: Notify,
    /// Bytes of all envelopes.
    envelopes: Arc<Counted>,
    refusals: [Mutex<Refusals>; 3],
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    peers: HashMap<Peer, Arc<Usage>>,
}

/// What one peer uses.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Changed under the lock of all counts.
    connections: AtomicUsize,
    transactions: AtomicUsize,
    /// Bytes of its envelopes.
    envelopes: Arc<Counted>,
}

/// Refusals since they were logged last.
#[derive(Debug, Default)]
struct Refusals {
    count: u64,
    logged: Option<Instant>,
}

impl Admission {
    /// Admits a connection of `peer`, if the bounds allow.
    pub(crate) fn admit(self: &Arc<Self>, peer: Peer, bounds: Bounds) -> Result<Guest, Refused> {
        let mut counts = self.counts.lock();
        let usage = counts.peers.get(&peer);
        let own = usage.map_or(0, |usage| usage.connections.load(Ordering::Relaxed));
        let of_peer = bounds.of_peer();
        if own >= of_peer && of_peer < bounds.connections {
            return Err(Refused::PeerFull);
        }
        if counts.all >= bounds.connections {
            return Err(Refused::Full);
        }
        counts.all += 1;
        let usage = Arc::clone(counts.peers.entry(peer).or_default());
        usage.connections.store(own + 1, Ordering::Relaxed);
        Ok(Guest {
            admission: Arc::clone(self),
            peer,
            usage,
        })
    }

    /// Waits until there are fewer connections than so many.
    pub(crate) async fn fewer_than(&self, connections: usize) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // What changes from here on is not missed.
            changed.as_mut().enable();
            if self.count() < connections {
                return;
            }
            changed.await;
        }
    }

    /// Connections now.
    pub(crate) fn count(&self) -> usize {
        self.counts.lock().all
    }

    /// Bytes that count for envelopes now, for checks that none stay behind.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn envelope_bytes(&self) -> usize {
        self.envelopes.bytes()
    }

    /// Logs that connections are refused: the first at once, then their number now and again.
    pub(crate) fn log_refusal(&self, peer: Peer, refused: Refused, bounds: Bounds) {
        let [full, peer_full, _] = &self.refusals;
        let refusals = match refused {
            Refused::Full => full,
            Refused::PeerFull => peer_full,
        };
        let Some(count) = refusals.lock().count_one() else {
            return;
        };
        match refused {
            Refused::Full => tracing::warn!(
                client = %peer,
                count,
                "refused: there are {} connections already; raise limits.connections, or \
                 LimitNOFILE= if that admits fewer",
                bounds.connections
            ),
            Refused::PeerFull => tracing::warn!(
                client = %peer,
                count,
                "refused: this client has {} connections already; raise \
                 limits.connections_per_peer if it needs more",
                bounds.of_peer()
            ),
        }
    }
}

impl Refusals {
    /// One more; how many there were, if that is to be logged now.
    fn count_one(&mut self) -> Option<u64> {
        self.count += 1;
        if self.logged.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}

/// An admitted connection; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    admission: Arc<Admission>,
    peer: Peer,
    usage: Arc<Usage>,
}

impl Guest {
    /// Begins a transaction, if the peer has fewer than `most` unfinished ones.
    pub(crate) fn begin(&self, most: usize) -> Option<Begun> {
        // Relaxed: the number guards no other memory.
        let before = self.usage.transactions.fetch_add(1, Ordering::Relaxed);
        let begun = Begun(Arc::clone(&self.usage));
        (before < most).then_some(begun)
    }
}

impl Guest {
    /// The memory of an envelope that begins; `most` bytes are for all of them.
    pub(crate) fn envelope(&self, most: usize) -> EnvelopeMemory {
        let (of_all, of_peer) = (&self.admission.envelopes, &self.usage.envelopes);
        EnvelopeMemory::new(Arc::clone(of_all), Arc::clone(of_peer), most)
    }

    /// Logs that an envelope of this peer found no memory: the first at once, then their number
    /// now and again.
    pub(crate) fn log_no_memory(&self, most: usize) {
        let [.., no_memory] = &self.admission.refusals;
        if let Some(count) = no_memory.lock().count_one() {
            tracing::warn!(
                client = %self.peer,
                count,
                "deferred: the envelopes of this client, or of all, use all memory that they may; \
                 raise limits.envelope_bytes = {most} if they need more"
            );
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        counts.all -= 1;
        if self.usage.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            counts.peers.remove(&self.peer);
        }
        drop(counts);
        self.admission.changed.notify_waiters();
    }
}

/// An unfinished transaction; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Begun(Arc<Usage>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.transactions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        connections: 16,
        of_peer: 0,
    };

    fn many(admission: &Arc<Admission>, peer: Peer, bounds: Bounds) -> (Vec<Guest>, Refused) {
        let mut guests = Vec::new();
        loop {
            match admission.admit(peer, bounds) {
                Ok(guest) => guests.push(guest),
                Err(refused) => return (guests, refused),
            }
        }
    }

    #[test]
    fn one_peer_leaves_connections_for_others_and_gets_them_back() {
        let admission = Arc::new(Admission::default());
        let (guests, refused) = many(&admission, Peer::User(1), BOUNDS);
        assert_eq!((guests.len(), refused), (14, Refused::PeerFull));
        let (others, refused) = many(&admission, Peer::User(2), BOUNDS);
        assert_eq!((others.len(), refused), (2, Refused::Full));
        drop(guests);
        assert_eq!(admission.count(), 2);
        assert_eq!(many(&admission, Peer::User(1), BOUNDS).0.len(), 14);
        assert_eq!(admission.counts.lock().peers.len(), 1);
    }

    #[test]
    fn few_connections_are_for_any_peer_and_a_set_bound_counts() {
        for connections in 1..8 {
            let bounds = Bounds {
                connections,
                of_peer: 0,
            };
            let admission = Arc::new(Admission::default());
            let (guests, refused) = many(&admission, Peer::Unknown, bounds);
            assert_eq!((guests.len(), refused), (connections, Refused::Full));
        }
        let bounds = Bounds {
            connections: 100,
            of_peer: 3,
        };
        let admission = Arc::new(Admission::default());
        assert_eq!(many(&admission, Peer::User(1), bounds).0.len(), 3);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_a_mapped_address_is_that_of_ipv4() {
        let peer = |address: &str| Peer::at(address.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8:0:0:ffff::2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }

    #[test]
    fn unfinished_transactions_of_a_peer_are_bounded_over_all_its_connections() {
        let admission = Arc::new(Admission::default());
        let (one, two) = (
            admission.admit(Peer::User(1), BOUNDS).unwrap(),
            admission.admit(Peer::User(1), BOUNDS).unwrap(),
        );
        let other = admission.admit(Peer::User(2), BOUNDS).unwrap();
        let begun = one.begin(2);
        let also = two.begin(2);
        assert!(begun.is_some() && also.is_some());
        assert!(one.begin(2).is_none() && two.begin(2).is_none());
        assert!(other.begin(2).is_some());
        drop(begun);
        assert!(two.begin(2).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_room_is_woken_when_a_connection_goes() {
        let admission = Arc::new(Admission::default());
        let guest = admission.admit(Peer::Unknown, BOUNDS).unwrap();
        let waiting = {
            let admission = Arc::clone(&admission);
            tokio::spawn(async move { admission.fewer_than(1).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(guest);
        waiting.await.unwrap();
    }
}
