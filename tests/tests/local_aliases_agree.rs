//! Local recipients have the destinations that Postfix's local(8) delivers to: files, commands and
//! who runs them, mailboxes of accounts, mail sent on, senders of lists, loops.
//!
//! Method: generated alias tables and `:include:` files, one private Postfix for each set of
//! parameters, one mail for each generated recipient. What local(8) did is read from its log,
//! from the files it wrote, and from what a command noted of itself. `MAILSTOW_SEED=n` replays.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use fastrand::Rng;
use mailstow_engine::address::{Address, quote_address};
use mailstow_engine::route::{Destination, Format, Resolution, Route, Router};
use mailstow_tests::generate::pick;
use mailstow_tests::journey::Log;
use mailstow_tests::mailboxes::{list, maildir, mbox};
use mailstow_tests::oracle::router;
use mailstow_tests::postfix::Builder;
use mailstow_tests::{Client, Postfix, Scratch};

/// Independent sets of aliases for each set of parameters, and recipients of each.
const GROUPS: usize = 22;
const RECIPIENTS: usize = 5;
/// Lists that forward to each other multiply; of these there is nothing more to learn.
const RESULTS_MAX: usize = 80;
const SENDER: &str = "s@far.example";
/// Accounts of every Debian system, none of which has an alias in these tables.
const ACCOUNTS: &[&str] = &["daemon", "bin", "sys", "games", "man", "news"];
/// Who owns the second table.
const OTHER_OWNER: u32 = 5;

const COMMON: &str = "\
mydestination = origin.example, other.example, localhost
virtual_alias_domains = va.example
virtual_alias_maps = hash:@DIR@/virtual
alias_maps = hash:@DIR@/first, hash:@DIR@/second
local_recipient_maps =
smtpd_reject_unlisted_recipient = no
smtpd_client_connection_count_limit = 0
smtpd_recipient_restrictions = permit_mynetworks, reject
strict_rfc821_envelopes = no
allow_untrusted_routing = yes
enable_long_queue_ids = yes
in_flow_delay = 0
forward_path =
biff = no
mailbox_delivery_lock = fcntl
local_destination_concurrency_limit = 10
local_initial_destination_concurrency = 10
";

const PARAMETERS: &[(&str, &str)] = &[
    (
        "usual",
        "recipient_delimiter = +\nmail_spool_directory = @ROOT@/spool",
    ),
    (
        "propagating",
        "recipient_delimiter = +-\npropagate_unmatched_extensions = alias, include, virtual\n\
         expand_owner_alias = yes\nallow_mail_to_commands = alias, include\n\
         allow_mail_to_files = include\nmail_spool_directory = @ROOT@/spool",
    ),
    (
        "odd",
        "recipient_delimiter = -\nowner_request_special = no\nfrozen_delivered_to = no\n\
         allow_mail_to_files = alias, include\nmail_spool_directory = @ROOT@/spooldirs/",
    ),
    (
        "resetting",
        "recipient_delimiter = +\nreset_owner_alias = yes\nfrozen_delivered_to = no\n\
         propagate_unmatched_extensions = include\ndefault_privs = games\n\
         allow_mail_to_commands = include\nmail_spool_directory = @ROOT@/spool",
    ),
];

fn seed() -> u64 {
    match std::env::var("MAILSTOW_SEED") {
        Ok(text) => text.parse().expect("MAILSTOW_SEED is a number"),
        Err(_) => fastrand::u64(..),
    }
}

/// A local name of a group, sometimes one without an owner.
fn name(rng: &mut Rng, group: usize) -> String {
    let stem = format!("g{group}");
    match rng.u8(..12) {
        0 => format!("{stem}a b"),
        1 => format!("{stem}nobody"),
        n => format!("{stem}{}", char::from(b'a' + n % 5)),
    }
}

fn extension(rng: &mut Rng) -> &'static str {
    pick(rng, &["", "", "", "", "+x", "-x", "+X+y", "+", "-a/b"])
}

fn domain(rng: &mut Rng) -> &'static str {
    pick(rng, &["@origin.example", "@Other.example", "@localhost"])
}

/// A recipient of a group.
fn recipient(rng: &mut Rng, group: usize) -> String {
    match rng.u8(..14) {
        0 => format!("{}{}{}", pick(rng, ACCOUNTS), extension(rng), domain(rng)),
        1 => format!("v{}x{group}@va.example", rng.u8(..3)),
        2 => format!("owner-g{group}a{}", domain(rng)),
        _ => format!("{}{}{}", name(rng, group), extension(rng), domain(rng)),
    }
}

