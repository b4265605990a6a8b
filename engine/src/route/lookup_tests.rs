//! Goal: a recipient that is looked up as a whole is answered what the same questions are answered
//! when they are asked one by one. Method: every way of writing an address, crossed with every
//! kind of domain and several kinds of tables.

use super::lookup::Mailboxes;
use super::trace::Trace;
use super::{RouteError, Router, table_context};
use crate::address::Address;
use crate::config::RoutingSettings;
use crate::map::{BuildOptions, Change, MapBuilder, change};
use crate::table::TableCache;
use std::path::Path;

const LOCAL_PARTS: [&str; 21] = [
    "info",
    "info+x",
    "Info+X",
    "sales+exact",
    "sales+other",
    "all",
    "all+x",
    "self",
    "self+x",
    "loop",
    "postmaster",
    "postmaster+x",
    "+x",
    "owner-list+x",
    "a b",
    "a b+x",
    "in..fo",
    "u%vm.example",
    "\u{fc}nï",
    "user@vm.example",
    "dot.+x",
];

const DOMAINS: [Option<&str>; 11] = [
    Some("vm.example"),
    Some("VM.Example"),
    Some("vm.example."),
    Some("va.example"),
    Some("all.example"),
    Some("local.example"),
    Some("origin.example"),
    Some("relay.example"),
    Some("nowhere.example"),
    Some("[192.0.2.1]"),
    None,
];

/// What the tables have, by the names of their parameters.
const ENTRIES: [(&str, &str, &str); 27] = [
    ("virtual_mailbox_domains", "vm.example", "x"),
    ("virtual_mailbox_domains", "all.example", "x"),
    ("virtual_alias_domains", "va.example", "x"),
    (
        "virtual_alias_maps",
        "info@va.example",
        "info@vm.example, @all.example",
    ),
    (
        "virtual_alias_maps",
        "all@vm.example",
        "info@vm.example sales@vm.example all@all.example",
    ),
    (
        "virtual_alias_maps",
        "self@vm.example",
        "self@vm.example, info@vm.example",
    ),
    ("virtual_alias_maps", "loop@vm.example", "loop@va.example"),
    ("virtual_alias_maps", "loop@va.example", "loop@vm.example"),
    ("virtual_alias_maps", "@va.example", "@vm.example"),
    ("virtual_alias_maps", "all", "info@vm.example"),
    (
        "virtual_mailbox_maps",
        "info@vm.example",
        "vm.example/info/",
    ),
    (
        "virtual_mailbox_maps",
        "sales@vm.example",
        "vm.example//sales/.",
    ),
    (
        "virtual_mailbox_maps",
        "sales+exact@vm.example",
        "vm.example/exact",
    ),
    (
        "virtual_mailbox_maps",
        "self@vm.example",
        "vm.example/../self/",
    ),
    (
        "virtual_mailbox_maps",
        "postmaster@vm.example",
        "vm.example/postmaster/",
    ),
    (
        "virtual_mailbox_maps",
        "\"user@vm.example\"@vm.example",
        "vm.example/quoted/",
    ),
    ("virtual_mailbox_maps", "dot.@vm.example", "unquoted/"),
    ("virtual_mailbox_maps", "\"dot.\"@vm.example", "quoted/"),
    (
        "virtual_alias_maps",
        "\"dot.\"@va.example",
        "info@vm.example",
    ),
    ("virtual_mailbox_maps", "@all.example", "all.example/catch/"),
    ("virtual_mailbox_maps", "info", "local/info/"),
    ("virtual_mailbox_maps", "info+x", "local/info-x/"),
    ("virtual_uid_maps", "info@vm.example", "5001"),
    ("virtual_uid_maps", "@vm.example", "5000"),
    ("virtual_uid_maps", "sales@vm.example", "50"),
    ("virtual_uid_maps", "@all.example", "none"),
    ("virtual_uid_maps", "info", "5002"),
];

fn settings(table: impl Fn(&str) -> String) -> RoutingSettings {
    RoutingSettings {
        myorigin: "origin.example".into(),
        mydestination: "local.example".into(),
        inet_interfaces: "192.0.2.1".into(),
        relay_domains: "relay.example".into(),
        recipient_delimiter: "+".into(),
        virtual_mailbox_domains: table("virtual_mailbox_domains"),
        virtual_alias_domains: table("virtual_alias_domains"),
        virtual_alias_maps: table("virtual_alias_maps"),
        virtual_mailbox_maps: table("virtual_mailbox_maps"),
        virtual_uid_maps: table("virtual_uid_maps"),
        virtual_gid_maps: "static:6000".into(),
        virtual_alias_recursion_limit: 20,
        virtual_minimum_uid: 100,
        ..RoutingSettings::default()
    }
}

fn inline(parameter: &str) -> String {
    let entry = |(_, key, value): &(&str, &str, &str)| format!(" {{{key} = {value}}}");
    let entries: String = ENTRIES
        .iter()
        .filter(|(table, ..)| *table == parameter)
        .map(entry)
        .collect();
    format!("inline:{{{entries} }}")
}

