//! Mail for accounts goes where Postfix's local(8) takes it, with the same bytes, to the same
//! commands, and ends the same.
//!
//! Method: generated accounts, `.forward` files and aliases under several sets of parameters. One
//! private Postfix delivers by local(8); another hands the same mail over by LMTP to mailstow,
//! which reads the configuration of the first. Both write to the same places, one after the other;
//! what they left there, and what commands noted of themselves, is compared. Mail that goes on to
//! other domains is given to a command, so that it can be seen too. `MAILSTOW_SEED=n` replays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use mailstow_tests::journey::{Delivery, Log};
use mailstow_tests::mailboxes::{header, maildir, mbox, owner_and_mode};
use mailstow_tests::postfix::{Builder, Outcome};
use mailstow_tests::{Client, Mailstow, Postfix};

const SENDER: &str = "s@client.example";

/// Accounts of each set of parameters.
const USERS: u32 = 10;
const FIRST_ID: u32 = 6100;
/// Group `mail`.
const MAIL: u32 = 8;

const COMMON: &str = "\
mydestination = origin.example
alias_maps = hash:@DIR@/aliases
local_recipient_maps =
smtpd_reject_unlisted_recipient = no
smtpd_client_connection_count_limit = 0
transport_maps = inline:{far.example=far:}
far_destination_recipient_limit = 1
default_transport = discard
export_environment = TZ MAIL_CONFIG LANG ADDED=by_hand
enable_long_queue_ids = yes
in_flow_delay = 0
biff = no
virtual_mailbox_base = @ROOT@
bounce_notice_recipient = x@origin.example
hopcount_limit = 15
";

/// A service that notes what goes on to others.
const FAR: &str =
    "far unix - n n - - pipe flags= user=nobody argv=@ROOT@/command $sender $recipient";

const PARAMETERS: &[(&str, &str)] = &[
    (
        "usual",
        "recipient_delimiter = +\nmail_spool_directory = @ROOT@/spool",
    ),
    (
        "maildirs",
        "recipient_delimiter = +-\nhome_mailbox = Mail/dir/\n\
         propagate_unmatched_extensions = alias, forward, include\n\
         allow_mail_to_commands = alias, forward, include\n\
         allow_mail_to_files = alias, forward, include",
    ),
    (
        "at-home",
        "recipient_delimiter = -\nhome_mailbox = Mailbox\nfrozen_delivered_to = no\n\
         luser_relay = $user-relayed@far.example\nallow_mail_to_commands = alias\n\
         forward_path = $home/.forward-${extension?{of}:{none}}, $home/.forward",
    ),
    (
        "commands",
        "recipient_delimiter = +\nmailbox_command = @ROOT@/command mailbox \"$EXTENSION\"\n\
         forward_path = $home/.forward$recipient_delimiter$extension $home/.forward\n\
         expand_owner_alias = yes\ncommand_expansion_filter = abcdefghijklmnopqrstuvwxyz@.+",
    ),
    (
        "elsewhere",
        "recipient_delimiter = +\nmail_spool_directory = @ROOT@/spooldirs/\n\
         mailbox_transport_maps = inline:{u1=far:mailbox.example}\nforward_path =\n\
         fallback_transport = far:fallback.example\nrequire_home_directory = yes\n\
         local_command_shell = /bin/bash -c",
    ),
];

/// Notes what it is given, then ends as its last word says.
const COMMAND: &str = r#"#!/usr/bin/python3
import json, os, re, sys, tempfile
content = sys.stdin.buffer.read()
shown = lambda data: data.decode('latin-1')
noted = {
    'argv': [shown(os.fsencode(word)) for word in sys.argv[1:]],
    'environment': {shown(k): shown(v) for k, v in os.environb.items()
                    if k not in (b'LC_CTYPE', b'PWD', b'SHLVL', b'_', b'OLDPWD')},
    'rights': [os.getuid(), os.geteuid(), os.getgid(), os.getegid(),
               [group for group in os.getgroups() if group != os.getgid()]],
    'place': os.getcwd(),
    'umask': os.umask(0o77),
    'content': shown(content),
}
handle, path = tempfile.mkstemp(dir=os.path.join(os.path.dirname(sys.argv[0]), 'noted'))
with os.fdopen(handle, 'w') as file:
    json.dump(noted, file)
