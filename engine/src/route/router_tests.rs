//! Behaviour of [`Router`] on in-memory tables.

use super::table_context;
use super::{AddressClass, Destination, Format, MailboxTarget, Present, RouteError, Router};
use crate::address::{Address, parse_mailbox};
use crate::config::RoutingSettings;
use crate::table::TableCache;

fn example() -> RoutingSettings {
    RoutingSettings {
        virtual_mailbox_domains: "example.com, sub.example.com".into(),
        virtual_mailbox_maps: "inline:{ {info@example.com = example.com/info}, \
            {sales@example.com = example.com/sales/}, {@sub.example.com = sub/all/}, \
            {elsewhere@other.example = other/}, {up@example.com = ../up/}, \
            {root@example.com = r}, {low@example.com = low}, {word@example.com = word} }"
            .into(),
        virtual_mailbox_base: "/var/mail/vhosts".into(),
        virtual_uid_maps: "inline:{ {root@example.com = 0}, {low@example.com = 99}, \
            {word@example.com = vmail} } inline:{{info@example.com = 5001}} static:5000"
            .into(),
        virtual_gid_maps: "static:5000".into(),
        recipient_delimiter: "+".into(),
        ..RoutingSettings::default()
    }
}

fn router(settings: &RoutingSettings) -> Router {
    Router::open(settings, &TableCache::new(table_context(settings))).unwrap()
}

fn mailbox(settings: &RoutingSettings, address: &str) -> Result<MailboxTarget, RouteError> {
    router(settings).mailbox(&parse_mailbox(address).unwrap())
}

fn path(settings: &RoutingSettings, address: &str) -> Result<String, String> {
    mailbox(settings, address)
        .map(|m| m.path.to_string())
        .map_err(|e| e.status().to_string())
}

#[test]
fn a_trailing_slash_makes_a_maildir() {
    assert_eq!(
        mailbox(&example(), "sales@example.com"),
        Ok(MailboxTarget::new("example.com/sales", Format::Maildir, 5000, 5000).unwrap())
    );
    assert_eq!(
        mailbox(&example(), "info@example.com"),
        Ok(MailboxTarget::new("example.com/info", Format::Mbox, 5001, 5000).unwrap())
    );
}

#[test]
fn case_and_extension_do_not_matter_and_a_catch_all_catches() {
    let example = example();
    assert_eq!(
        path(&example, "INFO+Ext@Example.COM"),
        Ok("example.com/info".into())
    );
    assert_eq!(
        path(&example, "whoever@sub.example.com"),
        Ok("sub/all".into())
    );
}

#[test]
fn an_unknown_user_is_refused_for_good_and_a_strange_domain_as_relay() {
    let example = example();
    assert_eq!(
        path(&example, "nobody@example.com"),
        Err("550 5.1.1 <nobody@example.com> unknown user".into())
    );
    assert!(
        path(&example, "a@stranger.example")
            .unwrap_err()
            .starts_with("550 5.7.1 ")
    );
}

#[test]
fn what_the_tables_list_is_delivered_whatever_the_class_of_its_domain() {
    assert_eq!(
        path(&example(), "elsewhere@other.example"),
        Ok("other".into())
    );
}

#[test]
fn trouble_in_our_tables_defers() {
    let config = "451 4.3.5 mail system configuration error";
    let example = example();
    for user in ["up", "root", "low", "word"] {
        let address = format!("{user}@example.com");
        let status = path(&example, &address).unwrap_err();
        assert!(status.starts_with(config), "{address}: {status}");
    }
    let broken = RoutingSettings {
        virtual_mailbox_maps: "fail:down inline:{{info@example.com = x/}}".into(),
        ..example.clone()
    };
    assert!(
        path(&broken, "info@example.com")
            .unwrap_err()
            .starts_with("451 4.3.")
    );
    let ownerless = RoutingSettings {
        virtual_gid_maps: String::new(),
        ..example
    };
    assert_eq!(path(&ownerless, "info@example.com"), Err(config.into()));
}

#[test]
fn every_key_is_asked_of_all_tables_before_the_next_key() {
    let settings = RoutingSettings {
        virtual_mailbox_maps: "inline:{{@example.com = catch/}} inline:{{info@example.com = own/}}"
            .into(),
        ..example()
    };
    assert_eq!(path(&settings, "info@example.com"), Ok("own".into()));
}

