//! The parameters that say who a recipient is: rewriting, aliases, transports, local users.
//!
//! A part of the table of all parameters. All of them are
//! Postfix's, with their names and defaults of postconf(5).

use super::kind::Kind::{List, Number, Path, Tables, Text, YesNo};
use super::parameter::{Parameter, routing, to_usize};

/// Limits of aliases are numbers of a Postfix integer.
const INTEGER_MAX: u64 = 0x7fff_ffff;

/// In the order in which they are printed.
pub(super) static RECIPIENTS: &[Parameter] = &[
    routing(
        "proxy_interfaces",
        "",
        List(|s, v| s.routing.proxy_interfaces = v),
        "Further network addresses whose address literals are local",
    ),
    routing(
        "parent_domain_matches_subdomains",
        "debug_peer_list,fast_flush_domains,mynetworks,permit_mx_backup_networks,\
         qmqpd_authorized_clients,relay_domains,smtpd_access_maps",
        List(|s, v| s.routing.parent_domain_matches_subdomains = v),
        "Parameters in which a domain also matches its subdomains",
    ),
    routing(
        "append_at_myorigin",
        "yes",
        YesNo(|s, v| s.routing.append_at_myorigin = v),
        "Whether an address without a domain gets @$myorigin",
    ),
    routing(
        "append_dot_mydomain",
        "${{$compatibility_level} <level {1} ? {yes} : {no}}",
        YesNo(|s, v| s.routing.append_dot_mydomain = v),
        "Whether a domain without a dot gets .$mydomain",
    ),
    routing(
        "smtputf8_enable",
        "${{$compatibility_level} <level {1} ? {no} : {yes}}",
        YesNo(|s, v| s.routing.smtputf8_enable = v),
        "Whether lines of tables that are not UTF-8 are skipped; addresses may hold any octets",
    ),
    routing(
        "swap_bangpath",
        "yes",
        YesNo(|s, v| s.routing.swap_bangpath = v),
        "Whether site!user is user@site",
    ),
    routing(
        "allow_percent_hack",
        "yes",
        YesNo(|s, v| s.routing.allow_percent_hack = v),
        "Whether user%domain is user@domain",
    ),
    routing(
        "resolve_dequoted_address",
        "yes",
        YesNo(|s, v| s.routing.resolve_dequoted_address = v),
        "Whether routes in quoted local parts are also resolved",
    ),
    routing(
        "resolve_null_domain",
        "no",
        YesNo(|s, v| s.routing.resolve_null_domain = v),
        "Whether user@ is a local user",
    ),
    routing(
        "resolve_numeric_domain",
        "no",
        YesNo(|s, v| s.routing.resolve_numeric_domain = v),
        "Whether user@192.0.2.1 is user@[192.0.2.1]",
    ),
    routing(
        "allow_min_user",
        "no",
        YesNo(|s, v| s.routing.allow_min_user = v),
        "Whether a recipient may begin with -",
    ),
    routing(
        "empty_address_recipient",
        "MAILER-DAEMON",
        Text(|s, v| s.routing.empty_address_recipient = v),
        "Who gets mail for an empty local part",
    ),
    routing(
        "virtual_alias_maps",
        "$virtual_maps",
        Tables(|s, v| s.routing.virtual_alias_maps = v),
        "From recipient to the addresses that its mail goes to",
    ),
    routing(
        "virtual_alias_recursion_limit",
        "1000",
        Number("aliases", 1..=INTEGER_MAX, |s, v| {
            s.routing.virtual_alias_recursion_limit = to_usize(v)
        }),
        "How deep aliases of aliases may be nested",
    ),
    routing(
        "virtual_alias_expansion_limit",
        "1000",
        Number("addresses", 1..=INTEGER_MAX, |s, v| {
            s.routing.virtual_alias_expansion_limit = to_usize(v)
        }),
        "How many addresses one recipient may expand to",
    ),
    routing(
        "virtual_alias_address_length_limit",
        "1000",
        Number("bytes", 1..=INTEGER_MAX, |s, v| {
            s.routing.virtual_alias_address_length_limit = to_usize(v)
        }),
        "Longest address an alias may expand to",
    ),
    routing(
        "propagate_unmatched_extensions",
        "canonical, virtual",
        List(|s, v| s.routing.propagate_unmatched_extensions = v),
        "Kinds of aliases whose members get an extension that did not match",
    ),
    routing(
        "transport_maps",
        "",
        Tables(|s, v| s.routing.transport_maps = v),
        "From recipient or domain to transport and next hop",
    ),
    routing(
        "relocated_maps",
        "",
        Tables(|s, v| s.routing.relocated_maps = v),
        "Recipients that have moved, and where to",
    ),
    routing(
        "relay_recipient_maps",
        "",
        Tables(|s, v| s.routing.relay_recipient_maps = v),
        "All recipients in relay_domains; empty: all of them exist",
    ),
    routing(
        "local_recipient_maps",
        "proxy:unix:passwd.byname $alias_maps",
        Tables(|s, v| s.routing.local_recipient_maps = v),
        "All recipients of the local class; empty: all of them exist",
    ),
    routing(
        "alias_maps",
        "hash:/etc/aliases, nis:mail.aliases",
        Tables(|s, v| s.routing.alias_maps = v),
        "Aliases of the local class; nis: tables are passed over",
    ),
    routing(
        "allow_mail_to_commands",
        "alias, forward",
        List(|s, v| s.routing.allow_mail_to_commands = v),
        "Where |command may be written: alias, forward, include",
    ),
    routing(
        "allow_mail_to_files",
        "alias, forward",
        List(|s, v| s.routing.allow_mail_to_files = v),
        "Where /file/name may be written: alias, forward, include",
    ),
    routing(
        "owner_request_special",
        "yes",
        YesNo(|s, v| s.routing.owner_request_special = v),
        "Whether owner-list and list-request are never split, and owner-list gets the errors",
    ),
    routing(
        "expand_owner_alias",
        "no",
        YesNo(|s, v| s.routing.expand_owner_alias = v),
        "Whether errors go to the members of owner-list, not to owner-list",
    ),
    routing(
        "reset_owner_alias",
        "no",
        YesNo(|s, v| s.routing.reset_owner_alias = v),
        "Whether an alias without owner- in a list that has one is no part of the list",
    ),
    routing(
        "frozen_delivered_to",
        "yes",
        YesNo(|s, v| s.routing.frozen_delivered_to = v),
        "Whether Delivered-To names the first recipient, not the last alias",
    ),
    routing(
        "duplicate_filter_limit",
        "1000",
        Number("addresses", 0..=INTEGER_MAX, |s, v| {
            s.routing.duplicate_filter_limit = to_usize(v)
        }),
        "How many members of local aliases are remembered to drop duplicates; 0: all",
    ),
    routing(
        "default_privs",
        "nobody",
        Text(|s, v| s.routing.default_privs = v),
        "User whose rights commands and files of root's aliases are used with",
    ),
    routing(
        "sendmail_path",
        "/usr/sbin/sendmail",
        Path(|s, v| s.routing.sendmail_path = v),
        "Program that submits success notices to the mail queue",
    ),
    routing(
        "setgid_group",
        "postdrop",
        Text(|s, v| s.routing.setgid_group = v),
        "Group that may write to the mail queue; a server that root runs hands notices over as it",
    ),
    routing(
        "home_mailbox",
        "",
        Text(|s, v| s.routing.home_mailbox = v),
        "Mailbox of a local user, below the home directory; ends in / for a Maildir",
    ),
    routing(
        "mail_spool_directory",
        "/var/mail",
        Text(|s, v| s.routing.mail_spool_directory = v),
        "Directory of the mailboxes of local users; ends in / for Maildirs",
    ),
];
