//! mailstow in front of other stores: `transport_maps` says for each recipient where its mail goes.
//!
//! Method: two mailstow stores and a Dovecot behind one mailstow, all of them real processes. A
//! client sends messages for recipients of all three, and again what was deferred. One store is
//! killed, one is stopped with SIGSTOP; the third must not notice.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mailstow_tests::dovecot_store::DovecotStore;
use mailstow_tests::mailboxes::{header, maildir};
use mailstow_tests::mailstow::{Builder, command, owner, run, run_with_input};
use mailstow_tests::scratch::{loopback_host, machine_alone};
use mailstow_tests::{Client, Mailstow, Reply, Scratch, eventually};
use nix::sys::signal::Signal;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A router whose table says where each recipient goes.
fn router(table: &[(&str, String)], toml: &str) -> Builder {
    let table: String = table
        .iter()
        .map(|(key, nexthop)| format!("{key} {nexthop}\n"))
        .collect();
    let owner = owner();
    let builder = Mailstow::build("router")
        .main_cf(&format!(
            "virtual_mailbox_domains = example.com\n\
             virtual_mailbox_base = @ROOT@/vhosts\n\
             virtual_mailbox_maps = texthash:@DIR@/vmailbox\n\
             virtual_uid_maps = static:{owner}\n\
             virtual_gid_maps = static:{owner}\n\
             transport_maps = texthash:@DIR@/transport\n"
        ))
        .table("transport", &table)
        .table("vmailbox", "@example.com example.com/here/\n")
        .toml(&format!("[transport]\nenabled = true\n{toml}"));
    let vhosts = builder.scratch().mkdir("vhosts");
    std::os::unix::fs::chown(vhosts, Some(owner), Some(owner)).expect("chown");
    builder
}

fn lmtp(address: &mailstow_tests::Address) -> String {
    format!("lmtp:{}", address.spelled())
}

fn codes(replies: &[Reply]) -> Vec<String> {
    replies.iter().map(Reply::codes).collect()
}

/// How often each message is in a Maildir, by its subject.
fn subjects(path: &std::path::Path) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for message in maildir(path) {
        for subject in header(&message.bytes, "Subject") {
            *found.entry(subject).or_insert(0) += 1;
        }
    }
    found
}

/// What `mailstow routes` says, by server.
fn routes(router: &Mailstow) -> HashMap<String, serde_json::Value> {
    let state = router.scratch().join("state");
    let state = state.to_str().expect("UTF-8");
    let output = run(&["routes", "--json", "--state-directory", state]);
    let routes: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let by_name = |route: serde_json::Value| (route["server"].as_str().unwrap().to_owned(), route);
    routes.into_iter().map(by_name).collect()
}

#[test]
fn each_recipient_of_a_message_has_the_reply_of_its_own_store() {
    let one = Mailstow::domain("store").start();
    let two = Mailstow::example("store").start();
    let dovecot = DovecotStore::start("ssl = no");
    let table = [
        ("a@example.com", lmtp(&one.unix())),
        ("sales@example.com", lmtp(&two.unix())),
        ("unknown@example.com", lmtp(&two.unix())),
        ("d@example.com", lmtp(&dovecot.unix())),
        ("mx@example.com", "smtp:example.com".to_owned()),
        ("gone@example.com", "lmtp:unix:/nowhere/lmtp".to_owned()),
    ];
    let router = router(&table, "").start();
    let to = [
        "d@example.com",
        "unknown@example.com",
        "a@example.com",
        "gone@example.com",
        "mx@example.com",
        "here@example.com",
        "sales@example.com",
    ];
    let mut client = router.client();
    let content = b"Received: from x by y id 4F1; Sun, 29 Nov 2026 14:00:00 +0000\n\
                    Subject: hello\n\n.dots\n..\nIt works.\n";
    let replies = client.deliver("s@client.example", &to, content);
    let wanted = [
        "250 2.0.0",
        "550 5.1.1",
        "250 2.0.0",
        "451 4.4.1",
        "451 4.3.5",
        "250 2.0.0",
        "250 2.0.0",
    ];
    assert_eq!(codes(&replies), wanted, "{replies:?}");
    assert!(
        replies[1].text.contains("unknown@example.com"),
        "{}",
        replies[1]
    );
    assert!(
        replies[4].text.contains("smtp:[example.com]"),
        "{}",
        replies[4]
    );
    for path in [
        one.mailbox("example.com/a"),
        two.mailbox("example.com/sales"),
        dovecot.maildir("d"),
        router.mailbox("example.com/here"),
    ] {
        let found = maildir(&path);
        assert_eq!(found.len(), 1, "{}", path.display());
        assert!(
            found[0].bytes.ends_with(b"\n\n.dots\n..\nIt works.\n"),
            "{}",
            path.display()
        );
    }
    let stored = maildir(&one.mailbox("example.com/a"));
    let trace = &header(&stored[0].bytes, "Received")[0];
    assert!(trace.contains("(mailstow) with LMTP"), "{trace}");
    // The sessions are kept for the next message.
    let to = ["a@example.com", "d@example.com"];
    let replies = client.deliver("s@client.example", &to, b"Subject: again\n\n");
    assert_eq!(codes(&replies), ["250 2.0.0", "250 2.0.0"]);
    let routes = routes(&router);
    let route = &routes[&lmtp(&one.unix())];
    assert_eq!(
        (route["state"].as_str(), route["connections"].as_u64()),
        (Some("up"), Some(1))
    );
    assert_eq!(route["delivered"], 2);
    assert_eq!(routes["lmtp:unix:/nowhere/lmtp"]["state"], "down");
}

