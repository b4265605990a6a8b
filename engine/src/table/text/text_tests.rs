//! Tests of [`super`].

use super::*;
use crate::table::LookupTable;

fn table(text: impl AsRef<[u8]>) -> (TextTable, Option<String>) {
    TextTable::parse("hash:/t", "/t", LineForm::KeyValue, text.as_ref())
}

fn value(table: &TextTable, key: &str) -> Option<String> {
    table.lookup(key).unwrap()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn values_keep_inner_blanks_and_lose_outer_ones() {
    let (t, malformed) = table("k1 \t a  b\t c \r\nk2\tv # no comment\nk#3 v\n");
    assert_eq!(value(&t, "k1"), some("a  b\t c"));
    assert_eq!(value(&t, "k2"), some("v # no comment"));
    assert_eq!(value(&t, "k#3"), some("v"));
    assert_eq!(malformed, None);
    assert!(t.warnings().is_empty());
}

#[test]
fn continued_lines_keep_their_leading_blanks() {
    let (t, _) = table("k1 v1\n  more\n# c\n  more2\n\n  more3\n");
    assert_eq!(value(&t, "k1"), some("v1  more  more2  more3"));
}

#[test]
fn quoted_keys_and_escapes_stay_in_external_form() {
    let (t, _) = table("\"quoted key\"@x  val q\na\\ b esc\n\"a\\\" b\" c\n");
    assert_eq!(value(&t, "\"quoted key\"@x"), some("val q"));
    assert_eq!(value(&t, "a\\ b"), some("esc"));
    assert_eq!(value(&t, "\"a\\\" b\""), some("c"));
}

#[test]
fn keys_fold_when_loaded_and_when_asked() {
    let (t, _) = table("UPPER@x One\nSTRASSE@y s\nÜber@z u\n");
    assert_eq!(value(&t, "upper@X"), some("One"));
    assert_eq!(value(&t, "straße@Y"), some("s"));
    assert_eq!(value(&t, "über@z"), some("u"));
    assert_eq!(value(&t, "other"), None);
    assert_eq!(value(&t, ""), None);
}

#[test]
fn the_first_of_two_equal_keys_wins_and_both_lines_are_named() {
    let (t, malformed) = table("# c\nInfo@x one\n\ninfo@X two\n");
    assert_eq!(value(&t, "info@x"), some("one"));
    assert_eq!(malformed, None);
    assert_eq!(
        t.warnings(),
        ["/t:4: duplicate entry \"info@X\" ignored, the first is in line 2; remove one of them"]
    );
}

#[test]
fn an_alias_file_is_suspected_and_kept() {
    let (t, malformed) = table("alias: v\n");
    assert_eq!(value(&t, "alias:"), some("v"));
    assert_eq!(value(&t, "alias"), None);
    assert_eq!(malformed, None);
    assert!(t.warnings()[0].contains("is this an alias file?"));
}

#[test]
fn bad_lines_are_skipped_and_counted_as_malformed() {
    for (text, cause) in [
        (&b"  stray v\n more\nk v\n"[..], "continues nothing"),
        (b"k v\nmissing\n", "no value"),
        (b"k v\nmissing \x0b \n", "no value"),
        (b"k v\nbad\" x\n", "unbalanced"),
        (b"k v\n\"bad x\n", "unbalanced"),
        (b"k v\nn\xff x\n", "not UTF-8"),
        (b"k v\n\0x y\n", "NUL"),
        (b"k v\n\xc3\xbc x\0\xff\n", "not UTF-8"),
        (b"k v\0x\n", "NUL"),
    ] {
        let (t, malformed) = table(text);
        assert_eq!(value(&t, "k"), some("v"), "{text:?}");
        assert_eq!(t.entries.index.len(), 1, "{text:?}");
        let malformed = malformed.unwrap();
        assert!(malformed.starts_with("/t:"), "{malformed}");
        assert!(
            t.warnings().iter().any(|w| w.contains(cause)),
            "{malformed}"
        );
    }
}

#[test]
fn text_after_a_nul_is_lost_as_in_postfix() {
    let (t, malformed) = table(b"k v\0\xff\n  more\nj w\n");
    assert_eq!(value(&t, "k"), some("v"));
    assert_eq!(value(&t, "j"), some("w"));
    assert!(malformed.is_some());
}

#[test]
fn lines_may_be_very_long() {
    let long = "x".repeat(300_000);
    let (t, _) = table(format!("{long} {long}\n"));
    assert_eq!(value(&t, &long.to_uppercase()), Some(long));
}

#[test]
fn a_large_table_answers_every_key() {
    let text: String = (0..20_000)
        .map(|n| format!("User{n}@example.com d/{n}/\n"))
        .collect();
    let (t, _) = table(&text);
    for n in (0..20_000).step_by(17) {
        let key = format!("user{n}@EXAMPLE.com");
        assert_eq!(value(&t, &key), Some(format!("d/{n}/")));
    }
    assert!(t.entries.buffer.len() < text.len());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let (t, _) = table(&bytes);
        let _ = t.lookup(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_mixture_of_the_odd_characters_is_read_without_a_panic(
        text in "[ \t\n\r\"\\\\#:ka\\x00\u{fc}]{0,80}"
    ) {
        let (t, _) = table(&text);
        for span in &t.entries.index {
            let key = key_of(&t.entries.buffer, span);
            let value = t.entries.get(key);
            proptest::prop_assert!(value.is_some_and(|v| !v.is_empty() && !v.contains('\n')));
        }
    }
}

#[test]
fn every_key_is_listed_once() {
    let (t, _) = table("a@x 1\nB@x 2\na@x 3\n");
    let mut keys = Vec::new();
    assert!(t.for_each(&mut |key, _, _| keys.push(key.to_owned())));
    assert_eq!(keys, ["a@x", "b@x"]);
}
