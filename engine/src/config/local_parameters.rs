//! The parameters of local(8): what becomes of mail for accounts of this machine.
//!
//! All of them are Postfix's, with their names and defaults of
//! postconf(5). `forward_path`, `luser_relay` and `mailbox_command` keep their `$name`, which local
//! delivery expands for each recipient, or a shell does.

use super::kind::Kind::{Bytes, List, Locks, Raw, Tables, Text, Time, YesNo};
use super::local_settings::SAFE;
use super::parameter::{Parameter, SIZE_MAX, TIME_MAX, routing};
use super::settings::Settings;

/// In the order in which they are printed.
pub(super) static LOCAL: &[Parameter] = &[
    routing(
        "forward_path",
        "$home/.forward${recipient_delimiter}${extension}, $home/.forward",
        Raw(|s, v| s.routing.local.forward_path = v),
        "Files in which local users forward their mail; the first that exists is used; $home, \
         $user, $extension and others are expanded for each recipient",
    ),
    routing(
        "forward_expansion_filter",
        SAFE,
        Text(|s, v| s.routing.local.forward_expansion_filter = v),
        "Characters that expansions in forward_path may contain; others become _",
    ),
    routing(
        "require_home_directory",
        "no",
        YesNo(|s, v| s.routing.local.require_home_directory = v),
        "Whether mail for a local user without a home directory is deferred",
    ),
    routing(
        "mailbox_transport_maps",
        "",
        Tables(|s, v| s.routing.local.mailbox_transport_maps = v),
        "From local user to the transport that takes the mail in place of a mailbox",
    ),
    routing(
        "mailbox_transport",
        "",
        Text(|s, v| s.routing.local.mailbox_transport = v),
        "Transport that takes mail of local users in place of their mailboxes",
    ),
    routing(
        "mailbox_command_maps",
        "",
        Tables(|s, v| s.routing.local.mailbox_command_maps = v),
        "From local user to the command that takes the mail in place of a mailbox",
    ),
    routing(
        "mailbox_command",
        "",
        Raw(|s, v| s.routing.local.mailbox_command = v),
        "Command that takes mail of local users in place of their mailboxes, run as the user",
    ),
    routing(
        "fallback_transport_maps",
        "",
        Tables(|s, v| s.routing.local.fallback_transport_maps = v),
        "From local name without an account to the transport that takes its mail",
    ),
    routing(
        "fallback_transport",
        "",
        Text(|s, v| s.routing.local.fallback_transport = v),
        "Transport that takes mail for local names without an account",
    ),
    routing(
        "luser_relay",
        "",
        Raw(|s, v| s.routing.local.luser_relay = v),
        "Address that gets mail for local names without an account; $user and others are expanded",
    ),
    routing(
        "mailbox_delivery_lock",
        "fcntl, dotlock",
        Locks(|s, v| s.routing.mailbox_delivery_lock = v),
        "How the mbox of a local user is locked, in order",
    ),
    routing(
        "mailbox_size_limit",
        "51200000",
        Bytes(0..=SIZE_MAX, |s, v| s.routing.mailbox_size_limit = v),
        "Largest mailbox file of a local user; 0: no limit",
    ),
    routing(
        "command_time_limit",
        "1000s",
        Time(1..=TIME_MAX, |s, v| s.routing.local.command_time_limit = v),
        "How long a command of local delivery may run; then it is killed, and its mail returned. \
         delivery_deadline wins when it is not longer",
    ),
    routing(
        "command_expansion_filter",
        SAFE,
        Text(|s, v| s.routing.local.command_expansion_filter = v),
        "Characters of the envelope that the environment of commands may contain; others become _",
    ),
    routing(
        "local_command_shell",
        "",
        List(|s, v| s.routing.local.local_command_shell = v),
        "Program that runs the commands of local delivery; empty: /bin/sh, and only for those \
         that need a shell",
    ),
];

impl Settings {
    /// Returns true where mail may be delivered as local(8) does: transports are in use, `local` is
    /// no other program, and a class of addresses or a table may name it.
    pub fn delivers_locally(&self) -> bool {
        let (routing, transport) = (&self.routing, &self.transport);
        let is_local = |name: &str| name == "local" || name.starts_with("local:");
        let classes = [
            &routing.local_transport,
            &routing.virtual_transport,
            &routing.relay_transport,
            &routing.default_transport,
        ];
        transport.enabled
            && self.has_local_service()
            && (!routing.transport_maps.is_empty() || classes.into_iter().any(|one| is_local(one)))
    }

    /// Returns true unless nothing is stored in virtual mailboxes: transports are in use, and
    /// either no table has such mailboxes, or `virtual_mailbox_maps` only say who exists: the class
    /// has another transport, and no owners of mailboxes are named.
    pub fn needs_base(&self) -> bool {
        let routing = &self.routing;
        let given = routing.virtual_transport.as_str();
        let (transport, nexthop) = given.split_once(':').unwrap_or((given, ""));
        let stores = || transport == "virtual" || self.is_own_socket(transport, nexthop);
        let has_owners =
            !routing.virtual_uid_maps.is_empty() || !routing.virtual_gid_maps.is_empty();
        !self.transport.enabled
            || (!routing.virtual_mailbox_maps.is_empty() && (has_owners || stores()))
    }

    /// Returns true where recipients need no virtual mailboxes: mail may go to accounts, or where
    /// transports lead.
    pub fn delivers_elsewhere(&self) -> bool {
        let routing = &self.routing;
        let is_routed = !routing.transport_maps.is_empty() || !routing.relay_domains.is_empty();
        self.delivers_locally() || (self.transport.enabled && is_routed)
    }

    /// Returns true unless master.cf gives the name `local` to another program.
    pub fn has_local_service(&self) -> bool {
        let mut services = self.transport.services.iter();
        services
            .find(|service| service.name == "local")
            .is_none_or(|service| service.command == "local")
    }
}