/// One member as it is written in an alias or `:include:` file.
fn member(rng: &mut Rng, group: usize, root: &Path) -> String {
    let root = root.display();
    let local = |rng: &mut Rng| format!("{}{}", name(rng, group), extension(rng));
    match rng.u8(..30) {
        0 | 1 => format!("\"|{root}/run c{}\"", rng.u8(..3)),
        2 => format!("|{root}/run"),
        3 | 4 => format!("{root}/files/f{}", rng.u8(..3)),
        5 => format!("{root}/maildirs/m{}/", rng.u8(..2)),
        6..=8 => format!(":include:{root}/lists/g{group}-{}", rng.u8(..3)),
        9 => format!("r{}@far.example", rng.u8(..3)),
        10 | 11 => format!("v{}x{group}@va.example", rng.u8(..3)),
        12..=14 => format!("{}{}", pick(rng, ACCOUNTS), extension(rng)),
        15 => pick(rng, &["postmaster", "MAILER-DAEMON", "nosuchuser"]).to_owned(),
        16 => format!("~/file{}", rng.u8(..3)),
        17 => format!("\"{}\"", local(rng)),
        18 => format!(
            "A Phrase <{}> (and a comment)",
            quote_address(&recipient(rng, group))
        ),
        19 => format!("grp: {}, nosuchuser;", quote_address(&local(rng))),
        20 => pick(
            rng,
            &["+x", "u@[bad]", "-x@origin.example", "u@bad..name", "<>"],
        )
        .to_owned(),
        21 => format!(
            "{}%far.example@origin.example",
            name(rng, group).replace(' ', "")
        ),
        _ => quote_address(&recipient(rng, group)).into_owned(),
    }
}

fn members(rng: &mut Rng, group: usize, root: &Path) -> String {
    let count = rng.usize(1..4);
    let all: Vec<_> = (0..count).map(|_| member(rng, group, root)).collect();
    all.join(", ")
}

/// The lines of one alias table, each name once.
fn table(rng: &mut Rng, root: &Path) -> String {
    let mut lines = BTreeMap::new();
    for group in 0..GROUPS {
        for _ in 0..4 {
            let mut name = name(rng, group);
            match rng.u8(..10) {
                0 => name += pick(rng, &["+x", "-x"]),
                1 | 2 => name = format!("owner-g{group}{}", char::from(b'a' + rng.u8(..5))),
                _ => {}
            }
            lines.insert(format!("\"{name}\""), members(rng, group, root));
        }
    }
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}: {value}");
        text
    })
}

/// All that deliveries need, writable for the user they run as.
fn prepare(rng: &mut Rng, scratch: &Scratch) {
    let root = scratch.path();
    let mode = |path: &Path, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("chmod of a scratch file");
    };
    for directory in ["files", "spool", "spooldirs", "maildirs"] {
        mode(&scratch.mkdir(directory), 0o777);
    }
    for n in 0..2 {
        for part in ["", "tmp", "new", "cur"] {
            mode(&scratch.mkdir(&format!("maildirs/m{n}/{part}")), 0o777);
        }
    }
    for n in 0..3 {
        mode(&scratch.write(&format!("files/f{n}"), ""), 0o666);
    }
    mode(&scratch.write("ran", ""), 0o666);
    let script = format!(
        "#!/bin/sh\nexec awk -v uid=$(id -u) -v arg=\"$1\" '\
         /^$/ {{ body = 1 }}\n\
         !body && /^X-Case:/ {{ c = $2 }}\n\
         !body && /^Return-Path:/ {{ r = $0; sub(/^[^ ]* /, \"\", r) }}\n\
         END {{ print c, \"command run \" arg \" as \" uid \" from \" r >> \"{}/ran\" }}'\n",
        root.display()
    );
    mode(&scratch.write("run", script), 0o755);
    for group in 0..GROUPS {
        for n in 0..3 {
            let lines: Vec<_> = (0..rng.usize(1..4))
                .map(|_| members(rng, group, root))
                .collect();
            let text = format!("# members\n{}\n", lines.join("\n"));
            let path = scratch.write(&format!("lists/g{group}-{n}"), text);
            // Some aliases name the list as a file to be written.
            mode(&path, 0o444);
            let owner = [0, 0, 2, OTHER_OWNER][rng.usize(..4)];
            std::os::unix::fs::chown(path, Some(owner), None).expect("chown needs root");
        }
    }
}

fn virtual_aliases(rng: &mut Rng) -> String {
    (0..GROUPS).fold(String::new(), |mut text, group| {
        for n in 0..2 {
            let to = quote_address(&recipient(rng, group)).into_owned();
            let _ = writeln!(text, "v{n}x{group}@va.example {to}");
        }
        text
    })
}

