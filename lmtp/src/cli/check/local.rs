//! Whether mail can be delivered to accounts of this machine.
//!
//! Nothing is created.

use super::Findings;
use super::places::directory;
use super::table_lists::open;
use mailstow_engine::address::parse_mailbox;
use mailstow_engine::config::{Configuration, Origin, Settings};
use mailstow_engine::route::{Router, table_context};
use mailstow_engine::table::{TableCache, words};
use nix::unistd::User;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn check(configuration: &Configuration, findings: &mut Findings) {
    let settings = &configuration.settings;
    if let Some(note) = default_transport(configuration) {
        findings.note(note);
    }
    if settings.delivers_locally() {
        let euid = rustix::process::geteuid().as_raw();
        check_as(euid, settings, findings);
        // Others cannot look at the files of users.
        if euid == 0 {
            postmaster(settings, findings);
        }
    }
}

/// The address that every site must have (RFC 5321 section 4.5.1). What Debian's aliases make of it
/// is root, who gets no mail here.
fn postmaster(settings: &Settings, findings: &mut Findings) {
    let cache = TableCache::new(table_context(&settings.routing));
    let (Ok(router), Ok(address)) = (
        Router::open(&settings.routing, &cache),
        parse_mailbox("postmaster"),
    ) else {
        // A table that cannot be opened is reported by itself.
        return;
    };
    let is_own = |transport: &str, nexthop: &str| settings.is_own_socket(transport, nexthop);
    // Without expand_aliases, Postfix has applied virtual_alias_maps.
    let found = router.find_targets(address, true, &is_own);
    if let Err(error) = found.targets
        && error.status().is_temporary()
        && !findings.has_errors()
    {
        findings.warning(format_args!("mail for postmaster is deferred: {error}"));
    }
}

/// Returns what to know where mail goes by the default of `local_transport`: few who set up virtual
/// mailboxes expect that.
pub(in crate::cli) fn default_transport(configuration: &Configuration) -> Option<String> {
    let settings = &configuration.settings;
    let routing = &settings.routing;
    let is_default = configuration
        .entry("routing", "local_transport")
        .is_some_and(|entry| entry.origin == Origin::Default);
    let is_in_use = settings.transport.enabled && !routing.mydestination.is_empty();
    if !is_default || !is_in_use {
        return None;
    }
    let whose = format!(
        "local_transport has its default, {}: mail for mydestination = {}",
        routing.local_transport, routing.mydestination
    );
    let mut services = settings.transport.services.iter();
    Some(match services.find(|service| service.name == "local") {
        Some(service) if service.command != "local" => format!(
            "{whose} goes to the service local of master.cf, line {}, which is {}(8)",
            service.line, service.command
        ),
        _ => format!(
            "{whose} goes to the accounts of this machine; empty mydestination if they get none, \
             or set local_transport"
        ),
    })
}

/// Returns why aliases of accounts cannot be looked up, so that all their mail is deferred. Tables
/// of type `nis:` are passed over, as the server does.
pub(super) fn alias_error(configuration: &Configuration, cache: &TableCache) -> Option<String> {
    let routing = &configuration.settings.routing;
    let tables = words(&routing.alias_maps).filter(|table| !table.starts_with("nis:"));
    let tables = tables.collect::<Vec<_>>().join(" ");
    let error = open(cache, "alias_maps", &tables, &routing.default_database_type).err()?;
    Some(format!(
        "alias_maps: {error}; mail for accounts of this machine is deferred"
    ))
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

/// The directory of mailboxes, in which their owners, or the group of the directory, make files.
fn spool(path: &str, findings: &mut Findings) {
    // Maildirs may have been created in advance.
    let holds_maildirs = path.ends_with('/');
    match directory(Path::new(path)) {
        Ok(found) if found.mode() & 0o022 == 0 && !holds_maildirs => findings.warning(format_args!(
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
