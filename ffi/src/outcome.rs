//! What became of a recipient, and how a host reads it.
//!
//! Imports `boundary` (the struct of C), `counters` and the engine's status.

use crate::boundary::{Kind, Pool, mailstow_outcome, mailstow_reply, mailstow_results};
use crate::client::Lease;
use crate::counters::{Counters, Permit};
use mailstow_engine::{EnhancedCode, Receipt, Status, octets};
use std::ffi::c_char;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The message is durable in the mailbox, or in the delivery log that it comes from.
pub const MAILSTOW_DURABLE: u32 = 1;
/// The message was not stored, and will not appear later: for good (5xx) or for now (4xx).
pub const MAILSTOW_NOT_STORED: u32 = 2;
/// It is not known: the message may be stored, or appear later, for instance because the disk
/// failed while it was flushed. Send the same again: with a delivery log it is recognised and not
/// stored twice.
pub const MAILSTOW_IN_DOUBT: u32 = 3;

/// What became of one recipient.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) state: u32,
    pub(crate) status: Status,
    pub(crate) mailbox: Option<String>,
    pub(crate) queued: Duration,
    pub(crate) stored: Duration,
}

impl Outcome {
    /// Of a delivery that was decided without a mailbox.
    pub(crate) fn refused(status: Status) -> Self {
        Self {
            state: MAILSTOW_NOT_STORED,
            status,
            mailbox: None,
            queued: Duration::ZERO,
            stored: Duration::ZERO,
        }
    }

    /// Of one whose end is not known.
    pub(crate) fn in_doubt(status: Status) -> Self {
        Self {
            state: MAILSTOW_IN_DOUBT,
            ..Self::refused(status)
        }
    }

    /// How bad it is: the worst delivery of a recipient decides its reply. What may succeed later
    /// is worse than what never will, because only then the mail is kept.
    pub(crate) fn rank(&self) -> u32 {
        match self.state {
            MAILSTOW_DURABLE => 0,
            MAILSTOW_IN_DOUBT => 3,
            _ if self.status.is_permanent() => 1,
            _ => 2,
        }
    }
}

impl From<mailstow_engine::Outcome> for Outcome {
    fn from(outcome: mailstow_engine::Outcome) -> Self {
        Self {
            state: match outcome.status.is_success() {
                true => MAILSTOW_DURABLE,
                false if outcome.may_appear => MAILSTOW_IN_DOUBT,
                false => MAILSTOW_NOT_STORED,
            },
            status: outcome.status,
            mailbox: outcome.mailbox,
            queued: outcome.queued,
            stored: outcome.stored,
        }
    }
}

/// What shows whether the host's client has read the replies.
#[derive(Debug)]
pub(crate) enum Proof {
    /// There is nothing to settle.
    Nothing,
    /// Of the engine in this process.
    Receipt(Receipt),
    /// Of a server: the replies wait unread in connections, one for each attempt that got some.
    Leases(Vec<Lease>),
}

/// The outcomes of one message.
#[derive(Debug)]
pub(crate) struct Results {
    outcomes: Vec<Entry>,
    /// All texts, each with a NUL at its end.
    texts: Vec<u8>,
    exit_status: i32,
    proof: Mutex<Proof>,
    _permit: Permit,
}

/// One outcome; where its texts begin.
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
    /// The results for recipients, as they were given, and their outcomes.
    pub(crate) fn new<'a>(
        outcomes: impl Iterator<Item = (&'a str, Outcome)>,
        proof: Proof,
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

    /// The exit status for all recipients together.
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

    /// The client has read the replies. Without this, what was stored is in doubt.
    pub(crate) fn confirm(&self) {
        let mut proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        let proof = std::mem::replace(&mut *proof, Proof::Nothing);
        match proof {
            Proof::Nothing => {}
            Proof::Receipt(receipt) => receipt.confirm(),
            Proof::Leases(leases) => leases.into_iter().for_each(Lease::confirm),
        }
    }
}

/// Appends a text and a NUL; where it begins.
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

/// A status as C reads it.
pub(crate) fn reply(status: &Status) -> mailstow_reply {
    let mut reply = mailstow_reply {
        struct_size: 0,
        code: status.code.into(),
        sysexits: status.sysexits(),
        enhanced: [0; 16],
        text: [0; 512],
    };
    fill_enhanced(&mut reply.enhanced, status.enhanced);
    fill(&mut reply.text, &octets::octets(&status.text));
    reply
}

/// Writes an enhanced status code. Every check of a recipient has one, and the formatting of the
/// standard library would take a tenth of its time.
fn fill_enhanced(place: &mut [c_char; 16], code: EnhancedCode) {
    let mut digits = itoa::Buffer::new();
    let mut at = 0;
    for (index, part) in [code.class.into(), code.subject, code.detail]
        .into_iter()
        .enumerate()
    {
        let dot: &[u8] = if index > 0 { b"." } else { b"" };
        for byte in dot.iter().chain(digits.format(part).as_bytes()) {
            // 15 bytes at most: one digit, two dots, twice five digits are 13.
            if let Some(to) = place.get_mut(at) {
                *to = byte.cast_signed();
                at += 1;
            }
        }
    }
}

/// Copies what fits of a text, up to a NUL; what does not fit is cut where a character begins.
fn fill(place: &mut [c_char], text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    let mut bytes = text.get(..end).unwrap_or_default();
    let room = place.len().saturating_sub(1);
    if bytes.len() > room {
        let starts = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
        let cut = (0..=room).rev().find(starts).unwrap_or(0);
        bytes = bytes.get(..cut).unwrap_or_default();
    }
    for (to, from) in place.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
}
