//! Few file descriptors: connections are admitted as far as the store keeps what it needs, and a
//! shortage costs no more than the deliveries that meet it.

use std::time::{Duration, Instant};

use mailstow_tests::client::Address;
use mailstow_tests::content::{plain, sized};
use mailstow_tests::mailboxes::maildir;
use mailstow_tests::mailstow::command;
use mailstow_tests::{Client, Mailstow, eventually};

/// How long the server may take to be well again.
const MEND_LIMIT: Duration = Duration::from_secs(60);
/// In less time a server makes several checkpoints.
const SHORT_CHECKPOINTS: &str = "[delivery_log]\ncheckpoint_interval = \"1s\"\n";

/// Opens connections until so many are there or one is not greeted; none of them says anything.
fn idle(address: &Address, count: usize) -> (Vec<Client>, Option<String>) {
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut client = Client::dial(address).expect("the backlog takes it");
        let greeting = client.reply();
        if greeting.code != 220 {
            return (idle, Some(greeting.to_string()));
        }
        idle.push(client);
    }
    (idle, None)
}

#[test]
fn idle_connections_leave_the_store_what_it_needs() {
    for limit in [160, 256, 1024] {
        let server = Mailstow::example(&format!("nofile-{limit}"))
            .main_cf("virtual_mailbox_limit = 0")
            .toml(SHORT_CHECKPOINTS)
            .limit(&format!("--nofile={limit}:{limit}"))
            .start();
        server.log_line("files may be open");
        let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
        let (silent, refusal) = idle(&server.unix(), limit);
        let refusal = refusal.expect("not all of them are admitted");
        assert!(refusal.starts_with("421 4."), "{refusal}");
        // More of them wait to be refused than there are descriptors.
        let waiting: Vec<_> = (0..200).map(|_| Client::dial(&server.unix())).collect();
        let until = Instant::now() + Duration::from_secs(4);
        let mut stored = 0;
        while Instant::now() < until {
            for client in &mut clients {
                let to = ["info@example.com", "sales@example.com"];
                let content = match stored % 3 {
                    0 => sized("long", 600_000),
                    _ => plain("short"),
                };
                for reply in client.deliver("s@client.example", &to, &content) {
                    assert_eq!(reply.code, 250, "{limit}: {reply}\n{}", server.log());
                }
                stored += 1;
            }
        }
        assert_eq!(maildir(&server.mailbox("example.com/sales")).len(), stored);
        let (status, health) = server.health();
        assert_eq!(status, 0, "{health}");
        drop((silent, waiting));
        eventually("a new connection to be served", MEND_LIMIT, || {
            Client::try_lmtp(&server.unix()).ok()
        });
    }
}

#[test]
fn a_connection_over_the_bound_is_served_when_another_one_goes() {
    let server = Mailstow::example("nofile-wait")
        .toml("[limits]\nconnections = 3\n")
        .start();
    let (mut few, _) = idle(&server.unix(), 3);
    let mut waiting = Client::dial(&server.unix()).expect("the backlog takes it");
    few.pop();
    assert_eq!(waiting.reply().code, 220, "it was not refused meanwhile");
}

#[test]
fn one_peer_leaves_connections_for_others() {
    let server = Mailstow::example("per-peer")
        .toml("[limits]\nconnections = 40\ntransactions_per_peer = 5\n")
        .start();
    let (mut users, refusal) = idle(&server.unix(), 40);
    assert_eq!(users.len(), 35, "all but an eighth");
    assert_eq!(refusal.expect("the last").get(..9), Some("421 4.7.0"));
    // Another peer is an address, not the user behind a socket.
    let mut other = Client::lmtp(&server.inet());
    let replies = other.deliver("s@c.example", &["sales@example.com"], &plain("other"));
    assert_eq!(replies[0].code, 250, "{}", replies[0]);
    let begin = |client: &mut Client| {
        client.command("LHLO client.example");
        client.command("MAIL FROM:<s@client.example>")
    };
    for user in users.iter_mut().take(5) {
        assert_eq!(begin(user).code, 250);
    }
    let mut sixth = users.pop().expect("there are more");
    assert_eq!(begin(&mut sixth).codes(), "451 4.3.2");
    assert_eq!(users[0].command("RSET").code, 250);
    assert_eq!(begin(&mut sixth).code, 250);
    assert_eq!(other.command("MAIL FROM:<s@client.example>").code, 250);
}

#[test]
fn without_any_free_descriptor_the_log_stays_in_service_and_mail_is_deferred() {
    let server = Mailstow::example("nofile-none")
        // A fast machine stores more than the default admits.
        .main_cf("virtual_mailbox_limit = 0")
        .toml(
            "[delivery_log]\ncheckpoint_interval = \"1s\"\nbytes_max = 8388608\n\
             segment_bytes = 65536\n",
        )
        .start();
    let mut client = server.client();
    let to = ["info@example.com", "sales@example.com"];
    let mut send = |size| client.deliver("s@client.example", &to, &sized("x", size));
    assert!(send(3000).iter().all(|reply| reply.code == 250));
    let mut send_and_count_deferred = || {
        let replies = send(30_000);
        for reply in &replies {
            assert!(reply.code == 250 || reply.code / 100 == 4, "{reply}");
        }
        replies.iter().filter(|reply| reply.code != 250).count()
    };
    // Files that were open only while they were counted leave room for others.
    let mut limit = server.daemon.open_files();
    eventually("a shortage", MEND_LIMIT, || {
        server.daemon.limit(&format!("--nofile={limit}:"));
        limit -= 1;
        (send_and_count_deferred() > 0).then_some(())
    });
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        send_and_count_deferred();
    }
    let (status, health) = server.health();
    assert_eq!(status, 0, "{health}\n{}", server.log());
    assert!(!server.log().contains("out of service"), "{}", server.log());
    server.daemon.limit("--nofile=4096:");
    eventually("mail to be stored again", MEND_LIMIT, || {
        send(3000)
            .iter()
            .all(|reply| reply.code == 250)
            .then_some(())
    });
}

#[test]
fn check_says_how_many_connections_the_limit_admits() {
    let server = Mailstow::example("nofile-check")
        .toml("[limits]\nconnections = 500\n")
        .limit("--nofile=512:512")
        .start();
    let mut check = command(&["check"]);
    check.args(server.configuration());
    check.args(["--listen", &server.unix().spelled()]);
    check.args(["--listen", &server.inet().spelled()]);
    check
        .arg("--state-directory")
        .arg(server.scratch().join("state"));
    let output = mailstow_tests::mailstow::run_with_input(check, b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("only 512 files may be open"), "{text}");
    assert!(text.contains("limits.connections = 500"), "{text}");
}
