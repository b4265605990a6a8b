//! Commands run by Postfix's pipe(8) and by mailstow are given the same, and their ends mean the
//! same.
//!
//! Method: two private Postfix instances. One runs generated services of type pipe itself; the
//! other hands the same mail over by LMTP to mailstow, which reads the configuration of the first.
//! The command notes its arguments, environment, rights, standard input and more, and ends as the
//! message tells it. What differs by nature, times and queue ids, is made equal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fastrand::Rng;
use mailstow_tests::generate::pick;
use mailstow_tests::postfix::{Builder, Outcome};
use mailstow_tests::{Mailstow, Postfix, eventually};

/// Generated services.
const SERVICES: usize = 60;
const SEED: u64 = 20_261_129;
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// Notes what it is given, then ends as the Subject says.
const COMMAND: &str = r#"#!/usr/bin/python3
import json, os, re, signal, sys, tempfile
content = sys.stdin.buffer.read()
shown = lambda data: data.decode('latin-1')
noted = {
    'argv': [shown(os.fsencode(word)) for word in sys.argv[1:]],
    'environment': {shown(k): shown(v) for k, v in os.environb.items() if k != b'LC_CTYPE'},
    'rights': [os.getuid(), os.geteuid(), os.getgid(), os.getegid(),
               [group for group in os.getgroups() if group != os.getgid()]],
    'place': os.getcwd(),
    'umask': os.umask(0o77),
    'is_leader': os.getpgrp() == os.getpid(),
    'has_terminal': os.path.exists('/dev/tty') and os.system('true 2>/dev/null </dev/tty') == 0,
    'signals': [str(signal.getsignal(signal.SIGTERM)), sorted(signal.pthread_sigmask(0, []))],
    'content': shown(content),
}
handle, path = tempfile.mkstemp(dir=os.path.join(os.path.dirname(sys.argv[0]), 'noted'))
with os.fdopen(handle, 'w') as file:
    json.dump(noted, file)
words = re.search(rb'^Subject: ([^\r\n]*)', content, re.M)
words = words.group(1).decode() if words else ''
text = re.search(r'text=(.*)', words)
if text:
    print(text.group(1))
    sys.stdout.flush()
killed = re.search(r'signal=(\d+)', words)
if killed:
    os.kill(os.getpid(), int(killed.group(1)))
status = re.search(r'exit=(\d+)', words)
os._exit(int(status.group(1)) if status else 0)
"#;

/// A mail for one generated service.
struct Case {
    service: String,
    recipients: Vec<String>,
    sender: String,
    content: String,
}

/// A line of master.cf, with its limit for recipients.
fn service(rng: &mut Rng, number: usize, recipients: usize) -> String {
    let mut flags = String::new();
    for flag in ["B", "D", "F", "O", "R", "X", ".", ">", "h", "u", "q"] {
        // D and O want one recipient; now and then they do not get it.
        let is_single = matches!(flag, "D" | "O");
        if rng.u8(..) < 90 && (!is_single || recipients == 1 || rng.u8(..) < 20) {
            flags.push_str(flag);
        }
    }
    let mut attributes = format!("flags={flags} user=nobody");
    if rng.u8(..) < 60 {
        let _ = write!(
            attributes,
            " eol={}",
            pick(rng, &["\\r\\n", "\\n", "\\001\\n", "\\002"])
        );
    }
    if rng.u8(..) < 60 {
        let _ = write!(
            attributes,
            " null_sender={}",
            pick(rng, &["", "nobody", "a-b"])
        );
    }
    if rng.u8(..) < 40 {
        attributes.push_str(" directory=/usr");
    }
    if rng.u8(..) < 20 {
        let _ = write!(attributes, " size={}", pick(rng, &["1", "100000"]));
    }
    let words: Vec<&str> = (0..rng.usize(1..7))
        .map(|_| {
            pick(
                rng,
                &[
                    "${recipient}",
                    "$recipient",
                    "$(user)",
                    "${extension}",
                    "$mailbox",
                    "$domain",
                    "${sender}",
                    "$nexthop",
                    "x${user}+${extension}@${domain}y",
                    "$$recipient",
                    "${original_recipient}",
                    "$client_helo/$client_protocol",
                    "{ two words $user }",
                    "plain",
                    "$client_address",
                    "$client_hostname",
                    "-$sasl_username-",
                    "$$",
                    "{}",
                    "{ $sender  $mailbox }",
                ],
            )
        })
        .collect();
    format!(
        "t{number} unix - n n - - pipe {attributes} argv=@ROOT@/command {}",
        words.join(" ")
    )
}

