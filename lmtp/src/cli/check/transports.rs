//! Whether mail can be delivered by the transports that the configuration names.
//!
//! Imports the engine.

use super::Findings;
use mailstow_engine::config::Settings;
use mailstow_engine::route::{Router, table_context};
use mailstow_engine::table::TableCache;
use mailstow_engine::transport::problem;

pub(super) fn check(settings: &Settings, findings: &mut Findings) {
    if !settings.transport.enabled {
        return;
    }
    let cache = TableCache::new(table_context(&settings.routing));
    // A table that cannot be opened is reported by itself.
    let Ok(router) = Router::open(&settings.routing, &cache) else {
        return;
    };
    for (name, parameter) in router.named_transports() {
        let Some(cause) = problem(&name, settings) else {
            continue;
        };
        let text = format!("{parameter} names transport {name}, whose mail is put off: {cause}");
        match parameter {
            // Parameters have defaults that may be of no account.
            "transport_maps" => findings.error(text),
            _ => findings.note(text),
        }
    }
}
