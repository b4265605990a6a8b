//! What the configuration takes from the process and the machine around it.
//!
//! Gathered once, so that loading is a function of its input.

use std::ffi::OsStr;
use std::path::PathBuf;

/// The process and its machine.
#[derive(Clone, Debug)]
pub(super) struct Environment {
    pub(super) euid: u32,
    pub(super) egid: u32,
    /// As gethostname(2) says.
    pub(super) hostname: String,
    /// `$XDG_STATE_HOME`, when absolute.
    pub(super) xdg_state_home: Option<PathBuf>,
    /// `$HOME`, when absolute.
    pub(super) home: Option<PathBuf>,
    /// The file that is read when no source is named.
    pub(super) default_config: PathBuf,
    /// Who owns mail when root is not told: name, user id, group id.
    pub(super) mail_user: Option<(String, u32, u32)>,
    /// Whether the machine has a user of this name or id.
    pub(super) has_user: fn(&str) -> bool,
}

impl Environment {
    pub(super) fn of_this_process() -> Self {
        let directory = |name: &str| {
            let value = std::env::var_os(name).filter(|value| value != OsStr::new(""))?;
            Some(PathBuf::from(value)).filter(|path| path.is_absolute())
        };
        Self {
            euid: rustix::process::geteuid().as_raw(),
            egid: rustix::process::getegid().as_raw(),
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            xdg_state_home: directory("XDG_STATE_HOME"),
            home: directory("HOME"),
            default_config: PathBuf::from("/etc/mailstow/mailstow.toml"),
            mail_user: user("vmail").or_else(|| user("nobody")),
            has_user: |name| user(name).is_some(),
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.euid == 0
    }

    /// Where state is kept when nothing says where.
    pub(super) fn state_directory(&self) -> Option<PathBuf> {
        if self.is_root() {
            return Some(PathBuf::from("/var/lib/mailstow"));
        }
        let home = || Some(self.home.as_ref()?.join(".local/state"));
        Some(self.xdg_state_home.clone().or_else(home)?.join("mailstow"))
    }
}

fn user(name: &str) -> Option<(String, u32, u32)> {
    let user = nix::unistd::User::from_name(name).ok()??;
    Some((user.name, user.uid.as_raw(), user.gid.as_raw()))
}
