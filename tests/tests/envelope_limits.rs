//! Envelopes without end: their memory is bounded, for all clients and for each, and those who are
//! not at fault deliver beside them.

use mailstow_tests::content::plain;
use mailstow_tests::{Client, Mailstow, eventually};
use std::time::Duration;

const MEBIBYTE: u64 = 1 << 20;

/// Fills a transaction with recipients of long ORCPT; how many were accepted, and the first
/// refusal.
fn fill(client: &mut Client, recipients: usize) -> (usize, Option<String>) {
    let begun = client.command("MAIL FROM:<s@client.example>");
    if begun.code != 250 {
        return (0, Some(begun.codes()));
    }
    let original = "o".repeat(3500);
    for number in 0..recipients {
        let line = format!("RCPT TO:<u{number}@example.com> ORCPT=rfc822;{original}@x");
        let reply = client.command(line);
        if reply.code != 250 {
            return (number, Some(reply.codes()));
        }
    }
    (recipients, None)
}

#[test]
fn envelopes_of_one_client_end_at_their_bound_and_others_deliver() {
    let server = Mailstow::domain("envelopes")
        .toml("[limits]\nenvelope_bytes = 16777216\n")
        .start();
    let before = server.daemon.memory_bytes("VmRSS");
    let mut clients: Vec<Client> = (0..30).map(|_| server.client()).collect();
    let mut accepted = 0;
    let mut refusals = Vec::new();
    for client in &mut clients {
        let (count, refusal) = fill(client, 300);
        accepted += count;
        refusals.extend(refusal);
    }
    // Half of 16 MiB, each with three copies of what is 3.5 KiB long.
    assert!((600..900).contains(&accepted), "{accepted}");
    assert!(
        refusals.iter().all(|codes| codes == "452 4.3.1"),
        "{refusals:?}"
    );
    assert!(refusals.len() > 20, "{refusals:?}");
    let more = server.daemon.memory_bytes("VmRSS").saturating_sub(before);
    assert!(more < 16 * MEBIBYTE, "{more} bytes more");
    server.log_line("deferred: the envelopes of this client");
    let mut other = Client::lmtp(&server.inet());
    let replies = other.deliver("s@c.example", &["u1@example.com"], &plain("other"));
    assert_eq!(replies[0].code, 250, "{}", replies[0]);
    // What was accepted is delivered.
    let first = &mut clients[0];
    assert_eq!(first.command("DATA").code, 354);
    first
        .send(b"Subject: x\r\n\r\n.\r\n")
        .expect("the server reads");
    for _ in 0..300 {
        assert_eq!(first.reply().code, 250);
    }
    drop(clients);
    eventually(
        "the memory to be free again",
        Duration::from_secs(30),
        || {
            let mut client = server.client();
            (fill(&mut client, 300).0 == 300).then_some(())
        },
    );
}

#[test]
fn an_envelope_counts_until_its_reply_is_known_to_be_read() {
    let server = Mailstow::domain("envelopes-idle")
        .toml("[limits]\nenvelope_bytes = 6291456\n")
        .start();
    let (mut one, mut two) = (server.client(), server.client());
    assert_eq!(fill(&mut one, 200), (200, None));
    assert_eq!(one.command("DATA").code, 354);
    one.send(b"Subject: x\r\n\r\n.\r\n")
        .expect("the server reads");
    for _ in 0..200 {
        assert_eq!(one.reply().code, 250);
    }
    let (count, refusal) = fill(&mut two, 200);
    assert!(count < 200, "the engine still remembers the first");
    assert_eq!(refusal.as_deref(), Some("452 4.3.1"));
    assert_eq!(one.command("NOOP").code, 250);
    assert_eq!(two.command("RSET").code, 250);
    assert_eq!(fill(&mut two, 200), (200, None));
}
