//! Delivers a message until every recipient has its reply, or its deadline has passed.
//!
//! A server that is restarted, or not there yet, is tried again. A message that was sent and not
//! answered is sent again: the server recognises it and does not store it twice.

use super::connection::Lost;
use super::pool::{Lease, Pool};
use super::submission::Submission;
use super::transaction::{self, Answer};
use crate::counters::Counters;
use crate::flight::late;
use crate::message::Accepted;
use crate::outcome::{MAILSTOW_DURABLE, Outcome};
use crate::results::{Proof, Results};
use mailstow_engine::{EnhancedCode, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first and the longest pause between attempts.
const REST: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_secs(1);

/// A recipient without an answer.
struct Open<'a> {
    at: usize,
    recipient: &'a Accepted,
    deadline: Instant,
    /// An earlier attempt sent the content for it and got no reply: it may be stored.
    was_sent: bool,
}

/// Delivers and waits.
pub(super) fn deliver(
    pool: &Arc<Pool>,
    submission: Submission,
    counters: &Arc<Counters>,
) -> Results {
    let Submission {
        envelope,
        message,
        permit,
    } = submission;
    let begun = Instant::now();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; envelope.recipients.len()];
    let mut leases = Vec::new();
    let recipients = envelope.recipients.iter().enumerate();
    let mut open: Vec<Open<'_>> = recipients
        .map(|(at, recipient)| Open {
            at,
            recipient,
            deadline: begun + recipient.deadline,
            was_sent: false,
        })
        .collect();
    let mut rest = REST;
    let mut trouble = String::new();
    let mut away_since: Option<Instant> = None;
    while let Some(deadline) = open.iter().map(|open| open.deadline).max() {
        let lost = match pool.take(deadline) {
            Ok(mut connection) => {
                away_since = None;
                let wanted: Vec<&Accepted> = open.iter().map(|open| open.recipient).collect();
                let attempt =
                    transaction::run(&mut connection, &envelope, &message, &wanted, deadline);
                let taken = begun.elapsed();
                for (open, answer) in open.iter_mut().zip(&attempt.answers) {
                    if let (Some(answer), Some(slot)) = (answer, outcomes.get_mut(open.at)) {
                        *slot = Some(answered(open, answer, taken));
                    }
                    open.was_sent |= attempt.was_sent && answer.is_none();
                }
                open.retain(|open| outcomes.get(open.at).is_some_and(Option::is_none));
                match (&attempt.lost, attempt.has_unread) {
                    // The proof whether the replies were passed on.
                    (None | Some(Lost::InProgress), true) => {
                        leases.push(Lease::new(connection, pool));
                    }
                    (None, false) => pool.put(connection),
                    (Some(_), _) => {}
                }
                attempt.lost
            }
            Err(lost) => {
                away_since.get_or_insert_with(Instant::now);
                Some(lost)
            }
        };
        let Some(lost) = lost else { continue };
        trouble = lost.to_string();
        tracing::debug!("{}: {trouble}; trying again", pool.path().display());
        let now = Instant::now();
        let is_away = away_since.is_some_and(|since| now + rest >= since + pool.timeout());
        let is_hopeless = is_away || is_hopeless(&lost);
        open.retain(|open| {
            let is_over = is_hopeless || open.deadline <= now + rest;
            if is_over && let Some(slot) = outcomes.get_mut(open.at) {
                *slot = Some(given_up(open, &trouble));
            }
            !is_over
        });
        if !open.is_empty() {
            std::thread::sleep(rest);
            rest = REST_MAX.min(rest * 2);
        }
    }
    if !trouble.is_empty()
        && outcomes
            .iter()
            .flatten()
            .any(|o| o.state != MAILSTOW_DURABLE)
    {
        tracing::warn!("{}: {trouble}", pool.path().display());
    }
    let recipients: Vec<String> = envelope
        .recipients
        .iter()
        .map(|recipient| recipient.address.external())
        .collect();
    let outcomes = outcomes.into_iter().map(|outcome| {
        outcome.unwrap_or_else(|| Outcome::refused(Status::system("the delivery was lost")))
    });
    let outcomes = recipients.iter().map(String::as_str).zip(outcomes);
    let proof = (!leases.is_empty()).then(|| Box::new(leases) as Box<dyn Proof>);
    Results::new(outcomes, proof, permit, counters)
}

/// A later attempt cannot succeed either.
fn is_hopeless(lost: &Lost) -> bool {
    match lost {
        Lost::System(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
        Lost::Strange => true,
        Lost::Ended(_) | Lost::Late | Lost::InProgress => false,
    }
}

fn answered(open: &Open<'_>, answer: &Answer, taken: Duration) -> Outcome {
    let status = &answer.status;
    if open.was_sent && !status.is_success() {
        // The refusal is of this attempt alone. A 5xx would bounce mail that may be stored.
        let text = format!("The content got no reply; after a repetition: {status}");
        return Outcome::in_doubt(Status::new(451, EnhancedCode::new(4, 4, 2), text));
    }
    let outcome = mailstow_engine::Outcome {
        status: status.clone(),
        may_appear: answer.is_doubtful,
        mailbox: None,
        queued: Duration::ZERO,
        stored: taken,
        disposition: Default::default(),
    };
    outcome.into()
}

fn given_up(open: &Open<'_>, trouble: &str) -> Outcome {
    if open.was_sent {
        return Outcome::in_doubt(late(open.recipient.deadline));
    }
    let text = format!("the mail store cannot be reached: {trouble}");
    Outcome::refused(Status::new(451, EnhancedCode::new(4, 4, 1), text))
}