/// A recipient map with the entries, some of which were changed since it was built.
fn map(directory: &Path) -> String {
    let path = directory.join("recipients.map");
    let mut builder = MapBuilder::new(&path, BuildOptions::default()).unwrap();
    for (at, (table, key, value)) in ENTRIES.iter().enumerate() {
        let table = builder.table(table).unwrap();
        let value = if at % 5 == 0 { "other" } else { value };
        builder.add(table, key, value).unwrap();
    }
    builder.finish().unwrap();
    let changed = ENTRIES
        .iter()
        .step_by(5)
        .map(|(table, key, value)| Change::Set {
            table: (*table).into(),
            key: (*key).into(),
            value: (*value).into(),
        });
    change(&path, &changed.collect::<Vec<_>>()).unwrap();
    format!("mailstow:{}", path.display())
}

fn router(settings: &RoutingSettings) -> Router {
    Router::open(settings, &TableCache::new(table_context(settings))).unwrap()
}

/// What [`Lookup::mailboxes`] must say, from questions asked one by one.
fn asked_singly(router: &Router, address: &Address) -> Result<Mailboxes, RouteError> {
    let mailbox = |address: &Address| router.traced_mailbox(address, &mut Trace::off());
    let members = router.expand(address)?;
    if members == [address.clone()] {
        return mailbox(address).map(Mailboxes::Own);
    }
    let members = members.into_iter().map(|member| match mailbox(&member) {
        Ok(target) => Ok((member, target)),
        Err(cause) => Err(RouteError::Member {
            address: address.external(),
            member: member.external(),
            cause: Box::new(cause),
        }),
    });
    members.collect::<Result<_, _>>().map(Mailboxes::Members)
}

/// Compares all answers; says how many recipients have mailboxes.
fn compare(settings: &RoutingSettings) -> usize {
    let router = router(settings);
    let mut stored = 0;
    for local_part in LOCAL_PARTS {
        for domain in DOMAINS {
            let address = Address::new(local_part, domain);
            let lookup = router.look_up(&address);
            let shown = |answer: &dyn std::fmt::Debug| format!("{address}: {answer:?}");
            if let Some(domain) = domain {
                let class = router.class(domain);
                assert_eq!(shown(&lookup.class()), shown(&class));
            }
            let single = router.traced_mailbox(&address, &mut Trace::off());
            assert_eq!(shown(&lookup.mailbox()), shown(&single));
            let members = lookup.mailboxes();
            assert_eq!(shown(&members), shown(&asked_singly(&router, &address)));
            stored += usize::from(members.is_ok());
        }
    }
    stored
}

#[test]
fn a_recipient_asked_for_as_a_whole_is_answered_like_single_questions() {
    let directory = tempfile::tempdir().unwrap();
    let map = map(directory.path());
    let in_text = compare(&settings(inline));
    assert!(in_text > 20, "{in_text}");
    assert_eq!(compare(&settings(|_| map.clone())), in_text);
    compare(&settings(|parameter| {
        format!("{map}, {}", inline(parameter))
    }));
    compare(&settings(|parameter| {
        format!(
            "pcre:{{{{/^(Info|all).*@vm/ $1@vm.example}}}} {}",
            inline(parameter)
        )
    }));
    for change in [
        |settings: &mut RoutingSettings| settings.virtual_alias_maps = "fail:x".into(),
        |settings: &mut RoutingSettings| settings.virtual_alias_maps = String::new(),
        |settings: &mut RoutingSettings| settings.virtual_mailbox_domains = "fail:x".into(),
        |settings: &mut RoutingSettings| settings.mydestination = "fail:x".into(),
        |settings: &mut RoutingSettings| settings.virtual_alias_recursion_limit = 0,
        |settings: &mut RoutingSettings| settings.virtual_alias_expansion_limit = 0,
        |settings: &mut RoutingSettings| settings.recipient_delimiter = String::new(),
        |settings: &mut RoutingSettings| settings.recipient_delimiter = "-fo+".into(),
        |settings: &mut RoutingSettings| settings.append_dot_mydomain = true,
        |settings: &mut RoutingSettings| settings.mailbox_path = "/%d/%u/".into(),
    ] {
        let mut settings = settings(|_| map.clone());
        change(&mut settings);
        compare(&settings);
    }
}

#[test]
fn usual_addresses_are_looked_up_the_short_way_and_odd_ones_are_not() {
    let router = router(&settings(inline));
    let short = |text: &str| {
        let address = Address::from_internal(text);
        router.look_up(&address).is_plain()
    };
    for text in ["info@vm.example", "first.last+list@vm-1.example", "u!x@d"] {
        assert!(short(text), "{text}");
    }
    for text in [
        "Info@vm.example",
        "info@VM.example",
        "a b@vm.example",
        "\u{fc}@vm.example",
        "x@[192.0.2.1]",
        "x.+list@vm.example",
    ] {
        assert!(!short(text), "{text}");
    }
}