ends = re.search(r'exit=(\d+)', sys.argv[-1] if sys.argv[1:] else '')
if ends:
    print('said by a command')
sys.exit(int(ends.group(1)) if ends else 0)
"#;

fn seed() -> u64 {
    match std::env::var("MAILSTOW_SEED") {
        Ok(text) => text.parse().expect("MAILSTOW_SEED is a number"),
        Err(_) => fastrand::u64(..),
    }
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

fn user(rng: &mut Rng) -> String {
    format!("u{}", rng.u32(..USERS))
}

/// One member of an alias or a `.forward` file. Files are named after who writes them, for no two
/// users could write one.
fn member(rng: &mut Rng, root: &Path, writer: &str) -> String {
    let root = root.display();
    let command = |words: &str| format!("\"|{root}/command {words}\"");
    match rng.u8(..20) {
        0 => command("plain words"),
        1 => command("'in a shell' $USER $EXTENSION"),
        2 => command(&format!("exit={}", [1, 67, 75, 77][rng.usize(..4)])),
        3 => format!("{root}/files/{writer}{}", rng.u8(..3)),
        4 => format!("{root}/files/{writer}-box{}/", rng.u8(..2)),
        5 => "~/copy".to_owned(),
        6 => format!(":include:{root}/lists/l{}", rng.u8(..3)),
        7 | 8 => format!("r{}@far.example", rng.u8(..3)),
        9 => format!("{}+x@origin.example", user(rng)),
        10 => pick(rng, &["nosuchuser", "postmaster", "/dev/null"]).to_owned(),
        11 => format!("a{}", rng.u8(..6)),
        _ => user(rng),
    }
}

fn members(rng: &mut Rng, root: &Path, writer: &str, most: usize) -> String {
    let count = rng.usize(1..=most);
    let all: Vec<_> = (0..count).map(|_| member(rng, root, writer)).collect();
    all.join(", ")
}

fn aliases(rng: &mut Rng, root: &Path) -> String {
    let mut lines = BTreeMap::new();
    for n in 0..6 {
        lines.insert(format!("a{n}"), members(rng, root, "nobody", 3));
        if rng.u8(..3) == 0 {
            let owner = pick(rng, &["u0", "boss@far.example", "u1, x@far.example"]);
            lines.insert(format!("owner-a{n}"), owner.to_owned());
        }
    }
    // A user who is an alias, and a member of it.
    lines.insert(
        "u9".to_owned(),
        format!("u9, {}", member(rng, root, "nobody")),
    );
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}: {value}");
        text
    })
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod of a scratch file");
}

/// Everything that deliveries need: homes with their `.forward` files, lists, directories.
fn prepare(rng: &mut Rng, builder: &Builder) {
    let scratch = builder.scratch();
    let root = scratch.path();
    for directory in ["files", "noted", "spooldirs"] {
        set_mode(&scratch.mkdir(directory), 0o1777);
    }
    set_mode(&scratch.mkdir_owned("spool", 0, MAIL), 0o2775);
    set_mode(&scratch.write("command", COMMAND), 0o755);
    scratch.mkdir("home");
    for n in 0..USERS {
        let (id, home) = (FIRST_ID + n, format!("home/u{n}"));
        if n == 7 {
            // The home directory of this one is missing.
            continue;
        }
        scratch.mkdir_owned(&home, id, id);
        for name in [".forward", ".forward+x", ".forward-of"] {
            if rng.bool() {
                continue;
            }
            let text = format!(
                "# where it goes\n{}\n",
                members(rng, root, &format!("u{n}"), 3)
            );
            let path = scratch.write(&format!("{home}/{name}"), text);
            let (owner, mode) = match rng.u8(..10) {
                0 => (id, 0o666),
                1 => (FIRST_ID + 50, 0o644),
                2 => (0, 0o644),
                3 => (0, 0o600),
                _ => (id, 0o600),
            };
            chown(&path, Some(owner), Some(owner)).expect("chown needs root");
            set_mode(&path, mode);
        }
        if n == 8 {
            let _ = fs::remove_file(root.join(&home).join(".forward"));
            symlink("elsewhere", root.join(&home).join(".forward")).expect("symlink");
        }
    }
    for n in 0..3 {
        // Lists are part of aliases and of .forward files.
        let text = format!("# members\n{}, r{n}@far.example\na{n}\n", user(rng));
        set_mode(&scratch.write(&format!("lists/l{n}"), text), 0o644);
    }
}