#[test]
fn a_mailbox_path_template_takes_the_place_of_the_tables_value() {
    let settings = RoutingSettings {
        mailbox_path: "%d/%u/".into(),
        ..example()
    };
    assert_eq!(
        path(&settings, "Info+x@example.com"),
        Ok("example.com/info".into())
    );
    assert_eq!(
        path(&settings, "any@sub.example.com"),
        Ok("sub.example.com/any".into())
    );
    for unknown in ["nobody@example.com", "\"\"@sub.example.com"] {
        let error = path(&settings, unknown).unwrap_err();
        assert!(error.starts_with("550 5.1.1"), "{unknown}: {error}");
    }
}

#[test]
fn classes_are_decided_in_the_order_of_trivial_rewrite() {
    let settings = RoutingSettings {
        mydestination: "localhost, host.example".into(),
        inet_interfaces: "192.0.2.1".into(),
        virtual_alias_domains: "alias.example, !x.example".into(),
        relay_domains: "relay.example".into(),
        parent_domain_matches_subdomains: "relay_domains".into(),
        virtual_transport: "lmtp:unix:/run/mailstow/lmtp".into(),
        ..example()
    };
    let router = router(&settings);
    for (address, class, transport, nexthop) in [
        ("u@HOST.example", AddressClass::Local, "local", "localhost"),
        ("u@[192.0.2.1]", AddressClass::Local, "local", "localhost"),
        (
            "u@alias.example",
            AddressClass::VirtualAlias,
            "error",
            "5.1.1 User unknown in virtual alias table",
        ),
        (
            "info@example.com",
            AddressClass::VirtualMailbox,
            "lmtp",
            "unix:/run/mailstow/lmtp",
        ),
        (
            "u@sub.relay.example",
            AddressClass::Relay,
            "relay",
            "sub.relay.example",
        ),
        (
            "u@far.example",
            AddressClass::Default,
            "smtp",
            "far.example",
        ),
    ] {
        let resolution = router.resolve(&parse_mailbox(address).unwrap());
        let route = resolution.results.first().unwrap();
        assert_eq!(
            (
                route.class,
                route.transport.as_str(),
                route.nexthop.as_str()
            ),
            (class, transport, nexthop),
            "{address}"
        );
    }
}

#[test]
fn a_domain_in_two_classes_is_reported() {
    let settings = RoutingSettings {
        mydestination: "localhost example.com".into(),
        ..example()
    };
    let warnings = router(&settings).warnings().join("\n");
    assert!(
        warnings.contains("example.com in BOTH mydestination and virtual_mailbox_domains"),
        "{warnings}"
    );
}

#[test]
fn what_looks_like_a_source_route_is_shown_as_postfix_shows_it() {
    let router = router(&example());
    let address = Address::from_internal("@, )(g:a@far.example");
    let resolution = router.resolve(&address);
    let shown = resolution.results.first().map(|r| r.recipient.clone());
    assert_eq!(shown.as_deref(), Some("@, )(g:a@far.example"));
}

#[test]
fn tables_that_only_say_who_exists_are_enough_to_resolve() {
    let settings = RoutingSettings {
        virtual_mailbox_domains: "example.com".into(),
        virtual_mailbox_maps: "inline:{info@example.com=whatever}".into(),
        virtual_transport: "lmtp:unix:/run/store".into(),
        ..RoutingSettings::default()
    };
    let cache = TableCache::new(table_context(&settings));
    let router = Router::open(&settings, &cache).unwrap();
    let address = parse_mailbox("info@example.com").unwrap();
    let resolution = router.resolve(&address);
    assert_eq!(resolution.error, None);
    assert_eq!(resolution.results[0].destination, Destination::Transport);
    assert_eq!(resolution.results[0].transport, "lmtp");
    let unknown = router.resolve(&parse_mailbox("x@example.com").unwrap());
    assert_eq!(unknown.error.unwrap().code, 550);
    assert!(router.lint(|_| Present::Unknown).is_empty());
    // To deliver it is another matter.
    let error = router.mailbox(&address).unwrap_err();
    assert_eq!(error.status().code, 451);
    assert!(
        error.to_string().contains("virtual_mailbox_base"),
        "{error}"
    );
}
