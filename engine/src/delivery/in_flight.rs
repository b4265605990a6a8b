//! Messages whose receipts were not given back yet, by the queue ids of their clients.
//!
//! A client that has lost its connection may send a message again while its first delivery is in
//! progress, or has just ended and is not in doubt yet. Only messages with a queue id are noted:
//! equal messages without one may be sent on purpose.

use crate::sync::{Arc, Mutex};
use std::collections::HashMap;
use std::sync::Weak;

/// A message that is noted until it is settled.
pub(super) trait Settled {
    /// Returns true when other memory, if any, recognises a repetition of its deliveries.
    fn is_settled(&self) -> bool;
}

/// The messages of one store.
#[derive(Debug)]
pub(super) struct InFlight<M>(Mutex<State<M>>);

#[derive(Debug)]
struct State<M> {
    by_id: HashMap<Box<str>, Vec<Weak<M>>>,
    /// The count of ids at which the ids of settled messages are forgotten.
    room: usize,
}

/// The least count at which ids are forgotten.
const ROOM_MIN: usize = 64;

impl<M> Default for InFlight<M> {
    fn default() -> Self {
        Self(Mutex::new(State {
            by_id: HashMap::new(),
            room: 0,
        }))
    }
}

impl<M: Settled> InFlight<M> {
    /// Notes a message until it is settled.
    pub(super) fn add(&self, queue_id: &str, message: &Arc<M>) {
        let mut state = self.0.lock();
        if state.by_id.len() >= state.room {
            state.by_id.retain(|_, messages| {
                messages.retain(is_in_flight);
                !messages.is_empty()
            });
            // The bound doubles, so that each message costs constant time on average.
            state.room = ROOM_MIN.max(2 * state.by_id.len());
        }
        let same_id = state.by_id.entry(queue_id.into()).or_default();
        same_id.retain(is_in_flight);
        same_id.push(Arc::downgrade(message));
    }

    /// Returns the messages with this id that are not settled.
    pub(super) fn with_id(&self, queue_id: &str) -> Vec<Arc<M>> {
        let state = self.0.lock();
        let same_id = state.by_id.get(queue_id).into_iter().flatten();
        let found = same_id.filter_map(Weak::upgrade);
        found.filter(|message| !message.is_settled()).collect()
    }
}

fn is_in_flight<M: Settled>(message: &Weak<M>) -> bool {
    message
        .upgrade()
        .is_some_and(|message| !message.is_settled())
}
