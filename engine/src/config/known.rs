//! What we know of Postfix's other parameters: their names and defaults, and which of them
//! change where mail goes without mailstow doing what they say.

use std::collections::BTreeMap;
use std::path::Path;

use super::postfix::parse_main_cf;
use crate::sync::LazyLock;

/// All parameters of Postfix with their unexpanded defaults. They are parsed once: a program that
/// sets parameters one by one loads its configuration as often.
pub(super) fn postfix_defaults() -> &'static BTreeMap<String, String> {
    static DEFAULTS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
        let text = include_bytes!("postfix_defaults.cf");
        let parsed = parse_main_cf(Path::new("postfix_defaults.cf"), text);
        let assignments = parsed.assignments.into_iter();
        assignments.map(|known| (known.name, known.value)).collect()
    });
    &DEFAULTS
}

/// Parameters that influence routing or final delivery in Postfix and that mailstow does not
/// act on, with what happens instead.
pub(super) const NOT_ACTED_ON: &[(&str, &str)] = &[
    ("canonical_maps", REWRITTEN),
    ("recipient_canonical_maps", REWRITTEN),
    ("sender_canonical_maps", REWRITTEN),
    (
        "smtp_generic_maps",
        "addresses are rewritten by Postfix's smtp(8) only",
    ),
    ("masquerade_domains", REWRITTEN),
    ("sender_dependent_default_transport_maps", TRANSPORT),
    ("sender_dependent_relayhost_maps", TRANSPORT),
    (
        "prepend_delivered_header",
        "Delivered-To is written wherever mail is delivered or sent on",
    ),
    (
        "command_execution_directory",
        "commands of local delivery run in queue_directory",
    ),
    (
        "local_delivery_status_filter",
        "status codes of deliveries are not rewritten; set lmtp_delivery_status_filter in Postfix",
    ),
    (
        "hopcount_limit",
        "mail that is sent on 50 times in a row is a loop",
    ),
    (
        "double_bounce_sender",
        "it is double-bounce that is never split at recipient_delimiter",
    ),
    ("unknown_local_recipient_reject_code", UNKNOWN),
    ("unknown_relay_recipient_reject_code", UNKNOWN),
    ("unknown_virtual_alias_reject_code", UNKNOWN),
    ("unknown_virtual_mailbox_reject_code", UNKNOWN),
    (
        "enable_original_recipient",
        "X-Original-To is written whenever the original recipient is known",
    ),
    ("always_bcc", COPIES),
    ("recipient_bcc_maps", COPIES),
    ("sender_bcc_maps", COPIES),
    (
        "virtual_delivery_status_filter",
        "status codes of deliveries are not rewritten; set lmtp_delivery_status_filter in Postfix",
    ),
    (
        "default_delivery_status_filter",
        "status codes of deliveries are not rewritten; Postfix's lmtp(8) applies it",
    ),
];

const UNKNOWN: &str = "unknown recipients are answered 550; Postfix's smtpd(8) applies it";
const REWRITTEN: &str =
    "addresses are rewritten by Postfix before mail reaches mailstow; not rewritten again";
const TRANSPORT: &str =
    "Postfix chooses the transport; it has no effect on mail that mailstow stores";
const COPIES: &str = "Postfix adds these recipients before mail reaches mailstow; not added again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_postfix_parameters_is_whole() {
        let defaults = postfix_defaults();
        assert!(defaults.len() > 1000, "{}", defaults.len());
        assert_eq!(
            defaults.get("queue_directory").map(String::as_str),
            Some("/var/spool/postfix")
        );
        for (name, _) in NOT_ACTED_ON {
            assert!(defaults.contains_key(*name), "{name}");
        }
    }
}