fn content(rng: &mut Rng) -> String {
    let mut content = String::from("From: a@b\nSubject: ");
    if rng.u8(..) < 60 {
        let _ = write!(
            content,
            "exit={} ",
            pick(rng, &["1", "64", "67", "75", "77", "200"])
        );
    } else if rng.u8(..) < 20 {
        let _ = write!(content, "signal={} ", pick(rng, &["9", "15"]));
    }
    if rng.u8(..) < 80 {
        let texts = [
            "4.2.2 my own",
            "5.7.1\tno",
            "2.0.0 odd",
            "4.2",
            "done",
            "5.1.1",
            "a  b",
        ];
        let _ = write!(content, "text={}", pick(rng, &texts));
    }
    if rng.u8(..) < 40 {
        content.push_str("\nDelivered-To: u0@t0.example");
    }
    content.push_str("\n\n");
    for _ in 0..rng.usize(..6) {
        let lines = [
            "From x", ".", "..x", "", "text", ">From y", " From z", "Fro",
        ];
        content.push_str(pick(rng, &lines));
        content.push('\n');
    }
    if rng.u8(..) < 20 {
        content.push_str(&format!("{}\n", "long ".repeat(100)).repeat(400));
    }
    content
}

fn cases(rng: &mut Rng) -> Vec<Case> {
    (0..SERVICES)
        .map(|number| {
            let count = if rng.bool() { 1 } else { rng.usize(2..4) };
            let domain = pick(rng, &["t", "T"]);
            let recipient = |at: usize, rng: &mut Rng| {
                let user = pick(
                    rng,
                    &[
                        "Ab", "x+Ext", "\"a b\"", "\"q@r\"", "u$sender", "n+a+b", "-s",
                    ],
                );
                let user = match user.strip_suffix('"') {
                    Some(open) => format!("{open}{at}\""),
                    None => format!("{user}{at}"),
                };
                format!("{user}@{domain}{number}.example")
            };
            Case {
                service: service(rng, number, count),
                recipients: (0..count).map(|at| recipient(at, rng)).collect(),
                sender: pick(rng, &["s@client.example", "", "\"s s\"@client.example"]).to_owned(),
                content: content(rng),
            }
        })
        .collect()
}

fn postfix(name: &str, transports: &str) -> Builder {
    Postfix::build(name)
        .main_cf(
            "virtual_mailbox_base = @ROOT@\ntransport_maps = hash:@DIR@/transport\nrecipient_delimiter = +\n\
             allow_min_user = yes\nexport_environment = TZ MAIL_CONFIG LANG ADDED=by_hand\n\
             bounce_notice_recipient = x@origin.example\n",
        )
        .table("transport", transports)
}

/// What was noted, without what differs by nature; and what became of each recipient.
type Seen = (Vec<String>, BTreeMap<String, Outcome>);

fn run(postfix: &Postfix, noted: &Path, cases: &[Case]) -> Seen {
    for case in cases {
        let recipients: Vec<&str> = case.recipients.iter().map(String::as_str).collect();
        let content = case.content.replace('\n', "\r\n");
        let reply = postfix.submit(&case.sender, &recipients, content.as_bytes());
        assert_eq!(reply.code, 250, "{recipients:?}: {reply}");
    }
    let mut outcomes = BTreeMap::new();
    for recipient in cases.iter().flat_map(|case| &case.recipients) {
        let outcome = eventually(&format!("an outcome for {recipient}"), TIMEOUT, || {
            postfix.outcomes(recipient).into_iter().next()
        });
        outcomes.insert(recipient.clone(), outcome);
    }
    let mut all = Vec::new();
    for file in fs::read_dir(noted).expect("readdir") {
        let path = file.expect("readdir").path();
        all.push(normalised(&fs::read_to_string(&path).expect("text")));
        fs::remove_file(path).expect("unlink");
    }
    all.sort();
    (all, outcomes)
}

/// Makes equal what is not the same twice: the date of the `From ` line, and the trace headers of
/// the two Postfix instances.
fn normalised(text: &str) -> String {
    let mut noted: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let content = noted["content"].as_str().expect("text").to_owned();
    let ends = ["\r\n", "\u{1}\n", "\u{2}", "\n"];
    let end = ends
        .into_iter()
        .find(|end| content.contains(end))
        .unwrap_or("\n");
    let mut is_trace = false;
    let mut lines: Vec<String> = Vec::new();
    for (at, line) in content.split(end).enumerate() {
        let is_folded = line.starts_with(['\t', ' ']);
        is_trace = (is_trace && is_folded)
            || ["Received: ", "Message-Id: ", "Date: "]
                .iter()
                .any(|name| line.starts_with(name));
        if is_trace {
            continue;
        }
        lines.push(
            match line
                .strip_prefix("From ")
                .and_then(|line| line.split_once("  "))
            {
                Some((sender, _)) if at == 0 => format!("From {sender}  (date)"),
                _ => line.to_owned(),
            },
        );
    }
    noted["content"] = lines.join(end).into();
    noted.to_string()
}

