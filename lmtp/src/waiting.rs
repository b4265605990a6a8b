//! Lookups of recipients without a thread that waits.
//!
//! Tables in memory are asked at once. What others have to be asked for is awaited, so that a slow
//! database, server or pattern holds up those who ask it and no others. Only a lookup with many
//! questions has its thread wait, each time for a moment; see [`Attempt`].

use mailstow_engine::table::Attempt;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// How long all tables may take together for one recipient; well below the five minutes that
/// Postfix waits for the reply to RCPT (`lmtp_rcpt_timeout`), and below its 100 seconds for a
/// socketmap. What is not known by then is an error of the table that has not answered.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs `look_up` until every table that it asks has answered, or is too late.
pub(crate) async fn answered<T>(mut look_up: impl FnMut() -> T) -> T {
    let mut attempt = Attempt::default();
    let mut end = None;
    loop {
        let question = match attempt.run(&mut look_up) {
            Ok(found) => return found,
            Err(question) => question,
        };
        let now = Instant::now();
        let last = *end.get_or_insert(now + LOOKUP_TIMEOUT);
        let end = last.min(now + question.timeout());
        let (tell, told) = oneshot::channel();
        let late = question.ask(move |answered| {
            // The session may be gone.
            let _ = tell.send(answered);
        });
        let answered = match timeout_at(end, told).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) | Err(_) => late.answer(),
        };
        attempt.learn(answered);
        if Instant::now() >= last {
            attempt.expire();
        }
    }
}
