//! Which keys a search tries, and in which order.

use super::*;
use crate::table::{TableCache, TableContext};

fn maps(list: &str) -> Maps {
    let cache = &TableCache::new(TableContext::default());
    let opener = Opener {
        cache,
        default_database_type: "hash",
    };
    Maps::open("virtual_alias_maps", list, &opener).unwrap()
}

fn rule() -> ExtensionRule {
    ExtensionRule {
        delimiters: "+".into(),
        owner_request_special: true,
    }
}

/// The keys that are tried, in order; in parentheses those that are partial.
fn keys(address: &str, forms: KeyForms, strategy: Strategy, own: bool) -> Vec<String> {
    // The pattern table misses whole keys only, the inline table misses all of them.
    let maps = maps("pcre:{{/^$/ never}} inline:{never=there}");
    let mut trace = Trace::on();
    let rule = rule();
    let search = Search {
        rule: &rule,
        forms,
        strategy,
        is_own_domain: |_: &str| Ok(own),
    };
    assert_eq!(search.find(&maps, address, &mut trace).unwrap(), None);
    let key = |step: &Step| match step {
        Step::Lookup { key, missed, .. } if missed.len() == 2 => key.clone(),
        Step::Lookup { key, .. } => format!("({key})"),
        other => panic!("{other}"),
    };
    trace.steps().iter().map(key).collect()
}

#[test]
fn keys_go_from_the_whole_address_to_its_domain() {
    assert_eq!(
        keys(
            "info+x@a.example",
            KeyForms::External,
            Strategy::Address,
            false
        ),
        ["info+x@a.example", "(info@a.example)", "(@a.example)"]
    );
    assert_eq!(
        keys("info+x", KeyForms::External, Strategy::Address, false),
        ["info+x", "(info)"]
    );
}

#[test]
fn bare_local_parts_are_tried_for_own_domains_only() {
    assert_eq!(
        keys(
            "loc+e@origin.example",
            KeyForms::External,
            Strategy::Address,
            true
        ),
        [
            "loc+e@origin.example",
            "(loc@origin.example)",
            "(loc+e)",
            "(loc)",
            "(@origin.example)"
        ]
    );
}

#[test]
fn the_quoted_form_goes_before_the_raw_form() {
    assert_eq!(
        keys(
            "a b@vm.example",
            KeyForms::ExternalThenInternal,
            Strategy::Address,
            false
        ),
        ["\"a b\"@vm.example", "a b@vm.example", "(@vm.example)"]
    );
    assert_eq!(
        keys(
            "a b@vm.example",
            KeyForms::External,
            Strategy::Address,
            false
        ),
        ["\"a b\"@vm.example", "(@vm.example)"]
    );
}

#[test]
fn transport_tables_are_searched_for_domains_and_their_parents() {
    assert_eq!(
        keys(
            "u+x@a.b.example",
            KeyForms::External,
            Strategy::DottedParents,
            true
        ),
        [
            "u+x@a.b.example",
            "(u@a.b.example)",
            "(a.b.example)",
            "(.b.example)",
            "(.example)"
        ]
    );
    assert_eq!(
        keys("u@a.b.example", KeyForms::External, Strategy::Parents, true),
        ["u@a.b.example", "(a.b.example)", "(b.example)", "(example)"]
    );
    assert_eq!(
        keys("u@", KeyForms::External, Strategy::Parents, true),
        ["u@"]
    );
}

#[test]
fn the_extension_that_was_cut_off_is_known() {
    let rule = rule();
    let search = Search {
        rule: &rule,
        forms: KeyForms::External,
        strategy: Strategy::Address,
        is_own_domain: |_: &str| Ok(true),
    };
    let find = |list: &str, address: &str| {
        let found = search
            .find(&maps(list), address, &mut Trace::off())
            .unwrap()
            .unwrap();
        (found.value, found.extension)
    };
    let ext = Some("+x".to_owned());
    assert_eq!(find("inline:{u@d=1}", "u+x@d"), ("1".into(), ext.clone()));
    assert_eq!(find("inline:{u=1}", "u+x@d"), ("1".into(), ext));
    assert_eq!(find("inline:{u+x=1}", "u+x@d"), ("1".into(), None));
    assert_eq!(find("inline:{@d=1}", "u+x@d"), ("1".into(), None));
}

#[test]
fn a_key_is_asked_of_all_tables_before_the_next_one() {
    let maps = maps("inline:{@d=catch} inline:{u@d=direct}");
    let rule = rule();
    let search = Search {
        rule: &rule,
        forms: KeyForms::External,
        strategy: Strategy::Address,
        is_own_domain: |_: &str| Ok(false),
    };
    let found = search
        .find(&maps, "u@d", &mut Trace::off())
        .unwrap()
        .unwrap();
    assert_eq!(found.value, "direct");
    let mut trace = Trace::on();
    search.find(&maps, "v@d", &mut trace).unwrap().unwrap();
    assert_eq!(
        trace
            .steps()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [
            "lookup     virtual_alias_maps: \"v@d\" not in inline:{@d=catch}, inline:{u@d=direct}",
            "lookup     virtual_alias_maps: \"@d\" is \"catch\" in inline:{@d=catch}",
        ]
    );
}
