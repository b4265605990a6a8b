//! Aliases expand to the same recipients here and in Postfix's cleanup(8).
//!
//! Method: generated `virtual_alias_maps`, one private Postfix for each set of parameters, and
//! generated recipients. Postfix's answer is the queue file of a held mail, ours that of
//! `Router::expand`. A recipient that Postfix does not take (451 4.6.0) must fail here too.
//! `MAILSTOW_SEED=n` replays a run.

use fastrand::Rng;
use mailstow_engine::address::{Address, quote_address};
use mailstow_engine::route::Router;
use mailstow_tests::generate::{address, alias_value, key, table};
use mailstow_tests::oracle::{Expansion, HOLD_ALL, expansions, router};
use mailstow_tests::{Postfix, generate};

/// Recipients asked about for each set of parameters.
const CASES: usize = 500;
/// Recipients of one mail.
const BATCH: usize = 100;

const COMMON: &str = "\
mydestination = origin.example, localhost
inet_interfaces = 127.0.0.1
smtputf8_enable = yes
virtual_alias_domains =
virtual_alias_recursion_limit = 20
virtual_alias_expansion_limit = 40
virtual_alias_maps = hash:@DIR@/virtual, hash:@DIR@/more
";

const PARAMETERS: &[(&str, &str)] = &[
    ("plus", "recipient_delimiter = +"),
    ("two-delimiters", "recipient_delimiter = +-"),
    (
        "no-extensions",
        "recipient_delimiter =\nappend_dot_mydomain = yes",
    ),
    (
        "not-propagated",
        "recipient_delimiter = +\npropagate_unmatched_extensions = canonical\n\
         owner_request_special = no\nswap_bangpath = no\nallow_percent_hack = no",
    ),
    (
        "tight-limits",
        "recipient_delimiter = +\nvirtual_alias_expansion_limit = 4\n\
         virtual_alias_recursion_limit = 3\nvirtual_alias_address_length_limit = 30\n\
         append_at_myorigin = no",
    ),
];

fn seed() -> u64 {
    match std::env::var("MAILSTOW_SEED") {
        Ok(text) => text.parse().expect("MAILSTOW_SEED is a number"),
        Err(_) => fastrand::u64(..),
    }
}

fn ours(router: &Router, internal: &str) -> Expansion {
    match router.expand(&Address::from_internal(internal)) {
        Ok(members) => Ok(members.iter().map(Address::internal).collect()),
        Err(error) => Err(format!("{} ({error})", error.status())),
    }
}

/// Postfix's answers. Those we expect to be refused are asked one by one, the others together.
fn theirs(postfix: &Postfix, router: &Router, cases: &[String]) -> Vec<Expansion> {
    let quoted = |case: &String| quote_address(case).into_owned();
    let mut answers = vec![Ok(Vec::new()); cases.len()];
    let (good, bad): (Vec<usize>, Vec<usize>) =
        (0..cases.len()).partition(|&n| ours(router, &cases[n]).is_ok());
    let batches = good.chunks(BATCH).chain(bad.chunks(1));
    for batch in batches {
        let recipients: Vec<String> = batch.iter().map(|&n| quoted(&cases[n])).collect();
        for (&n, answer) in batch.iter().zip(expansions(postfix, &recipients)) {
            answers[n] = answer;
        }
    }
    answers
}

/// The same recipients in the same order, or refused with the same codes.
fn same(ours: &Expansion, theirs: &Expansion) -> bool {
    let codes = |text: &str| {
        text.split(' ')
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        (Err(ours), Err(theirs)) => codes(ours) == codes(theirs),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

/// smtpd has refused the recipient, and cleanup was never asked.
fn is_bad_syntax(theirs: &Expansion) -> bool {
    theirs
        .as_ref()
        .is_err_and(|reply| reply.starts_with("501 5.1.3"))
}

#[test]
fn generated_aliases_stand_for_the_same_recipients() {
    let seed = seed();
    println!("MAILSTOW_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut count = 0;
    let mut differences = Vec::new();
    for (name, parameters) in PARAMETERS {
        let postfix = Postfix::build(&format!("alias-{name}"))
            .main_cf(HOLD_ALL)
            .main_cf(COMMON)
            .main_cf(parameters)
            .table("virtual", &table(&mut rng, 120, key, alias_value))
            .table("more", &table(&mut rng, 30, key, alias_value))
            .start();
        let router = router(&postfix);
        let cases: Vec<String> = (0..CASES)
            .map(|_| address(&mut rng))
            .filter(|case| !case.is_empty() && !case.starts_with('@'))
            .collect();
        let answers = theirs(&postfix, &router, &cases);
        for (case, theirs) in cases.iter().zip(answers) {
            if is_bad_syntax(&theirs) {
                continue;
            }
            count += 1;
            let ours = ours(&router, case);
            if !same(&ours, &theirs) {
                differences.push(format!(
                    "{name}: {case:?}: ours {ours:?}, theirs {theirs:?}"
                ));
            }
        }
    }
    println!("{count} cases, {} differences", differences.len());
    assert!(
        differences.is_empty(),
        "seed {seed}:\n{}",
        differences.join("\n")
    );
}

#[test]
fn generated_lists_are_split_into_the_same_addresses() {
    let seed = seed();
    println!("MAILSTOW_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let values: Vec<String> = (0..1500)
        .map(|_| generate::noise(&mut rng).trim().to_owned())
        .filter(|value| !value.is_empty())
        .collect();
    let lines: String = values
        .iter()
        .enumerate()
        .map(|(n, value)| format!("list{n}@va.example {value}\n"))
        .collect();
    let postfix = Postfix::build("address-lists")
        .main_cf(HOLD_ALL)
        .main_cf(COMMON)
        .table("virtual", &lines)
        .table("more", "nothing@here nothing\n")
        .start();
    let router = router(&postfix);
    let cases: Vec<String> = (0..values.len())
        .map(|n| format!("list{n}@va.example"))
        .collect();
    let mut differences = Vec::new();
    for (n, theirs) in theirs(&postfix, &router, &cases).into_iter().enumerate() {
        let ours = ours(&router, &cases[n]);
        if !same(&ours, &theirs) {
            differences.push(format!("{:?}: ours {ours:?}, theirs {theirs:?}", values[n]));
        }
    }
    println!("{} cases, {} differences", cases.len(), differences.len());
    assert!(
        differences.is_empty(),
        "seed {seed}:\n{}",
        differences.join("\n")
    );
}
