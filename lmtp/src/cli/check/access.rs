//! Who may connect to UNIX sockets: that Postfix may, and that not everybody may.

use super::findings::Findings;
use crate::peers::{Peers, names};
use mailstow_engine::config::{Configuration, LmtpSettings};
use nix::unistd::{Group, User};

/// Whom the permission bits of a socket let in.
struct Socket {
    owner: u32,
    group: u32,
    mode: u32,
}

impl Socket {
    fn lets_in(&self, user: &User) -> bool {
        // Postfix's daemons have no group but that of their user.
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        let bit = match uid {
            0 => return true,
            _ if uid == self.owner => 0o200,
            _ if gid == self.group => 0o020,
            _ => 0o002,
        };
        self.mode & bit != 0
    }

    fn is_open(&self) -> bool {
        self.mode & 0o002 != 0
    }
}

/// Whether owner, group and users exist and may be set by us, and whom they let in.
pub(super) fn check(configuration: &Configuration, findings: &mut Findings) {
    let settings = &configuration.settings.lmtp;
    let before = findings.errors.len();
    let socket = Socket {
        owner: owner(settings, findings),
        group: group(settings, findings),
        mode: settings.socket_mode,
    };
    for name in names(&settings.socket_users) {
        id("socket_users", "user", name, findings, user_id);
    }
    if findings.errors.len() > before {
        return;
    }
    let Ok(peers) = Peers::of(settings) else {
        return;
    };
    if socket.is_open() && peers.is_anyone() {
        findings.warning(format_args!(
            "socket_mode = {:04o}: every user of this machine may hand in mail; set socket_users \
             to those who may, for example \"{}\"",
            socket.mode, configuration.mail_owner
        ));
    }
    if configuration
        .entry("postfix", "config_directory")
        .is_none_or(|e| e.value.is_empty())
    {
        return;
    }
    let Ok(Some(postfix)) = User::from_name(&configuration.mail_owner) else {
        return;
    };
    let name = &postfix.name;
    if !socket.lets_in(&postfix) || !peers.admit(postfix.uid.as_raw()) {
        findings.warning(format_args!(
            "Postfix's lmtp(8) runs as user {name}, who may not connect to UNIX sockets {}; set \
             socket_users = \"{name}\"",
            shown(settings)
        ));
    } else if !(socket.is_open() && peers.is_anyone()) {
        findings.note(format_args!(
            "only root, the user of the server and Postfix's user {name} may connect to UNIX \
             sockets, unless configured otherwise {}",
            shown(settings)
        ));
    }
}

/// The settings that decide, for people.
fn shown(settings: &LmtpSettings) -> String {
    let mut all = vec![format!("socket_mode = {:04o}", settings.socket_mode)];
    for (name, value) in [
        ("socket_owner", &settings.socket_owner),
        ("socket_group", &settings.socket_group),
        ("socket_users", &settings.socket_users),
    ] {
        if !value.is_empty() {
            all.push(format!("{name} = {value}"));
        }
    }
    format!("({})", all.join(", "))
}

fn owner(settings: &LmtpSettings, findings: &mut Findings) -> u32 {
    let euid = rustix::process::geteuid().as_raw();
    let name = settings.socket_owner.as_str();
    let owner = id("socket_owner", "user", name, findings, user_id);
    if owner.is_some_and(|owner| euid != 0 && owner != euid) {
        findings.error(format_args!(
            "socket_owner = {name}: only root gives a socket to another user; start as root, or \
             leave it empty and set socket_users"
        ));
    }
    owner.unwrap_or(euid)
}

fn group(settings: &LmtpSettings, findings: &mut Findings) -> u32 {
    let euid = rustix::process::geteuid().as_raw();
    let name = settings.socket_group.as_str();
    let by_name = |name: &str| Some(Group::from_name(name).ok()??.gid.as_raw());
    let group = id("socket_group", "group", name, findings, by_name);
    if group.is_some_and(|group| euid != 0 && !is_ours(group)) {
        findings.error(format_args!(
            "socket_group = {name}: this user is no member of it; make it one or leave it empty"
        ));
    }
    group.unwrap_or_else(|| rustix::process::getegid().as_raw())
}

fn user_id(name: &str) -> Option<u32> {
    Some(User::from_name(name).ok()??.uid.as_raw())
}

/// The id of a user or group given by name or number; none for an empty text.
fn id(
    parameter: &str,
    what: &str,
    text: &str,
    findings: &mut Findings,
    by_name: impl Fn(&str) -> Option<u32>,
) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let id = text.parse().ok().or_else(|| by_name(text));
    if id.is_none() {
        findings.error(format_args!(
            "{parameter} = {text}: there is no such {what}; create it or give its number"
        ));
    }
    id
}

fn is_ours(group: u32) -> bool {
    let more = rustix::process::getgroups().unwrap_or_default();
    rustix::process::getegid().as_raw() == group || more.iter().any(|id| id.as_raw() == group)
}