/// Where two texts begin to differ.
fn difference(theirs: &str, ours: &str) -> String {
    let same = theirs.bytes().zip(ours.bytes()).take_while(|(a, b)| a == b);
    let from = same.count().saturating_sub(300);
    let shown = |text: &str| -> String { text.chars().skip(from).take(600).collect() };
    format!("theirs: {}\n  ours: {}", shown(theirs), shown(ours))
}

/// Status, code and what the command said, from the log of either.
fn told(outcome: &Outcome) -> (String, String) {
    (outcome.status.clone(), outcome.dsn.clone())
}

/// The command for one instance, and where it notes.
fn install(postfix: &Builder) {
    let command = postfix.scratch().write("command", COMMAND);
    fs::set_permissions(&command, PermissionsExt::from_mode(0o755)).expect("chmod");
    let noted = postfix.scratch().mkdir("noted");
    fs::set_permissions(&noted, PermissionsExt::from_mode(0o1777)).expect("chmod");
}

/// Runs the cases by pipe(8) and by mailstow. The limits of the services are those of `limits`.
fn both(name: &str, services: &str, limits: &str, transports: &str, cases: &[Case]) -> [Seen; 2] {
    let theirs = postfix(&format!("{name}-pipe"), transports)
        .master_cf(services)
        .main_cf(limits);
    install(&theirs);
    let noted = theirs.scratch().join("noted");
    let directory = theirs.directory();
    let theirs = theirs.start();
    let seen_theirs = run(&theirs, &noted, cases);
    assert!(theirs.log().contains("relay=t0"), "pipe(8) took part");

    let store = Mailstow::build(&format!("{name}-store"))
        .postfix(&directory)
        .toml("[transport]\nenabled = true");
    let address = store.unix().spelled();
    let store = store.start();
    let domains = transports.lines().filter_map(|line| line.split_once(' '));
    let to_store: String = domains
        .map(|(domain, _)| format!("{domain} lmtp:{address}\n"))
        .collect();
    let ours = postfix(&format!("{name}-lmtp"), &to_store)
        .main_cf("lmtp_line_length_limit = 0\nlmtp_send_xforward_command = yes")
        .start();
    let seen_ours = run(&ours, &noted, cases);
    drop(ours);
    drop(store);
    [seen_theirs, seen_ours]
}

#[test]
fn commands_are_given_the_same_and_their_ends_mean_the_same() {
    let rng = &mut Rng::with_seed(SEED);
    let cases = cases(rng);
    let (mut services, mut limits, mut transports) = (String::new(), String::new(), String::new());
    for (number, case) in cases.iter().enumerate() {
        let _ = writeln!(services, "{}", case.service);
        let _ = writeln!(transports, "t{number}.example t{number}:");
        if rng.u8(..) < 100 {
            let _ = writeln!(limits, "t{number}_destination_recipient_limit = 1");
        }
    }
    let [(theirs, their_ends), (ours, our_ends)] =
        both("agrees", &services, &limits, &transports, &cases);
    for (number, case) in cases.iter().enumerate() {
        for recipient in &case.recipients {
            let (theirs, ours) = (&their_ends[recipient], &our_ends[recipient]);
            assert_eq!(
                told(ours),
                told(theirs),
                "{number} {recipient} {}: {ours:?} {theirs:?}",
                case.service
            );
        }
    }
    assert!(theirs.len() > SERVICES / 2, "{}", theirs.len());
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert!(ours == theirs, "{}", difference(theirs, ours));
    }
    assert_eq!(ours.len(), theirs.len());
    println!(
        "{} runs of commands and {} recipients agree with pipe(8)",
        ours.len(),
        our_ends.len()
    );
}

#[test]
fn every_exit_status_means_the_same() {
    let case = |number: usize| Case {
        service: String::new(),
        recipients: vec![format!("u{number}@t0.example")],
        sender: "s@client.example".to_owned(),
        content: format!("Subject: exit={number}\n\nx\n"),
    };
    let cases: Vec<Case> = (0..=255).map(case).collect();
    let service = "t0 unix - n n - - pipe flags= user=nobody argv=@ROOT@/command";
    let [(_, theirs), (_, ours)] = both("exits", service, "", "t0.example t0:\n", &cases);
    assert_eq!(theirs.len(), 256);
    for (recipient, outcome) in &theirs {
        assert_eq!(told(&ours[recipient]), told(outcome), "{recipient}");
    }
}
