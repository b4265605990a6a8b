//! Telling senders who asked for it that their mail was delivered.
//!
//! One notice for each message, once all recipients that want one are known: their replies wait for
//! it. When it cannot be sent, they are answered 4xx, and stored deliveries stay in doubt; so the
//! repetition stores nothing and tries the notice again.

use super::summary::Summary;
use super::transaction::Answer;
use crate::notices::{Action, Delivered, HEADER_BYTES_MAX, Notices, Report, can_be_told};
use jiff::fmt::rfc2822;
use jiff::{Timestamp, Zoned};
use mailstow_engine::config::{Durability, Settings};
use mailstow_engine::route::Expansion;
use mailstow_engine::transport::Disposition;
use mailstow_engine::{EnhancedCode, Mail, Outcome, ReversePath, Status};
use std::io;
use std::time::Instant;

/// The notice of a message whose deliveries are in progress.
#[derive(Debug)]
pub(super) struct Notice {
    report: Report,
    /// The indices of the deliveries that it tells of.
    deliveries: Vec<usize>,
    /// Its repetition is recognised: what cannot be sent now may be sent then.
    may_repeat: bool,
}

impl Notice {
    /// The notice that recipients of this message want; `None` when none does, or when no sender
    /// can get it.
    pub(super) fn wanted(
        answers: &[Answer],
        mail: &Mail,
        summary: &Summary,
        settings: &Settings,
        started: Instant,
    ) -> Option<Self> {
        let wanted = answers.iter().filter(|answer| answer.wants_notice());
        let deliveries = wanted.flat_map(|answer| &answer.deliveries);
        let deliveries: Vec<usize> = deliveries.map(|(_, index)| *index).collect();
        if deliveries.is_empty() {
            return None;
        }
        match &mail.reverse_path {
            ReversePath::Null => return None,
            ReversePath::Address(sender) if !can_be_told(sender) => {
                tracing::warn!(
                    id = summary.id,
                    "no success notice can be sent to <{}>: its domain is invalid",
                    summary.sender
                );
                return None;
            }
            ReversePath::Address(_) => {}
        }
        Some(Self {
            report: Report {
                sender: summary.sender.clone(),
                host: settings.lmtp.hostname.clone(),
                id: summary.id.clone(),
                queue_id: mail.queue_id.clone().unwrap_or_default(),
                envelope_id: mail.dsn.envelope_id.clone(),
                arrived: date(started),
                delivered: String::new(),
                utf8: summary.utf8,
                recipients: Vec::new(),
                header: header(mail),
            },
            deliveries,
            may_repeat: settings.store.durability == Durability::Logged,
        })
    }

    /// Whether the reply depends on the notice: the recipient wants it, or shares a mailbox with
    /// one that does. Both are then told the same, so that a repetition is for both again.
    pub(super) fn decides(&self, answer: &Answer) -> bool {
        let mut deliveries = answer.deliveries.iter();
        deliveries.any(|(_, index)| self.deliveries.contains(index))
    }

    /// The indices of all deliveries that the notice tells of.
    pub(super) fn deliveries(&self) -> &[usize] {
        &self.deliveries
    }

    /// Sends the notice of all recipients whose deliveries have succeeded, as `outcome` says.
    /// Returns the status that these recipients are answered with when it cannot be sent.
    pub(super) async fn send<'a>(
        mut self,
        notices: &Notices,
        answers: &[Answer],
        outcome: impl Fn(usize) -> Option<&'a Outcome>,
    ) -> Option<Status> {
        for answer in answers {
            let outcomes = answer.deliveries.iter().map(|(_, index)| outcome(*index));
            let outcomes: Option<Vec<&Outcome>> = outcomes.collect();
            let stored = |outcomes: &Vec<&Outcome>| outcomes.iter().all(|o| o.status.is_success());
            if let Some(outcomes) = outcomes.filter(stored)
                && let Some(first) = outcomes.first()
                && let Some(dsn) = &answer.dsn
                && let Some(action) = action(answer, &outcomes)
            {
                self.report.recipients.push(Delivered {
                    address: answer.shown.clone(),
                    original: dsn.original.clone(),
                    action,
                    code: first.status.enhanced.to_string(),
                    text: first.status.text.to_string(),
                });
            }
        }
        if self.report.recipients.is_empty() {
            return None;
        }
        self.report.delivered = date(Instant::now());
        let (id, sender) = (self.report.id.clone(), self.report.sender.clone());
        match notices.send(self.report).await {
            Ok(()) => {
                tracing::info!(id, "success notice sent to <{sender}>");
                None
            }
            Err(cause) if self.may_repeat => {
                tracing::error!(
                    id,
                    "the success notice for <{sender}> is not sent, the client tries again: {cause}"
                );
                let text = "stored, but the success notice cannot be sent now";
                Some(Status::new(451, EnhancedCode::new(4, 3, 0), text))
            }
            Err(cause) => {
                // A repetition would be a second copy.
                tracing::error!(id, "the success notice for <{sender}> is lost: {cause}");
                None
            }
        }
    }
}

/// Returns what the notice says of the mail for a recipient; `None` without one, or with one sent
/// by the next server.
fn action(answer: &Answer, outcomes: &[&Outcome]) -> Option<Action> {
    let mut dispositions = outcomes.iter().map(|outcome| outcome.disposition);
    if !answer.wants_notice() {
        return None;
    }
    match answer.expansion {
        Expansion::Alias => return Some(Action::Expanded),
        // What becomes of its copies is a matter of the list (RFC 3461 section 5.2.7.3).
        Expansion::List => return Some(Action::Delivered),
        Expansion::None => {}
    }
    let is_left = |one| one == Disposition::RelayedWithDsn;
    if dispositions.clone().all(is_left) {
        return None;
    }
    Some(match dispositions.any(|one| one == Disposition::Relayed) {
        true => Action::Relayed,
        false => Action::Delivered,
    })
}

/// The time of a moment that has passed, as RFC 5322 writes it.
fn date(at: Instant) -> String {
    let now = Timestamp::now();
    let then = now.checked_sub(at.elapsed()).unwrap_or(now);
    let then: Zoned = then.to_zoned(jiff::tz::TimeZone::system());
    rfc2822::to_string(&then).unwrap_or_default()
}

/// The header of a message, cut where it is too long.
fn header(mail: &Mail) -> Vec<u8> {
    /// Enough was read, or the message cannot be read.
    struct Stop;
    impl From<io::Error> for Stop {
        fn from(_: io::Error) -> Self {
            Self
        }
    }
    let mut header = Vec::new();
    // What cannot be read is not returned.
    let _ = mail.message.for_each_chunk(|chunk| {
        header.extend_from_slice(chunk);
        let end = memchr::memmem::find(&header, b"\n\n");
        if end.is_none() && header.len() <= HEADER_BYTES_MAX {
            return Ok(());
        }
        header.truncate(end.map_or(HEADER_BYTES_MAX, |end| end + 1));
        Err(Stop)
    });
    if header.starts_with(b"\n") {
        header.clear();
    }
    header.truncate(HEADER_BYTES_MAX);
    header
}
