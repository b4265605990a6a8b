//! Behaviour of address resolution on in-memory tables.

use super::*;
use crate::table::{TableCache, TableContext};

fn resolver(change: impl FnOnce(&mut RoutingSettings)) -> Resolver {
    let mut settings = RoutingSettings {
        myorigin: "origin.example".into(),
        myhostname: "mx.origin.example".into(),
        mydestination: "origin.example, mx.origin.example".into(),
        virtual_alias_domains: "va.example".into(),
        virtual_mailbox_domains: "vm.example".into(),
        relay_domains: "relay.example".into(),
        recipient_delimiter: "+".into(),
        ..RoutingSettings::default()
    };
    change(&mut settings);
    let cache = &TableCache::new(TableContext::default());
    let opener = Opener {
        cache,
        default_database_type: "hash",
    };
    Resolver::open(&settings, &opener).unwrap()
}

fn resolve_with(resolver: &Resolver, address: &str) -> String {
    match resolver.resolve(address, &mut Trace::off()) {
        Ok(r) => format!("{} {} {}:{}", r.recipient, r.class, r.transport, r.nexthop),
        Err(error) => error.status().enhanced.to_string(),
    }
}

fn resolve(address: &str) -> String {
    resolve_with(&resolver(|_| {}), address)
}

#[test]
fn each_class_has_its_transport() {
    assert_eq!(
        resolve("u@origin.example"),
        "u@origin.example local local:localhost"
    );
    assert_eq!(
        resolve("U@VM.example"),
        "U@VM.example virtual_mailbox virtual:VM.example"
    );
    assert_eq!(
        resolve("u@relay.example"),
        "u@relay.example relay relay:relay.example"
    );
    assert_eq!(
        resolve("u@far.example"),
        "u@far.example default smtp:far.example"
    );
    assert_eq!(
        resolve("u@va.example"),
        "u@va.example virtual_alias error:5.1.1 User unknown in virtual alias table"
    );
}

#[test]
fn own_domains_are_peeled_off_routed_addresses() {
    let far = "u@far.example default smtp:far.example";
    assert_eq!(resolve("u%far.example@origin.example"), far);
    assert_eq!(resolve("far.example!u@origin.example"), far);
    assert_eq!(resolve("u@far.example@origin.example"), far);
    assert_eq!(
        resolve("u@far.example@origin.example@mx.origin.example"),
        far
    );
    assert_eq!(
        resolve("u%far.example@vm.example"),
        "u%far.example@vm.example virtual_mailbox virtual:vm.example"
    );
    let strict = resolver(|s| {
        s.allow_percent_hack = false;
        s.resolve_dequoted_address = false;
    });
    assert_eq!(
        resolve_with(&strict, "u%far.example@origin.example"),
        "u%far.example@origin.example local local:localhost"
    );
}

#[test]
fn an_empty_local_part_is_the_mailer_daemon() {
    assert_eq!(
        resolve("@origin.example"),
        "MAILER-DAEMON@origin.example local local:localhost"
    );
    assert_eq!(resolve("u"), "u@mx.origin.example local local:localhost");
}

#[test]
fn addresses_without_a_valid_domain_are_refused() {
    for address in [
        "u@",
        "u@-x.example",
        "u@1.2.3.4",
        "u@[300.1.1.1]",
        "u@a..b",
        "u@[x]",
    ] {
        assert_eq!(resolve(address), "5.1.3", "{address}");
    }
    assert_eq!(resolve("-u@vm.example"), "5.1.3");
    assert_eq!(
        resolve("u@vm.example."),
        "u@vm.example virtual_mailbox virtual:vm.example"
    );
    let lenient = resolver(|s| {
        s.resolve_numeric_domain = true;
        s.allow_min_user = true;
    });
    assert_eq!(
        resolve_with(&lenient, "u@192.0.2.7"),
        "u@[192.0.2.7] default smtp:[192.0.2.7]"
    );
    assert_eq!(
        resolve_with(&lenient, "u@2001:db8::1"),
        "u@[2001:db8::1] default smtp:[2001:db8::1]"
    );
    assert_eq!(resolve_with(&lenient, "u@::"), "u@[::] default smtp:[::]");
    assert!(resolve_with(&lenient, "-u@vm.example").starts_with("-u@vm.example "));
}

#[test]
fn transport_maps_change_all_classes_but_virtual_aliases() {
    let resolver = resolver(|s| s.transport_maps = "inline:{*=lmtp:inet:host}".into());
    assert_eq!(
        resolve_with(&resolver, "u@vm.example"),
        "u@vm.example virtual_mailbox lmtp:inet:host"
    );
    assert!(resolve_with(&resolver, "u@va.example").contains("error:5.1.1"));
}

#[test]
fn a_relocated_recipient_is_refused_whatever_its_class() {
    let resolver = resolver(|s| s.relocated_maps = "inline:{u@va.example=new@far.example}".into());
    assert_eq!(
        resolve_with(&resolver, "u+x@va.example"),
        "u+x@va.example virtual_alias error:5.1.6 User has moved to new@far.example"
    );
}

#[test]
fn a_table_that_fails_defers() {
    let resolver = resolver(|s| s.virtual_mailbox_domains = "fail:down".into());
    let error = resolver.resolve("u@far.example", &mut Trace::off());
    assert!(error.unwrap_err().status().is_temporary());
}
