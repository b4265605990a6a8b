//! The outcome of a recipient, and its form for the host.

use crate::boundary::mailstow_reply;
use mailstow_engine::{EnhancedCode, Status, octets};
use std::ffi::c_char;
use std::time::Duration;

/// The message is durable in the mailbox, or in the delivery log that will deliver it.
pub const MAILSTOW_DURABLE: u32 = 1;
/// The message was not stored, and will not appear later: the failure is permanent (5xx) or
/// temporary (4xx).
pub const MAILSTOW_NOT_STORED: u32 = 2;
/// The outcome is unknown: the message may be stored, or appear later, for instance because the
/// disk failed during the flush. Send the message again: with a delivery log it is recognised and
/// not stored twice.
pub const MAILSTOW_IN_DOUBT: u32 = 3;

/// The outcome of one recipient.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) state: u32,
    pub(crate) status: Status,
    pub(crate) mailbox: Option<String>,
    pub(crate) queued: Duration,
    pub(crate) stored: Duration,
}

impl Outcome {
    /// Returns the outcome of a delivery that was decided without a mailbox.
    pub(crate) fn refused(status: Status) -> Self {
        Self {
            state: MAILSTOW_NOT_STORED,
            status,
            mailbox: None,
            queued: Duration::ZERO,
            stored: Duration::ZERO,
        }
    }

    /// Returns the outcome of a delivery whose end is unknown.
    pub(crate) fn in_doubt(status: Status) -> Self {
        Self {
            state: MAILSTOW_IN_DOUBT,
            ..Self::refused(status)
        }
    }

    /// Returns its severity: the worst delivery of a recipient decides its reply. A temporary
    /// failure is worse than a permanent one, because only then does the client keep the mail.
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

/// Writes a status for C.
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

/// Copies as much of a text as fits, up to a NUL; cuts the rest at a character boundary.
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
