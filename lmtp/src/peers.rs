//! Whose processes may connect to our UNIX sockets.
//!
//! The permission bits of the socket decide in the kernel; where they let everybody in, each
//! connection is asked for the user of its process. Source: unix(7) `SO_PEERCRED`.

use crate::listen_error::ListenError;
use crate::socket_file::Permissions;
use mailstow_engine::config::LmtpSettings;
use nix::unistd::{Group, User};
use std::sync::Arc;

/// The users of the processes that a socket serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(Option<Arc<[u32]>>);

impl Peers {
    /// Everybody whom the socket file lets in.
    pub fn anyone() -> Self {
        Self(None)
    }

    /// The users in `socket_users`, root and the user of this process; everybody when it is empty.
    ///
    /// # Errors
    /// A user is not known.
    pub fn of(settings: &LmtpSettings) -> Result<Self, ListenError> {
        let mut users = names(&settings.socket_users)
            .map(|name| user_id("users", name))
            .collect::<Result<Vec<u32>, ListenError>>()?;
        if users.is_empty() {
            return Ok(Self(None));
        }
        users.extend([0, rustix::process::geteuid().as_raw()]);
        Ok(Self(Some(users.into())))
    }

    /// True when a process of this user is served.
    pub fn admit(&self, uid: u32) -> bool {
        self.0.as_ref().is_none_or(|users| users.contains(&uid))
    }

    /// Returns true if every user is served.
    pub fn is_anyone(&self) -> bool {
        self.0.is_none()
    }
}

/// Owner, group and mode of socket files.
///
/// # Errors
/// The owner or the group is not known.
pub(crate) fn permissions(settings: &LmtpSettings) -> Result<Permissions, ListenError> {
    let owner = Some(settings.socket_owner.as_str()).filter(|name| !name.is_empty());
    let group = Some(settings.socket_group.as_str()).filter(|name| !name.is_empty());
    Ok(Permissions {
        mode: settings.socket_mode,
        owner: owner.map(|name| user_id("owner", name)).transpose()?,
        group: group.map(group_id).transpose()?,
    })
}

/// The names in a list.
pub(crate) fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', ' ', '\t', '\n'])
        .filter(|name| !name.is_empty())
}

fn user_id(what: &'static str, name: &str) -> Result<u32, ListenError> {
    let by_name = || Some(User::from_name(name).ok()??.uid.as_raw());
    let id = name.parse().ok().or_else(by_name);
    id.ok_or_else(|| unknown(what, "user", name))
}

fn group_id(name: &str) -> Result<u32, ListenError> {
    let by_name = || Some(Group::from_name(name).ok()??.gid.as_raw());
    let id = name.parse().ok().or_else(by_name);
    id.ok_or_else(|| unknown("group", "group", name))
}

fn unknown(what: &'static str, kind: &'static str, name: &str) -> ListenError {
    ListenError::Unknown {
        what,
        kind,
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_users(users: &str) -> Result<Peers, ListenError> {
        Peers::of(&LmtpSettings {
            socket_users: users.to_owned(),
            ..LmtpSettings::default()
        })
    }

    #[test]
    fn users_are_named_or_numbered_and_root_and_ourselves_are_always_served() {
        let peers = with_users("daemon, 4711").unwrap();
        let ourselves = rustix::process::geteuid().as_raw();
        assert!([1, 4711, 0, ourselves].iter().all(|uid| peers.admit(*uid)));
        assert!(!peers.admit(4712) && !peers.admit(u32::MAX));
        assert!(with_users("").unwrap().admit(4712));
        let error = with_users("no-such-user").unwrap_err().to_string();
        assert!(error.starts_with("socket_users: \"no-such-user\" is not a known user"));
    }
}
