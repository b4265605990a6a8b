//! Many sessions at once: nothing lost, memory bounded.
//!
//! Load comes from Postfix's smtp-source(1) over LMTP. The tests run one at a time, since each
//! wants the whole machine.

use mailstow_tests::client::dot_stuffed;
use mailstow_tests::content::sized;
use mailstow_tests::load::Load;
use mailstow_tests::mailboxes::{maildir, mbox};
use mailstow_tests::scratch::machine_alone;
use mailstow_tests::{Client, Mailstow};

const SESSIONS: usize = 64;
/// What 64 sessions with 25 MiB each may make of the server.
const MEMORY_LIMIT: u64 = 256 << 20;

#[test]
fn every_message_of_64_sessions_is_stored() {
    let _machine = machine_alone();
    let server = Mailstow::example("sessions").start();
    for (recipient, messages) in [("sales@example.com", 1000), ("info@example.com", 300)] {
        let load = Load {
            sessions: SESSIONS,
            messages,
            bytes: 4096,
            recipient,
            recipients: 1,
        };
        load.send_lmtp(&server.unix());
    }
    assert_eq!(maildir(&server.mailbox("example.com/sales")).len(), 1000);
    assert_eq!(mbox(&server.mailbox("example.com/info")).len(), 300);
}

#[test]
fn sessions_over_tcp_are_served_as_well() {
    let _machine = machine_alone();
    let server = Mailstow::example("sessions-tcp").start();
    let load = Load {
        sessions: SESSIONS,
        messages: 300,
        bytes: 1000,
        recipient: "sales@example.com",
        recipients: 1,
    };
    load.send_lmtp(&server.inet());
    assert_eq!(maildir(&server.mailbox("example.com/sales")).len(), 300);
}

#[test]
fn memory_stays_bounded_while_64_sessions_send_25_mebibytes_each() {
    let _machine = machine_alone();
    let server = Mailstow::example("memory")
        .main_cf("message_size_limit = 30000000")
        .start();
    let content = sized("large", 25 << 20);
    let wire = dot_stuffed(&content);
    std::thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut client = Client::lmtp(&server.unix());
                client.command("MAIL FROM:<s@client.example>");
                client.command("RCPT TO:<sales@example.com>");
                assert_eq!(client.command("DATA").code, 354);
                client.send(&wire).expect("the server reads");
                let reply = client.reply();
                assert_eq!(reply.code, 250, "{reply}");
                // Lost without it, the same message from another session could be its repetition.
                assert_eq!(client.command("QUIT").code, 221);
            });
        }
    });
    let peak = server.daemon.memory_bytes("VmHWM");
    println!("{} MiB at the peak", peak >> 20);
    assert!(peak < MEMORY_LIMIT, "{} MiB at the peak", peak >> 20);
    let stored = maildir(&server.mailbox("example.com/sales"));
    assert_eq!(stored.len(), SESSIONS);
    for message in &stored {
        assert!(
            message.bytes.ends_with(&content),
            "{} differs",
            message.path.display()
        );
    }
}
