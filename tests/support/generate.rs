//! Generates addresses, alias tables and transport tables that collide often enough to matter.
//!
//! Everything comes from one seeded generator, so that a seed replays a test. Names are few:
//! keys are then hit whole, by user, by domain and not at all.

use fastrand::Rng;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const USERS: &[&str] = &[
    "a",
    "b",
    "c",
    "Dd",
    "e.f",
    "g h",
    "x@y",
    "ünï",
    "k%l",
    "m!n",
    "o\"p",
    "q\\r",
    "-s",
    "t.",
    "postmaster",
    "owner-u",
    "v-request",
    "",
    "w,z",
    "[1]",
    "(i)",
];
const EXTENSIONS: &[&str] = &["", "", "", "+x", "+Y", "+x+y", "-z", "+", "+a b"];
const DOMAINS: &[&str] = &[
    "origin.example",
    "Va.example",
    "vm.example",
    "relay.example",
    "sub.relay.example",
    "far.example",
    "nodot",
    "localhost",
    "[127.0.0.1]",
    "[192.0.2.1]",
];
const ODD_DOMAINS: &[&str] = &[
    "",
    ".",
    "a..b",
    "vm.example.",
    "vm.example..",
    "-x.example",
    "1.2.3.4",
    "[bad]",
    "[IPv6:::1]",
    "x y",
    "va.example@vm.example",
    "mx.origin.example",
    "under_score.example",
];

/// One of these.
pub fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

/// A local part in internal form.
pub fn local_part(rng: &mut Rng) -> String {
    // Mostly the plain names, so that keys are hit.
    let users = if rng.u8(..) < 190 { &USERS[..4] } else { USERS };
    format!("{}{}", pick(rng, users), pick(rng, EXTENSIONS))
}

/// A domain that mail could be for.
pub fn domain(rng: &mut Rng) -> String {
    pick(rng, DOMAINS).to_owned()
}

/// An address in internal form; now and then one that is hardly an address.
pub fn address(rng: &mut Rng) -> String {
    match rng.u8(..32) {
        0 => local_part(rng),
        1 => format!("{}@{}", local_part(rng), pick(rng, ODD_DOMAINS)),
        2 => format!("{}%{}@{}", local_part(rng), domain(rng), domain(rng)),
        3 => format!("{}!{}@{}", domain(rng), local_part(rng), domain(rng)),
        4 => format!("{}@{}@{}", local_part(rng), domain(rng), domain(rng)),
        _ => format!("{}@{}", local_part(rng), domain(rng)),
    }
}

/// A piece of an address list, well formed or not.
fn listed(rng: &mut Rng) -> String {
    let quoted = |internal: &str| mailstow_engine::address::quote_address(internal).into_owned();
    match rng.u8(..40) {
        0 => "(a comment)".to_owned(),
        1 => format!("A Phrase <{}>", quoted(&address(rng))),
        2 => format!(
            "group: {}, {};",
            quoted(&address(rng)),
            quoted(&address(rng))
        ),
        3 => format!("@hop.example,@hop2:{}", quoted(&address(rng))),
        4 => format!("<@hop.example:{}>", quoted(&address(rng))),
        5 => local_part(rng),
        6 => format!(
            "\"{}\"@{}",
            local_part(rng).replace(['"', '\\'], ""),
            domain(rng)
        ),
        7 => noise(rng),
        8 => format!("\"Q. P.\" <{}> (c)", quoted(&address(rng))),
        9 => address(rng),
        10 => "<>".to_owned(),
        _ => quoted(&address(rng)),
    }
}

/// Tokens in any order.
pub fn noise(rng: &mut Rng) -> String {
    const PIECES: &[&str] = &[
        "a",
        "b",
        "@",
        "@",
        ".",
        ",",
        ";",
        ":",
        "<",
        ">",
        "(",
        ")",
        "[",
        "]",
        "\"",
        "\\",
        "%",
        "!",
        "|",
        " ",
        "vm.example",
        "\"q q\"",
        "(c)",
        "[1]",
        "g:",
        "ü",
        "+x",
        "<a@b>",
        "a@b",
        "\t",
    ];
    let count = rng.usize(1..9);
    (0..count).map(|_| pick(rng, PIECES)).collect()
}

/// The value of an alias.
pub fn alias_value(rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => format!("@{}", domain(rng)),
        1 => listed(rng),
        _ => {
            let count = rng.usize(1..4);
            let items: Vec<String> = (0..count).map(|_| listed(rng)).collect();
            items.join([", ", " ", ",", " , "][rng.usize(..4)])
        }
    }
}

/// A key of an address table, in external form.
pub fn key(rng: &mut Rng) -> String {
    let quoted = |internal: &str| mailstow_engine::address::quote_address(internal).into_owned();
    match rng.u8(..12) {
        0 => format!("@{}", domain(rng)),
        1 => quoted(&local_part(rng)),
        2 => address(rng),
        _ => quoted(&format!("{}@{}", local_part(rng), domain(rng))),
    }
}

/// A table of `count` lines at most, without duplicate keys, none of which continues another.
pub fn table(
    rng: &mut Rng,
    count: usize,
    key: impl Fn(&mut Rng) -> String,
    value: impl Fn(&mut Rng) -> String,
) -> String {
    let mut lines = BTreeMap::new();
    for _ in 0..count {
        let (key, value) = (key(rng), value(rng));
        let key = key.trim();
        if key.is_empty() || key.starts_with('#') || value.trim().is_empty() {
            continue;
        }
        lines.entry(key.to_lowercase()).or_insert(value);
    }
    lines.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key}  {value}");
        text
    })
}