#[test]
fn a_message_that_goes_round_between_two_servers_comes_to_an_end() {
    let content = |hops| format!("{}Subject: round\n\n", "Received: by x\n".repeat(hops));
    let table = [("a@example.com", "lmtp:unix:/nowhere/lmtp".to_owned())];
    let router = router(&table, "").start();
    let mut client = router.client();
    let replies = client.deliver("", &["a@example.com"], content(49).as_bytes());
    assert_eq!(codes(&replies), ["451 4.4.1"]);
    let replies = client.deliver("", &["a@example.com"], content(50).as_bytes());
    assert_eq!(codes(&replies), ["554 5.4.6"]);
}

/// What the clients of a test have seen.
#[derive(Default)]
struct Seen {
    /// Messages that all their recipients have.
    done: AtomicUsize,
    /// Deferrals, by recipient.
    deferred: Mutex<BTreeMap<String, usize>>,
    is_over: AtomicBool,
}

impl Seen {
    fn deferred(&self, recipient: &str) -> usize {
        let deferred = self.deferred.lock().expect("no test thread panicked");
        deferred.get(recipient).copied().unwrap_or(0)
    }
}

/// Sends one message until all its recipients have it.
fn send(client: &mut Client, id: &str, to: &[&str], seen: &Seen) {
    let content = format!(
        "Received: from x by y id {id}; Sun, 29 Nov 2026 14:00:00 +0000\nSubject: {id}\n\nHello.\n"
    );
    let mut left: Vec<&str> = to.to_vec();
    let end = Instant::now() + LIMIT;
    while !left.is_empty() {
        assert!(Instant::now() < end, "{id} is still deferred for {left:?}");
        client.command(format!("XFORWARD IDENT={id}"));
        let replies = client.deliver("s@client.example", &left, content.as_bytes());
        assert_eq!(replies.len(), left.len(), "one reply each: {replies:?}");
        let mut again = Vec::new();
        for (recipient, reply) in left.iter().zip(&replies) {
            match reply.code {
                250 => {}
                code => {
                    assert!((400..500).contains(&code), "{recipient}: {reply}");
                    let mut deferred = seen.deferred.lock().expect("no test thread panicked");
                    *deferred.entry((*recipient).to_owned()).or_insert(0) += 1;
                    again.push(*recipient);
                }
            }
        }
        if again.len() == left.len() {
            // As a queue does, only sooner.
            std::thread::sleep(Duration::from_millis(50));
        }
        left = again;
    }
    seen.done.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn a_killed_and_a_stopped_store_defer_their_own_mail_and_lose_or_double_none() {
    const SESSIONS: usize = 6;
    let _machine = machine_alone();
    let mut killed = Mailstow::domain("killed").start();
    let stopped = Mailstow::domain("stopped").start();
    let dovecot = DovecotStore::start("ssl = no");
    let table = [
        ("k@example.com", lmtp(&killed.unix())),
        ("s@example.com", lmtp(&stopped.unix())),
        ("d@example.com", lmtp(&dovecot.unix())),
    ];
    let toml = "connect_timeout = \"1s\"\nreply_timeout = \"1s\"\n\
                [lmtp]\ndelivery_deadline = \"3s\"";
    let router = router(&table, toml).start();
    let seen = Seen::default();
    let sent = AtomicUsize::new(0);
    let to = ["k@example.com", "d@example.com", "s@example.com"];
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (router, seen, sent) = (&router, &seen, &sent);
            scope.spawn(move || {
                let mut client = router.client();
                for number in 0.. {
                    if seen.is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    sent.fetch_add(1, Ordering::SeqCst);
                    send(&mut client, &format!("4F{session}N{number}"), &to, seen);
                }
            });
        }
        let done = |count: usize| {
            let target = seen.done.load(Ordering::SeqCst) + count;
            eventually("mail to be delivered", LIMIT, || {
                (seen.done.load(Ordering::SeqCst) >= target).then_some(())
            });
        };
        let deferred = |recipient: &str, count: usize| {
            let target = seen.deferred(recipient) + count;
            eventually(
                &format!("mail for {recipient} to be deferred"),
                LIMIT,
                || (seen.deferred(recipient) >= target).then_some(()),
            );
        };
        done(20);
        killed.kill();
        deferred("k@example.com", 10);
        killed.restart();
        done(20);
        stopped.daemon.signal(Signal::SIGSTOP);
        deferred("s@example.com", 10);
        let down = eventually("the stopped store to be down", LIMIT, || {
            let routes = routes(&router);
            let route = &routes[&lmtp(&stopped.unix())];
            (route["state"] == "down").then(|| route.clone())
        });
        assert!(
            down["cause"].as_str().expect("a text").contains("in time"),
            "{down}"
        );
        stopped.daemon.signal(Signal::SIGCONT);
        done(20);
        seen.is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(
        seen.deferred("d@example.com"),
        0,
        "Dovecot is well all the time"
    );
    let sent = sent.load(Ordering::SeqCst);
    assert_eq!(seen.done.load(Ordering::SeqCst), sent);
    for path in [
        killed.mailbox("example.com/k"),
        stopped.mailbox("example.com/s"),
        dovecot.maildir("d"),
    ] {
        let found = subjects(&path);
        let doubled: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.is_empty(), "{}: {doubled:?}", path.display());
        assert_eq!(found.len(), sent, "{}", path.display());
    }
}