fn cases(rng: &mut Rng) -> Vec<String> {
    let mut cases = BTreeSet::new();
    for n in 0..USERS {
        cases.insert(format!("u{n}@origin.example"));
        cases.insert(format!("U{n}+x@origin.example"));
        cases.insert(format!("u{n}-Y@origin.example"));
    }
    for n in 0..6 {
        cases.insert(format!("a{n}@origin.example"));
        cases.insert(format!(
            "a{n}{}@origin.example",
            pick(rng, &["+x", "-x", "+"])
        ));
    }
    for odd in [
        "nosuchuser",
        "nosuchuser+x",
        "postmaster",
        "u1+a/b",
        "\"u 1\"",
    ] {
        cases.insert(format!("{odd}@origin.example"));
    }
    cases.into_iter().collect()
}

fn content(number: usize) -> Vec<u8> {
    format!("From: a@b\r\nX-Case: {number}\r\nSubject: x\r\n\r\nFrom me\r\n.\r\n").into_bytes()
}

fn send(postfix: &Postfix, cases: &[String]) -> Vec<String> {
    let mut client = Client::smtp(&postfix.smtp());
    let mut ids = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let path = [format!("<{case}>")];
        let reply = client.submit(&format!("<{SENDER}>"), &path, &content(number));
        assert_eq!(reply.code, 250, "{case}: {reply}");
        ids.push(
            reply
                .text
                .rsplit(' ')
                .next()
                .expect("queued as ID")
                .to_owned(),
        );
    }
    ids
}

/// What was stored and noted, by case; all of it is removed.
fn take(root: &Path) -> BTreeMap<usize, Vec<String>> {
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut note = |message: &[u8], place: &str| {
        // Returned mail has the header in its body only.
        let case = header(message, "X-Case");
        if let Some(case) = case.first().and_then(|case| case.parse().ok()) {
            let end = format!("{place}: {}", normalised(message));
            found.entry(case).or_default().push(end);
        }
    };
    remove_locks(root);
    let mut mboxes = Vec::new();
    let mut maildirs = Vec::new();
    for directory in ["spool", "files", "spooldirs"] {
        sort(&root.join(directory), &mut mboxes, &mut maildirs);
    }
    for n in 0..USERS {
        let home = root.join(format!("home/u{n}"));
        for name in ["Mailbox", "copy"] {
            mboxes.extend(Some(home.join(name)).filter(|path| path.is_file()));
        }
        maildirs.extend(Some(home.join("Mail/dir")).filter(|path| path.is_dir()));
    }
    for path in mboxes {
        let place = format!("{} {}", path.display(), owner_and_mode(&path));
        mbox(&path).iter().for_each(|message| note(message, &place));
        fs::remove_file(path).expect("unlink");
    }
    for path in maildirs {
        for message in maildir(&path) {
            let place = format!("{}/ {}", path.display(), owner_and_mode(&message.path));
            note(&message.bytes, &place);
        }
        fs::remove_dir_all(path).expect("removal of a Maildir");
    }
    for file in fs::read_dir(root.join("noted")).expect("readdir") {
        let path = file.expect("readdir").path();
        let text = fs::read_to_string(&path).expect("text");
        fs::remove_file(path).expect("unlink");
        // A command that got a notice may have been cut off.
        let Ok(mut noted) = serde_json::from_str::<serde_json::Value>(&text) else {
            continue;
        };
        let content = noted["content"].take();
        let content = content.as_str().expect("text").to_owned();
        note(content.as_bytes(), &noted.to_string());
    }
    found.values_mut().for_each(|ends| ends.sort());
    found
}

