//! Looking recipients up without holding up other sessions, nor the end of the server.
//!
//! Imports `drain`, `waiting` and the engine's routing.

use crate::drain::Drain;
use crate::waiting::answered;
use mailstow_engine::address::Address;
use mailstow_engine::route::{Found, RouteError, Router};
use mailstow_engine::table::TableError;
use std::sync::Arc;

/// Finds the mailboxes of the recipient `given`, aliases expanded if that is asked for.
pub(super) async fn find(
    router: &Arc<Router>,
    given: Address,
    expand_aliases: bool,
    drain: &Drain,
) -> Found {
    let found = tokio::select! {
        // Most lookups are done before anything can be waited for.
        biased;
        found = answered(|| router.find(given.clone(), expand_aliases)) => Some(found),
        () = drain.ordered() => None,
    };
    found.unwrap_or_else(|| Found {
        address: router.complete(given),
        mailboxes: Err(RouteError::Table(TableError::Unavailable {
            name: "of this recipient".to_owned(),
            cause: "the server is shutting down".to_owned(),
        })),
    })
}