/// A certificate for this address, and its key, which no authority signed.
fn certificate(host: &str, directory: &Scratch) -> (String, String) {
    let config = directory.write(
        "openssl.cnf",
        format!(
            "[req]\ndistinguished_name = dn\nx509_extensions = ext\nprompt = no\n\
             [dn]\nCN = store\n[ext]\nbasicConstraints = critical,CA:FALSE\n\
             subjectAltName = IP:{host}\n"
        ),
    );
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| {
        let path = directory.join(name);
        path.to_str().expect("UTF-8").to_owned()
    });
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-keyout", &key, "-out", &certificate, "-config"])
        .arg(config)
        .output()
        .expect("openssl(1): install the package openssl");
    assert!(made.status.success(), "{made:?}");
    (certificate, key)
}

#[test]
fn mail_goes_over_tls_as_the_level_demands() {
    let keys = Scratch::new("keys");
    let host = loopback_host();
    let (certificate, key) = certificate(&host, &keys);
    let dovecot = DovecotStore::start(&format!(
        "ssl = yes\nssl_cert = <{certificate}\nssl_key = <{key}\n\
         service lmtp {{\n  inet_listener lmtp {{\n    address = {host}\n    port = 10224\n  }}\n}}"
    ));
    let plain = Mailstow::domain("plain").arguments(&["--listen", &format!("inet:{host}:10225")]);
    let plain = plain.start();
    let table = [
        ("t@example.com", format!("lmtp:inet:{host}:10224")),
        ("p@example.com", format!("lmtp:inet:{host}:10225")),
        ("u@example.com", lmtp(&plain.unix())),
    ];
    let ca = format!("tls_ca_file = \"{certificate}\"\n");
    for (level, toml, wanted) in [
        ("none", "", ["250 2.0.0", "250 2.0.0"]),
        ("may", "", ["250 2.0.0", "250 2.0.0"]),
        ("encrypt", "", ["250 2.0.0", "451 4.7.4"]),
        ("verify", ca.as_str(), ["250 2.0.0", "451 4.7.4"]),
        ("verify", "", ["451 4.7.5", "451 4.7.4"]),
    ] {
        let toml = format!("lmtp_tls_security_level = \"{level}\"\n{toml}");
        let router = router(&table, &toml).start();
        let to = ["t@example.com", "p@example.com", "u@example.com"];
        let replies = router
            .client()
            .deliver("s@client.example", &to, b"Subject: x\n\n");
        let codes = codes(&replies);
        assert_eq!(codes[..2], wanted, "{level}: {replies:?}");
        // A socket of this machine needs none.
        assert_eq!(codes[2], "250 2.0.0", "{level}: {replies:?}");
    }
    assert_eq!(maildir(&dovecot.maildir("t")).len(), 4);
}

