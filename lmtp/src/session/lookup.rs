//! Looking recipients up without holding up other sessions.
//!
//! Imports `drain` and the engine's routing. Tables in memory are asked at once; tables that others
//! answer for are asked on a thread that may wait, so that a slow database holds up the
//! transactions that ask it and no others, and not the end of the server.

use crate::drain::Drain;
use mailstow_engine::address::Address;
use mailstow_engine::route::{Found, RouteError, Router};
use mailstow_engine::table::TableError;
use std::sync::Arc;
use std::time::Duration;

/// How long a recipient's tables may take together; well below the five minutes that Postfix
/// waits for the reply to RCPT (`lmtp_rcpt_timeout`). The recipient is put off then.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Finds the mailboxes of the recipient `given`, aliases expanded if that is asked for.
pub(super) async fn find(
    router: &Arc<Router>,
    given: Address,
    expand_aliases: bool,
    drain: &Drain,
) -> Found {
    if !router.may_block() {
        return router.find(given, expand_aliases);
    }
    let address = router.complete(given.clone());
    let found = tokio::task::spawn_blocking({
        let router = Arc::clone(router);
        move || router.find(given, expand_aliases)
    });
    let found = tokio::select! {
        found = tokio::time::timeout(LOOKUP_TIMEOUT, found) => Some(found),
        () = drain.ordered() => None,
    };
    let cause = match found {
        Some(Ok(Ok(found))) => return found,
        Some(Ok(Err(lost))) => format!("the lookup failed: {lost}"),
        Some(Err(_)) => format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs()),
        None => "the server is shutting down".to_owned(),
    };
    Found {
        address,
        mailboxes: Err(unavailable(cause)),
    }
}

fn unavailable(cause: String) -> RouteError {
    RouteError::Table(TableError::Unavailable {
        name: "of this recipient".to_owned(),
        cause,
    })
}
