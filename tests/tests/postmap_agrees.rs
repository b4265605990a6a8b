//! The engine's lookup tables answer as Postfix's `postmap -q` does.
//!
//! Generated tables, full of the odd lines that the manuals leave open, are asked for thousands
//! of keys by both; whole outputs are compared. A failing test prints its seed: set
//! `POSTMAP_SEED` to it to see the same tables again.

use std::collections::BTreeSet;
use std::path::Path;

use fastrand::Rng;
use mailstow_tests::generate::pick;
use mailstow_tests::postmap::{Postmap, compare, seeded};

/// A key as it may stand in a table: addresses, domains, quoted and escaped ones, other scripts.
fn key(rng: &mut Rng) -> String {
    let local = match rng.u8(..20) {
        0 => "\"two words\"".to_owned(),
        1 => "\"tab\there\"".to_owned(),
        2 => "back\\ slash".to_owned(),
        3 => "\"a\\\"b c\"".to_owned(),
        4 => pick(
            rng,
            &[
                "Ünï",
                "STRAẞE",
                "ΣΊΣΥΦΟΣ",
                "İstanbul",
                "ﬁsh",
                "ſ",
                "\u{212A}",
                "Ǆ",
            ],
        )
        .to_owned(),
        5 => pick(
            rng,
            &["日本語", "привет", "ПРИВЕТ", "e\u{301}", "É", "\u{a0}nbsp"],
        )
        .to_owned(),
        6 => "ha#sh".to_owned(),
        7 => String::new(),
        8 => "a=b,c;d:e".to_owned(),
        9 => "x".repeat(rng.usize(..90)),
        _ => pick(
            rng,
            &["info", "Sales", "UPPER", "user", "a.b", "List-Request"],
        )
        .to_owned(),
    };
    let number = rng.u16(..700);
    match rng.u8(..12) {
        0 => format!("{local}{number}x:"),
        1 => format!("@Dom{number}.example"),
        2 => format!("dom{number}.EXAMPLE"),
        _ => format!("{local}{number}@Example.com"),
    }
}

fn value(rng: &mut Rng, long: bool) -> String {
    match rng.u8(..12) {
        0 => "two  words\t and # no comment".to_owned(),
        1 => "ünïcode/Größe/".to_owned(),
        2 => "\"quoted\" and \\ back".to_owned(),
        3 if long => "long ".repeat(rng.usize(1..3000)),
        4 => "unbalanced \" is fine here".to_owned(),
        _ => format!("example.com/box{}/", rng.u16(..)),
    }
}

/// One line of a table with all that can go wrong; the keys it may have are added to `keys`.
fn line(rng: &mut Rng, long: bool, keys: &mut Vec<String>) -> Vec<u8> {
    let space = pick(rng, &[" ", "\t", "  \t ", "\x0b", "\x0c ", " \r"]);
    let end = pick(rng, &["", "", "", " ", "\t", "\r", " \x0b\r"]);
    let key = match keys.len() {
        // A key that is there already, in another case.
        known if known > 0 && rng.u8(..12) == 0 => keys[rng.usize(..known)].to_uppercase(),
        _ => key(rng),
    };
    keys.push(key.clone());
    let value = value(rng, long);
    let entry = format!("{key}{space}{value}{end}").into_bytes();
    match rng.u8(..40) {
        0 => b"# a comment line".to_vec(),
        1 => b"   \t# an indented comment".to_vec(),
        2 => b"".to_vec(),
        3 => b" \t \r".to_vec(),
        4..=7 => format!(" {space}{value}").into_bytes(),
        8 => format!("\t{key}{space}{value}").into_bytes(),
        9 => key.into_bytes(),
        10 => format!("{key}{space}").into_bytes(),
        11 => format!("\"{key}{space}{value}").into_bytes(),
        12 => format!("{key}\"{space}{value}").into_bytes(),
        13 => [&entry[..], b"\xff"].concat(),
        14 => [b"\xc3", &entry[..]].concat(),
        15 => [&entry[..], b"\0", value.as_bytes()].concat(),
        16 => [&entry[..], b"\0\xfe"].concat(),
        17 => [b"\0", &entry[..]].concat(),
        18 => format!("{key}\0{value}").into_bytes(),
        19 => format!("{key}{space}{value}\\").into_bytes(),
        20 => format!("{key}\\").into_bytes(),
        _ => entry,
    }
}