/// Removes the lock files of deliveries that were stopped: notices were still being written.
fn remove_locks(root: &Path) {
    let homes = (0..USERS).map(|n| format!("home/u{n}"));
    for directory in ["spool", "files"]
        .map(str::to_owned)
        .into_iter()
        .chain(homes)
    {
        // One home is missing.
        for entry in fs::read_dir(root.join(directory)).into_iter().flatten() {
            let path = entry.expect("readdir").path();
            if path.extension().is_some_and(|end| end == "lock") {
                // A delivery that goes on removes it itself.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// The mboxes and Maildirs in a directory.
fn sort(directory: &Path, mboxes: &mut Vec<PathBuf>, maildirs: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readdir") {
        let path = entry.expect("readdir").path();
        match path.is_dir() {
            true => maildirs.push(path),
            false => mboxes.push(path),
        }
    }
}

/// Without the date of the `From ` line and what the two Postfix instances and the agents write of
/// themselves.
fn normalised(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message).into_owned();
    let mut is_trace = false;
    let mut in_header = true;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        in_header &= !line.is_empty();
        let is_folded = line.starts_with(['\t', ' ']);
        is_trace = in_header
            && ((is_trace && is_folded)
                || ["Received: ", "Message-Id: ", "Date: "]
                    .iter()
                    .any(|name| line.starts_with(name)));
        if is_trace {
            continue;
        }
        let dated = line
            .strip_prefix("From ")
            .and_then(|line| line.split_once("  "));
        lines.push(match dated {
            Some((sender, _)) if at == 0 => format!("From {sender}  (date)"),
            // Postfix 3.7 writes no quotes there when it sends mail on.
            _ if line.starts_with("Delivered-To: ") => line.replace('"', ""),
            _ => line.to_owned(),
        });
    }
    lines.join("|")
}

fn set_up(name: &str, parameters: &str) -> Builder {
    let builder = Postfix::build(name)
        .main_cf(COMMON)
        .main_cf(parameters)
        .master_cf(FAR);
    (0..USERS).fold(builder, |builder, n| {
        let home = format!("@ROOT@/home/u{n}");
        builder.user_at(&format!("u{n}"), FIRST_ID + n, &home)
    })
}

/// Whether mail got to the same ends. Postfix writes a copy for every spelling of a recipient; here
/// a mailbox gets a message once. No end may get it more often than from Postfix.
fn are_alike(ours: &[String], theirs: &[String]) -> bool {
    let count = |ends: &[String], end: &String| ends.iter().filter(|one| *one == end).count();
    let mut all = ours.iter().chain(theirs);
    all.all(|end| (1..=count(theirs, end)).contains(&count(ours, end)))
}

/// Whether one reply tells what became of all that a mail was for.
fn is_told(ours: &Outcome, theirs: &[Delivery]) -> bool {
    let has = |status: &str| theirs.iter().any(|one| one.status == status);
    let wanted = match (has("deferred"), has("bounced")) {
        (true, _) => "deferred",
        (false, true) => "bounced",
        (false, false) => "sent",
    };
    let is_only = theirs.len() == 1;
    let same_code = theirs.first().is_some_and(|one| one.dsn == ours.dsn);
    let has_code = |dsn: &str| theirs.iter().any(|one| one.dsn == dsn);
    // A mistake of the operator, for which the mail is kept; see the manual.
    let is_mistake = has_code("5.3.5") || has_code("5.2.0");
    // A loop: Postfix sends the mail on until it has too many hops.
    let is_endless = has_code("5.4.0") && ours.dsn == "4.4.6";
    match ours.status == wanted {
        // Postfix stops at the first end that is deferred. Our reply may be about a later one.
        true => !is_only || same_code || wanted != "bounced",
        false => ours.status == "deferred" && (is_mistake || is_endless),
    }
}

fn agree(rng: &mut Rng, name: &str, parameters: &str) -> (usize, Vec<String>) {
    let theirs = set_up(&format!("local-{name}"), parameters);
    prepare(rng, &theirs);
    let root = theirs.scratch().path().to_owned();
    let text = aliases(rng, &root);
    let theirs = theirs.aliases(&text);
    let directory = theirs.directory();
    let cases = cases(rng);
    let mut theirs = theirs.start();
    let ids = send(&theirs, &cases);
    let log = Log::of(&theirs, &ids);
    // Notices about it may cause others without end.
    theirs.stop();
    let mut stored_there = take(&root);

    let store = Mailstow::build(&format!("local-{name}-store"))
        .postfix(&directory)
        .toml("[transport]\nenabled = true\n[store]\ncopies = \"recipient\"");
    let store = (0..USERS).fold(store, |store, n| {
        let home = root.join(format!("home/u{n}"));
        store.user(&format!("u{n}"), FIRST_ID + n, &home.display().to_string())
    });
    let to_store = format!("origin.example lmtp:{}\n", store.unix().spelled());
    let store = store.start();
    let front = Postfix::build(&format!("local-{name}-front"))
        .main_cf(
            "transport_maps = hash:@DIR@/transport\nlocal_recipient_maps =\n\
             smtpd_reject_unlisted_recipient = no\nlmtp_send_xforward_command = yes\n\
             smtpd_client_connection_count_limit = 0\nenable_long_queue_ids = yes\n\
             in_flow_delay = 0\n",
        )
        .table("transport", &to_store)
        .start();
    let front_ids = send(&front, &cases);
    let front_log = Log::of(&front, &front_ids);
    let mut stored_here = take(&root);

    let mut differences = Vec::new();
    let mut ends = 0;
    for (number, case) in cases.iter().enumerate() {
        let ours = front_log.deliveries(&front_ids[number]);
        let Some(ours) = ours.first() else {
            differences.push(format!("{name}: {case}: no outcome here"));
            continue;
        };
        let ours = Outcome {
            status: ours.status.clone(),
            dsn: ours.dsn.clone(),
            relay: ours.relay.clone(),
            text: ours.text.clone(),
        };
        let there = log.deliveries(&ids[number]);
        let here = stored_here.remove(&number).unwrap_or_default();
        let wanted = stored_there.remove(&number).unwrap_or_default();
        ends += wanted.len();
        // Mail that is deferred before it is taken reaches no destination. Postfix forwards no mail
        // that is deferred later; mailstow does, and remembers it.
        let is_put_off = ours.status == "deferred";
        let has_all = wanted.iter().all(|end| here.contains(end));
        let is_same = are_alike(&here, &wanted) || (is_put_off && (here.is_empty() || has_all));
        if !is_same || !is_told(&ours, &there) {
            differences.push(format!(
                "{name}: {case}: {ours:#?}\nours {here:#?}\ntheirs {wanted:#?}\n{there:#?}\n{text}"
            ));
        }
    }
    drop(front);
    if !differences.is_empty() {
        println!("{}", store.log());
    }
    (ends, differences)
}

#[test]
fn mail_for_accounts_goes_where_local_delivery_of_postfix_takes_it() {
    let seed = seed();
    println!("MAILSTOW_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut ends = 0;
    let mut differences = Vec::new();
    for (name, parameters) in PARAMETERS {
        let (count, found) = agree(&mut rng, name, parameters);
        ends += count;
        differences.extend(found);
    }
    println!("{ends} ends, {} differences", differences.len());
    assert!(
        differences.is_empty(),
        "seed {seed}:\n{}",
        differences.join("\n")
    );
}
