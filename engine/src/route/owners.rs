//! Who will own the mail: what `virtual_uid_maps` and `virtual_gid_maps` say of every recipient.
//!
//! Only `static:` tables say so without a recipient; others are asked when mail comes.

use crate::config::RoutingSettings;
use crate::table::TableList;

/// The user and group of all mailboxes, as far as they are the same for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

/// Why every recipient is deferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerProblem {
    /// Something is not set at all.
    pub is_unset: bool,
    /// What is wrong and how to fix it.
    pub text: String,
}

impl Owners {
    /// Returns the owners that these settings name for a process of the user `euid`, and what keeps
    /// it from writing mail for other users.
    ///
    /// ```
    /// use mailstow_engine::config::RoutingSettings;
    /// use mailstow_engine::route::Owners;
    ///
    /// let routing = RoutingSettings {
    ///     virtual_mailbox_maps: "hash:/etc/postfix/vmailbox".into(),
    ///     virtual_uid_maps: "static:5000".into(),
    ///     ..RoutingSettings::default()
    /// };
    /// let (owners, problems) = Owners::of(&routing, 0);
    /// assert_eq!(owners.uid, Some(5000));
    /// assert!(problems[0].text.starts_with("virtual_gid_maps is not set"));
    /// ```
    pub fn of(routing: &RoutingSettings, euid: u32) -> (Self, Vec<OwnerProblem>) {
        let mut owners = Self::default();
        let mut problems = Vec::new();
        if routing.virtual_mailbox_maps.is_empty() {
            return (owners, problems);
        }
        let mut found = |is_unset, text| problems.push(OwnerProblem { is_unset, text });
        let uid_maps = ("virtual_uid_maps", &routing.virtual_uid_maps);
        let gid_maps = ("virtual_gid_maps", &routing.virtual_gid_maps);
        for ((name, list), id) in [(uid_maps, &mut owners.uid), (gid_maps, &mut owners.gid)] {
            if list.is_empty() {
                let text = format!(
                    "{name} is not set: every recipient is deferred; set it, for example to \
                     static:5000"
                );
                found(true, text);
                continue;
            }
            for text in static_values(list, &routing.default_database_type) {
                match text.parse::<u32>() {
                    Ok(0) | Ok(u32::MAX) => {
                        let text = format!(
                            "{name} = {list}: mail is never owned by {text}; use the id of a user \
                             without rights"
                        );
                        found(false, text);
                    }
                    Ok(number) => *id = id.or(Some(number)),
                    Err(_) => {
                        let text =
                            format!("{name} = {list}: \"{text}\" is no numeric id; use a number");
                        found(false, text);
                    }
                }
            }
        }
        let minimum = routing.virtual_minimum_uid;
        if let Some(uid) = owners.uid.filter(|uid| *uid < minimum) {
            let text = format!(
                "virtual_uid_maps gives user id {uid}, below virtual_minimum_uid = {minimum}: \
                 every recipient is deferred; raise the one or lower the other"
            );
            found(false, text);
        }
        if let Some(uid) = owners.uid.filter(|uid| euid != 0 && *uid != euid) {
            let text = format!(
                "virtual_uid_maps gives user id {uid}, but mailstow runs as user id {euid} and \
                 cannot write as another: every recipient is deferred; start it as root or as \
                 user id {uid}"
            );
            found(false, text);
        }
        (owners, problems)
    }
}

/// The values of the `static:` tables in a list.
fn static_values(list: &str, default_type: &str) -> Vec<String> {
    let Ok(list) = TableList::parse(list, default_type) else {
        // A list that cannot be read is reported when it is opened.
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