/// A table of `lines` lines, and keys to ask for: those in it, in several cases, and others.
fn text_table(rng: &mut Rng, lines: usize, long: bool) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut text, mut keys) = (Vec::new(), Vec::new());
    if rng.bool() {
        text.extend_from_slice(b"  starts with a stray line\n more of it\n");
    }
    for _ in 0..lines {
        text.extend(line(rng, long, &mut keys));
        text.push(b'\n');
    }
    if rng.bool() {
        text.pop();
    }
    let mut asked = BTreeSet::new();
    for known in &keys {
        asked.insert(known.clone());
        asked.insert(known.to_lowercase());
        asked.insert(known.to_uppercase());
        if rng.u8(..4) == 0 {
            let at = known
                .char_indices()
                .nth(rng.usize(..known.chars().count().max(1)));
            asked.insert(known[..at.map_or(0, |(at, _)| at)].to_owned());
            asked.insert(format!("{known}x"));
            asked.insert(key(rng));
        }
    }
    for odd in ["", " ", "\"", "\\", "#", ":", "\"tab\there\"1@example.com"] {
        asked.insert(odd.to_owned());
    }
    let mut asked: Vec<_> = asked.into_iter().map(String::into_bytes).collect();
    asked.push(b"not \xff utf-8".to_vec());
    rng.shuffle(&mut asked);
    (text, asked)
}

#[test]
fn indexed_and_text_tables_agree() {
    let mut rng = seeded();
    let postmap = Postmap::in_scratch();
    let mut asked = 0;
    for (round, long) in [true, false, false].into_iter().enumerate() {
        let (text, keys) = text_table(&mut rng, 1_500, long);
        let path = postmap.write(&format!("table{round}"), &text);
        for kind in ["hash", "btree", "lmdb", "cdb", "texthash"] {
            // A quote that closes lines later makes long text a key; LMDB takes no long keys.
            if kind == "lmdb" && long {
                continue;
            }
            let table = format!("{kind}:{}", path.display());
            if kind != "texthash" {
                postmap.index(&table);
            }
            let found = compare(&postmap, &table, &keys);
            assert!(
                found > 1_000,
                "{table}: {found} of {} keys found",
                keys.len()
            );
        }
        asked += keys.len();
    }
    assert!(asked > 6_000, "{asked} keys");
}

#[test]
fn lines_and_keys_of_any_length_agree() {
    let mut rng = seeded();
    let postmap = Postmap::in_scratch();
    let mut text = String::new();
    let mut keys = Vec::new();
    for length in [510, 511, 512, 2_048, 4_096, 65_536, 300_000] {
        let key = format!("K{}", "é".repeat(length / 2 + rng.usize(..3)));
        text.push_str(&format!("{key} {}\n", "v ".repeat(length)));
        keys.push(key.into_bytes());
    }
    let path = postmap.write("table", text.as_bytes());
    // LMDB has no keys of more than 511 bytes; reading the text, we have no such limit.
    for kind in ["hash", "btree", "cdb", "texthash"] {
        let table = format!("{kind}:{}", path.display());
        if kind != "texthash" {
            postmap.index(&table);
        }
        assert_eq!(compare(&postmap, &table, &keys), keys.len());
    }
}

/// Keys as short text over few characters, so that small patterns hit them.
fn short_keys(rng: &mut Rng, count: usize) -> Vec<Vec<u8>> {
    let keys: BTreeSet<_> = (0..count)
        .map(|_| {
            let mut key = String::new();
            for _ in 0..rng.usize(..7) {
                key.push_str(pick(
                    rng,
                    &["a", "b", "A", "B", "+", ".", "1", "ü", "$", " "],
                ));
            }
            if rng.u8(..3) > 0 {
                key.push_str(pick(rng, &["@a", "@b.A", "@B"]));
            }
            key.into_bytes()
        })
        .collect();
    keys.into_iter().collect()
}

