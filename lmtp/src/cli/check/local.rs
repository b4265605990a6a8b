//! Whether mail can be delivered to accounts of this machine.
//!
//! Nothing is created.

use super::Findings;
use super::places::directory;
use mailstow_engine::config::Settings;
use nix::unistd::User;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn check(settings: &Settings, findings: &mut Findings) {
    if settings.delivers_locally() {
        check_as(rustix::process::geteuid().as_raw(), settings, findings);
    }
}

/// For a server of this user.
fn check_as(euid: u32, settings: &Settings, findings: &mut Findings) {
    let routing = &settings.routing;
    if euid != 0 {
        findings.warning(format_args!(
            "mail for accounts of this machine is delivered as its recipient, but mailstow runs \
             as user id {euid}: mail for other users is deferred; start it as root"
        ));
    }
    let privs = &routing.default_privs;
    match User::from_name(privs) {
        Ok(Some(user)) if user.uid.is_root() || user.gid.as_raw() == 0 => {
            findings.error(format_args!(
                "default_privs = {privs} has the rights of root: mail for commands and files of \
                 aliases is deferred; name a user without privileges, such as \"nobody\""
            ));
        }
        Ok(Some(_)) => {}
        Ok(None) => findings.error(format_args!(
            "default_privs = {privs}: there is no such user: mail for commands and files of \
             aliases is deferred; name one, such as \"nobody\""
        )),
        Err(error) => findings.warning(format_args!("default_privs = {privs}: {error}")),
    }
    let local = &routing.local;
    let has_mailboxes = local.mailbox_transport.is_empty() && local.mailbox_command.is_empty();
    if has_mailboxes && routing.home_mailbox.is_empty() {
        spool(&routing.mail_spool_directory, findings);
    }
}

/// The directory of mboxes, in which their owners, or the group of the directory, make files.
fn spool(path: &str, findings: &mut Findings) {
    if path.ends_with('/') {
        return;
    }
    match directory(Path::new(path)) {
        Ok(found) if found.mode() & 0o022 == 0 => findings.warning(format_args!(
            "mail_spool_directory {path} (mode {:04o}) may be written by root only, and no mail \
             is delivered as root: mail for accounts is deferred; run chgrp mail {path} and chmod \
             2775 {path}, or set home_mailbox",
            found.mode() & 0o7777
        )),
        Ok(_) => {}
        Err(error) => findings.error(format_args!(
            "mail_spool_directory {path}: {error}; create it, or set home_mailbox"
        )),
    }
}
