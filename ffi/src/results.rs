//! The outcomes of one message, in the form for C, and the receipt for its replies.

use crate::boundary::{Kind, Pool, mailstow_outcome, mailstow_results};
use crate::counters::{Counters, Permit};
use crate::outcome::Outcome;
use mailstow_engine::{Receipt, octets};
use std::ffi::c_char;
use std::fmt;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The receipt that the host settles once its client has read the replies. Dropping it leaves
/// stored deliveries in doubt.
pub(crate) trait Proof: Send + fmt::Debug {
    /// The client has read the replies.
    fn confirm(self: Box<Self>);
}

/// Of the engine in this process.
impl Proof for Receipt {
    fn confirm(self: Box<Self>) {
        Receipt::confirm(*self);
    }
}

/// The outcomes of one message.
#[derive(Debug)]
pub(crate) struct Results {
    outcomes: Vec<Entry>,
    /// All texts, each with a NUL at its end.
    texts: Vec<u8>,
    exit_status: i32,
    /// `None` when there is nothing to settle.
    proof: Mutex<Option<Box<dyn Proof>>>,
    _permit: Permit,
}

/// One outcome; the offsets of its texts.
#[derive(Debug)]
struct Entry {
    state: u32,
    code: u16,
    sysexits: i32,
    enhanced: usize,
    text: usize,
    recipient: usize,
    mailbox: Option<usize>,
    queued_us: u64,
    stored_us: u64,
}

impl Kind for Results {
    type Handle = mailstow_results;
    const NUMBER: u64 = 2;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Results> = Pool::new();
        &POOL
    }
}

impl Results {
    /// Returns the results for recipients, in their order, with their outcomes.
    pub(crate) fn new<'a>(
        outcomes: impl Iterator<Item = (&'a str, Outcome)>,
        proof: Option<Box<dyn Proof>>,
        permit: Permit,
        counters: &Arc<Counters>,
    ) -> Self {
        let mut texts = Vec::with_capacity(256);
        let mut worst: Option<(u32, i32)> = None;
        let mut entries = Vec::with_capacity(outcomes.size_hint().0);
        for (recipient, outcome) in outcomes {
            counters.count(&outcome);
            let (rank, status) = (outcome.rank(), &outcome.status);
            let sysexits = status.sysexits();
            if worst.is_none_or(|(known, _)| rank > known) {
                worst = Some((rank, sysexits));
            }
            entries.push(Entry {
                state: outcome.state,
                code: status.code,
                sysexits,
                enhanced: push(&mut texts, &status.enhanced.to_string()),
                text: push(&mut texts, &status.text),
                recipient: push(&mut texts, recipient),
                mailbox: outcome.mailbox.as_deref().map(|m| push(&mut texts, m)),
                queued_us: micros(outcome.queued),
                stored_us: micros(outcome.stored),
            });
        }
        Self {
            outcomes: entries,
            texts,
            exit_status: worst.map_or(0, |(_, status)| status),
            proof: Mutex::new(proof),
            _permit: permit,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.outcomes.len()
    }

    /// Returns the exit status for all recipients together.
    pub(crate) fn exit_status(&self) -> i32 {
        self.exit_status
    }

    pub(crate) fn outcome(&self, index: usize) -> Option<mailstow_outcome> {
        let entry = self.outcomes.get(index)?;
        let text = |at: usize| {
            let text = self.texts.get(at..).unwrap_or_default();
            text.as_ptr().cast::<c_char>()
        };
        Some(mailstow_outcome {
            struct_size: 0,
            state: entry.state,
            code: entry.code.into(),
            sysexits: entry.sysexits,
            enhanced: text(entry.enhanced),
            text: text(entry.text),
            recipient: text(entry.recipient),
            mailbox: entry.mailbox.map_or(ptr::null(), text),
            queued_us: entry.queued_us,
            stored_us: entry.stored_us,
        })
    }

    /// Notes that the client has read the replies. Without this, stored deliveries are in doubt.
    pub(crate) fn confirm(&self) {
        let mut proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(proof) = proof.take() {
            proof.confirm();
        }
    }
}

/// Appends a text and a NUL; returns its offset.
fn push(texts: &mut Vec<u8>, text: &str) -> usize {
    let at = texts.len();
    let octets = octets::octets(text);
    // A NUL would end the text for C.
    texts.extend(octets.iter().take_while(|byte| **byte != 0));
    texts.push(0);
    at
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