#[test]
fn tables_in_the_configuration_agree() {
    let mut rng = seeded();
    let postmap = Postmap::in_scratch();
    let keys = short_keys(&mut rng, 400);
    let mut found = 0;
    for _ in 0..40 {
        let mut entries = String::new();
        for _ in 0..rng.usize(1..60) {
            let key = &keys[rng.usize(..keys.len())];
            let key = String::from_utf8(key.clone()).unwrap().replace(' ', "");
            let key = if key.is_empty() { "k".to_owned() } else { key };
            let comma = pick(&mut rng, &[" ", ", ", ",", "\n\t"]);
            let value = pick(&mut rng, &["v", "a=b", "", "{x}", "ünï"]);
            let entry = match rng.u16(..1_000) {
                0 => format!("{key} = {value}"),
                1 => key,
                2 => format!("={value}"),
                3 => format!("{{ {key} {value} }}"),
                4 => format!("{{{key}={value}"),
                5..=500 => format!("{key}={value}"),
                _ => format!("{{ {key} = {value}, two  words }}"),
            };
            entries.push_str(&format!("{entry}{comma}"));
        }
        found += compare(&postmap, &format!("inline:{{{entries}}}"), &keys);
    }
    assert!(found > 200, "{found} keys found");
    for bad in [
        "inline:{}",
        "inline:{ , }",
        "inline:a=b",
        "inline:{a=b",
        "inline:{a=b} ",
    ] {
        assert_eq!(compare(&postmap, bad, &keys), 0);
    }
    for table in [
        "static:5000",
        "static:{ two words }",
        "static:a{b}",
        "static:x=y,z",
    ] {
        assert_eq!(compare(&postmap, table, &keys), keys.len());
    }
    for bad in ["static:{a", "static:{a} b"] {
        assert_eq!(compare(&postmap, bad, &keys), 0);
    }
    assert!(compare(&postmap, "fail:x", &keys) == 0);
}

/// `/pattern/flags`, mostly right.
fn pattern(rng: &mut Rng, perl: bool) -> String {
    let atoms = [
        "a",
        "b",
        "A",
        "(a+)",
        "(b|1)",
        "[ab]",
        "[^@]*",
        "(.*)",
        ".",
        "\\.",
        "\\+",
        "(.)",
        "@",
        "b?",
        "(a(b)?)",
        "x{1,2}",
        "a{2}",
        "ü",
        "\\$",
        "[[:digit:]]",
        " ",
    ];
    let perl_atoms = [
        "(?!a)", "(?:b)", "\\d", "(?i:a)", "(?P<n>b)", "\\bA", ".*?", "(?s).", "\\w+",
    ];
    let bad = ["(", "[a", "a{2,1}", ")", "*a", "\\"];
    let mut text = String::new();
    if rng.u8(..4) > 0 {
        text.push('^');
    }
    for _ in 0..rng.usize(1..5) {
        let choices = if perl && rng.u8(..3) == 0 {
            &perl_atoms[..]
        } else {
            &atoms[..]
        };
        text.push_str(pick(rng, choices));
    }
    if rng.u8(..60) == 0 {
        text.push_str(pick(rng, &bad));
    }
    if rng.u8(..3) == 0 {
        text.push('$');
    }
    let delimiter = pick(rng, &["/", "/", "/", "~", "|", "%", "'"]);
    let text = text.replace(delimiter, &format!("\\{delimiter}"));
    let flags = match rng.u8(..10) {
        0 => pick(rng, &["i", "m", "x", "im", "ii", "xi"]),
        1 if perl => pick(rng, &["s", "A", "E", "U", "X", "sAE", "Us", "xmA"]),
        2 if rng.u8(..10) == 0 => pick(rng, &["q", "s", "A", "i!"]),
        _ => "",
    };
    let not = pick(rng, &["", "", "", "", "", "", "! ", "!!", "!"]);
    let end = if rng.u8(..80) == 0 { "" } else { delimiter };
    format!("{not}{delimiter}{text}{end}{flags}")
}

fn rule_line(rng: &mut Rng, number: usize, perl: bool) -> String {
    let pattern_text = pattern(rng, perl);
    let result = match rng.u8(..24) {
        0..=3 => "one $1 end".to_owned(),
        4 => "${1}/$(2)".to_owned(),
        5 => "[$2][${1}]$$1".to_owned(),
        6 => pick(
            rng,
            &[
                "$x", "$", "${1", "$0", "$9", "${}", "$1x", "a $ b", "$$$1", "$(1}",
            ],
        )
        .to_owned(),
        7 => String::new(),
        8 => "ünï $$ # no comment".to_owned(),
        _ => "plain".to_owned(),
    };
    let space = pick(rng, &[" ", "\t", "  ", "\n ", "\n# c\n\t"]);
    match rng.u8(..30) {
        0 => "# a comment".to_owned(),
        1 => "   ".to_owned(),
        2..=4 => format!("{} {pattern_text}", pick(rng, &["if", "IF", "if "])),
        5..=6 => pick(rng, &["endif", "ENDIF", "endif extra", "EndIf "]).to_owned(),
        7 => pick(
            rng,
            &["word x", "ifx /a/ b", "endifx", "if", "!", "/", "if/a/"],
        )
        .to_owned(),
        8 => format!("if {pattern_text} extra"),
        9 if !perl => format!("{pattern_text}!{} {number} $1", pattern(rng, perl)),
        _ => format!("{pattern_text}{space}{number} {result}"),
    }
}

