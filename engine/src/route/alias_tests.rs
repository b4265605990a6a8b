//! Behaviour of virtual alias expansion on in-memory tables.

use super::*;
use crate::table::{TableCache, TableContext};

fn settings(tables: &str) -> RoutingSettings {
    RoutingSettings {
        myorigin: "origin.example".into(),
        recipient_delimiter: "+".into(),
        virtual_alias_maps: tables.into(),
        ..RoutingSettings::default()
    }
}

fn expand_with(
    settings: &RoutingSettings,
    address: &str,
    trace: &mut Trace,
) -> Result<Vec<String>, RouteError> {
    let cache = &TableCache::new(TableContext::default());
    let opener = Opener {
        cache,
        default_database_type: "hash",
    };
    let aliases = VirtualAliases::open(settings, &opener);
    let own = |domain: &str| Ok(domain == "origin.example");
    aliases.expand(address, &CanonicalForm::new(settings), own, trace)
}

fn expand(tables: &str, address: &str) -> Vec<String> {
    expand_with(&settings(tables), address, &mut Trace::off()).unwrap()
}

fn failure(settings: &RoutingSettings, address: &str) -> String {
    let error = expand_with(settings, address, &mut Trace::off()).unwrap_err();
    assert_eq!(
        error.status().to_string(),
        "451 4.6.0 Alias expansion error",
        "{error}"
    );
    error.to_string()
}

#[test]
fn a_result_is_a_list_without_comments_phrases_and_duplicates() {
    let table = "inline:{{list@va = info@vm, (hi) Foo Bar <sales@vm>, grp: low@vm, INFO@vm;}}";
    assert_eq!(expand(table, "list@va"), ["info@vm", "sales@vm", "low@vm"]);
    assert_eq!(
        expand("inline:{{two@va = a@b c@d}}", "two@va"),
        ["a@b", "c@d"]
    );
    assert_eq!(expand(table, "other@va"), ["other@va"]);
    assert_eq!(expand("", "other@va"), ["other@va"]);
}

#[test]
fn results_are_brought_into_canonical_form() {
    let table = "inline:{{bare@va = localname}, {r@va = <@a,@b:u@c>}, {b@va = site!user}}";
    assert_eq!(expand(table, "bare@va"), ["localname@origin.example"]);
    assert_eq!(expand(table, "r@va"), ["u@c"]);
    assert_eq!(expand(table, "b@va"), ["user@site"]);
}

#[test]
fn a_domain_as_result_keeps_the_user() {
    let table = "inline:{known@va2=@vm, @va3=@vm}";
    assert_eq!(expand(table, "known@va2"), ["known@vm"]);
    assert_eq!(expand(table, "known+z@va2"), ["known+z@vm"]);
    assert_eq!(expand(table, "Any+Ext@va3"), ["Any+Ext@vm"]);
    let quiet = RoutingSettings {
        propagate_unmatched_extensions: "canonical".into(),
        ..settings(table)
    };
    let members = expand_with(&quiet, "known+z@va2", &mut Trace::off()).unwrap();
    assert_eq!(members, ["known@vm"]);
}

#[test]
fn an_extension_that_did_not_match_goes_on_to_every_member() {
    let table = "inline:{{ext@va = sales@vm, info@vm}, {full+x@va = a@vm}, @va=catch@vm}";
    assert_eq!(expand(table, "ext+foo@va"), ["sales+foo@vm", "info+foo@vm"]);
    assert_eq!(expand(table, "full+x@va"), ["a@vm"]);
    assert_eq!(expand(table, "any+ext@va"), ["catch@vm"]);
}

#[test]
fn users_of_our_own_domain_may_be_listed_without_it() {
    assert_eq!(
        expand("inline:{loc=info@vm}", "loc+e@origin.example"),
        ["info+e@vm"]
    );
    assert_eq!(
        expand("inline:{loc=info@vm}", "loc@elsewhere.example"),
        ["loc@elsewhere.example"]
    );
}

#[test]
fn an_alias_that_contains_itself_keeps_itself() {
    let table = "inline:{{self@vm = SELF@vm, sales@vm}, {id@vm = id@vm}}";
    assert_eq!(expand(table, "self@vm"), ["SELF@vm", "sales@vm"]);
    assert_eq!(expand(table, "id@vm"), ["id@vm"]);
    let later = "inline:{{a@vm = b@vm, a@vm}, {b@vm = c@vm}}";
    assert_eq!(expand(later, "a@vm"), ["c@vm", "a@vm"]);
}

