//! Messages whose receipts have not come back yet, by the queue ids that their clients gave them.
//!
//! A client that has lost its connection may send a message again while its first delivery is under
//! way, or has just ended and is not in doubt yet. Only messages with a queue id are noted: equal
//! ones without may be sent on purpose.

use super::ledger::logged_message::LoggedMessage;
use crate::sync::{Arc, Mutex};
use std::collections::HashMap;
use std::sync::Weak;

/// The messages of one store.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<Box<str>, Vec<Weak<LoggedMessage>>>,
    /// How many ids there may be before those of messages that are settled are forgotten.
    room: usize,
}

/// How many ids are kept before any is forgotten.
const ROOM_MIN: usize = 64;

impl UnderWay {
    /// Notes a message until it is settled.
    pub(super) fn add(&self, queue_id: &str, message: &Arc<LoggedMessage>) {
        let mut state = self.0.lock();
        if state.by_id.len() >= state.room {
            state.by_id.retain(|_, messages| {
                messages.retain(is_under_way);
                !messages.is_empty()
            });
            // So that each message pays for a constant number of others.
            state.room = ROOM_MIN.max(2 * state.by_id.len());
        }
        let same_id = state.by_id.entry(queue_id.into()).or_default();
        same_id.retain(is_under_way);
        same_id.push(Arc::downgrade(message));
    }

    /// Returns the messages with this id that are not settled.
    pub(super) fn with_id(&self, queue_id: &str) -> Vec<Arc<LoggedMessage>> {
        let state = self.0.lock();
        let same_id = state.by_id.get(queue_id).into_iter().flatten();
        let found = same_id.filter_map(Weak::upgrade);
        found.filter(|message| !message.is_settled()).collect()
    }
}

fn is_under_way(message: &Weak<LoggedMessage>) -> bool {
    message
        .upgrade()
        .is_some_and(|message| !message.is_settled())
}
