//! A recipient's mailbox, its owner and the status codes are those of Postfix's virtual(8).
//!
//! Method: generated `virtual_mailbox_maps`, `virtual_uid_maps` and `virtual_gid_maps`, one
//! private Postfix for each set of parameters, and one mail to many generated recipients. Which
//! file got whose mail is read from the files, the codes are read from Postfix's log. Ours is
//! `Router::mailbox`, and `Router::resolve` where the domain is of the virtual mailbox class.
//! `MAILSTOW_SEED=n` replays.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use mailstow_engine::address::{Address, quote_address};
use mailstow_engine::route::{Format, Router};
use mailstow_tests::journey::Log;
use mailstow_tests::mailboxes::{maildir, mbox};
use mailstow_tests::oracle::router;
use mailstow_tests::{Client, Postfix, Scratch, generate};

/// Recipients asked about for each set of parameters.
const CASES: usize = 150;

const COMMON: &str = "\
mydestination = origin.example
local_transport = virtual
local_recipient_maps =
virtual_mailbox_domains = vm.example, Va.example
virtual_mailbox_base = @ROOT@/base
virtual_mailbox_limit = 0
smtpd_reject_unlisted_recipient = no
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_recipient_limit = 10000
strict_rfc821_envelopes = no
allow_untrusted_routing = yes
enable_long_queue_ids = yes
in_flow_delay = 0
strict_mailbox_ownership = no
virtual_mailbox_lock = fcntl
virtual_destination_concurrency_limit = 2
";

const PARAMETERS: &[(&str, &str)] = &[
    (
        "tables",
        "recipient_delimiter = +\nvirtual_mailbox_maps = hash:@DIR@/first, hash:@DIR@/second\n\
         virtual_uid_maps = hash:@DIR@/uids\nvirtual_gid_maps = hash:@DIR@/gids",
    ),
    (
        "static",
        "recipient_delimiter = +-\nvirtual_mailbox_maps = hash:@DIR@/first\n\
         virtual_uid_maps = hash:@DIR@/uids, static:5002\nvirtual_gid_maps = static:5000",
    ),
    (
        "low-owners",
        "recipient_delimiter =\nvirtual_minimum_uid = 5001\n\
         virtual_mailbox_maps = hash:@DIR@/first, pcre:@DIR@/patterns\n\
         virtual_uid_maps = pcre:{{/x@/ 5003}, {/^a/ 5000}, {/./ 5004}}\n\
         virtual_gid_maps = hash:@DIR@/gids, static:5000",
    ),
    (
        "failing",
        "recipient_delimiter = +\nvirtual_minimum_uid = 5000\n\
         virtual_mailbox_maps = hash:@DIR@/first, fail:down\n\
         virtual_uid_maps = static:5000\nvirtual_gid_maps = hash:@DIR@/gids",
    ),
    (
        "catch-all",
        "recipient_delimiter = +\n\
         virtual_mailbox_maps = hash:@DIR@/first static:all/of/them/\n\
         virtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000",
    ),
];

fn seed() -> u64 {
    match std::env::var("MAILSTOW_SEED") {
        Ok(text) => text.parse().expect("MAILSTOW_SEED is a number"),
        Err(_) => fastrand::u64(..),
    }
}

fn domain(rng: &mut Rng) -> &'static str {
    ["vm.example", "Va.example", "origin.example"][rng.usize(..3)]
}

fn recipient(rng: &mut Rng) -> String {
    format!("{}@{}", generate::local_part(rng), domain(rng))
}

fn key(rng: &mut Rng) -> String {
    match rng.u8(..12) {
        0 => format!("@{}", domain(rng)),
        1 => quote_address(&generate::local_part(rng)).into_owned(),
        _ => quote_address(&recipient(rng)).into_owned(),
    }
}

/// A mailbox that no other line has.
fn mailbox(rng: &mut Rng) -> String {
    let name = format!("k{:x}", rng.u32(..));
    match rng.u8(..12) {
        0 => format!("dir/{name}"),
        1 => format!("dir/deep//{name}/"),
        2 => format!("/{name}/"),
        3 => format!("./{name}"),
        4 => format!("dir/./{name}//"),
        5 => format!("{name} with blanks/"),
        6 => format!("{name}..x"),
        7 | 8 => name,
        _ => format!("{name}/"),
    }
}

fn owner(rng: &mut Rng) -> String {
    // What is a number for Postfix 3.7 and none for us is left out (see the manual).
    const ODD: &[&str] = &["0", "-1", "99", "abc", "x5000"];
    match rng.u8(..4) {
        0 => ODD[rng.usize(..ODD.len())].to_owned(),
        _ => (5000 + rng.u32(..3)).to_string(),
    }
}

/// Makes everything that a delivery to `base` needs, writable for the user it runs as.
fn prepare(scratch: &Scratch, tables: &[&str]) {
    let writable = |path: &Path, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("chmod of a scratch file");
    };
    let base = scratch.mkdir("base");
    let open = |path: &Path| {
        std::fs::create_dir_all(path).expect("mkdir");
        for directory in path.ancestors().take_while(|path| path.starts_with(&base)) {
            writable(directory, 0o777);
        }
    };
    open(&base);
    for line in tables.iter().flat_map(|table| table.lines()) {
        let (_, value) = line.split_once("  ").expect("key, two blanks, value");
        let path = base.join(value.trim_matches('/'));
        if value.ends_with('/') {
            for part in ["tmp", "new", "cur"] {
                open(&path.join(part));
            }
        } else {
            open(path.parent().expect("below base"));
            std::fs::write(&path, "").expect("an empty mbox");
            writable(&path, 0o666);
        }
    }
}

