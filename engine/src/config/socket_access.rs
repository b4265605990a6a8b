//! Who may connect to our UNIX sockets when nothing says so.
//!
//! It is Postfix's lmtp(8), which runs as `mail_owner`, and the user of the server. Root gives the
//! socket to `mail_owner`. Other users cannot give it away: theirs is open to every process, which
//! is asked who it is, as far as there is a Postfix at all.

use super::environment::Environment;
use super::problem::Origin;
use super::values::Values;

/// Sets what follows from the settings of the sockets that are there.
pub(super) fn set_defaults(values: &mut Values, around: &Environment, main_cf: bool) {
    let is_set = |name| {
        let written = values.get("lmtp", name);
        written.is_some_and(|written| !written.text.trim().is_empty())
    };
    let names = [
        "socket_mode",
        "socket_users",
        "socket_group",
        "socket_owner",
    ];
    let defaults = match names.map(is_set) {
        [true, ..] => Vec::new(),
        [_, true, ..] => vec![("socket_mode", "0666".to_owned())],
        [_, _, true, _] => vec![("socket_mode", "0660".to_owned())],
        [_, _, _, true] => vec![("socket_mode", "0600".to_owned())],
        [false, false, false, false] => for_postfix(values, around, main_cf),
    };
    for (name, text) in defaults {
        values.set_literal("lmtp", name, &text, Origin::Default);
    }
}

fn for_postfix(
    values: &Values,
    around: &Environment,
    main_cf: bool,
) -> Vec<(&'static str, String)> {
    let owner = values.expand("socket_owner", "$mail_owner");
    let owner = owner.ok().map(|expansion| expansion.value);
    let owner = owner.filter(|owner| (around.has_user)(owner));
    match owner {
        Some(owner) if around.is_root() => {
            vec![("socket_owner", owner), ("socket_mode", "0600".to_owned())]
        }
        Some(owner) if main_cf => {
            vec![("socket_users", owner), ("socket_mode", "0666".to_owned())]
        }
        _ => vec![("socket_mode", "0600".to_owned())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Owner, group, mode and users of the sockets of a server that runs as `euid` on a machine
    /// with the users postfix and mta.
    fn sockets(euid: u32, main_cf: bool, given: &[(&str, &str)]) -> [String; 4] {
        let around = Environment {
            euid,
            egid: euid,
            hostname: "vm".to_owned(),
            xdg_state_home: None,
            home: None,
            default_config: PathBuf::new(),
            mail_user: None,
            has_user: |name| ["postfix", "mta"].contains(&name),
        };
        let mut values = Values::new();
        for (name, text) in given {
            let section = if *name == "mail_owner" {
                "routing"
            } else {
                "lmtp"
            };
            values.set_literal(section, name, text, Origin::Default);
        }
        set_defaults(&mut values, &around, main_cf);
        let names = [
            "socket_owner",
            "socket_group",
            "socket_mode",
            "socket_users",
        ];
        names.map(|name| {
            let written = values.get("lmtp", name);
            written
                .map(|written| written.text.clone())
                .unwrap_or_default()
        })
    }

    #[test]
    fn sockets_are_open_to_postfix_and_the_server_alone() {
        assert_eq!(sockets(0, true, &[]), ["postfix", "", "0600", ""]);
        assert_eq!(sockets(0, false, &[]), ["postfix", "", "0600", ""]);
        assert_eq!(sockets(1000, true, &[]), ["", "", "0666", "postfix"]);
        assert_eq!(sockets(1000, false, &[]), ["", "", "0600", ""]);
        let renamed = [("mail_owner", "mta")];
        assert_eq!(sockets(0, true, &renamed), ["mta", "", "0600", ""]);
        let unknown = [("mail_owner", "nobody-here")];
        assert_eq!(sockets(0, true, &unknown), ["", "", "0600", ""]);
        assert_eq!(sockets(1000, true, &unknown), ["", "", "0600", ""]);
    }

    #[test]
    fn what_is_configured_is_not_narrowed_or_widened() {
        for euid in [0, 1000] {
            let with = |given: &[(&str, &str)]| sockets(euid, true, given);
            assert_eq!(with(&[("socket_group", "")]), with(&[]));
            assert_eq!(with(&[("socket_mode", "0666")]), ["", "", "0666", ""]);
            assert_eq!(with(&[("socket_owner", "exim")]), ["exim", "", "0600", ""]);
            assert_eq!(with(&[("socket_group", "mail")]), ["", "mail", "0660", ""]);
            assert_eq!(with(&[("socket_users", "exim")]), ["", "", "0666", "exim"]);
            let both = [("socket_users", "exim"), ("socket_mode", "0660")];
            assert_eq!(with(&both), ["", "", "0660", "exim"]);
        }
    }
}
