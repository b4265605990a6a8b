//! Class, transport, nexthop and recipient are those of Postfix's trivial-rewrite(8).
//!
//! Method: generated `transport_maps` and domain lists, one private Postfix for each set of
//! parameters, and generated addresses, asked of its rewrite service by its own protocol. Ours is
//! the first result of `Router::resolve`, no alias being in the way. `MAILSTOW_SEED=n` replays.

use fastrand::Rng;
use mailstow_engine::address::{Address, quote_address};
use mailstow_engine::route::Router;
use mailstow_tests::Postfix;
use mailstow_tests::generate::{address, domain, key, noise, table};
use mailstow_tests::oracle::{HOLD_ALL, Resolved, Rewriter, router};

/// Addresses asked about for each set of parameters.
const CASES: usize = 1500;

const COMMON: &str = "\
mydestination = origin.example, localhost, mx.origin.example
inet_interfaces = 127.0.0.1
proxy_interfaces = 192.0.2.1
virtual_alias_maps =
virtual_alias_domains = !x.va.example, va.example
virtual_mailbox_domains = inline:{vm.example=x, far.example=y}
virtual_mailbox_maps = static:x/
virtual_mailbox_base = /var/empty
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
relay_domains = relay.example
transport_maps = hash:@DIR@/transport
";

const PARAMETERS: &[(&str, &str)] = &[
    (
        "plain",
        "recipient_delimiter = +\nlocal_transport = local:$myhostname",
    ),
    (
        "parents",
        "recipient_delimiter = +-\nrelayhost = [gate.example]:587\nappend_dot_mydomain = yes\n\
         parent_domain_matches_subdomains = transport_maps",
    ),
    (
        "lenient",
        "resolve_null_domain = yes\nresolve_numeric_domain = yes\nallow_min_user = yes\n\
         default_transport = smtp:[out.example]\nvirtual_transport = lmtp:unix:private/x",
    ),
    (
        "strict",
        "swap_bangpath = no\nallow_percent_hack = no\nresolve_dequoted_address = no\n\
         relocated_maps = hash:@DIR@/relocated\nrecipient_delimiter = +",
    ),
];

fn transport_key(rng: &mut Rng) -> String {
    let domain = domain(rng);
    match rng.u8(..8) {
        0 => "*".to_owned(),
        1 | 2 => format!(".{domain}"),
        3 => ".example".to_owned(),
        4 | 5 => domain,
        _ => key(rng),
    }
}

fn transport_value(rng: &mut Rng) -> String {
    const VALUES: &[&str] = &[
        ":",
        "smtp:",
        "lmtp:unix:/run/x",
        ":[hop.example]:25",
        "error:",
        "error:5.7.1 not for you",
        "retry:4.2.1 later",
        "virtual",
    ];
    VALUES[rng.usize(..VALUES.len())].to_owned()
}

fn ours(router: &Router, internal: &str) -> String {
    let resolution = router.resolve(&Address::from_internal(internal));
    match resolution.results.first() {
        Some(route) => format!(
            "{} {} {}:{}",
            route.recipient, route.class, route.transport, route.nexthop
        ),
        None => match &resolution.error {
            Some(status) if status.is_temporary() => "fails".to_owned(),
            _ => "bad address".to_owned(),
        },
    }
}

fn theirs(resolved: &Resolved) -> String {
    if resolved.flags & Resolved::FAIL != 0 {
        return "fails".to_owned();
    }
    if resolved.flags & Resolved::ERROR != 0 {
        return "bad address".to_owned();
    }
    let recipient = quote_address(&resolved.recipient);
    let Resolved {
        transport, nexthop, ..
    } = resolved;
    format!("{recipient} {} {transport}:{nexthop}", resolved.class())
}

/// cleanup brings an address into canonical form before trivial-rewrite resolves it.
fn cases(rng: &mut Rng) -> Vec<String> {
    (0..CASES)
        .map(|n| {
            if n % 10 == 0 {
                noise(rng)
            } else {
                address(rng)
            }
        })
        .filter(|case| !case.is_empty())
        .collect()
}

#[test]
fn generated_addresses_go_to_the_same_transport_and_nexthop() {
    let seed = match std::env::var("MAILSTOW_SEED") {
        Ok(text) => text.parse().expect("MAILSTOW_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("MAILSTOW_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut count = 0;
    let mut differences = Vec::new();
    for (name, parameters) in PARAMETERS {
        let postfix = Postfix::build(&format!("rewrite-{name}"))
            .main_cf(HOLD_ALL)
            .main_cf(COMMON)
            .main_cf(parameters)
            .table(
                "transport",
                &table(&mut rng, 40, transport_key, transport_value),
            )
            .table(
                "relocated",
                &table(&mut rng, 20, key, |_| "elsewhere".into()),
            )
            .start();
        let router = router(&postfix);
        let mut rewriter = Rewriter::new(&postfix);
        for case in cases(&mut rng) {
            count += 1;
            let canonical = rewriter.canonical(&case);
            let theirs = theirs(&rewriter.resolve(&canonical));
            let ours = ours(&router, &case);
            if ours != theirs {
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
