//! Tests of parameter expansion; every expected value was checked against postconf(1).

use super::*;
use proptest::prelude::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "a" => "x",
        "empty" => "",
        "refers_to_empty" => "$empty",
        "nine" => "9",
        "ten" => "10",
        "nested" => "${nosuch:{d$a}}",
        "self_reference" => "1$self_reference",
        "ping" => "$pong",
        "pong" => "${ping}",
        "bomb" => "$bomb2$bomb2$bomb2$bomb2$bomb2$bomb2$bomb2$bomb2$bomb2$bomb2",
        "bomb2" => "$bomb3$bomb3$bomb3$bomb3$bomb3$bomb3$bomb3$bomb3$bomb3$bomb3",
        "bomb3" => "$bomb4$bomb4$bomb4$bomb4$bomb4$bomb4$bomb4$bomb4$bomb4$bomb4",
        "bomb4" => "$bomb5$bomb5$bomb5$bomb5$bomb5$bomb5$bomb5$bomb5$bomb5$bomb5",
        "bomb5" => "$empty$empty$empty$empty$empty$empty$empty$empty$empty$empty",
        _ => return None,
    };
    Some(value.to_owned())
}

fn value(text: &str) -> String {
    match expand("test", text, &lookup) {
        Ok(expansion) => expansion.value,
        Err(error) => panic!("{text}: {error}"),
    }
}

fn error(text: &str) -> ExpandError {
    expand("test", text, &lookup).expect_err(text)
}

#[test]
fn a_parameter_is_replaced_by_its_value_in_all_three_spellings() {
    assert_eq!(value("x$a.y$a-z ${a}z $(a)"), "xx.yx-z xz x");
    assert_eq!(value("${ a }"), "x");
    assert_eq!(value("$nested"), "dx");
}

#[test]
fn two_dollar_signs_are_one() {
    assert_eq!(value("a$$b"), "a$b");
    assert_eq!(value("$$$$$a"), "$$x");
}

#[test]
fn an_unknown_name_is_empty_and_remembered() {
    let expansion = expand("test", "${nosuch}z$nosuch$a_$a", &lookup).expect("valid");
    assert_eq!(expansion.value, "zx");
    assert_eq!(expansion.undefined, ["nosuch", "a_"]);
    let asked_for = expand("test", "${nosuch?{x}}${nosuch:y}", &lookup).expect("valid");
    assert_eq!(asked_for.value, "y");
    assert!(asked_for.undefined.is_empty());
}

#[test]
fn a_condition_chooses_by_emptiness() {
    for (text, expected) in [
        ("${a?yes:no}", "yes:no"),
        ("${ a?yes:no }", "yes:no "),
        ("${a ? {yes} : {no}}", "yes"),
        ("${empty ? {yes} : {no}}", "no"),
        ("${a?{yes}:no}", "yes"),
        ("${empty?{yes}:no}", "no"),
        ("${empty:{yes}}", "yes"),
        ("${empty:yes}", "yes"),
        ("${a:yes}", ""),
        ("$(a?{y}:{n})", "y"),
        ("$(a?(y))", "(y)"),
        ("${a??b}", "?b"),
        ("${a?}|", "|"),
        ("${a?{x}:}|", "x|"),
        ("${a\t:{x}}|", "|"),
        ("${a?{$nested}}", "dx"),
        ("${a?{  x  }}|", "  x  |"),
        ("${refers_to_empty?{written}:{not}}", "written"),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn a_comparison_is_numeric_for_digits_and_textual_otherwise() {
    for (text, expected) in [
        ("${ {$a} == {x} ? {yes} : {no} }", "yes"),
        ("${{$nine} < {$ten} ? {number} : {text}}", "number"),
        ("${{9a} < {10a} ? {number} : {text}}", "text"),
        ("${{010}=={10}?{x}:{y}}", "x"),
        ("${{ 10}=={10}?{x}:{y}}", "y"),
        ("${{-2}<{-1}?{x}:{y}}", "y"),
        ("${{a} == {a}}", "true"),
        ("[${{a} == {b}}]", "[]"),
        ("${{}=={}?{x}}", "x"),
        (
            "${{a}<={a}?{1}}${{a}>={b}?{2}}${{a}>{b}?{3}}${{a}!={b}?{4}}",
            "14",
        ),
        ("${{$nine} <level {$ten} ? {y} : {n}}", "y"),
        ("${{3.10} <level {3.9} ? {y} : {n}}", "n"),
        ("${{3.6}>=level{4}?{y}:{n}}${{3.6}>level{3}?{y}:{n}}", "ny"),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn the_branch_not_taken_may_hold_mistakes() {
    assert_eq!(value("${empty?{$nosuch $}:{ok}}"), "ok");
}

#[test]
fn malformed_references_are_errors_that_show_them() {
    use ExpandError as E;
    assert!(matches!(error("a$ b"), E::EmptyName(_)));
    assert!(matches!(error("$"), E::EmptyName(_)));
    assert!(matches!(error("${}"), E::EmptyName(_)));
    assert!(matches!(error("${ }"), E::EmptyName(_)));
    assert!(matches!(error("$é"), E::EmptyName(_)));
    assert!(matches!(error("${a"), E::Unclosed(_)));
    assert!(matches!(error("$(a"), E::Unclosed(_)));
    assert!(matches!(error("${a.b}"), E::BadName(_)));
    assert!(matches!(error("${$a}"), E::BadName(_)));
    for text in [
        "${a?{x} junk}",
        "${{a}~{a}?{x}}",
        "${a:{y}:{z}}",
        "${a?{y}{z}}",
        "${empty?{y}{z}}",
        "${{a}==b}",
        "${{a}==foo{a}?{x}:{y}}",
        "${{a}=={a} junk}",
    ] {
        assert!(matches!(error(text), E::Unexpected { .. }), "{text}");
    }
    assert!(matches!(error("${{x}<level{4}?{x}:{y}}"), E::BadLevel(_)));
    assert!(matches!(
        error("${{99999999999999999999}=={1}}"),
        E::BadNumber(_)
    ));
}

#[test]
fn a_circle_of_references_is_named() {
    let text = error("$self_reference").to_string();
    assert!(text.contains("self_reference -> self_reference"), "{text}");
    assert_eq!(error("$ping").to_string(), error("$ping").to_string());
    assert!(error("$ping").to_string().contains("ping -> pong -> ping"));
    assert!(matches!(error("x $test"), ExpandError::Loop(_)));
}

#[test]
fn a_value_that_explodes_is_refused() {
    assert_eq!(error("$bomb"), ExpandError::TooLarge);
    let deep = format!("{}x{}", "${a?{".repeat(200), "}}".repeat(200));
    assert_eq!(error(&deep), ExpandError::TooDeep);
}

#[test]
fn references_are_found_wherever_they_stand() {
    assert_eq!(
        references("a$b ${c?{$d}} $$e $(f) ${ {$g} == {x}}"),
        ["b", "c", "d", "f", "g"]
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_expansion_panic(text in "[a-z$(){}?:=<> ]{0,60}|\\PC{0,40}") {
        let _ = expand("test", &text, &lookup);
        let _ = references(&text);
    }
}