/// What our answer says, one line for each end of the mail.
fn ours(resolution: &Resolution, root: &Path) -> Vec<String> {
    let end = |route: &Route| {
        let sender = route.sender.clone().unwrap_or_else(|| SENDER.to_owned());
        let from = format!("from <{sender}>");
        let text = match &route.destination {
            Destination::File { path, .. } if !is_writable(path, root) => {
                format!("5.2.0 {}", route.recipient)
            }
            Destination::File {
                path,
                format: Format::Mbox,
                ..
            } => format!("file {} {from}", path.display()),
            Destination::User { path, rights, .. } | Destination::File { path, rights, .. } => {
                format!("mailbox {} as {} {from}", path.display(), rights.uid)
            }
            Destination::Command { command, rights } => {
                let script = format!("{}/run", root.display());
                let argument = command.strip_prefix(&script).expect("our command");
                format!("command run {argument} as {} {from}", rights.uid)
            }
            Destination::Discarded => format!("discarded {}", route.recipient),
            Destination::Refused(status) => format!("{} {}", status.enhanced, route.recipient),
            _ => format!("to {} {from}", route.recipient),
        };
        single_spaced(&text)
    };
    let mut ends: Vec<_> = resolution.results.iter().map(end).collect();
    ends.sort();
    ends
}

fn single_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Other files are there so that a delivery fails, for reasons we do not look for.
fn is_writable(path: &Path, root: &Path) -> bool {
    path.starts_with(root.join("files")) || path.starts_with(root.join("maildirs"))
}

/// A header of a stored message, from its topmost block.
fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = message.split_once("\n\n")?;
    let line = head.lines().find(|line| line.starts_with(name))?;
    line.strip_prefix(name).map(str::trim)
}

/// What was stored, by case.
fn stored(root: &Path) -> BTreeMap<usize, Vec<String>> {
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut note = |bytes: &[u8], end: &dyn Fn(&str) -> String| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        // Returned mail has the header in its body only.
        let Some(case) = header(&text, "X-Case:") else {
            return;
        };
        let sender = header(&text, "Return-Path:")
            .expect("Return-Path")
            .to_owned();
        let case = case.parse().expect("our number");
        found.entry(case).or_default().push(end(&sender));
    };
    for path in list(&root.join("files")) {
        for message in mbox(&path) {
            note(&message, &|sender| {
                format!("file {} from {sender}", path.display())
            });
        }
    }
    for path in list(&root.join("spool")) {
        let uid = path.metadata().expect("a mailbox").uid();
        for message in mbox(&path) {
            note(&message, &|sender| {
                format!("mailbox {} as {uid} from {sender}", path.display())
            });
        }
    }
    for parent in ["maildirs", "spooldirs"] {
        for path in list(&root.join(parent)) {
            for message in maildir(&path) {
                let uid = message.path.metadata().expect("a message").uid();
                note(&message.bytes, &|sender| {
                    format!("mailbox {}/ as {uid} from {sender}", path.display())
                });
            }
        }
    }
    let ran = std::fs::read_to_string(root.join("ran")).expect("what commands noted");
    for line in ran.lines() {
        let (case, end) = line.split_once(' ').expect("case and what ran");
        if let Ok(case) = case.parse() {
            found.entry(case).or_default().push(single_spaced(end));
        }
    }
    found
}

/// What the log tells beyond what was stored.
fn logged(log: &Log, id: &str) -> Vec<String> {
    let mut ends = Vec::new();
    for delivery in log.deliveries(id) {
        let recipient = &delivery.recipient;
        match delivery.status.as_str() {
            "sent" if delivery.text == "discarded" => ends.push(format!("discarded {recipient}")),
            "sent" if delivery.relay != "local" => {
                ends.push(format!("to {recipient} from <{}>", delivery.sender));
            }
            "sent" => {}
            _ => ends.push(format!("{} {recipient}", delivery.dsn)),
        }
    }
    ends
}

/// Ours, where the mail is kept because of the operator's mistake, and Postfix may return it
/// (see the manual).
fn is_kept(resolution: &Resolution) -> bool {
    let error = resolution.error.as_ref();
    error.is_some_and(|status| status.is_temporary())
}

/// Mail that is sent on and on: Postfix drops it after `hopcount_limit` such steps.
fn is_without_end(resolution: &Resolution) -> bool {
    let error = resolution.error.as_ref();
    error.is_some_and(|status| status.enhanced.to_string() == "4.4.6")
}

/// A loop through an address that needs quotes: Postfix 3.7 does not know it again in
/// `Delivered-To:`, and sends the mail round until it has too many hops (see the manual).
fn is_quoted_loop(ends: &[String]) -> bool {
    ends.iter().any(|end| end.starts_with("5.4.6 \""))
}

