//! Tests of pattern tables: reading and asking.

use super::*;
use crate::table::{LookupTable, TableError};

fn reading(flavor: Flavor) -> Reading<'static> {
    Reading {
        flavor,
        substitution: Substitution::Text,
        parameter: None,
        any_octets: false,
    }
}

fn posix(text: &str) -> (RuleTable, Option<String>) {
    RuleTable::parse("regexp:/t", "/t", reading(Flavor::Posix), text.as_bytes())
}

fn perl(text: &str) -> (RuleTable, Option<String>) {
    RuleTable::parse("pcre:/t", "/t", reading(Flavor::Perl), text.as_bytes())
}

fn both(text: &str) -> [RuleTable; 2] {
    [posix, perl].map(|parse| {
        let (table, malformed) = parse(text);
        assert_eq!(malformed, None, "{text}");
        table
    })
}

fn ask(table: &RuleTable, key: &str) -> Option<String> {
    table.lookup(key).unwrap()
}

#[test]
fn the_first_rule_that_matches_answers() {
    for t in both("/^a/ one\n# c\n/^ab/\n two\n!/x/ three $$1\n") {
        assert_eq!(ask(&t, "abc").as_deref(), Some("one"));
        assert_eq!(ask(&t, "b").as_deref(), Some("three $1"));
        assert_eq!(ask(&t, "x"), None);
    }
}

#[test]
fn keys_are_not_folded_but_patterns_ignore_case_until_told() {
    for t in both("/^(abc)$/ got $1\n/^Xyz$/i exact\n") {
        assert_eq!(ask(&t, "ABC").as_deref(), Some("got ABC"));
        assert_eq!(ask(&t, "Xyz").as_deref(), Some("exact"));
        assert_eq!(ask(&t, "xyz"), None);
    }
}

#[test]
fn any_delimiter_serves_and_may_be_escaped_inside() {
    for t in both("#^a/b# x\n") {
        // A line that starts with # is a comment.
        assert_eq!(ask(&t, "a/b"), None);
    }
    for t in both("~a/b~ x\n|c\\|d| y\n/a\\/c/ z\n") {
        assert_eq!(ask(&t, "a/b").as_deref(), Some("x"));
        assert_eq!(ask(&t, "a/c").as_deref(), Some("z"));
    }
}

#[test]
fn groups_are_substituted() {
    for t in both("/^([^+]*)(\\+.*)?@(.*)$/ ${3}/$(1)/[$2]\n") {
        assert_eq!(ask(&t, "u+e@d").as_deref(), Some("d/u/[+e]"));
        assert_eq!(ask(&t, "u@d").as_deref(), Some("d/u/[]"));
    }
}

#[test]
fn conditions_nest() {
    let text = "if /@a$/\nIF !/^x/\n/^u/ inner\nendif\n/^x/ x-at-a\nENDIF\n/./ other\n";
    for t in both(text) {
        assert_eq!(ask(&t, "u@a").as_deref(), Some("inner"));
        assert_eq!(ask(&t, "x@a").as_deref(), Some("x-at-a"));
        assert_eq!(ask(&t, "x@b").as_deref(), Some("other"));
        assert_eq!(ask(&t, "y@a").as_deref(), Some("other"));
    }
}

#[test]
fn posix_rules_may_have_a_second_pattern() {
    let (t, malformed) = posix("/^(.*)@a$/!/^x/i one $1\n");
    assert_eq!(malformed, None);
    assert_eq!(ask(&t, "u@a").as_deref(), Some("one u"));
    assert_eq!(ask(&t, "x@a"), None);
    assert_eq!(ask(&t, "X@a").as_deref(), Some("one X"));
}

