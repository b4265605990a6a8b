//! A checked service of type pipe: its command, user and environment.
//!
//! Source: Postfix pipe(8). No command runs as root, as Postfix's user, or with their groups.

use super::arguments::Template;
use super::attributes::Attributes;
use crate::address::ExtensionRule;
use crate::config::{Settings, TransportService};
use nix::unistd::{Group, User, getegid, geteuid};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The search path for commands without a path: `_PATH_DEFPATH`, as in pipe(8).
const PATH: &str = "/usr/bin:/bin";

/// A service of type pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) attributes: Attributes,
    pub(super) template: Template,
    /// User and group of the command, when they are not those of this process.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) directory: PathBuf,
    pub(super) extensions: ExtensionRule,
    pub(super) time_limit: Duration,
    /// 0: any number.
    pub(super) recipient_limit: usize,
    /// 0: any number.
    pub(super) concurrency_limit: usize,
    pub(super) process_limit: usize,
}

impl Service {
    /// Checks a service.
    ///
    /// # Errors
    /// Why no mail can be delivered by it.
    pub(super) fn new(service: &TransportService, settings: &Settings) -> Result<Self, String> {
        let attributes = Attributes::parse(&service.arguments)?;
        let template = Template::parse(&attributes.argv)?;
        if service.is_chrooted {
            return Err(
                "the service is chrooted, which is not done here; write n into the fifth \
                        column of master.cf"
                    .to_owned(),
            );
        }
        let (uid, gid) = owner(&attributes, settings)?;
        let own = (geteuid().as_raw(), getegid().as_raw());
        let owner = match own {
            own if own == (uid, gid) => None,
            (0, _) => Some((uid, gid)),
            _ => {
                return Err(format!(
                    "user={}: only root can run commands as another user",
                    attributes.user
                ));
            }
        };
        let own = attributes.directory.clone();
        Ok(Self {
            name: service.name.clone(),
            directory: own.unwrap_or_else(|| directory(settings)),
            environment: environment(settings),
            extensions: ExtensionRule {
                delimiters: service.recipient_delimiter.clone(),
                owner_request_special: settings.routing.owner_request_special,
            },
            time_limit: service.time_limit,
            recipient_limit: service.recipient_limit,
            concurrency_limit: service.concurrency_limit,
            process_limit: service.process_limit.max(1),
            owner,
            attributes,
            template,
        })
    }

    /// Returns what the command lacks to be started.
    pub(super) fn missing(&self) -> Option<String> {
        let directory = self.directory.display();
        if !self.directory.is_dir() {
            return Some(format!("directory={directory}: there is no such directory"));
        }
        let command = self.command();
        let may_run = |path: PathBuf| {
            let found = std::fs::metadata(path).ok();
            found.is_some_and(|found| found.is_file() && found.mode() & 0o111 != 0)
        };
        let is_there = match command.contains('/') {
            true => may_run(self.directory.join(command)),
            false => PATH
                .split(':')
                .any(|place| may_run(Path::new(place).join(command))),
        };
        (!is_there && !command.contains('$'))
            .then(|| format!("argv={command}: there is no such program that may be executed"))
    }

    /// Returns the command, for messages.
    pub(super) fn command(&self) -> &str {
        self.attributes.argv.first().map_or("", String::as_str)
    }
}

/// The user and group that the command runs as.
fn owner(attributes: &Attributes, settings: &Settings) -> Result<(u32, u32), String> {
    let Attributes { user, group, .. } = attributes;
    let found = User::from_name(user).ok().flatten();
    let found = found.ok_or_else(|| format!("user={user}: there is no such user"))?;
    let gid = match group {
        None => found.gid,
        Some(group) => {
            let known = Group::from_name(group).ok().flatten();
            let none = || format!("user={user}:{group}: there is no such group");
            known.ok_or_else(none)?.gid
        }
    };
    let mail_owner = User::from_name(&settings.transport.mail_owner)
        .ok()
        .flatten();
    let setgid_group = Group::from_name(&settings.routing.setgid_group)
        .ok()
        .flatten();
    let is_postfix_group = mail_owner.as_ref().is_some_and(|owner| owner.gid == gid)
        || setgid_group.is_some_and(|group| group.gid == gid);
    let refused = if found.uid.is_root() {
        "no command runs as root"
    } else if gid.as_raw() == 0 {
        "no command runs with the group of root"
    } else if mail_owner.is_some_and(|owner| owner.uid == found.uid) {
        "it is the user of Postfix itself"
    } else if is_postfix_group {
        "it is a group of Postfix itself"
    } else {
        return Ok((found.uid.as_raw(), gid.as_raw()));
    };
    Err(format!("user={user}: {refused}; name a separate user"))
}

/// Returns the default working directory: `queue_directory`, if it exists.
pub(super) fn directory(settings: &Settings) -> PathBuf {
    let queue = &settings.transport.queue_directory;
    match queue.is_dir() {
        true => queue.clone(),
        false => PathBuf::from("/"),
    }
}

/// Returns the environment of commands: the variables that `export_environment` names among those
/// that `import_environment` lets in, and PATH.
pub(super) fn environment(settings: &Settings) -> Vec<(OsString, OsString)> {
    let [imported, exported] = &settings.transport.environment;
    let imported_value = |wanted: &str| {
        let of = |entry: &String| {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            match entry.contains('=') {
                _ if name != wanted => None,
                true => Some(OsString::from(value)),
                false => std::env::var_os(name),
            }
        };
        if wanted == "MAIL_CONFIG" && !settings.postfix_directory.as_os_str().is_empty() {
            return Some(settings.postfix_directory.clone().into_os_string());
        }
        imported.iter().find_map(of)
    };
    let mut environment: Vec<(OsString, OsString)> = Vec::new();
    for entry in exported {
        let (name, value) = match entry.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (entry.as_str(), imported_value(entry)),
        };
        if let (Some(value), false) = (value, name == "PATH" || name.is_empty()) {
            environment.push((name.into(), value));
        }
    }
    environment.push(("PATH".into(), PATH.into()));
    environment
}