fn pattern_tables_agree(kind: &str) {
    let mut rng = seeded();
    let postmap = Postmap::in_scratch();
    let (mut asked, mut found) = (0, 0);
    for round in 0..60 {
        let mut text = String::new();
        if rng.u8(..5) == 0 {
            text.push_str("  stray line\n");
        }
        for number in 0..rng.usize(1..14) {
            text.push_str(&rule_line(&mut rng, number, kind == "pcre"));
            text.push('\n');
        }
        let path = postmap.write(&format!("rules{round}"), text.as_bytes());
        let keys = short_keys(&mut rng, 120);
        println!("--- table {round}:\n{text}");
        asked += keys.len();
        found += compare(&postmap, &format!("{kind}:{}", path.display()), &keys);
    }
    assert!(
        asked > 4_000 && found > 1_000,
        "{found} of {asked} keys found"
    );
}

#[test]
fn posix_pattern_tables_agree() {
    pattern_tables_agree("regexp");
}

#[test]
fn perl_pattern_tables_agree() {
    pattern_tables_agree("pcre");
}

#[test]
fn pattern_tables_in_the_configuration_agree() {
    let mut rng = seeded();
    let postmap = Postmap::in_scratch();
    let mut found = 0;
    for _ in 0..30 {
        for kind in ["regexp", "pcre"] {
            let mut rules = String::new();
            for number in 0..rng.usize(1..10) {
                let rule = rule_line(&mut rng, number, kind == "pcre").replace(['#', '\n'], " ");
                let space = pick(&mut rng, &["", " ", "\t"]);
                rules.push_str(&format!("{{{space}{rule}{space}}}, "));
            }
            let keys = short_keys(&mut rng, 60);
            let table = format!("{kind}:{{ {rules}}}");
            println!("--- {table}");
            found += compare(&postmap, &table, &keys);
        }
    }
    assert!(found > 500, "{found} keys found");
}

#[test]
fn non_utf8_text_in_pattern_tables_agrees() {
    let postmap = Postmap::in_scratch();
    let text =
        b"/^\xfc/ byte\n/^a(.)/ got $1\n/^b/ v\xfc\n/^c/ v\0cut\n/^d\0/ x\n/^\xc3/ lead\n/d/ e\n";
    for kind in ["regexp", "pcre"] {
        let path: &Path = &postmap.write(kind, text);
        let keys = ["ü", "aü", "ab", "b", "c", "d", "é", "x"].map(|key| key.as_bytes().to_vec());
        assert!(compare(&postmap, &format!("{kind}:{}", path.display()), &keys) > 3);
    }
}

/// `randmap:` cannot be compared, but for a single value.
#[test]
fn tables_of_tables_agree() {
    let mut rng = seeded();
    let postmap = Postmap::in_scratch();
    let (text, mut keys) = text_table(&mut rng, 300, false);
    let path = postmap.write("first", &text);
    let first = path.display();
    let values = "example.com/box1/ one\ntwo three\n1 first\nfirst 1\n";
    let path = postmap.write("second", values.as_bytes());
    let second = path.display();
    keys.extend([b"1".to_vec(), b"first".to_vec(), b"a".to_vec()]);
    for table in [
        format!("unionmap:{{texthash:{first}, texthash:{second}}}"),
        format!("unionmap:{{texthash:{first} pcre:{{{{/x@(.*)/ <$1>}}}},static:s}}"),
        format!("pipemap:{{texthash:{first}, pcre:{{{{/^(.*)box/ $1}}}}}}"),
        format!("pipemap:{{texthash:{second},texthash:{second}}}"),
        format!(
            "pipemap:{{unionmap:{{inline:{{a=1}}, texthash:{second}}},inline:{{{{1,first = x}}}}}}"
        ),
        "randmap:{only}".to_owned(),
        "unionmap:{}".to_owned(),
        "pipemap:{texthash:/nonexistent/table}".to_owned(),
        "unionmap:static:x".to_owned(),
    ] {
        compare(&postmap, &table, &keys);
    }
}
