//! Tests of slow patterns: they hold up those who ask for them, and are named.

use super::*;
use crate::table::attempt::Attempt;
use crate::table::patterns::rule_parser::{Flavor, Reading};
use crate::table::substitution::Substitution;
use std::sync::mpsc;

/// Backtracks without end on what only begins as it.
const PERL: &str = "/^plain@/ plain\n/^((a+)+)+x@/ slow\n/^late@/ late\n";
/// Refers back to so many groups that a search takes hours.
const POSIX: &str =
    "/^plain@/ plain\n/^(a*)(a*)(a*)(a*)(a*)\\1\\2\\3\\4\\5b@/ slow\n/^late@/ late\n";

fn table(flavor: Flavor, text: &str) -> RuleTable {
    let reading = Reading {
        flavor,
        substitution: Substitution::Text,
        parameter: None,
        any_octets: false,
    };
    RuleTable::parse("pcre:/t", "/t", reading, text.as_bytes()).0
}

fn slow_key() -> String {
    format!("{}@d.example", "a".repeat(200))
}

#[test]
fn a_slow_pattern_defers_its_own_recipients_and_is_named() {
    for (flavor, text) in [(Flavor::Perl, PERL), (Flavor::Posix, POSIX)] {
        let table = table(flavor, text);
        let slow = slow_key();
        std::thread::scope(|scope| {
            let asked: Vec<_> = (0..2 * PATTERN_THREADS_MAX)
                .map(|_| scope.spawn(|| table.lookup(&slow)))
                .collect();
            for _ in 0..100 {
                let found = table.lookup("plain@d.example").unwrap();
                assert_eq!(found.as_deref(), Some("plain"), "{flavor:?}");
            }
            let mut named = 0;
            for asked in asked {
                let error = asked.join().unwrap().unwrap_err();
                let text = error.to_string();
                assert!(text.contains("pcre:/t"), "{text}");
                assert!(error.status().is_temporary());
                // On a busy machine some find all threads taken by the others.
                named += usize::from(text.contains("line 2"));
                assert!(text.contains("line 2") || text.contains("in use"), "{text}");
            }
            assert!(named > 0, "{flavor:?}");
        });
    }
}

#[test]
fn within_an_attempt_a_slow_pattern_is_a_question_and_a_quick_one_is_not() {
    let table = table(Flavor::Posix, POSIX);
    let quick = Attempt::default().run(|| table.lookup("plain@d.example"));
    assert_eq!(quick.unwrap(), Ok(Some("plain".to_owned())));
    // It refers back, so it is not begun at once, but it ends soon.
    let look_up = || table.lookup("late@d.example");
    let mut attempt = Attempt::default();
    let (tell, told) = mpsc::channel();
    let question = attempt.run(look_up).unwrap_err();
    question.ask(move |answered| tell.send(answered).unwrap());
    attempt.learn(told.recv().unwrap());
    assert_eq!(attempt.run(look_up).unwrap(), Ok(Some("late".to_owned())));
}

#[test]
fn many_patterns_that_are_all_nearly_slow_are_searched_aside() {
    // Each search ends by itself, well below the limit of one.
    let rules: String = (0..20_000)
        .map(|number| format!("/^(.*)(.)(.*)[=;]{number}?$/ x\n"))
        .collect();
    let table = table(Flavor::Perl, &rules);
    let key = "a".repeat(400);
    let found = Attempt::default().run(|| table.lookup(&key));
    assert!(found.is_err(), "{found:?}");
    assert_eq!(table.lookup(&key), Ok(None));
}

#[test]
fn a_pattern_that_refers_back_is_told_of_when_it_is_read() {
    let warnings = table(Flavor::Posix, POSIX).warnings;
    assert!(warnings[0].starts_with("/t:2:"), "{warnings:?}");
    assert!(warnings[0].contains("back-reference"), "{warnings:?}");
    assert_eq!(table(Flavor::Perl, "/^(a)\\1$/ x\n").warnings.len(), 0);
}