#[test]
fn flags_toggle_as_the_manuals_say() {
    let (t, _) = posix("/^b$/m newline\n/a\\{2\\}/x basic\n");
    assert_eq!(ask(&t, "a\nb").as_deref(), Some("newline"));
    assert_eq!(ask(&t, "aa").as_deref(), Some("basic"));
    let (t, malformed) = perl(
        "/c.d/s nodot\n/e f/x extended\n/g/A anchored\n/h$/E end\n/^(i+)/U got $1\n/^j/mX multi\n",
    );
    assert_eq!(malformed, None);
    assert_eq!(ask(&t, "c\nd"), None);
    assert_eq!(ask(&t, "c-d").as_deref(), Some("nodot"));
    assert_eq!(ask(&t, "ef").as_deref(), Some("extended"));
    assert_eq!(ask(&t, "xg"), None);
    assert_eq!(ask(&t, "h\n"), None);
    assert_eq!(ask(&t, "iii").as_deref(), Some("got i"));
    assert_eq!(ask(&t, "x\nj").as_deref(), Some("multi"));
    assert!(t.warnings()[0].contains("obsolete"));
}

#[test]
fn bad_rules_are_skipped_and_the_rest_is_used() {
    for rule in [
        "/(/ v",
        "/a",
        "/a\\/ v",
        "/a/q v",
        "!",
        "word v",
        "ifx /a/",
        "endif",
        "/a/ $1",
        "/(a)/ $2",
        "!/(a)/ $1",
        "/(a)/ $x",
        "/(a)/ ${1",
        "if",
        "if /(/",
        "if /a/\n/b/ v",
        "if /z/ text\nendif",
        "if /z/\nendif text",
    ] {
        for parse in [posix, perl] {
            let (t, malformed) = parse(&format!("/^k$/ v\n{rule}\n"));
            assert_eq!(ask(&t, "k").as_deref(), Some("v"), "{rule}");
            assert!(malformed.unwrap().starts_with("/t:"), "{rule}");
        }
    }
}

#[test]
fn a_rule_without_result_answers_an_empty_text_and_is_complained_about() {
    for parse in [posix, perl] {
        let (t, malformed) = parse("/a/\n");
        assert!(malformed.is_some());
        assert_eq!(ask(&t, "a").as_deref(), Some(""));
    }
}

#[test]
fn a_result_that_cuts_a_character_is_an_error() {
    for t in both("/^(.)/ $1\n") {
        let error = t.lookup("ü").unwrap_err();
        assert!(matches!(error, TableError::BadValue { .. }), "{error:?}");
        assert_eq!(ask(&t, "u").as_deref(), Some("u"));
    }
}

#[test]
fn a_search_that_cannot_be_done_is_an_error_not_a_miss() {
    let (t, _) = perl("/^(a+)+$/ v\n/./ other\n");
    let error = t.lookup(&format!("{}b", "a".repeat(40))).unwrap_err();
    assert!(matches!(error, TableError::Unavailable { .. }), "{error:?}");
}

#[test]
fn rules_may_stand_in_the_table_name() {
    let open = |text: &str| RuleTable::open_inline("pcre:{}", reading(Flavor::Perl), text);
    let t = open("{ {/^a{2}$/ two }, { if /b/ } {/./ has b} {endif} }").unwrap();
    assert_eq!(ask(&t, "aa").as_deref(), Some("two"));
    assert_eq!(ask(&t, "xb").as_deref(), Some("has b"));
    assert_eq!(ask(&t, "x"), None);
    assert!(t.warnings().is_empty());
    for bad in ["{ /a/ b }", "{ {/a/ b}", "{ {/a/ b} } x"] {
        assert!(open(bad).is_err(), "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, key in "\\PC{0,8}") {
        for flavor in [Flavor::Posix, Flavor::Perl] {
            let (t, _) = RuleTable::parse("t", "t", reading(flavor), &bytes);
            let _ = t.lookup(&key);
        }
    }

    #[test]
    fn any_rules_are_read_without_a_panic(
        text in "([!/ab.*()\\[\\]{}$1 \n\\\\ix]|if |endif\n){0,40}",
        key in "[ab1]{0,6}",
    ) {
        for flavor in [Flavor::Posix, Flavor::Perl] {
            let (t, _) = RuleTable::parse("t", "t", reading(flavor), text.as_bytes());
            let _ = t.lookup(&key);
        }
    }
}
