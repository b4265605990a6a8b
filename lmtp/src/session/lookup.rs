//! Looking recipients up without holding up other sessions.
//!
//! Imports `drain` and the engine's routing. Tables in memory are asked at once; tables that others
//! answer for are asked on a thread that may wait, so that a slow database holds up the
//! transactions that ask it and no others, and not the end of the server.

use crate::drain::Drain;
use mailstow_engine::address::Address;
use mailstow_engine::route::{MailboxTarget, Mailboxes, RouteError, Router};
use mailstow_engine::table::TableError;
use std::sync::Arc;
use std::time::Duration;

/// How long a recipient's tables may take together; well below the five minutes that Postfix
/// waits for the reply to RCPT (`lmtp_rcpt_timeout`). The recipient is put off then.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(60);

/// The mailboxes of a recipient, aliases expanded if that is asked for.
pub(super) async fn mailboxes(
    router: &Arc<Router>,
    address: Address,
    expand_aliases: bool,
    drain: &Drain,
) -> Result<Vec<(Address, MailboxTarget)>, RouteError> {
    let find = {
        let router = Arc::clone(router);
        move || {
            let lookup = router.look_up(&address);
            let found = if expand_aliases {
                lookup.mailboxes()?
            } else {
                Mailboxes::Own(lookup.mailbox()?)
            };
            Ok(match found {
                Mailboxes::Own(target) => vec![(address, target)],
                Mailboxes::Members(members) => members,
            })
        }
    };
    if !router.may_block() {
        return find();
    }
    let found = tokio::task::spawn_blocking(find);
    let found = tokio::select! {
        found = tokio::time::timeout(LOOKUP_TIMEOUT, found) => found,
        () = drain.ordered() => {
            return Err(unavailable("the server is shutting down".to_owned()));
        }
    };
    match found {
        Ok(Ok(found)) => found,
        Ok(Err(lost)) => Err(unavailable(format!("the lookup failed: {lost}"))),
        Err(_) => {
            let seconds = LOOKUP_TIMEOUT.as_secs();
            Err(unavailable(format!("no answer within {seconds} s")))
        }
    }
}

fn unavailable(cause: String) -> RouteError {
    RouteError::Table(TableError::Unavailable {
        name: "of this recipient".to_owned(),
        cause,
    })
}