/// What the tables and lists say of the group of a recipient.
fn aliases_of(case: &str, root: &Path) -> String {
    let digits = |text: &str| {
        text.trim_start_matches(|c: char| !c.is_ascii_digit())
            .to_owned()
    };
    let text = digits(case.rsplit_once('x').map_or(case, |(_, group)| group));
    let text = if case.starts_with('v') {
        text
    } else {
        digits(case)
    };
    let number: String = text.chars().take_while(char::is_ascii_digit).collect();
    let mut found = String::new();
    for table in ["first", "second", "virtual"] {
        let text = std::fs::read_to_string(root.join("conf").join(table)).expect("a table");
        let of_group = |line: &&str| {
            line.contains(&format!("g{number}")) || line.contains(&format!("x{number}@"))
        };
        for line in text.lines().filter(of_group) {
            let _ = writeln!(found, "{table}: {line}");
        }
    }
    for n in 0..3 {
        let path = root.join(format!("lists/g{number}-{n}"));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = writeln!(found, "{}:\n{text}", path.display());
    }
    found
}

fn start(rng: &mut Rng, name: &str, parameters: &str) -> Postfix {
    let builder: Builder = Postfix::build(&format!("local-{name}"))
        .main_cf(COMMON)
        .main_cf(parameters);
    prepare(rng, builder.scratch());
    let root = builder.scratch().path().to_owned();
    let first = table(rng, &root);
    let second = table(rng, &root);
    let aliases = virtual_aliases(rng);
    builder
        .alias_table("first", &first, 0)
        .alias_table("second", &second, OTHER_OWNER)
        .table("virtual", &aliases)
        .start()
}

/// Sends one mail to each; their queue ids.
fn send(postfix: &Postfix, cases: &[String]) -> Vec<String> {
    let mut client = Client::smtp(&postfix.smtp());
    let mut ids = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let content = format!("X-Case: {number}\nSubject: x\n\nx\n");
        let path = format!("<{}>", quote_address(case));
        let reply = client.submit(&format!("<{SENDER}>"), &[path], content.as_bytes());
        assert_eq!(reply.code, 250, "{case}: {reply}");
        let id = reply.text.rsplit(' ').next().expect("queued as ID");
        ids.push(id.to_owned());
    }
    ids
}

fn cases(rng: &mut Rng, router: &Router) -> Vec<String> {
    let mut cases = Vec::new();
    for group in 0..GROUPS {
        for _ in 0..RECIPIENTS {
            let case = recipient(rng, group);
            let address = Address::from_internal(&case);
            let results = router.resolve(&address).results.len();
            if results <= RESULTS_MAX && router.expand(&address).is_ok() {
                cases.push(case);
            }
        }
    }
    cases
}

#[test]
fn local_recipients_stand_for_what_local_delivery_makes_of_them() {
    let seed = seed();
    println!("MAILSTOW_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let (mut count, mut kept, mut ends) = (0, 0, 0);
    let mut differences = Vec::new();
    for (name, parameters) in PARAMETERS {
        let postfix = start(&mut rng, name, parameters);
        let root = postfix.scratch().path().to_owned();
        let router = router(&postfix);
        let cases = cases(&mut rng, &router);
        let ids = send(&postfix, &cases);
        let log = Log::of(&postfix, &ids);
        let mut stored = stored(&root);
        for (number, (case, id)) in cases.iter().zip(&ids).enumerate() {
            count += 1;
            let resolution = router.resolve(&Address::from_internal(case));
            let mut theirs = stored.remove(&number).unwrap_or_default();
            theirs.extend(logged(&log, id));
            theirs.sort();
            if is_kept(&resolution) {
                kept += 1;
                let cause = |end: &String| end.starts_with("4.") || end.starts_with("5.3.5");
                let is_kept_there = log.is_deferred(id) || theirs.iter().any(cause);
                if !is_without_end(&resolution) && !is_kept_there {
                    let reason = resolution
                        .reason
                        .or(resolution.error.map(|e| e.to_string()));
                    let aliases = aliases_of(case, &root);
                    differences.push(format!(
                        "{name}: {case}: kept here, {reason:?}, there {theirs:#?}\n{aliases}"
                    ));
                }
                continue;
            }
            let ours = ours(&resolution, &root);
            if is_quoted_loop(&ours) {
                kept += 1;
                continue;
            }
            ends += ours.len();
            if ours != theirs {
                let aliases = aliases_of(case, &root);
                differences.push(format!(
                    "{name}: {case}: ours {ours:#?}, theirs {theirs:#?}\n{aliases}"
                ));
            }
        }
    }
    println!(
        "{count} cases, {kept} kept, {ends} ends, {} differences",
        differences.len()
    );
    assert!(
        differences.is_empty(),
        "seed {seed}:\n{}",
        differences.join("\n")
    );
}