/// Which file has whose mail: by folded recipient, path, format and, in a Maildir, its owner.
fn stored(base: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut note = |bytes: &[u8], stored: String| {
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().find_map(|l| l.strip_prefix("Delivered-To: "));
        let recipient = line.expect("Delivered-To").to_lowercase();
        assert_eq!(found.insert(recipient, stored), None, "delivered twice");
    };
    let mut open = vec![base.to_owned()];
    while let Some(path) = open.pop() {
        let relative = path.strip_prefix(base).expect("below base").display();
        if path.join("new").is_dir() {
            for message in maildir(&path) {
                let uid = message.path.metadata().expect("a message").uid();
                note(&message.bytes, format!("maildir {relative} of {uid}"));
            }
        } else if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("readdir");
            open.extend(entries.map(|entry| entry.expect("readdir").path()));
        } else {
            for message in mbox(&path) {
                note(&message, format!("mbox {relative}"));
            }
        }
    }
    found
}

/// Our answer in the words of [`stored`], or a status code.
fn ours(router: &Router, recipient: &str) -> String {
    let address = Address::from_internal(recipient);
    let answer = match router.mailbox(&address) {
        Ok(target) => match target.format {
            Format::Maildir => format!("maildir {} of {}", target.path, target.uid),
            Format::Mbox => format!("mbox {}", target.path),
        },
        // Who is in no domain of the virtual class is refused in other words.
        Err(error) => match error.status().enhanced.to_string().as_str() {
            "5.7.1" => "5.1.1".to_owned(),
            // A table that failed; to virtual(8) that is a mistake in main.cf (see the manual).
            "4.3.0" => "4.3.5".to_owned(),
            code => code.to_owned(),
        },
    };
    if !recipient.to_lowercase().ends_with("@origin.example") {
        let resolution = router.resolve(&address);
        let route = resolution.results.first();
        let resolved = route.and_then(|route| route.mailbox.clone());
        assert_eq!(resolved, router.mailbox(&address).ok(), "{recipient}");
    }
    answer
}

/// Recipients that Postfix hands to virtual(8), no two of which differ in case only.
fn cases(rng: &mut Rng, router: &Router) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut cases = Vec::new();
    for _ in 0..CASES * 4 {
        let case = recipient(rng);
        let resolution = router.resolve(&Address::from_internal(&case));
        let is_itself = |route: &mailstow_engine::route::Route| {
            route.transport == "virtual" && route.recipient == quote_address(&case)
        };
        // Not the odd routes, nor what smtpd refuses.
        if resolution.results.first().is_some_and(is_itself)
            && !case.contains(['%', '!', '"', '\\', 'ü'])
            && seen.insert(case.to_lowercase())
            && cases.len() < CASES
        {
            cases.push(case);
        }
    }
    cases
}

fn submit(postfix: &Postfix, cases: &[String]) -> String {
    let paths: Vec<String> = cases
        .iter()
        .map(|case| format!("<{}>", quote_address(case)))
        .collect();
    let mut client = Client::smtp(&postfix.smtp());
    let reply = client.submit("<>", &paths, b"Subject: x\n\nx\n");
    assert_eq!(reply.code, 250, "{reply}");
    let id = reply.text.rsplit(' ').next().expect("queued as ID");
    id.to_owned()
}

#[test]
fn generated_recipients_have_the_mailbox_that_virtual_delivers_to() {
    let seed = seed();
    println!("MAILSTOW_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let (mut count, mut boxes) = (0, 0);
    let mut differences = Vec::new();
    for (name, parameters) in PARAMETERS {
        let mut table =
            |lines, value: fn(&mut Rng) -> String| generate::table(&mut rng, lines, key, value);
        let (first, second) = (table(60, mailbox), table(30, mailbox));
        let (uids, gids) = (table(90, owner), table(90, owner));
        let builder = Postfix::build(&format!("choice-{name}"))
            .main_cf(COMMON)
            .main_cf(parameters)
            .table("first", &first)
            .table("second", &second)
            .table("uids", &uids)
            .table("gids", &gids);
        let patterns = "/^(.)[+]x@/ patterns/plus/\n/^c@/ patterns/c\n";
        builder.scratch().write("conf/patterns", patterns);
        let all = "x  all/of/them/\nx  patterns/plus/\nx  patterns/c\n";
        prepare(builder.scratch(), &[&first, &second, all]);
        let postfix = builder.start();
        let router = router(&postfix);
        let cases = cases(&mut rng, &router);
        let id = submit(&postfix, &cases);
        let log = Log::of(&postfix, std::slice::from_ref(&id));
        let base: PathBuf = postfix.scratch().join("base");
        let stored = stored(&base);
        let codes: BTreeMap<String, String> = log
            .deliveries(&id)
            .into_iter()
            .map(|delivery| (delivery.recipient.to_lowercase(), delivery.dsn))
            .collect();
        for case in &cases {
            let recipient = quote_address(case).to_lowercase();
            let theirs = stored.get(&recipient).or_else(|| codes.get(&recipient));
            let theirs = theirs.cloned().unwrap_or_else(|| "nothing".to_owned());
            let ours = ours(&router, case);
            count += 1;
            boxes += usize::from(stored.contains_key(&recipient));
            if ours != theirs {
                differences.push(format!("{name}: {case}: ours {ours}, theirs {theirs}"));
            }
        }
    }
    println!(
        "{count} cases, {boxes} stored, {} differences",
        differences.len()
    );
    assert!(
        differences.is_empty(),
        "seed {seed}:\n{}",
        differences.join("\n")
    );
}