#[test]
fn aliases_of_aliases_are_expanded_in_place_and_the_rest_appended() {
    let table = "inline:{{a@x = b@x, c@x}, {b@x = d@x, e@x}, {c@x = f@x}}";
    assert_eq!(expand(table, "a@x"), ["d@x", "f@x", "e@x"]);
}

#[test]
fn a_circle_is_deferred_and_named() {
    let table = settings("inline:{l1@va=l2@va, l2@va=l3@va, l3@va=l1@va}");
    let text = failure(&table, "l1@va");
    assert!(text.contains("loop: "), "{text}");
    assert!(text.contains("l1@va -> l2@va -> l3@va -> l1@va"), "{text}");
    let mut trace = Trace::on();
    expand_with(&table, "l1@va", &mut trace).unwrap_err();
    assert!(matches!(trace.steps().last(), Some(Step::Cycle { path }) if path.len() == 4));
}

#[test]
fn limits_defer_and_never_truncate() {
    let many: Vec<String> = (0..5).map(|n| format!("m{n}@vm")).collect();
    let table = format!("inline:{{{{list@va = {}}}}}", many.join(" "));
    let limit = |n| RoutingSettings {
        virtual_alias_expansion_limit: n,
        ..settings(&table)
    };
    assert_eq!(
        expand_with(&limit(5), "list@va", &mut Trace::off()).unwrap(),
        many
    );
    assert!(failure(&limit(4), "list@va").contains("virtual_alias_expansion_limit = 4"));

    let deep = settings("inline:{deep@va=deep+x@va}");
    assert!(failure(&deep, "deep@va").contains("virtual_alias_address_length_limit"));

    let chain = "inline:{a@x=b@x, b@x=c@x, c@x=d@x}";
    let limit = |n| RoutingSettings {
        virtual_alias_recursion_limit: n,
        ..settings(chain)
    };
    assert_eq!(
        expand_with(&limit(4), "a@x", &mut Trace::off()).unwrap(),
        ["d@x"]
    );
    assert!(failure(&limit(3), "a@x").contains("virtual_alias_recursion_limit = 3"));
}

#[test]
fn a_result_without_an_address_and_a_table_that_fails_defer() {
    let none = settings("inline:{{c@va = (nobody)}}");
    let error = expand_with(&none, "c@va", &mut Trace::off()).unwrap_err();
    assert!(error.to_string().contains("there is no address"), "{error}");
    assert!(error.status().to_string().starts_with("451 4.3.0 "));
    let error = expand_with(&settings("fail:x"), "c@va", &mut Trace::off()).unwrap_err();
    assert!(error.status().is_temporary());
}

#[test]
fn an_autoreply_address_keeps_the_whole_recipient_as_its_local_part() {
    let table = "inline:{{u@d = u@d, u@d@autoreply.d}}";
    assert_eq!(expand(table, "u@d"), ["u@d", "u@d@autoreply.d"]);
    let quoted = "inline:{{u@d = u@d, \"u@d\"@autoreply.d}}";
    assert_eq!(expand(quoted, "u@d"), ["u@d", "u@d@autoreply.d"]);
}

#[test]
fn what_turns_up_behind_too_many_members_is_the_cause_as_it_is_in_postfix() {
    let many: Vec<String> = (0..30).map(|n| format!("m{n}@vm")).collect();
    let limited = |table: &str| RoutingSettings {
        virtual_alias_expansion_limit: 10,
        virtual_alias_recursion_limit: 20,
        ..settings(table)
    };
    let all = many.join(", ");
    let bad = limited(&format!(
        "inline:{{{{a@va = b@va, {all}}}, {{b@va = (nobody)}}}}"
    ));
    let error = expand_with(&bad, "a@va", &mut Trace::off()).unwrap_err();
    assert_eq!(error.status().to_string(), "451 4.3.0 alias lookup failure");
    let good = limited(&format!("inline:{{{{a@va = b@va, {all}}}, b@va=c@vm}}"));
    assert!(failure(&good, "a@va").contains("more than virtual_alias_expansion_limit = 10"));
    // Each round has more members; only so many of them are held.
    let round = limited(&format!("inline:{{{{a@va = b@va, {all}}}, b@va=a@va}}"));
    assert!(failure(&round, "a@va").contains("forms a loop"));
}
