//! Who will own the mail: what `virtual_uid_maps` and `virtual_gid_maps` say of every recipient.
//!
//! Imports the engine's tables. Only `static:` tables say so without a recipient; others are
//! asked when mail comes.

use super::Findings;
use mailstow_engine::config::RoutingSettings;
use mailstow_engine::table::TableList;

/// The user and group of all mailboxes, as far as they are the same for all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owners {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

impl Owners {
    pub(super) fn check(routing: &RoutingSettings, findings: &mut Findings) -> Self {
        let euid = rustix::process::geteuid().as_raw();
        let default_type = &routing.default_database_type;
        Self::check_as(euid, routing, default_type, findings)
    }

    pub(super) fn check_as(
        euid: u32,
        routing: &RoutingSettings,
        default_type: &str,
        findings: &mut Findings,
    ) -> Self {
        let mut owners = Self::default();
        if routing.virtual_mailbox_maps.is_empty() {
            return owners;
        }
        for (name, list, id) in [
            (
                "virtual_uid_maps",
                &routing.virtual_uid_maps,
                &mut owners.uid,
            ),
            (
                "virtual_gid_maps",
                &routing.virtual_gid_maps,
                &mut owners.gid,
            ),
        ] {
            if list.is_empty() {
                findings.unset(format_args!(
                    "{name} is not set: every recipient is deferred; set it, for example to \
                     static:5000"
                ));
                continue;
            }
            for text in static_values(list, default_type) {
                match text.parse::<u32>() {
                    Ok(0) | Ok(u32::MAX) => findings.error(format_args!(
                        "{name} = {list}: mail is never owned by {text}; use the id of a user \
                         without rights"
                    )),
                    Ok(number) => *id = id.or(Some(number)),
                    Err(_) => findings.error(format_args!(
                        "{name} = {list}: \"{text}\" is no numeric id; use a number"
                    )),
                }
            }
        }
        let minimum = routing.virtual_minimum_uid;
        if let Some(uid) = owners.uid.filter(|uid| *uid < minimum) {
            findings.error(format_args!(
                "virtual_uid_maps gives user id {uid}, below virtual_minimum_uid = {minimum}: \
                 every recipient is deferred; raise the one or lower the other"
            ));
        }
        if let Some(uid) = owners.uid.filter(|uid| euid != 0 && *uid != euid) {
            findings.error(format_args!(
                "virtual_uid_maps gives user id {uid}, but mailstow runs as user id {euid} and \
                 cannot write as another: every recipient is deferred; start it as root or as \
                 user id {uid}"
            ));
        }
        owners
    }
}

/// The values of the `static:` tables in a list.
fn static_values(list: &str, default_type: &str) -> Vec<String> {
    let Ok(list) = TableList::parse(list, default_type) else {
        // A list that cannot be read was reported when it was opened.
        return Vec::new();
    };
    let values = list
        .names()
        .iter()
        .filter_map(|name| name.full().strip_prefix("static:"));
    values
        .map(|value| value.trim_matches(['{', '}', ' ']).to_owned())
        .collect()
}
