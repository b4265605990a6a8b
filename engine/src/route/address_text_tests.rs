//! What a sender can make of the text of an address: no path, no owner, no query of their choice.
//!
//! One test for each row of the table in [`crate::manual::address_text`].

use super::{Present, Router, table_context};
use crate::address::Address;
use crate::config::{PathSubstitution, RoutingSettings};
use crate::table::TableCache;

/// Local parts that would lead astray if they were taken as they are.
const STEERING: &[&str] = &[
    "../../etc/cron.d/x",
    "..",
    ".",
    ".Sent",
    "bob/.Sent",
    "bob/new",
    "/etc/passwd",
    "bob.lock",
    "a\0b",
    "a\nb",
    "'; --",
    "*)(uid=*",
    "$1",
    "%u",
];

fn settings(virtual_mailbox_maps: &str) -> RoutingSettings {
    RoutingSettings {
        virtual_mailbox_domains: "d.example".into(),
        virtual_mailbox_maps: virtual_mailbox_maps.into(),
        virtual_mailbox_base: "/var/mail/vhosts".into(),
        virtual_uid_maps: "static:5000".into(),
        virtual_gid_maps: "static:5000".into(),
        ..RoutingSettings::default()
    }
}

fn open(settings: &RoutingSettings) -> (Router, Vec<String>) {
    let cache = TableCache::new(table_context(settings));
    let router = Router::open(settings, &cache).unwrap();
    (router, cache.warnings())
}

/// Path, or status, of the mailbox of a local part at `d.example`.
fn ask(router: &Router, local_part: &str) -> String {
    match router.mailbox(&Address::new(local_part, Some("d.example"))) {
        Ok(target) => target.path.to_string(),
        Err(error) => error.status().to_string(),
    }
}

/// Adds no component, and none that has a special meaning.
fn is_one_safe_component(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && !text.ends_with(".lock")
        && !text.contains(['/', '\0', '\n'])
}

#[test]
fn rules_with_substitution_are_skipped_wherever_a_path_or_an_owner_would_come_from_them() {
    let rule = "pcre:{{/^(.*)@d/ d.example/$1/}}";
    for table in [
        rule.to_owned(),
        rule.replace("pcre", "regexp"),
        format!("proxy:{rule}"),
        format!("unionmap:{{{rule}}}"),
        format!("pipemap:{{{rule}, static:x/}}"),
        format!("pipemap:{{unionmap:{{proxy:{rule}}}}}"),
    ] {
        let (router, warnings) = open(&settings(&table));
        assert!(ask(&router, "bob").starts_with("550 5.1.1"), "{table}");
        let [warning] = warnings.as_slice() else {
            panic!("{table}: {warnings:?}");
        };
        assert!(warning.contains(":1: ") && warning.contains("virtual_mailbox_maps"));
        let findings = router.lint(|_| Present::Unknown);
        assert!(
            findings.iter().any(|found| found.text == *warning),
            "{findings:?}"
        );
        let owned = RoutingSettings {
            virtual_uid_maps: table.replace("d.example/$1/", "5$1"),
            ..settings("static:x/")
        };
        let (router, warnings) = open(&owned);
        assert!(ask(&router, "000").starts_with("451 4.3.5"), "{table}");
        assert!(warnings[0].contains("virtual_uid_maps"), "{warnings:?}");
    }
}

#[test]
fn a_table_is_read_for_each_parameter_as_that_one_allows() {
    let rule = "pcre:{{/^(.*)@a/ $1@d.example}}";
    let settings = RoutingSettings {
        virtual_alias_domains: "a.example".into(),
        virtual_alias_maps: rule.into(),
        ..settings(&format!("{rule}, inline:{{bob@d.example=bob/}}"))
    };
    let (router, warnings) = open(&settings);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let alias = Address::new("bob", Some("a.example"));
    let members = router.mailboxes(&alias).unwrap();
    assert_eq!(members[0].1.path, "bob");
    assert!(router.mailbox(&alias).is_err());
}

#[test]
fn substitution_that_is_permitted_in_mailbox_paths_gives_one_safe_component() {
    for kind in ["pcre", "regexp"] {
        let settings = RoutingSettings {
            mailbox_path_substitution: PathSubstitution::Component,
            virtual_uid_maps: format!("{kind}:{{{{/^(.*)@/ $1}}}}, static:5000"),
            ..settings(&format!(
                "pipemap:{{{kind}:{{{{/^\"?([^\"]*)\"?@(.*)$/ $2/$1/}}}}}}"
            ))
        };
        let (router, warnings) = open(&settings);
        // Owners are not paths.
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(ask(&router, "Bob"), "d.example/bob");
        assert_eq!(ask(&router, "bob/new"), "d.example/bob=2Fnew");
        for local_part in STEERING {
            let path = ask(&router, local_part);
            if path.starts_with("550") {
                continue;
            }
            let component = path.strip_prefix("d.example/").unwrap();
            assert!(is_one_safe_component(component), "{local_part:?}: {path}");
        }
    }
}

#[test]
fn tables_that_only_say_who_exists_may_substitute() {
    let settings = RoutingSettings {
        mailbox_path: "%d/%u/".into(),
        ..settings("pcre:{{/^(.*)@d/ $1}}")
    };
    let (router, warnings) = open(&settings);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(ask(&router, "bob"), "d.example/bob");
}

#[test]
fn a_template_gives_one_safe_component_for_each_expansion() {
    let settings = RoutingSettings {
        mailbox_path: "%d/%u/".into(),
        ..settings("static:x")
    };
    let (router, _) = open(&settings);
    for local_part in STEERING {
        let path = ask(&router, local_part);
        let component = path.strip_prefix("d.example/").unwrap();
        assert!(is_one_safe_component(component), "{local_part:?}: {path}");
    }
}