#[test]
fn the_command_deliver_sends_mail_on_as_the_server_does() {
    let store = Mailstow::example("store").start();
    let table = [
        ("sales@example.com", lmtp(&store.unix())),
        ("unknown@example.com", lmtp(&store.unix())),
    ];
    let router = router(&table, "");
    let deliver = |recipient: &str| {
        let configuration = router.configuration();
        let mut arguments = vec!["deliver"];
        arguments.extend(configuration.iter().map(String::as_str));
        arguments.extend(["-f", "s@client.example", "--", recipient]);
        run_with_input(command(&arguments), b"Subject: piped\n\n")
    };
    let output = deliver("sales@example.com");
    assert!(output.status.success(), "{output:?}");
    let stored = maildir(&store.mailbox("example.com/sales"));
    assert_eq!(stored.len(), 1);
    let output = deliver("unknown@example.com");
    // EX_NOUSER: pipe(8) bounces.
    assert_eq!(output.status.code(), Some(67), "{output:?}");
}

/// What a subcommand says, with its exit status.
fn said(builder: &Builder, subcommand: &[&str], input: &[u8]) -> (Option<i32>, String) {
    let mut command = command(&subcommand[..1]);
    command.args(builder.configuration()).args(&subcommand[1..]);
    let output = run_with_input(command, input);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.into_owned())
}

#[test]
fn a_router_without_mailboxes_needs_no_directory_for_them() {
    let store = Mailstow::domain("store").start();
    let nexthop = lmtp(&store.unix());
    let listed = "virtual_mailbox_domains = example.com\n\
                  virtual_mailbox_maps = inline:{{a@example.com = listed}}\n";
    let mut expected = 0;
    for (name, main_cf) in [
        ("class", format!("{listed}virtual_transport = {nexthop}\n")),
        (
            "relay",
            format!("relay_domains = example.com\nrelay_transport = {nexthop}\n"),
        ),
        (
            "table",
            format!(
                "{listed}transport_maps = inline:{{{{example.com = {nexthop}}}}}\n\
                     virtual_transport = error:nowhere\n"
            ),
        ),
    ] {
        let build = || {
            Mailstow::build("router")
                .main_cf("mydestination =\nlocal_transport = error:nobody is local\n")
                .main_cf(&main_cf)
                .toml("[transport]\nenabled = true\n")
        };
        let builder = build();
        let to = "a@example.com";
        let (status, text) = said(&builder, &["resolve", to], b"");
        assert_eq!(status, Some(0), "{name}: {text}");
        let state = builder.scratch().mkdir("checked").display().to_string();
        let check = ["check", "--state-directory", state.as_str()];
        let (status, text) = said(&builder, &check, b"");
        assert_eq!(status, Some(0), "{name}: {text}");
        assert!(!text.contains("is refused"), "{name}: {text}");
        let router = builder.start();
        let replies = router
            .client()
            .deliver("s@client.example", &[to], b"Subject: x\n\n");
        assert_eq!(codes(&replies), ["250 2.0.0"], "{name}: {}", router.log());
        drop(router);
        let (status, text) = said(&build(), &["deliver", "-f", "s@client.example", to], b"x\n");
        assert_eq!(status, Some(0), "{name}: {text}");
        expected += 2;
        let stored = maildir(&store.vhosts().join("example.com/a")).len();
        assert_eq!(stored, expected, "{name}");
    }
}

#[test]
fn mail_that_a_table_wants_stored_without_a_directory_is_put_off() {
    let builder = Mailstow::build("router")
        .main_cf(
            "mydestination =\nvirtual_mailbox_domains = example.com\n\
             virtual_mailbox_maps = inline:{{a@example.com = a/}}\n\
             virtual_transport = lmtp:unix:/nowhere/lmtp\n\
             transport_maps = inline:{{a@example.com = virtual:}}\n",
        )
        .toml("[transport]\nenabled = true\n");
    let (status, text) = said(&builder, &["check"], b"");
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("virtual_mailbox_base is not set"), "{text}");
    let server = builder.start();
    let mut client = server.client();
    assert_eq!(client.command("MAIL FROM:<>").code, 250);
    let reply = client.command("RCPT TO:<a@example.com>");
    assert_eq!(reply.codes(), "451 4.3.5", "{reply}");
}
