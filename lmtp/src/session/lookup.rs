//! Looking recipients up without holding up other sessions, nor the end of the server.

use crate::drain::Drain;
use crate::waiting::answered;
use mailstow_engine::Engine;
use mailstow_engine::address::Address;
use mailstow_engine::config::Settings;
use mailstow_engine::route::{Expansion, FoundTargets, RouteError, Router};
use mailstow_engine::table::TableError;
use std::sync::Arc;

/// Finds where mail for the recipient `given` goes, as `settings` say.
pub(super) async fn find(
    engine: &Engine,
    (router, settings): (&Arc<Router>, &Settings),
    given: Address,
    drain: &Drain,
) -> FoundTargets {
    let expand_aliases = settings.lmtp.expand_aliases;
    let look_up = || match settings.transport.enabled {
        true => engine.find_targets(router, given.clone(), expand_aliases),
        false => router.find(given.clone(), expand_aliases).into(),
    };
    let found = tokio::select! {
        // Most lookups are done before anything can be waited for.
        biased;
        found = answered(look_up) => Some(found),
        () = drain.cancelled() => None,
    };
    found.unwrap_or_else(|| FoundTargets {
        address: router.complete(given),
        expansion: Expansion::None,
        targets: Err(RouteError::Table(TableError::Unavailable {
            name: "of this recipient".to_owned(),
            cause: "the server is shutting down".to_owned(),
        })),
    })
}
