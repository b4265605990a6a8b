//! The line that every recipient gets.
//!
//! Source: the log lines of Postfix's delivery agents (postconf(5) `delay_logging_resolution_limit`
//! for the meaning of the delays).

use mailstow_engine::Status;
use std::fmt;
use std::time::Duration;

/// Target of the events; the text form knows it.
pub(super) const TARGET: &str = "mailstow::delivery";

/// What is said of one recipient.
#[derive(Debug)]
pub(crate) struct DeliveryLine<'a> {
    /// Queue id of the client (XFORWARD IDENT), ours when it gave none.
    pub(crate) queue_id: &'a str,
    /// Our id of the transaction, as the reply names it.
    pub(crate) id: &'a str,
    /// Recipient, external form.
    pub(crate) to: &'a str,
    /// Original recipient; empty when unknown.
    pub(crate) orig_to: &'a str,
    /// Sender, external form; empty for the null reverse-path.
    pub(crate) from: &'a str,
    /// Mailbox; empty when it never came to one.
    pub(crate) mailbox: &'a str,
    /// Bytes of the message, lines ending with LF.
    pub(crate) size: u64,
    /// From the sender's `MAIL` to the end of the message.
    pub(crate) received: Duration,
    /// Waiting for a writer.
    pub(crate) queued: Duration,
    /// Writing and flushing.
    pub(crate) stored: Duration,
    /// What the client was answered.
    pub(crate) status: &'a Status,
    /// What the operator should know besides; empty when the status says it all.
    pub(crate) reason: &'a str,
    /// Who handed the message to us.
    pub(crate) client: &'a str,
    /// Our id of the connection.
    pub(crate) session: &'a str,
}

impl DeliveryLine<'_> {
    /// Emits the event.
    pub(crate) fn emit(&self) {
        let status = if self.status.is_success() {
            "sent"
        } else if self.status.is_temporary() {
            "deferred"
        } else {
            "bounced"
        };
        let text: &str = if self.reason.is_empty() {
            &self.status.text
        } else {
            self.reason
        };
        let delay = self.received + self.queued + self.stored;
        tracing::info!(
            target: TARGET,
            queue_id = self.queue_id,
            to = self.to,
            orig_to = self.orig_to,
            from = self.from,
            mailbox = self.mailbox,
            size = self.size,
            delay = rounded(delay),
            delays = %Delays(self.received, self.queued, self.stored),
            dsn = %self.status.enhanced,
            code = self.status.code,
            client = self.client,
            session = self.session,
            id = self.id,
            status,
            text,
        );
    }
}

/// Seconds with the digits that matter to a reader: microseconds are noise.
fn rounded(delay: Duration) -> f64 {
    (delay.as_secs_f64() * 10_000.0).round() / 10_000.0
}

/// The same as text, without the detour of a binary fraction.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = (self.0.as_nanos() + 50_000) / 100_000;
        let (seconds, mut fraction, mut digits) = (all / 10_000, all % 10_000, 4);
        if fraction == 0 {
            return write!(f, "{seconds}");
        }
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        write!(f, "{seconds}.{fraction:0digits$}")
    }
}

struct Delays(Duration, Duration, Duration);

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            Rounded(self.0),
            Rounded(self.1),
            Rounded(self.2)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_rounding_give_the_same_digits() {
        for micros in [
            0, 49, 51, 99, 100, 1500, 10_000, 999_949, 999_951, 61_200_000,
        ] {
            let delay = Duration::from_micros(micros);
            assert_eq!(Rounded(delay).to_string(), rounded(delay).to_string());
        }
    }
}
