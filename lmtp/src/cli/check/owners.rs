//! Who will own the mail, and what keeps the server from writing it.

use super::findings::Findings;
use mailstow_engine::config::RoutingSettings;
use mailstow_engine::route::{OwnerProblem, Owners};

/// Of a server of this user.
pub(super) fn check(routing: &RoutingSettings, findings: &mut Findings) -> Owners {
    check_as(rustix::process::geteuid().as_raw(), routing, findings)
}

pub(super) fn check_as(euid: u32, routing: &RoutingSettings, findings: &mut Findings) -> Owners {
    let (owners, problems) = Owners::of(routing, euid);
    for OwnerProblem { is_unset, text } in problems {
        match is_unset {
            true => findings.unset(text),
            false => findings.error(text),
        }
    }
    owners
}
