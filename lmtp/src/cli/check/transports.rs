//! Whether mail can be delivered by the transports that the configuration names.

use super::findings::Findings;
use crate::relay;
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
    if let Err(cause) = relay::check_tls(settings) {
        findings.error(cause);
    }
    for ((name, nexthop), parameter) in router.named_transports() {
        let problem = problem(&name, settings)
            .or_else(|| relay::nexthop_problem(&name, &nexthop, settings))
            .or_else(|| base_problem(&name, &nexthop, settings));
        let Some(cause) = problem else {
            continue;
        };
        let text = format!("{parameter} names {name}:{nexthop}, whose mail is deferred: {cause}");
        match parameter {
            // Parameters have defaults that may be of no account.
            "transport_maps" => findings.error(text),
            _ => findings.note(text),
        }
    }
}

/// Returns what is missing where mail is stored here.
fn base_problem(name: &str, nexthop: &str, settings: &Settings) -> Option<String> {
    let routing = &settings.routing;
    let is_stored = name == "virtual" || settings.is_own_socket(name, nexthop);
    let has_base = !routing.virtual_mailbox_base.as_os_str().is_empty();
    (is_stored && !has_base && !routing.virtual_mailbox_maps.is_empty()).then(|| {
        "virtual_mailbox_base is not set; set it, virtual_uid_maps and virtual_gid_maps".to_owned()
    })
}
